package edge

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
)

// Extents tells of random stretches, as a map does of which parts are not in RAM.
func (f *fakeDriver) Extents(addr ids.BlockAddr, n int, blind bool, out *[]block.Extent, work *int,
	l block.Loaded) (int, bool) {
	f.calls++
	for i := range n {
		if i > 0 && *work <= 0 {
			return i, true
		}
		*work -= 1 + f.rng.IntN(scanWork/10)
		a := addr + ids.BlockAddr(i)
		b, ok := f.blocks[a]
		state := block.Hole | block.ReadsZero
		switch {
		case f.lost[a] && !(blind && i == 0):
			f.later(func() { l.MapLoaded(errs.Corrupt) })
			return i, false
		case f.lost[a]:
			state = 0
		case f.miss > 0 && f.calls%f.miss == 0 && i == n/2:
			f.later(func() { l.MapLoaded([]errs.Kind{errs.OK, errs.Busy}[f.rng.IntN(2)]) })
			return i, false
		case ok && b.kind != block.Zeros:
			state = 0
		case b.zero:
			state = block.ReadsZero
		}
		e := *out
		if k := len(e); k > 0 && e[k-1].State == state {
			e[k-1].Len += ids.BlockSize
		} else if k == cap(e) {
			return i, true
		} else {
			*out = append(e, block.Extent{Len: ids.BlockSize, State: state})
		}
	}
	return n, true
}

// Warm is done some time later.
func (f *fakeDriver) Warm(_ ids.BlockAddr, n int, l block.Loaded) {
	f.later(func() {
		f.warmed += n
		l.MapLoaded(errs.OK)
	})
}

// states are, by block, what it is, and a bit per state that it was in since the last settle.
type states struct {
	now  []block.ExtentState
	seen []uint8
}

func newStates(size int64) *states {
	s := &states{now: make([]block.ExtentState, size/4096), seen: make([]uint8, size/4096)}
	for i := range s.now {
		s.now[i] = block.Hole | block.ReadsZero
	}
	return s
}

func (s *states) settle() {
	for i, now := range s.now {
		s.seen[i] = 1 << now
	}
}

func (s *states) apply(r *block.Request) {
	first, end := r.Off>>12, ids.Blocks(r.Off+int64(r.Len))
	if r.Op == block.Flush || r.Len == 0 {
		return
	}
	for b := first; b < end; b++ {
		whole := r.Off <= b<<12 && r.Off+int64(r.Len) >= (b+1)<<12
		now := s.now[b]
		switch {
		case r.Op == block.Write:
			now = 0
		case r.Op == block.Trim && whole:
			now = block.Hole | block.ReadsZero
		case r.Op == block.WriteZeroes && (whole || now != 0):
			if now = block.ReadsZero; r.Flags&block.NoHole == 0 {
				now |= block.Hole
			}
		}
		s.now[b] = now
		s.seen[b] |= 1 << now
	}
}

func askExtents(rng *rand.Rand, size int64, done chan struct{}) *one {
	o := &one{req: block.Request{Op: block.Extents, Done: waiter{done}}}
	o.req.Off = rng.Int64N(96 << 10)
	o.req.Len = uint32(1 + rng.Int64N(min(size-o.req.Off, 1<<(1+rng.IntN(20)))))
	o.req.Extents = make([]block.Extent, 0, 1+rng.IntN(40))
	if rng.IntN(8) == 0 {
		o.req.Flags = block.One
	}
	return o
}

// check compares answers with what the blocks were since the last settle.
func (s *states) check(t *testing.T, ops []*one) {
	t.Helper()
	for _, o := range ops {
		r := &o.req
		if r.Op != block.Extents {
			continue
		}
		at, end := r.Off, r.Off+int64(r.Len)
		for i, e := range r.Extents {
			if e.Len == 0 || at+int64(e.Len) > end || i > 0 && e.State == r.Extents[i-1].State {
				t.Fatalf("%d+%d: extents %v", r.Off, r.Len, r.Extents)
			}
			for b := at >> 12; b<<12 < at+int64(e.Len); b++ {
				if s.seen[b]>>e.State&1 == 0 {
					t.Fatalf("%d+%d: block %d is told as %d, it is %d: %v", r.Off, r.Len, b, e.State, s.now[b], r.Extents)
				}
			}
			at += int64(e.Len)
		}
		full := len(r.Extents) == cap(r.Extents) || r.Flags&block.One != 0 && len(r.Extents) == 1
		if at == r.Off || at < end && (!full || at&4095 != 0) {
			t.Fatalf("%d+%d: %v end at %d", r.Off, r.Len, r.Extents, at)
		}
	}
}

