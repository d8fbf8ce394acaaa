package node

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
)

// chainOp submits itself again and again: one request in steady state, as a connection has them.
type chainOp struct {
	req  block.Request
	d    *vdisk
	left int
	err  errs.Kind
	done chan struct{}
}

func (c *chainOp) Completed(r *block.Request) {
	if r.Err != errs.OK {
		c.err = r.Err
	}
	c.d.rig.pool.ReleaseVec(&r.Data)
	if c.left--; c.left == 0 || c.err != errs.OK {
		close(c.done)
		return
	}
	c.submit()
}

func (c *chainOp) submit() {
	c.req.Off = int64(c.left%64) * 4096
	if c.req.Op == block.Write && !c.d.rig.pool.Alloc(&c.req.Data, 1) {
		panic("the pool is empty")
	}
	c.d.disk.Submit(&c.req)
}

func (c *chainOp) run(t *testing.T, n int) {
	t.Helper()
	c.left, c.done, c.req.Len, c.req.Done = n, make(chan struct{}), 4096, c
	c.d.rig.loop.Call(c.submit)
	<-c.done
	if c.err != errs.OK {
		t.Fatal(c.err)
	}
}

// A 4K write and a 4K read, from block API to journal, drive and back, allocate nothing.
func TestHotPathAllocs(t *testing.T) {
	m := &model{}
	cfg := m.config()
	cfg.Dir, cfg.Journal = t.TempDir(), 192<<20
	n, err := Start(Options{Config: cfg, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Fresh: true, NoNBD: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := n.CreateVDisk(context.Background(), "v", 16<<20); err != nil {
		t.Fatal(err)
	}
	d := n.vdisks["v"]
	write, read := &chainOp{d: d}, &chainOp{d: d}
	write.req.Op, read.req.Op = block.Write, block.Read
	write.run(t, 1000)
	check(t, "write", write, 5000)
	seal(t, d)
	read.run(t, 1000)
	check(t, "read from drives", read, 5000)
}

func check(t *testing.T, what string, c *chainOp, n int) {
	t.Helper()
	// Whatever else runs may allocate now and then; a path that allocates does so every time.
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c.run(t, n)
	runtime.ReadMemStats(&after)
	per := float64(after.Mallocs-before.Mallocs) / float64(n)
	t.Logf("%s: %.3f allocations per request", what, per)
	if per > 0.1 && !invariants.Enabled {
		t.Errorf("%s: %.2f allocations per request; it must be none", what, per)
	}
}

// seal closes the open batch and waits until its SCO is in the map.
func seal(t *testing.T, d *vdisk) {
	t.Helper()
	d.rig.loop.Call(d.vol.Seal)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		dirty := 0
		d.rig.loop.Call(func() { dirty, _ = d.vol.Dirty() })
		if dirty == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the batch is not sealed")
		}
	}
}
