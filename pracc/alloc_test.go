package pracc

import (
	"testing"

	"vstor/dataplane/layout"
)

// pump starts the same fetch again and again.
type pump struct {
	c    *Client
	f    Fetch
	left int
	done chan struct{}
}

func (p *pump) FetchDone(f *Fetch) {
	if f.Err != 0 {
		panic(f.Err)
	}
	if p.left--; p.left <= 0 {
		p.done <- struct{}{}
		return
	}
	p.c.Fetch(f)
}

// A 4 KiB fetch whose manifest is cached allocates nothing, nor does a small rebuild once its slot was used.
func TestFetchAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("SKIPPED: the detector allocates itself")
	}
	for _, lost := range []bool{false, true} {
		w := newWorld(t, 6, 16<<20, nil)
		o := w.put(1, 256, pol42, 1<<20, 1<<20)
		w.want(o, 0, 256)
		if lost {
			w.amend(o, func(m *layout.Manifest) { m.Frag(0, 0).State = layout.FragMissing })
			w.loop.Call(func() { w.c.Install(o.m) })
		}
		p := &pump{c: w.c, done: make(chan struct{}, 1)}
		run := func() {
			p.left = 1000
			w.loop.Call(func() { w.c.Fetch(&p.f) })
			<-p.done
		}
		w.loop.Call(func() {
			w.pool.Alloc(&p.f.Dst, 1)
			p.f.NS, p.f.SCO, p.f.Off, p.f.Blocks, p.f.Sums, p.f.Done = 9, 1, 7, 1, o.sums[7:8], p
		})
		run()
		// Call itself allocates a little: a thousand fetches must not add to that.
		if n := testing.AllocsPerRun(10, run); n > 20 {
			t.Errorf("lost=%v: a thousand fetches allocate %v times", lost, n)
		}
		w.loop.Call(func() { w.pool.ReleaseVec(&p.f.Dst) })
	}
}