// What the map cannot tell is told as data, and exactly that.
func TestExtentsOfLostMap(t *testing.T) {
	r := newRig(t, 3)
	done := make(chan struct{}, 1)
	r.drv.lost = map[ids.BlockAddr]bool{3: true, 4: true, 9: true}
	o := &one{req: block.Request{Op: block.Extents, Off: 100, Len: 60000, Done: waiter{done},
		Extents: make([]block.Extent, 0, 10)}}
	r.run([]*one{o}, done)
	hole := block.Hole | block.ReadsZero
	want := []block.Extent{{Len: 3*4096 - 100, State: hole}, {Len: 8192}, {Len: 4 * 4096, State: hole}, {Len: 4096},
		{Len: 60100 - 10*4096, State: hole}}
	if len(o.req.Extents) != len(want) {
		t.Fatalf("%v, want %v", o.req.Extents, want)
	}
	for i, e := range o.req.Extents {
		if e != want[i] {
			t.Fatalf("extent %d of %v, want %v", i, o.req.Extents, want)
		}
	}
	if n := r.disk.Stats.Unknown.Load(); n != 3 {
		t.Errorf("%d pages counted as unknown", n)
	}
}

// tireless answers a block at a time and uses up all work in doing so.
type tireless struct {
	fakeDriver
	at []ids.BlockAddr
}

func (f *tireless) Extents(addr ids.BlockAddr, _ int, _ bool, out *[]block.Extent, work *int,
	_ block.Loaded) (int, bool) {
	f.at = append(f.at, addr)
	*work = -1
	if len(*out) == 0 {
		*out = append(*out, block.Extent{State: 3})
	}
	(*out)[0].Len += ids.BlockSize
	return 1, true
}

// Questions that take long take turns, one a pass, and the loop's other work comes in between.
func TestExtentsTakeTurns(t *testing.T) {
	pool, err := buf.NewPool(1<<20, 0)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ring.New(ring.Options{Name: "edge-test", Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	defer l.Stop()
	d := &tireless{fakeDriver: fakeDriver{loop: l, size: 1 << 20}}
	disk := NewDisk(l, d, d, nil)
	done := make(chan struct{}, 8)
	var qs [3]block.Request
	var passes []int64
	var tick ring.Timer
	l.Call(func() {
		tick.Fire = func() {
			passes = append(passes, l.Now())
			l.After(&tick, 0)
		}
		tick.Fire()
		for i := range qs {
			qs[i] = block.Request{Op: block.Extents, Off: int64(i) * 65536, Len: 10 * 4096, Done: waiter{done},
				Extents: make([]block.Extent, 0, 1)}
			disk.Submit(&qs[i])
		}
	})
	for range qs {
		<-done
	}
	l.Call(func() { l.StopTimer(&tick) })
	if len(d.at) != 30 || len(passes) < 30 {
		t.Fatalf("%d steps in %d passes", len(d.at), len(passes))
	}
	var steps [3]int
	for _, a := range d.at {
		steps[a/16]++
		if slices.Max(steps[:])-slices.Min(steps[:]) > 2 {
			t.Fatalf("one is served before others: blocks %v", d.at)
		}
	}
	for _, q := range qs {
		if q.Err != errs.OK || len(q.Extents) != 1 || q.Extents[0].Len != q.Len {
			t.Errorf("%v: %v", q.Err, q.Extents)
		}
	}
}

// Empty requests end; so does a hint, and it reaches the driver.
func TestCacheAndEmpty(t *testing.T) {
	r := newRig(t, 5)
	done := make(chan struct{}, 4)
	r.run([]*one{
		{req: block.Request{Op: block.Extents, Off: 100, Done: waiter{done}, Extents: make([]block.Extent, 0, 1)}},
		{req: block.Request{Op: block.Cache, Off: 100, Done: waiter{done}}},
		{req: block.Request{Op: block.Cache, Off: 100, Len: 8192, Done: waiter{done}}},
	}, done)
	if r.drv.warmed != 3 {
		t.Errorf("%d blocks warmed, want 3", r.drv.warmed)
	}
}

// Zeros that must be fast are made if there is a whole block in them, else refused and nothing is done.
func TestFastZero(t *testing.T) {
	r := newRig(t, 6)
	r.drv.fails, r.drv.miss = 0, 0
	done := make(chan struct{}, 1)
	o := &one{req: block.Request{Op: block.Write, Len: 65536, Done: waiter{done}}, data: make([]byte, 65536)}
	for i := range o.data {
		o.data[i] = 7
	}
	r.run([]*one{o}, done)
	for _, c := range []struct {
		off, n int64
		want   errs.Kind
	}{{0, 4096, errs.OK}, {1, 4095, errs.Unsupported}, {4097, 8190, errs.Unsupported}, {4097, 8191, errs.OK},
		{20000, 10000, errs.OK}, {40000, 500, errs.Unsupported}, {0, 0, errs.OK}} {
		q := &block.Request{Op: block.WriteZeroes, Flags: block.FastZero, Off: c.off, Len: uint32(c.n), Done: waiter{done}}
		before := 0
		r.loop.Call(func() {
			before = seqNow
			r.disk.Submit(q)
		})
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatal("no answer")
		}
		if q.Err != c.want || c.want != errs.OK && seqNow != before {
			t.Errorf("%d+%d: %v, want %v; %d changes", c.off, c.n, q.Err, c.want, seqNow-before)
		}
	}
}
