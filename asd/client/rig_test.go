package client

import (
	"sync/atomic"
	"testing"

	"vstor/asd/proto"
	"vstor/dataplane/buf"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
)

// rig is a loop with Readers.
type rig struct {
	t       testing.TB
	pool    *buf.Pool
	loop    *ring.Loop
	free    int
	readers []*Reader
}

func newRig(t testing.TB) *rig {
	t.Helper()
	pool, err := buf.NewPool(64<<20, 1<<20)
	must(t, err)
	l, err := ring.New(ring.Options{Pool: pool, RecvBufs: 4, RecvBufSize: 64 << 10})
	must(t, err)
	must(t, l.Start())
	g := &rig{t: t, pool: pool, loop: l, free: pool.Free()}
	t.Cleanup(g.close)
	return g
}

func (g *rig) close() {
	for _, r := range g.readers {
		g.closeReader(r)
	}
	g.loop.Stop()
	if g.pool.Free() != g.free {
		g.t.Errorf("%d pages leaked", g.free-g.pool.Free())
	}
	for i, r := range g.readers {
		if r.conn != nil || r.out != 0 || r.asked != 0 || r.live.head != nil || r.unsent != nil || r.landing != nil {
			g.t.Errorf("reader %d: out %d asked %d conn %v live %v", i, r.out, r.asked, r.conn != nil, r.live.head)
		}
		free := 0
		for s := r.free; s != nil; s = s.next {
			free++
		}
		if free != len(r.slots) {
			g.t.Errorf("reader %d: %d of %d slots are free", i, free, len(r.slots))
		}
	}
	g.pool.Close()
}

// closeReader closes a Reader, once.
func (g *rig) closeReader(r *Reader) {
	done := make(chan struct{})
	ok := g.loop.Call(func() {
		if r.closing {
			close(done)
			return
		}
		r.Close(func() { close(done) })
	})
	if !ok {
		if !r.closing {
			r.Close(nil)
		}
		return
	}
	<-done
}

func (g *rig) reader(a *ASD, o ReaderOptions) *Reader {
	g.t.Helper()
	var r *Reader
	var err error
	g.loop.Call(func() { r, err = a.NewReader(g.loop, o) })
	must(g.t, err)
	g.readers = append(g.readers, r)
	return r
}

func (g *rig) isReady(r *Reader) (ready bool) {
	g.loop.Call(func() { ready = r.Ready() })
	return ready
}

func (g *rig) ready(r *Reader) {
	g.t.Helper()
	until(g.t, "the reader to be ready", func() bool { return g.isReady(r) })
}

// reading is one read of a test.
type reading struct {
	g         *rig
	op        ring.Op
	v         buf.Vec
	token     uint64
	i, size   int
	off, n    int
	res       int32
	ends      atomic.Int32
	inside    bool
	got       []byte
	done      chan struct{}
	keepPages bool
}

func (q *reading) RingDone(_ *ring.Op, res int32) {
	if q.inside {
		q.g.t.Error("ended inside ReadRange")
	}
	q.res = res
	if q.ends.Add(1) > 1 {
		q.g.t.Error("ended twice")
		return
	}
	if res > 0 {
		for _, s := range q.v.Segs {
			q.got = append(q.got, q.g.pool.SegBytes(s)...)
		}
	}
	if !q.keepPages {
		q.g.pool.ReleaseVec(&q.v) // poisoned: whoever writes to them later is found out
	}
	close(q.done)
}

// start begins to read n bytes at off of fragment i, which has size bytes. On the loop.
func (g *rig) start(r *Reader, i, size, off, n int) *reading {
	q := &reading{g: g, i: i, size: size, off: off, n: n, done: make(chan struct{})}
	q.op.Done = q
	var spare buf.Vec
	for left := n / ids.BlockSize; left > 0; { // scattered
		run := min(left, 1+i%5+left/2)
		if !g.pool.Alloc(&q.v, run) {
			panic("pool too small for the test")
		}
		left -= run
		if left > 0 {
			g.pool.Alloc(&spare, 1)
		}
	}
	g.pool.ReleaseVec(&spare)
	q.inside = true
	q.token = r.ReadRange(&q.op, key(i), uint32(off), uint32(n), &q.v)
	q.inside = false
	return q
}

// read reads and waits.
func (g *rig) read(r *Reader, i, size, off, n int) *reading {
	g.t.Helper()
	var q *reading
	g.loop.Call(func() { q = g.start(r, i, size, off, n) })
	<-q.done
	return q
}

// same fails unless a read brought the right bytes.
func (g *rig) same(q *reading) {
	g.t.Helper()
	if int(q.res) != q.n {
		g.t.Fatalf("fragment %d, %d bytes at %d: ended with %d", q.i, q.n, q.off, q.res)
	}
	if string(q.got) != string(payload(q.i, q.size)[q.off:q.off+q.n]) {
		g.t.Fatalf("fragment %d, %d bytes at %d: wrong bytes", q.i, q.n, q.off)
	}
}

const _ = uint(proto.ReadMax - 1<<20)
