//go:build e2e

package e2e

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"vstor/bench/stamp"
)

// The process is killed again and again, at random moments under load, with a journal so small that
// sealing, committing, trimming and cleaning are all hit: what was acknowledged is there, and nothing is torn.
// VSTOR_KILLS sets how often.
func TestKilledUnderLoad(t *testing.T) { t.Parallel(); killedUnderLoad(t, 30) }

func killedUnderLoad(t *testing.T, kills int, args ...string) {
	const diskSize = 256 << 20
	kills = number("VSTOR_KILLS", kills)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	// Drives that fill up, so that cleaning has to keep up.
	d := newDeployment(t, append(append(args, small...), "--asd-size", "192M")...)
	d.start()
	d.vstor("vdisk", "create", "stamped", "--size", strconv.Itoa(diskSize))
	c, err := stamp.New(stamp.Options{Dial: d.dial("stamped"), Blocks: diskSize / stamp.BlockSize, MaxRun: 64,
		Connections: 4, Depth: 8, Seed: seed, Volume: 1})
	if err != nil {
		t.Fatal(err)
	}
	var written uint64
	for i := range kills {
		victim := d.cmd.Process
		time.AfterFunc(time.Duration(100+rng.IntN(1400))*time.Millisecond, func() { victim.Kill() })
		st, err := c.Run(context.Background())
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		d.kill()
		began := time.Now()
		d.start()
		took := time.Since(began)
		if err := c.Verify(); err != nil {
			t.Fatalf("after kill %d: %v", i+1, err)
		}
		written += st.Written
		t.Logf("kill %d: %d acknowledged (%d MiB), %d under way, up again in %v", i+1, st.Acked, st.Written>>20, st.Lost,
			took.Round(time.Millisecond))
		if st.Refused > 0 {
			t.Errorf("%d requests got an error: %s", st.Refused, st.Last)
		}
	}
	s := d.status()
	t.Logf("%d MiB written in all; %d MiB of %d MiB on the drives in use, %d MiB garbage", written>>20, s.UsedBytes>>20,
		s.CapacityBytes>>20, s.GarbageBytes>>20)
	d.stop()
	d.start()
	if err := c.Verify(); err != nil {
		t.Fatalf("after an orderly stop: %v", err)
	}
}

// Any two of the six stores go while the deployment is stopped: all reads, and writes go on under the
// second policy. When the stores come back all is well.
func TestTwoStoresGone(t *testing.T) {
	t.Parallel()
	const diskSize = 128 << 20
	d := newDeployment(t, append(small, "--policy", "4,2,5,1", "--policy", "2,2,3,1")...)
	d.start()
	d.vstor("vdisk", "create", "stamped", "--size", strconv.Itoa(diskSize))
	c, err := stamp.New(stamp.Options{Dial: d.dial("stamped"), Blocks: diskSize / stamp.BlockSize, MaxRun: 64, Volume: 2,
		Seed: uint64(time.Now().UnixNano())})
	if err != nil {
		t.Fatal(err)
	}
	load := func(when string) {
		t.Helper()
		st, err := stamps(c, 2*time.Second)
		if err == nil {
			err = c.Verify()
		}
		if err != nil || st.Refused+st.Lost > 0 || st.Acked == 0 {
			t.Fatalf("%s: %+v: %v", when, st, err)
		}
	}
	load("whole")
	for _, gone := range [][2]string{{"asd-0", "asd-5"}, {"asd-2", "asd-3"}} {
		d.stop()
		away := t.TempDir()
		for _, name := range gone {
			if err := os.Rename(filepath.Join(d.dir, name), filepath.Join(away, name)); err != nil {
				t.Fatal(err)
			}
		}
		d.start()
		if s := d.status(); s.ASDsUp != 4 || s.State != "degraded" {
			t.Errorf("without %v the status is %s with %d ASDs up", gone, s.State, s.ASDsUp)
		}
		if err := c.Verify(); err != nil {
			t.Fatalf("without %v: %v", gone, err)
		}
		load("without two")
		d.stop()
		for _, name := range gone {
			os.RemoveAll(filepath.Join(d.dir, name))
			if err := os.Rename(filepath.Join(away, name), filepath.Join(d.dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		d.start()
		if s := d.status(); s.ASDsUp != 6 {
			t.Errorf("with all back %d ASDs are up", s.ASDsUp)
		}
		load("with all back")
	}
	d.stop()
}
