package remote

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
)

const sector = 512

// part starts a write of one sector of a block.
func (e *host) part(addr, no int, fill byte) *request {
	q := e.makePart(addr, no)
	e.loop.PostFunc(func() { q.submitPart(fill) })
	return q
}

func (e *host) makePart(addr, no int) *request {
	q := &request{Request: block.Request{Op: block.Write, Off: int64(addr)*4096 + int64(no)*sector, Len: sector}, e: e,
		done: make(chan struct{})}
	q.Done = q
	return q
}

// submitPart submits it on the loop.
func (q *request) submitPart(fill byte) {
	if !q.e.pool.Alloc(&q.Data, 1) {
		panic("no pages")
	}
	b := q.e.pool.SegBytes(q.Data.Segs[0])[q.Off%4096:][:sector]
	for i := range b {
		b[i] = fill
	}
	q.e.disk.Submit(&q.Request)
}

// amidPartialWrite opens the vDisk twice; a, which holds it, reads block 0 to write sector 3 of it, until resume.
// change is made to the options of b.
func (w *world) amidPartialWrite(change func(*Options)) (a, b *host, part *request) {
	a = w.mustOpen('a')
	a.do(block.Write, 0, 8, 1)
	a.know(0, 8, 1)
	b, err := w.open('b', func(o *Options) { o.Mode = proto.Passive; change(o) })
	must(w.t, err)
	a.loop.Call(func() { a.hold = true })
	part = a.part(0, 3, 9)
	w.eventually("nothing is read", func() bool { return a.on(func() bool { return len(a.ends) > 0 }) })
	return a, b, part
}

func (e *host) resume() { e.loop.Call(func() { e.hold = false; e.loop.AtPassEnd(&e.hook) }) }

// Whoever is asked to yield while it reads what a partial write leaves as it is yields when that is written, and not
// before: the write would undo what the other writes meanwhile.
func TestYieldWaitsForAPartialWrite(t *testing.T) {
	w := newWorld(t)
	a, b, part := w.amidPartialWrite(func(*Options) {})
	whole := b.start(block.Write, 0, 1, 2)
	w.eventually("nobody is asked to yield", func() bool {
		return a.on(func() bool { return a.r.yielding || a.r.mode != proto.Exclusive })
	})
	behind := a.part(4, 0, 7) // begins when the vDisk is back
	for range 20 {
		a.do(block.Write, 6, 1, 3) // goes on
	}
	select {
	case <-whole.done:
		t.Error("the vDisk was given up in the midst of a partial write")
	default:
	}
	a.resume()
	for i, q := range []*request{part, whole, behind} {
		if k := q.wait(); k != errs.OK {
			t.Error(i, k)
		}
	}
	b.reads(0, 1, 2)
	b.reads(6, 1, 3)
}

// Two edges write sectors of the same blocks, each its own ones, and take the vDisk from one another all the time:
// what is acknowledged stays.
func TestPartialWritesOfTwoEdges(t *testing.T) {
	w := newWorld(t)
	a := w.mustOpen('a')
	const blocks = 4
	a.do(block.Write, 0, blocks, 0)
	b, err := w.open('b', func(o *Options) { o.Mode = proto.Passive })
	must(t, err)
	var want [blocks * 8]byte
	var both sync.WaitGroup
	for i, e := range []*host{a, b} {
		both.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 6))
			for n := range 150 {
				at, no := rng.IntN(blocks), 2*rng.IntN(4)+i
				if k := e.part(at, no, byte(n+1)).wait(); k != errs.OK {
					t.Errorf("a write of edge %d: %v", i, k)
					return
				}
				want[at*8+no] = byte(n + 1)
			}
		})
	}
	both.Wait()
	got := b.do(block.Read, 0, blocks, 0).data
	for i, v := range want {
		if got[i*sector] != v || got[(i+1)*sector-1] != v {
			t.Errorf("sector %d of block %d is %d, and %d was acknowledged", i%8, i/8, got[i*sector], v)
		}
	}
}

// Partial writes that wait for a vDisk end when it is lost or shut.
func TestPartialWritesThatMayNotBegin(t *testing.T) {
	w := newWorld(t)
	a, b, part := w.amidPartialWrite(func(*Options) {})
	first, second := b.part(0, 0, 2), b.part(0, 1, 3)
	w.eventually("nobody is asked to yield", func() bool { return a.on(func() bool { return a.r.yielding }) })
	b.r.Shut()
	for _, q := range []*request{first, second} {
		select {
		case <-q.done:
			if q.Err != errs.Closed {
				t.Error(q.Err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("it does not end")
		}
	}
	a.resume()
	if k := part.wait(); k != errs.OK {
		t.Error(k)
	}
}

// The holder hangs in the midst of a partial write and does not yield. Another edge's changes wait for it as long as
// they may, and what only reads does not wait at all.
func TestHolderHangs(t *testing.T) {
	w := newWorld(t)
	a, b, part := w.amidPartialWrite(func(o *Options) {
		o.StallTimeout, o.RenewEvery = 2*time.Second, time.Second // the router is never taken for silent
	})
	whole, sector := b.start(block.Write, 0, 1, 2), b.part(1, 0, 3)
	w.eventually("nobody is asked to yield", func() bool { return a.on(func() bool { return a.r.yielding }) })
	read, flush := b.start(block.Read, 5, 2, 0), b.start(block.Flush, 0, 0, 0)
	if k, l := read.wait(), flush.wait(); k != errs.OK || l != errs.OK || read.data[0] != 1 {
		t.Error(k, l)
	}
	select {
	case <-whole.done:
		t.Error("the read waited for the write")
	default:
	}
	for i, q := range []*request{whole, sector} {
		if k := q.wait(); k != errs.IO {
			t.Error(i, k)
		}
	}
	a.resume()
	if k := part.wait(); k != errs.OK {
		t.Error(k)
	}
	if n := b.r.Stats.Connects.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	b.do(block.Write, 0, 1, 4)
	b.reads(0, 1, 4)
	b.reads(1, 1, 1)
}

// A partial write at an edge that is fenced ends.
func TestPartialWriteOfAFencedEdge(t *testing.T) {
	w := newWorld(t)
	a := w.mustOpen('a')
	_, err := w.open('b', func(o *Options) { o.Takeover = true })
	must(t, err)
	w.eventually("nobody is fenced", func() bool {
		return a.on(func() bool { return a.r.fenced != nil && a.r.conn == nil })
	})
	if k := a.part(0, 3, 9).wait(); k != errs.IO {
		t.Error(k)
	}
}

// The loop stops while a partial write waits for another edge, and whoever is told of its end comes with the next one:
// that ends too, though no timer fires any more.
func TestPartialWritesAsTheLoopStops(t *testing.T) {
	w := newWorld(t)
	a, b, part := w.amidPartialWrite(func(*Options) {})
	first, next := b.makePart(0, 0), b.makePart(5, 1)
	first.then = func() { next.submitPart(7) }
	b.loop.Call(func() { first.submitPart(2) })
	w.eventually("nobody is asked to yield", func() bool { return a.on(func() bool { return a.r.yielding }) })
	b.loop.Stop()
	for i, q := range []*request{first, next} {
		select {
		case <-q.done:
			if q.Err != errs.Closed {
				t.Error(i, q.Err)
			}
		default:
			t.Errorf("partial write %d did not end when the loop stopped", i)
		}
	}
	a.resume()
	if k := part.wait(); k != errs.OK {
		t.Error(k)
	}
}
