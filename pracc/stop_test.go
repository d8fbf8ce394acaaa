package pracc

import (
	"fmt"
	"testing"
	"time"

	"vstor/dataplane/errs"
)

// A loop that is stopped at any point: every fetch ends once, with OK or Closed, and every page and pin comes
// back (the world looks when the test ends).
func TestLoopStops(t *testing.T) {
	for _, at := range []string{"lookup", "read", "source", "worker", "queue", "mixed"} {
		t.Run(at, func(t *testing.T) {
			w := newWorld(t, 6, 32<<20, func(o *Options) { o.Ranges, o.Rebuilds = 4, 2 })
			fls := w.halfway(at)
			w.loop.Stop()
			for i, fl := range fls {
				select {
				case <-fl.done:
				default:
					t.Fatalf("fetch %d has not ended", i)
				}
				if fl.ends != 1 || (fl.Err != errs.Closed && fl.Err != errs.OK) {
					t.Errorf("fetch %d: %d ends, %v", i, fl.ends, fl.Err)
				}
			}
			if w.auth.gate != nil {
				close(w.auth.gate)
			}
			if w.pool.Free() != w.pages {
				t.Errorf("%d pages are still held by the stopped loop's Client", w.pages-w.pool.Free())
			}
		})
	}
}

// Close lets reads under way end, and ends what waits.
func TestClose(t *testing.T) {
	for _, at := range []string{"lookup", "read", "source", "worker", "queue", "mixed"} {
		t.Run(at, func(t *testing.T) {
			w := newWorld(t, 6, 32<<20, func(o *Options) { o.Ranges, o.Rebuilds = 4, 2 })
			fls := w.halfway(at)
			closed := make(chan struct{})
			w.loop.Call(func() { w.c.Close(func() { close(closed) }) })
			w.loop.Call(func() {
				for _, d := range w.drives {
					d.file.resume()
				}
			})
			<-closed
			for i, fl := range fls {
				<-fl.done
				if fl.ends != 1 || (fl.Err != errs.Closed && fl.Err != errs.OK) {
					t.Errorf("fetch %d: %d ends, %v", i, fl.ends, fl.Err)
				}
			}
			w.loop.Call(func() {
				if w.pool.Free() != w.pages {
					t.Errorf("%d pages are still held by the closed Client", w.pages-w.pool.Free())
				}
			})
			o := w.put(99, 4, pol42, 1<<20, 1<<20)
			if fl := w.fetch(o, 0, 4); fl.Err != errs.Closed {
				t.Errorf("a fetch of a closed Client: %v", fl.Err)
			}
		})
	}
}

// halfway starts fetches that get stuck at the point named.
func (w *world) halfway(at string) []*flight {
	o := w.put(1, 2000, pol42, 1<<20, 64<<10)
	p := w.put(2, 2000, pol42, 1<<20, 64<<10)
	if at != "lookup" {
		w.want(o, 0, 1)
	}
	w.auth.gate = make(chan struct{})
	var fls []*flight
	w.loop.Call(func() {
		for chunk := range o.m.Geometry().Chunks {
			switch at {
			case "source", "worker", "mixed":
				w.hurt(o, chunk, 0, "absent")
				w.hurt(o, chunk, 1, "rot")
			}
		}
		for i, d := range w.drives {
			d.file.stall = at == "read" || at == "queue" || (at == "source" || at == "mixed") && i > 2
		}
		for i := range 10 {
			fls = append(fls, w.start(o, 100*i, 100+i, i%2 == 0))
			if at == "mixed" || at == "lookup" {
				fls = append(fls, w.start(p, 100*i, 100, false))
			}
		}
	})
	if at == "worker" {
		for w.c.stats.Rebuilds.Load() == 0 {
			time.Sleep(100 * time.Microsecond)
		}
	}
	return fls
}

