package client

import (
	"context"
	"testing"

	"vstor/dataplane/buf"
	"vstor/dataplane/ring"
)

// A Put and a Get allocate nothing, with a context that may end.
func TestCallsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	a := newFake(t, plain).client(nil)
	ctx, cancel := context.WithCancel(bg)
	defer cancel()
	p, dst := fput(t, 1, 256<<10), make([]byte, 1<<20)
	if n := testing.AllocsPerRun(300, func() {
		if err := a.Put(ctx, p); err != nil {
			t.Fatal(err)
		}
		if err := a.Get(ctx, p.Key, 0, dst); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per Put and Get", n)
	}
}

// again reads the same range again and again.
type again struct {
	r    *Reader
	op   ring.Op
	v    buf.Vec
	left int
	done chan struct{}
	t    *testing.T
}

func (q *again) RingDone(_ *ring.Op, res int32) {
	if res <= 0 {
		q.t.Errorf("ended with %d", res)
	}
	if q.left--; q.left <= 0 || res <= 0 {
		q.done <- struct{}{}
		return
	}
	q.r.ReadRange(&q.op, key(1), 0, 4096, &q.v)
}

// A read on a loop allocates nothing.
func TestReaderAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	a, g := newFake(t, plain).client(nil), newRig(t)
	r := g.reader(a, lenient)
	g.ready(r)
	q := &again{r: r, done: make(chan struct{}, 1), t: t}
	q.op.Done = q
	g.loop.Call(func() { g.pool.Alloc(&q.v, 1) })
	run := func() {
		q.left = 1000
		g.loop.Call(func() { r.ReadRange(&q.op, key(1), 0, 4096, &q.v) })
		<-q.done
	}
	run()
	if n := testing.AllocsPerRun(10, run); n > 20 {
		t.Errorf("a thousand reads allocate %v times", n)
	}
	g.loop.Call(func() { g.pool.ReleaseVec(&q.v) })
}
