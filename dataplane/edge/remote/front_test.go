package remote

import (
	"testing"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/edge/proto"
)

// Somebody who reads on misses what he begins with, however many requests he has under way, and nothing later. Who
// jumps about has nothing looked up but what he misses.
func TestFront(t *testing.T) {
	for _, under := range []group{1, 8} {
		f, known, looked, missed := front{}, map[group]bool{}, []group(nil), 0
		look := func(from, end group) {
			for g := from; g < end; g++ {
				looked = append(looked, g)
			}
		}
		const begin = 5000
		for g := group(begin); g < begin+100; g++ {
			if g >= begin+under { // by then the answers have come
				for _, l := range looked {
					known[l] = true
				}
				looked = looked[:0]
			}
			if known[g] {
				look(f.passed(g))
				continue
			}
			missed++
			look(g, f.missed(g, g)+1)
		}
		if missed > int(under)+1 {
			t.Errorf("%d requests under way: %d of 100 groups were missed", under, missed)
		}
	}
	// Small reads miss a group several times before the answer comes, large ones may lie across two.
	for times := 1; times < 5; times++ {
		var small, across front
		for range times {
			small.missed(7000, 7000)
		}
		across.missed(7000, 7001)
		for i := range group(times) {
			across.missed(7001+i, 7002+i)
		}
		if times > 1 && (!small.stream || small.next != 7000+aheadGroups+1) || !across.stream {
			t.Errorf("missed %d times: %+v, %+v", times, small, across)
		}
	}
	f, looked := front{}, 0
	for g := group(1); g < 1<<30; g = g*3 + 20 {
		looked += int(f.missed(g, g) - g + 1)
		if from, end := f.passed(g / 2); from != end {
			t.Errorf("somebody passes group %d, and [%d, %d) are looked up", g/2, from, end)
		}
	}
	if looked > 20+aheadGroups {
		t.Errorf("%d look-ups for 18 misses", looked)
	}
}

// A whole vDisk is read through, and the router is asked for its first group only.
func TestReadThrough(t *testing.T) {
	w := newWorld(t)
	e := w.mustOpen('a')
	e.do(block.Write, 0, blocks, 1)
	e.know(0, 1, 1)
	e.loop.Call(func() { e.r.forget(); e.r.until = w.clock() + 1e9 })
	e.reads(0, 1, 1)
	w.eventually("nothing is looked up ahead", func() bool {
		return e.on(func() bool { return len(e.r.lookups) == 0 })
	})
	asked := e.r.Stats.Asked.Load()
	for at := 0; at < blocks; at += 64 {
		e.reads(at, 64, 1)
	}
	if n := e.r.Stats.Asked.Load() - asked; n > 0 {
		t.Errorf("%d blocks came from the router", n)
	}
}

// A vDisk of more groups than are looked up ahead: they go on being looked up before the reader, each once, and those
// that are known already are not.
func TestReadThroughFurtherThanAhead(t *testing.T) {
	const groups, known = 3 * aheadGroups, 2*aheadGroups + 5
	w := newWorldOf(t, groups*groupBlocks)
	e, err := w.open('a', func(o *Options) { o.LookAgain = time.Nanosecond })
	must(t, err)
	read := func(at int) {
		e.reads(at, 64, 0)
		w.eventually("a look-up does not end", func() bool { return e.on(func() bool { return len(e.r.lookups) == 0 }) })
	}
	read(known * groupBlocks)
	read(0)
	read(groupBlocks)
	asked := e.r.Stats.Asked.Load()
	for at := 0; at < groups*groupBlocks; at += 64 {
		read(at)
	}
	if n := e.r.Stats.Asked.Load() - asked; n > 0 {
		t.Errorf("%d blocks came from the router", n)
	}
	if n := e.r.Stats.Lookups.Load(); n != groups {
		t.Errorf("%d look-ups for %d groups", n, groups)
	}
}

// A look-up that comes to the router behind the answer to a yield is refused. That is no reason to give the connection
// up, as it is with a change.
func TestLookUpBehindAYield(t *testing.T) {
	w := newWorld(t)
	a := w.mustOpen('a')
	a.do(block.Write, 0, 8, 1)
	b, err := w.open('b', func(o *Options) { o.Mode = proto.Passive })
	must(t, err)
	b.do(block.Write, 0, 8, 2)
	before := a.r.Stats.Lookups.Load()
	a.loop.Call(func() { a.r.lookup(2) })
	w.eventually("it does not end", func() bool { return a.on(func() bool { return len(a.r.lookups) == 0 }) })
	a.reads(0, 8, 2)
	if n, l := a.r.Stats.Connects.Load(), a.r.Stats.Lookups.Load()-before; n != 1 || l != 1 {
		t.Errorf("%d connections, %d look-ups", n, l)
	}
}
