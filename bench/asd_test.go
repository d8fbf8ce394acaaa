package bench

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/node"
)

// alone starts an ASD in this process, and fills it.
func alone(t *testing.T) *oneASD {
	t.Helper()
	a := newOneASD(&Options{Work: t.TempDir(), Size: 8 << 20})
	addr, err := freePort()
	if err == nil {
		err = a.keepSecret()
	}
	if err != nil {
		t.Fatal(err)
	}
	o := node.ASDOptions{UUID: a.uuid, Deployment: a.deployment, Data: a.file(), Index: filepath.Join(a.dir, "index"),
		SecretFile: a.secretFile(), Listen: []string{addr}, Memory: 80 << 20, Fragment: 4 << 20, MaxConns: 64,
		Log: slog.New(slog.DiscardHandler)}
	if err := node.FormatASD(o, 256<<20, false); errs.Of(err) == errs.Unsupported {
		t.Skip("SKIPPED:", err)
	} else if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := node.RunASD(ctx, o, func() {}); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		a.stop()
		stop()
		<-ended
	})
	if err := a.connect(t.Context(), addr, ended); err != nil {
		t.Fatal(err)
	}
	if err := a.fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	return a
}

// The figures of reads and puts belong together; keys of one run are not used by the next, and a new fill takes the
// place of the one before.
func TestOneASD(t *testing.T) {
	a := alone(t)
	for round := range 2 {
		if round > 0 {
			if err := a.fill(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for _, j := range []Job{{RW: "randread", Depth: 4}, {RW: put, Depth: 2}} {
			r, err := a.run(t.Context(), j, 200*time.Millisecond)
			if err != nil {
				t.Fatal(j.RW, err)
			}
			size := int64(ids.BlockSize)
			if j.RW == put {
				size = fragSize
			}
			if r.IOs < int64(j.Depth) || r.Bytes != r.IOs*size || r.IOPS <= 0 || r.MBps <= 0 || r.Mean <= 0 || r.P50 > r.P99 {
				t.Errorf("%s: %+v", j.RW, r)
			}
		}
	}
	keys, err := a.client.List(t.Context(), layout.FragKey{}, 1000)
	if err != nil || len(keys) != 8 {
		t.Errorf("%d fragments are left (%v); all that were put should be deleted again", len(keys), err)
	}
	if _, err := a.run(t.Context(), Job{RW: "write"}, time.Second); errs.Of(err) != errs.Unsupported {
		t.Error(err)
	}
}

// A wrong block fails the run; one that is given up ends at once.
func TestOneASDLooks(t *testing.T) {
	a := alone(t)
	for i := range a.sums {
		a.sums[i]++
	}
	if _, err := a.runReads(t.Context(), 4, time.Minute); errs.Of(err) != errs.Corrupt {
		t.Errorf("reads of wrong bytes end with %v", err)
	}
	for i := range a.sums {
		a.sums[i]--
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := a.runReads(ctx, 4, time.Hour); err == nil {
		t.Error("reads that were given up are measured")
	}
	if _, err := a.runPuts(ctx, 2, time.Hour); err == nil {
		t.Error("puts that were given up are measured")
	}
}
