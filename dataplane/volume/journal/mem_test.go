package journal

import (
	"math/rand/v2"
	"testing"

	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// TestMemCrash is the crash property on the drive everyone uses: its cache writes back any version of
// a block that was not synced.
func TestMemCrash(t *testing.T) {
	l := startLoop(t, 64<<20)
	seeds := uint64(20)
	if testing.Short() {
		seeds = 6
	}
	for seed := range seeds {
		rnd := rand.New(rand.NewPCG(seed, 1))
		mem := dio.NewMem(DataStart + 5*testSegment)
		if err := Create(mem, Options{SegmentSize: testSegment}); err != nil {
			t.Fatal(err)
		}
		boot := byte(1)
		committed, synced, acked := ids.Seq(0), ids.Seq(0), ids.Seq(0)
		for range 30 {
			opt := Options{MarkAfter: -1, BootID: [16]byte{boot}}
			w := newLoad(t, l, mem, 1+rnd.IntN(40), 1+rnd.IntN(4), opt)
			if w.j.next == 0 || w.j.Replayed().BadBlocks != 0 {
				t.Fatalf("seed %d: %+v", seed, w.j.Replayed())
			}
			w.seq = max(acked, committed)
			w.every, w.keep, w.committed = 8, 20, committed
			l.Call(func() { w.j.Committed(1, committed) })
			for range 1 + rnd.IntN(3) {
				w.run(t, 1+rnd.IntN(60))
				acked = w.seq
				if rnd.IntN(2) == 0 {
					s, done := &testSync{}, make(chan errs.Kind, 1)
					s.then = func(s *testSync) { done <- s.Err }
					s.Sync.Done = s
					l.Call(func() { w.j.Sync(&s.Sync) })
					if k := <-done; k != errs.OK {
						t.Fatal(k)
					}
					synced = acked
				}
			}
			committed = w.committed
			must, power := acked, rnd.IntN(2) == 0
			next := mem.Clone()
			if power {
				next, must = mem.CrashClone(rnd, dio.CrashOptions{}), synced
				boot++
			}
			l.Call(func() {
				l.StopTimer(&w.j.timer.timer)
				l.Pool().ReleaseVec(&w.j.pages)
				for _, e := range w.entries {
					l.Pool().ReleaseVec(&e.Data)
				}
			})
			mem = next
			found := replayedUpTo(t, mem, Options{BootID: [16]byte{boot}}, committed)
			if found < must {
				t.Fatalf("seed %d: power %v: up to %d of %d are there (acknowledged %d, synced %d, committed %d)",
					seed, power, found, must, acked, synced, committed)
			}
			acked, synced = found, found // the next attach makes them so
		}
	}
}

// replayedUpTo is the last of the entries that are there without a gap above committed.
func replayedUpTo(t *testing.T, f dio.File, opt Options, committed ids.Seq) ids.Seq {
	t.Helper()
	j, err := Open(f, opt)
	if err != nil {
		t.Fatal(err)
	}
	last := committed
	if err := j.Replay(func(e ReplayEntry) error {
		if e.Bad != 0 || e.Seq > last+1 {
			t.Errorf("%d after %d, bad %b", e.Seq, last, e.Bad)
		}
		last = max(last, e.Seq)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return last
}
