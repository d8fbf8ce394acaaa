package pracc

import (
	"bytes"
	"testing"
	"time"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// fakeTime is the time of a Client in a test: it passes when the test says so.
type fakeTime struct {
	w   *world
	now int64
}

// freeze gives w's Client a time of its own, on which nothing is slow that is not told to be. From here on tests
// change drives on the loop.
func (w *world) freeze() *fakeTime {
	f := &fakeTime{w: w, now: 1e12}
	w.loop.Call(func() { w.c.clock, w.c.prober.Fire = func() int64 { return f.now }, w.c.probeAll })
	return f
}

// pass lets d go by, in one leap: lagging drives answer, then the Client looks at what is late, and probes.
func (f *fakeTime) pass(d time.Duration) {
	f.w.loop.Call(func() {
		f.now += int64(d)
		for _, d := range f.w.drives {
			d.file.endDue(f.now)
		}
	})
	f.w.loop.Call(func() {
		f.w.c.sweep()
		f.w.c.probeAll()
		f.w.c.settle()
	})
}

// keeper is a fetch whose pages are kept when it is done, to see what becomes of them.
type keeper struct {
	Fetch
	w    *world
	o    *object
	done chan struct{}
}

func (k *keeper) FetchDone(*Fetch) { close(k.done) }

// keep begins to fetch n blocks, into scattered pages; on the loop.
func (w *world) keep(o *object, off, n int) *keeper {
	k := w.prepare(o, off, n)
	w.c.Fetch(&k.Fetch)
	return k
}

func (w *world) prepare(o *object, off, n int) *keeper {
	k := &keeper{w: w, o: o, done: make(chan struct{})}
	for range n {
		var spare buf.Vec
		if !w.pool.Alloc(&k.Dst, 1) || !w.pool.Alloc(&spare, 1) {
			panic("pool too small for the test")
		}
		w.pool.ReleaseVec(&spare)
	}
	k.NS, k.SCO, k.Off, k.Blocks, k.Sums, k.Done = o.m.Namespace, o.m.SCO, uint32(off), uint32(n), o.sums[off:off+n], k
	return k
}

// isDone reports whether the fetch has ended.
func (k *keeper) isDone() bool {
	k.w.loop.Call(func() {}) // whatever was deferred
	select {
	case <-k.done:
		return true
	default:
		return false
	}
}

// check compares what is in Dst now.
func (k *keeper) check() {
	k.w.t.Helper()
	if !k.isDone() || k.Err != errs.OK {
		k.w.t.Fatalf("blocks %d+%d: not done or %v", k.Off, k.Blocks, k.Err)
	}
	k.w.loop.Call(func() {
		var got []byte
		for _, s := range k.Dst.Segs {
			got = append(got, k.w.pool.SegBytes(s)...)
		}
		if !bytes.Equal(got, k.o.data[k.Off*4096:(k.Off+k.Blocks)*4096]) {
			k.w.t.Errorf("blocks %d+%d: wrong bytes", k.Off, k.Blocks)
		}
	})
}

func (k *keeper) release() { k.w.loop.Call(func() { k.w.pool.ReleaseVec(&k.Dst) }) }

// rich lets hedges be had.
func (w *world) rich() {
	w.loop.Call(func() { w.c.pacing.allowed, w.c.pacing.hope = purseMost, purseMost })
}

// patient Clients take no ASD out of the fast set.
func patient(o *Options) { o.SlowAfter = time.Hour }

// A drive hangs: the hedge gives the bytes, in other pages than the drive has, and when it comes back late it writes
// into those and nowhere else.
func TestHedgeWins(t *testing.T) {
	for _, n := range []int{1, 16, 40, 300, 900} {
		w := newWorld(t, 6, 32<<20, patient)
		o := w.put(1, 1000, pol42, 128<<10, 20<<10)
		w.want(o, 0, 1)
		ft := w.freeze()
		w.rich()
		var k *keeper
		w.loop.Call(func() {
			w.drives[0].file.stall = true
			k = w.keep(o, 0, n)
		})
		if k.isDone() {
			t.Fatal("the drive does not hang")
		}
		if ft.pass(time.Millisecond); k.isDone() {
			t.Fatal("hedged after 1 ms with nothing known of the drive")
		}
		for range 20 {
			ft.pass(10 * time.Millisecond)
		}
		<-k.done
		k.check()
		s := &w.c.stats
		if s.Hedges.Load() == 0 || s.HedgeWins.Load() != s.Hedges.Load() || s.Around.Load() != 0 {
			t.Errorf("%d blocks: hedges %d, won %d, around %d", n, s.Hedges.Load(), s.HedgeWins.Load(), s.Around.Load())
		}
		if s.StuckReads.Load() == 0 || s.StuckPages.Load() < s.StuckReads.Load() {
			t.Errorf("stuck: %d reads, %d pages", s.StuckReads.Load(), s.StuckPages.Load())
		}
		w.loop.Call(func() {
			for _, h := range w.drives[0].file.held {
				for i := range h.data {
					h.data[i] ^= 0x55 // whatever it brings
				}
			}
			w.drives[0].file.resume()
		})
		k.check()
		if s.StuckReads.Load() != 0 || s.StuckPages.Load() != 0 {
			t.Errorf("still stuck: %d reads, %d pages", s.StuckReads.Load(), s.StuckPages.Load())
		}
		k.release()
	}
}

// The own read comes after all, while the hedge is at any point of its way: it wins, and the hedge leaves nothing.
func TestOwnReadWins(t *testing.T) {
	for _, hung := range []int{1, 2, 5} { // sources that hang as well
		for _, n := range []int{1, 200} {
			w := newWorld(t, 6, 32<<20, patient)
			o := w.put(1, 1024, pol42, 1<<20, 20<<10)
			w.want(o, 0, 1)
			ft := w.freeze()
			w.rich()
			var k *keeper
			w.loop.Call(func() {
				for _, d := range w.drives[:hung+1] {
					d.file.stall = true
				}
				k = w.keep(o, 0, n)
			})
			ft.pass(20 * time.Millisecond)
			if hung == 5 && w.c.stats.Hedges.Load() == 0 {
				t.Fatal("not hedged: the test shows nothing")
			}
			w.loop.Call(w.drives[0].file.resume)
			<-k.done
			k.check()
			w.loop.Call(func() {
				if w.c.shadows != 0 || w.c.rebuild.going != 0 {
					t.Errorf("%d shadows and %d rebuilds are left", w.c.shadows, w.c.rebuild.going)
				}
				for _, d := range w.drives {
					d.file.resume()
				}
			})
			k.check()
			k.release()
		}
	}
}

// The own read brings rot or fails while the hedge is under way: the hedge's bytes count, and if it fails as well,
// what else there is.
func TestOwnReadFailsUnderHedge(t *testing.T) {
	for _, mode := range []string{"rot", "eio"} {
		for _, sources := range []bool{true, false} {
			w := newWorld(t, 6, 32<<20, patient)
			o := w.put(1, 64, pol42, 1<<20, 1<<20)
			w.want(o, 16, 1)
			ft := w.freeze()
			w.rich()
			w.loop.Call(func() { w.hurt(o, 0, 0, mode) })
			var k *keeper
			w.loop.Call(func() {
				for _, d := range w.drives {
					d.file.stall = true
				}
				k = w.keep(o, 0, 5)
			})
			ft.pass(20 * time.Millisecond)
			w.loop.Call(w.drives[0].file.resume)
			if k.isDone() {
				t.Fatalf("%s: done with what?", mode)
			}
			w.loop.Call(func() {
				for _, d := range w.drives {
					if !sources {
						d.file.dead = true
						for _, h := range d.file.held {
							h.res = -5
						}
					}
					d.file.resume()
				}
			})
			<-k.done
			if sources {
				k.check()
			} else if k.Err != errs.IO && k.Err != errs.Corrupt {
				t.Errorf("%s: %v", mode, k.Err)
			}
			k.release()
		}
	}
}

// Hedges are denied once 5 % of the reads were hedged, and the reads wait for their drives.
func TestHedgeBudget(t *testing.T) {
	w := newWorld(t, 6, 32<<20, patient)
	o := w.put(1, 1024, pol42, 1<<20, 20<<10)
	ft := w.freeze()
	reads := 0
	for range 38 { // not quite two hedges' worth
		w.want(o, 300, 1)
		reads++
	}
	var ks []*keeper
	w.loop.Call(func() {
		w.drives[0].file.stall = true
		for i := range 10 {
			ks = append(ks, w.keep(o, i, 1))
			reads++
		}
	})
	for range 5 {
		ft.pass(20 * time.Millisecond)
	}
	done := 0
	for _, k := range ks {
		if k.isDone() {
			done++
		}
	}
	s := &w.c.stats
	if h := s.Hedges.Load(); h != 2 || done != 2 || s.HedgeDenied.Load() != 8 || int(h)*20 > reads {
		t.Errorf("%d hedges of %d reads, %d done, %d denied", h, reads, done, s.HedgeDenied.Load())
	}
	w.loop.Call(w.drives[0].file.resume)
	for _, k := range ks {
		<-k.done
		k.check()
		k.release()
	}
}

// Reads that hang hold so many pages and no more; beyond that they are waited for, and hedged when there is room.
func TestStuckBound(t *testing.T) {
	for _, byCount := range []bool{false, true} {
		w := newWorld(t, 6, 32<<20, func(o *Options) {
			patient(o)
			if o.StuckBytes = 10 * 4096; byCount {
				o.StuckBytes, o.StuckReads = 0, 5
				o.EnsureDefaults()
			}
		})
		o := w.put(1, 1024, pol42, 1<<20, 20<<10)
		ft := w.freeze()
		var ks []*keeper
		w.loop.Call(func() {
			w.drives[0].file.stall = true
			for i := range 10 {
				ks = append(ks, w.keep(o, 2*i, 2))
			}
		})
		for w.c.stats.RangesFlying.Load() < 10 {
			time.Sleep(time.Millisecond)
		}
		for range 5 {
			w.rich()
			ft.pass(20 * time.Millisecond)
		}
		done := 0
		for _, k := range ks {
			if k.isDone() {
				done++
			}
		}
		if n, p := w.c.stats.StuckReads.Load(), w.c.stats.StuckPages.Load(); done != 5 || n != 5 || p != 10 {
			t.Errorf("%d done, %d reads stuck with %d pages", done, n, p)
		}
		w.loop.Call(w.drives[0].file.resume)
		for _, k := range ks {
			<-k.done
			k.check()
			k.release()
		}
	}
}

// A source of a rebuild hangs: another is read in its place, and the step ends without it.
func TestSourceHangs(t *testing.T) {
	for _, n := range []int{1, 60, 250} {
		w := newWorld(t, 6, 32<<20, patient)
		o := w.put(1, 1024, pol42, 1<<20, 20<<10)
		w.hurt(o, 0, 0, "absent")
		w.want(o, 0, 1)
		ft := w.freeze()
		var k *keeper
		w.loop.Call(func() {
			w.drives[2].file.stall = true
			k = w.keep(o, 0, n)
		})
		for range 20 {
			w.rich()
			ft.pass(20 * time.Millisecond)
		}
		<-k.done
		k.check()
		w.loop.Call(w.drives[2].file.resume)
		k.check()
		k.release()
	}
}

// The same where the pool is empty: the floor's page that the source keeps is replaced, or waited for.
func TestSourceOfTheFloorHangs(t *testing.T) {
	for _, room := range []bool{true, false} {
		w := newWorld(t, 6, 8<<20, patient)
		o := w.put(1, 64, pol42, 1<<20, 1<<20)
		w.hurt(o, 0, 0, "absent")
		w.want(o, 0, 1)
		ft := w.freeze()
		var hog, spare buf.Vec
		var k *keeper
		w.loop.Call(func() {
			w.drives[2].file.stall = true
			k = w.prepare(o, 0, 1)
			w.pool.Alloc(&spare, 5)
			w.pool.AllocReserved(&hog, w.pool.Free())
			w.c.Fetch(&k.Fetch)
			if w.c.rebuild.going != 1 || w.c.rebuild.pages != 0 {
				t.Error("the floor is not in use: the test shows nothing")
			}
			if room {
				w.pool.ReleaseVec(&spare)
			}
		})
		for range 5 {
			w.rich()
			ft.pass(20 * time.Millisecond)
		}
		if k.isDone() != room {
			t.Errorf("room %v, done %v", room, !room)
		}
		w.loop.Call(w.drives[2].file.resume)
		<-k.done
		k.check()
		k.release()
		w.loop.Call(func() {
			if n := w.c.rebuild.floor.Len(); n != w.c.opt.MaxFragments*4096 {
				t.Errorf("the floor has %d bytes now", n)
			}
			w.pool.ReleaseVec(&hog)
			w.pool.ReleaseVec(&spare)
		})
	}
}

// k=1: another replica is read, straight into the caller's pages, when the one at hand hangs or is out; which is
// read first is a matter of Prefer.
func TestReplicas(t *testing.T) {
	pol := layout.Policy{K: 1, M: 2, C: 2, X: 1}
	w := newWorld(t, 3, 16<<20, nil)
	o := w.put(1, 200, pol, 1<<20, 20<<10)
	w.want(o, 0, 200)
	ft := w.freeze()
	w.loop.Call(func() {
		for i, lag := range []int64{3e6, 1e6, 2e6} {
			w.drives[i].file.lag = func() int64 { return lag }
		}
	})
	read := func() (k *keeper) {
		w.loop.Call(func() { k = w.keep(o, 3, 1) })
		for !k.isDone() {
			ft.pass(time.Millisecond)
		}
		k.check()
		k.release()
		return k
	}
	counts := func() (n [3]int) {
		w.loop.Call(func() {
			for i, d := range w.drives {
				n[i] = d.file.reads
			}
		})
		return n
	}
	for range 3 * latFew {
		read()
	}
	was := counts()
	for range 50 {
		read()
	}
	now := counts()
	if d := [3]int{now[0] - was[0], now[1] - was[1], now[2] - was[2]}; d[1] < 45 {
		t.Errorf("reads of drives with 3, 1 and 2 ms: %v", d)
	}
	rebuilds := w.c.stats.Rebuilds.Load()
	w.loop.Call(func() { w.drives[1].file.stall = true })
	for range 50 {
		read()
	}
	var out bool
	w.loop.Call(func() { out = w.c.targets[1].out })
	if !out || w.c.stats.Rebuilds.Load() > rebuilds+2 {
		t.Errorf("out %v, %d rebuilds", out, w.c.stats.Rebuilds.Load()-rebuilds)
	}
	w.loop.Call(func() {
		w.drives[1].file.resume()
		for _, d := range w.drives {
			d.file.lag = nil
		}
	})
	w.loop.Call(func() {
		w.c.opt.Prefer, w.c.opt.Distance = PreferNear, func(id ids.ASDID) uint8 { return uint8(7 - id) }
	})
	was = counts()
	for range 20 {
		read()
	}
	if now := counts(); now[2]-was[2] != 20 {
		t.Errorf("the nearest was read %d times of 20", now[2]-was[2])
	}
}
