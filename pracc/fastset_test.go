package pracc

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// crowd is readers that each read a random block again and again, and how long each read took.
type crowd struct {
	w     *world
	ft    *fakeTime
	o     *object
	lanes []*crowdLane
	took  []int64
	limit int // reads that may still begin
	worst int // not OK
}

type crowdLane struct {
	Fetch
	c     *crowd
	since int64
	busy  bool
}

func (l *crowdLane) start() {
	c := l.c
	if c.limit == 0 || l.busy {
		return
	}
	c.limit--
	off := c.w.rng.IntN(c.o.blocks())
	l.NS, l.SCO, l.Off, l.Blocks, l.Sums, l.Done = c.o.m.Namespace, c.o.m.SCO, uint32(off), 1, c.o.sums[off:off+1], l
	l.since, l.busy = c.ft.now, true
	c.w.c.Fetch(&l.Fetch)
}

func (l *crowdLane) FetchDone(*Fetch) {
	c := l.c
	l.busy = false
	c.took = append(c.took, c.ft.now-l.since)
	if l.Err != errs.OK {
		c.worst++
	}
	c.w.c.loop.PostFunc(l.start)
}

func (w *world) crowd(ft *fakeTime, o *object, depth int) *crowd {
	c := &crowd{w: w, ft: ft, o: o}
	w.loop.Call(func() {
		for range depth {
			l := &crowdLane{c: c}
			w.pool.Alloc(&l.Dst, 1)
			c.lanes = append(c.lanes, l)
		}
	})
	return c
}

// run does n reads, in steps of 50 us, and returns how long they took, sorted; those that are under way when no
// more may begin are left.
func (c *crowd) run(n int) []int64 {
	c.w.loop.Call(func() {
		c.took, c.limit = c.took[:0], n
		for _, l := range c.lanes {
			if !l.busy {
				l.start()
			}
		}
	})
	for left := n; left > 0; {
		c.w.loop.Call(func() { // pass, with one call instead of two
			c.w.c.sweep()
			c.w.c.probeAll()
			c.w.c.settle()
			c.ft.now += 50e3
			for _, d := range c.w.drives {
				d.file.endDue(c.ft.now)
			}
			left = c.limit
		})
	}
	var took []int64
	c.w.loop.Call(func() { took = slices.Clone(c.took) })
	slices.Sort(took)
	return took
}

// end lets what is under way end.
func (c *crowd) end() {
	for busy := true; busy; {
		c.ft.pass(time.Millisecond)
		c.w.loop.Call(func() {
			busy = false
			for _, l := range c.lanes {
				busy = busy || l.busy
			}
		})
	}
	c.w.loop.Call(func() {
		for _, l := range c.lanes {
			c.w.pool.ReleaseVec(&l.Dst)
		}
	})
	if c.worst > 0 {
		c.w.t.Errorf("%d reads failed", c.worst)
	}
}

// lags makes all drives take about 200 us, now and then five times that, times factor for drive 0.
func (w *world) lags(factor int64) {
	w.loop.Call(func() {
		for i, d := range w.drives {
			f := int64(1)
			if i == 0 {
				f = factor
			}
			d.file.lag = func() int64 {
				ns := 100e3 + w.rng.Int64N(200e3)
				if w.rng.IntN(50) == 0 {
					ns *= 5
				}
				return ns * f
			}
		}
	})
}

func p99(took []int64) int64 { return took[len(took)*99/100] }

func (w *world) fast(id ids.ASDID) (in bool) {
	w.loop.Call(func() { t := w.c.targets[id]; in = t == nil || !t.out })
	return in
}

// One of six drives hangs for seconds, fails, or is slow by a factor, and recovers: p99 stays within 5 times that of
// health, no read fails, hedges stay below 5 % of the reads, and the drive is out for as long as it is ill.
func TestOneIsIll(t *testing.T) {
	type ill struct {
		name string
		set  func(w *world, on bool)
	}
	for _, x := range []ill{
		{"hangs", func(w *world, on bool) {
			if w.drives[0].file.stall = on; !on {
				w.drives[0].file.resume()
			}
		}},
		{"hangs, deaf", func(w *world, on bool) {
			w.drives[0].file.deaf = on
			if w.drives[0].file.stall = on; !on {
				w.drives[0].file.resume()
			}
		}},
		{"fails", func(w *world, on bool) { w.drives[0].file.dead = on }},
		{"slow by 50", nil},
		{"slow by 500", nil},
	} {
		t.Run(x.name, func(t *testing.T) {
			w := newWorld(t, 6, 32<<20, nil)
			o := w.put(1, 3000, pol42, 128<<10, 64<<10)
			w.want(o, 0, 1)
			ft := w.freeze()
			w.lags(1)
			c := w.crowd(ft, o, 16)
			healthy := p99(c.run(4000))
			if h := w.c.stats.Hedges.Load(); h > 4000/20 || !w.fast(0) {
				t.Errorf("healthy: %d hedges, fast %v", h, w.fast(0))
			}
			set := func(on bool) {
				if x.set != nil {
					w.loop.Call(func() { x.set(w, on) })
					return
				}
				factor := int64(1)
				if on {
					fmt.Sscanf(x.name, "slow by %d", &factor)
				}
				w.lags(factor)
			}
			set(true)
			start := ft.now
			out := int64(0)
			var took []int64
			for range 10 { // until it is out, and for seconds beyond
				took = append(took, c.run(300)...)
				if out == 0 && !w.fast(0) {
					out = ft.now - start
				}
			}
			ft.pass(2 * time.Second)
			took = append(took, c.run(3000)...)
			slices.Sort(took)
			if w.fast(0) {
				t.Error("it is still read")
			}
			if got := p99(took); got > 5*healthy {
				t.Errorf("p99 is %v; healthy it is %v", time.Duration(got), time.Duration(healthy))
			}
			s := &w.c.stats
			if h := s.Hedges.Load(); h*20 > 10000 {
				t.Errorf("%d hedges of 10000 reads", h)
			}
			t.Logf("healthy p99 %v, ill %v; out within %v; hedges %d, won %d, denied %d, around %d, probes %d",
				time.Duration(healthy), time.Duration(p99(took)), time.Duration(out), s.Hedges.Load(), s.HedgeWins.Load(),
				s.HedgeDenied.Load(), s.Around.Load(), s.Probes.Load())
			set(false)
			for range 100 {
				if c.run(300); w.fast(0) {
					break
				}
			}
			if !w.fast(0) {
				t.Error("it does not come back")
			}
			around := s.Around.Load()
			c.run(1000)
			if n := s.Around.Load() - around; n > 20 {
				t.Errorf("%d reads went round it when it was well", n)
			}
			w.loop.Call(func() {
				for _, d := range w.drives {
					d.file.lag = nil
				}
			})
			c.end()
		})
	}
}

