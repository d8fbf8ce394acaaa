package blockcache

import (
	"math/rand/v2"
	"testing"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// The detector finds streams among each other and among random reads, asks for every block once, ahead of the reader,
// and leaves random reads alone.
func TestReadAhead(t *testing.T) {
	var r ReadAhead
	rng := rand.New(rand.NewPCG(1, 1))
	const streams = 3
	var at, end [streams]ids.BlockAddr
	for i := range at {
		at[i] = ids.BlockAddr(i+1) << 24
		end[i] = at[i]
	}
	late, random := 0, 0
	for step := range 20000 {
		if step%5 == 4 {
			_, n := r.Step(1<<32+ids.BlockAddr(rng.IntN(1<<30)), 1)
			random += n
			continue
		}
		i := rng.IntN(streams)
		from, n := r.Step(at[i], 2)
		at[i] += 2
		if n > 0 {
			if from < end[i] || n > windowMax || from+ids.BlockAddr(n) > at[i]+windowMax {
				t.Fatalf("stream %d at %d: asked for %d+%d, has been asked up to %d", i, at[i], from, n, end[i])
			}
			end[i] = from + ids.BlockAddr(n)
		}
		if end[i] < at[i]+2 {
			late++
		}
	}
	if late > 3*aheadAfter || random > 0 {
		t.Errorf("%d reads were not ahead, %d blocks read for random reads", late, random)
	}
}

func TestReadAheadGrowsAndDrops(t *testing.T) {
	var r ReadAhead
	addr, most := ids.BlockAddr(1000), 0
	first := 0
	for range 400 {
		_, n := r.Step(addr, 8)
		addr += 8
		if n > 0 && first == 0 {
			first = n
		}
		most = max(most, n)
	}
	if first != windowMin || most > windowMax || r.streams[0].window != windowMax {
		t.Errorf("the first window is %d, the largest read %d, the window now %d", first, most, r.streams[0].window)
	}
	for range 6 { // a reader that jumps about in what was read ahead
		r.Step(r.streams[0].next+aheadSlack+10, 1)
	}
	if w := r.streams[0].window; w != 0 {
		t.Errorf("after it was wrong 6 times the window is still %d blocks", w)
	}
	// Out of order within the slack is in order.
	r = ReadAhead{}
	asked := 0
	for i := range 100 {
		_, n := r.Step(ids.BlockAddr(5000+(i^1)*8), 8)
		asked += n
	}
	if asked < 700 {
		t.Errorf("pairs out of order: %d blocks read ahead of 800", asked)
	}
}

func TestGate(t *testing.T) {
	var g gate
	now := int64(1e12)
	feed := func(ssd, below int64, n int) {
		for range n {
			g.class[0].ssd.add(ssd, now)
			g.class[0].below.add(below, now)
		}
	}
	if g.ask(0, now) != useSSD {
		t.Error("without figures the SSD is used")
	}
	feed(100, 1000, 20)
	if g.ask(0, now) != useSSD || g.slow(now) {
		t.Error("a fast SSD is used")
	}
	feed(1200, 1000, 200)
	if g.ask(0, now) != useSSD {
		t.Error("a fifth slower is the noise")
	}
	feed(2000, 1000, 200)
	first, second := g.ask(0, now), g.ask(0, now)
	if first != probeSSD || second != skipSSD || !g.slow(now) || g.ask(1, now) != useSSD {
		t.Errorf("slow: %d then %d; another class %d", first, second, g.ask(1, now))
	}
	feed(1100, 1000, 200)
	if g.ask(0, now) != skipSSD {
		t.Error("it comes back only when it is not the slower one")
	}
	feed(900, 1000, 200)
	if v := g.ask(0, now); v != useSSD {
		t.Errorf("fast again: %d", v)
	}
	now += refresh + 1
	g.class[0].ssd.add(900, now)
	if a, b := g.ask(0, now), g.ask(0, now); a != probeBelow || b != useSSD {
		t.Errorf("an old figure of the backend is refreshed by one read: %d, %d", a, b)
	}
	feed(9000, 1000, 200)
	g.ask(0, now)
	if now += stale + 1; g.slow(now) || g.ask(0, now) == skipSSD {
		t.Error("figures this old say nothing")
	}
	if g.late(1) != lateBlind || g.late(0) != lateMin {
		t.Errorf("late after %d and %d ns", g.late(1), g.late(0))
	}
}

func TestDoor(t *testing.T) {
	d := makeDoor(make([]uint64, 1024))
	rng := rand.New(rand.NewPCG(3, 3))
	var hashes []uint64
	known := 0
	for range 1500 {
		h := rng.Uint64()
		hashes = append(hashes, h)
		if d.pass(h) {
			known++
		}
	}
	if known > 3 {
		t.Errorf("%d of 1500 strangers passed", known)
	}
	again := 0
	for _, h := range hashes {
		if d.pass(h) {
			again++
		}
	}
	if again < 1350 {
		t.Errorf("%d of 1500 were remembered by 4096 places", again)
	}
	for range 1 << 16 {
		d.pass(rng.Uint64())
	}
	again = 0
	for _, h := range hashes {
		if d.pass(h) {
			again++
		}
	}
	if again > 20 || d.count() > 4096 {
		t.Errorf("%d are remembered after 65536 others, of %d names", again, d.count())
	}
}

func TestOptions(t *testing.T) {
	w := newWorld(t, 1<<20, 0, nil)
	for _, change := range []func(*Options){
		func(o *Options) { o.BlockBytes = 48 << 10 },
		func(o *Options) { o.BlockBytes = 512 << 10 },
		func(o *Options) { o.RAMBytes = 100 },
		func(o *Options) { o.Below = nil },
		func(o *Options) { o.SSDReads = -1 },
	} {
		o := w.opts
		change(&o)
		var err error
		w.loop.Call(func() { _, err = New(w.loop, o) })
		if errs.Of(err) != errs.Invalid {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
