package pracc

import (
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