// A fetch that is started again from FetchDone, and fails at once each time, does not keep the loop.
func TestRestartFromDone(t *testing.T) {
	w := newWorld(t, 6, 16<<20, nil)
	o := w.put(1, 8, pol42, 1<<20, 1<<20)
	w.loop.Call(func() { w.c.Install(o.m) })
	r := &restarter{w: w, done: make(chan struct{})}
	w.loop.Call(func() {
		w.pool.Alloc(&r.f.Dst, 1)
		r.f.NS, r.f.SCO, r.f.Off, r.f.Blocks, r.f.Sums, r.f.Done = 9, 1, 100, 1, o.sums[:1], r
		w.c.Fetch(&r.f)
	})
	<-r.done
	if r.inside {
		t.Error("FetchDone inside Fetch")
	}
	w.loop.Call(func() { w.pool.ReleaseVec(&r.f.Dst) })
}

type restarter struct {
	w        *world
	f        Fetch
	n        int
	fetching bool
	inside   bool
	done     chan struct{}
}

func (r *restarter) FetchDone(f *Fetch) {
	if r.n++; r.n == 1000 {
		close(r.done)
		return
	}
	r.inside = r.inside || r.fetching
	r.fetching = true
	r.w.c.Fetch(f)
	r.fetching = false
}

// Close and a stop while own reads and sources hang, hedges are under way, others have won, and probes are asked:
// every fetch ends once, and all comes back. Where drives do not even let go of what is called off, Close ends without
// them, and the rest comes back when they do.
func TestEndWithHedges(t *testing.T) {
	for _, how := range []string{"stop", "close", "close, deaf"} {
		for _, remote := range []bool{false, true} {
			if how == "close, deaf" && remote {
				continue // a Remote ends in bounded time
			}
			t.Run(fmt.Sprintf("%s/remote=%v", how, remote), func(t *testing.T) { endWithHedges(t, how, remote) })
		}
	}
}

func endWithHedges(t *testing.T, how string, remote bool) {
	local := 6
	if remote {
		local = 0
	}
	w, _ := newRemoteWorld(t, 6, local, 32<<20, func(o *Options) { o.StuckBytes = 1 << 20 })
	o := w.put(1, 2000, pol42, 1<<20, 64<<10)
	w.want(o, 0, 2000)
	ft := w.freeze()
	var ks []*keeper
	begin := func(n int) {
		w.loop.Call(func() {
			for i := range n {
				ks = append(ks, w.keep(o, 120*i, 1+i*9))
			}
		})
		w.rich()
		ft.pass(3 * time.Millisecond)
	}
	hang := func(some ...int) {
		w.loop.Call(func() {
			for _, i := range some {
				w.drives[i].file.stall, w.drives[i].file.deaf = true, how == "close, deaf"
			}
		})
	}
	hang(0)
	for range 8 {
		begin(4)
		ft.pass(10 * time.Millisecond)
	}
	hang(1, 2, 3)
	begin(10)
	begin(6)
	s := &w.c.stats
	if s.Hedges.Load() == 0 || s.HedgeWins.Load() == 0 && !remote || s.Around.Load() == 0 || w.c.shadows == 0 {
		t.Errorf("hedges %d, won %d, around %d, under way %d: the test shows little", s.Hedges.Load(), s.HedgeWins.Load(),
			s.Around.Load(), w.c.shadows)
	}
	if how == "stop" {
		w.loop.Stop()
	} else {
		closed := make(chan struct{})
		w.loop.Call(func() { w.c.Close(func() { close(closed) }) })
		<-closed
	}
	for i, k := range ks {
		<-k.done
		if k.Err != errs.OK && k.Err != errs.Closed || k.Dst.Len() != int(k.Blocks)*4096 {
			t.Errorf("fetch %d: %v, %d bytes", i, k.Err, k.Dst.Len())
		}
		if how == "stop" {
			w.pool.ReleaseVec(&k.Dst)
			continue
		}
		if k.Err == errs.OK {
			k.check()
		}
		k.release()
	}
	if how == "close, deaf" {
		if w.pool.Free() == w.pages {
			t.Error("no read hangs on: the test shows nothing")
		}
		w.loop.Call(func() {
			for _, d := range w.drives {
				d.file.resume()
			}
		})
		w.loop.Call(func() {})
	}
	if w.pool.Free() != w.pages {
		t.Errorf("%d pages are still held", w.pages-w.pool.Free())
	}
}