// All drives become slow, or hang for a moment: that is no drive's fault. Nobody leaves, nothing fails.
func TestAllAreSlow(t *testing.T) {
	w := newWorld(t, 6, 32<<20, nil)
	o := w.put(1, 3000, pol42, 128<<10, 64<<10)
	w.want(o, 0, 1)
	ft := w.freeze()
	w.lags(1)
	c := w.crowd(ft, o, 32)
	c.run(2000)
	slow := func(factor int64) {
		w.loop.Call(func() {
			for _, d := range w.drives {
				d.file.endDue(math.MaxInt64 - 1) // what made them slow is over for all of their reads
				d.file.lag = func() int64 { return factor * (100e3 + w.rng.Int64N(200e3)) }
			}
		})
	}
	slow(50)
	c.run(1000)
	slow(400)
	c.run(300)
	slow(1)
	c.run(3000)
	w.loop.Call(func() {
		for _, d := range w.drives {
			d.file.stall = true
		}
	})
	for range 200 {
		ft.pass(time.Millisecond)
	}
	w.loop.Call(func() {
		for _, d := range w.drives {
			d.file.resume()
		}
	})
	c.run(1000)
	left := uint64(0)
	w.c.EachASD(func(_ ids.ASDID, s *ASDStats) { left += s.Left.Load() })
	if left > 0 {
		t.Errorf("ASDs left the fast set %d times", left)
	}
	if h := w.c.stats.Hedges.Load(); h*20 > 7300 {
		t.Errorf("%d hedges", h)
	}
	c.end()
}

// More drives hang than can be done without: what lies on them waits, as long as it takes, and what does not is read.
func TestTooManyHang(t *testing.T) {
	w := newWorld(t, 6, 32<<20, nil)
	o := w.put(1, 64, pol42, 1<<20, 1<<20)
	w.want(o, 0, 64)
	ft := w.freeze()
	var ks [4]*keeper
	w.loop.Call(func() {
		for i := range ks { // one of each data fragment
			if i < 3 {
				w.drives[i].file.stall = true
			}
			ks[i] = w.keep(o, 16*i, 2)
		}
	})
	for range 1000 {
		ft.pass(10 * time.Millisecond)
	}
	for i, k := range ks {
		if k.isDone() != (i == 3) {
			t.Errorf("fragment %d: done %v, %v", i, i != 3, k.Err)
		}
	}
	w.loop.Call(func() {
		for _, d := range w.drives {
			d.file.resume()
		}
	})
	for _, k := range ks {
		<-k.done
		k.check()
		k.release()
	}
}

// And if they never return, it is an error in the end; the pages come back when they do.
func TestReadTimeout(t *testing.T) {
	w := newWorld(t, 6, 32<<20, nil)
	o := w.put(1, 64, pol42, 1<<20, 1<<20)
	w.want(o, 0, 64)
	ft := w.freeze()
	var k *keeper
	w.loop.Call(func() {
		for _, d := range w.drives[:3] {
			d.file.stall, d.file.deaf = true, true
		}
		k = w.keep(o, 8, 30)
	})
	for range 60 {
		ft.pass(time.Second)
	}
	<-k.done
	if k.Err != errs.Unreachable || k.Dst.Len() != 30*4096 {
		t.Fatal(k.Err, k.Dst.Len())
	}
	k.release()
	w.loop.Call(func() {
		if w.c.live+w.c.flying != 0 || w.c.stuckReads == 0 {
			t.Errorf("live %d flying %d stuck %d", w.c.live, w.c.flying, w.c.stuckReads)
		}
		for _, d := range w.drives {
			d.file.resume()
		}
	})
}
