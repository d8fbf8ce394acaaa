package server

import (
	"time"

	"vstor/asd/proto"
	"vstor/asd/store"
	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
	"vstor/dataplane/invariants"
	"vstor/dataplane/layout"
	"vstor/dataplane/link"
	"vstor/dataplane/ring"
)

// core is what lives on the loop: memory, requests, connections. Loop only, but for counts.
type core struct {
	srv   *Server
	opts  *Options
	loop  *ring.Loop
	pool  *buf.Pool
	hub   *link.Hub
	store *store.Store
	file  dio.File
	count counters

	conns *conn // all

	requests     int // under way
	requestsLine line
	free         *request
	nfree        int

	pages     int // of reads and lists, free
	pagesLine line
	puts      putMemory
	gets      runs
	freeReads *readOp
	parsed    []proto.Range
	extents   [8]layout.Extent
	scratch   buf.Vec

	deleted deletedMessage
	gone    leases

	stalls ring.Timer
	idle   ring.Timer
}

// runs are contiguous buffers of equal size, and the line for them.
type runs struct {
	all  buf.Vec // one segment each; holds the references
	free []buf.Seg
	line line
}

// take gives a buffer to c, or puts it in line.
func (b *runs) take(c *conn) (buf.Seg, bool) {
	n := len(b.free)
	if n == 0 || !b.line.admits(c) {
		b.line.join(c)
		return buf.Seg{}, false
	}
	s := b.free[n-1]
	b.free = b.free[:n-1]
	c.leaveLine()
	return s, true
}

func (b *runs) give(s buf.Seg) {
	b.free = append(b.free, s)
	b.line.wake()
}

// init takes n runs of size bytes from a pool from which single pages were never taken: it gives them
// contiguous, if size is a multiple of runUnit.
func (b *runs) init(pool *buf.Pool, n int, size int64) {
	for range n {
		var v buf.Vec
		ok := pool.Alloc(&v, int(size/buf.PageSize))
		if !ok || len(v.Segs) != 1 || v.Segs[0].Off != 0 {
			invariants.Fail("asd server: a fresh pool gave no contiguous run of %d bytes", size)
		}
		b.all.Segs = append(b.all.Segs, v.Segs[0])
	}
	b.free = append(b.free, b.all.Segs...)
}

func newCore(s *Server, loop *ring.Loop) *core {
	k := &core{srv: s, opts: &s.opts, loop: loop, pool: loop.Pool(), store: s.opts.Store, file: s.opts.Store.File()}
	k.hub = link.NewHub(loop, s.opts.hubOptions())
	k.puts.init(k.pool, s.opts.PutBuffers, s.opts.putRun())
	k.gets.init(k.pool, getBuffers, s.opts.getRun())
	k.pages = int(s.opts.PoolBytes / buf.PageSize)
	k.deleted.k = k
	k.stalls.Fire, k.idle.Fire = k.lookForStalls, k.lookForIdle
	return k
}

// takePages appends n pages to v for c, or puts it in line.
func (k *core) takePages(c *conn, v *buf.Vec, n int) bool {
	if k.pages < n || !k.pagesLine.admits(c) {
		k.pagesLine.join(c)
		return false
	}
	k.allocate(v, n)
	c.leaveLine()
	k.pagesLine.wake()
	return true
}

// allocate takes n pages. REQUIRES: k.pages >= n.
func (k *core) allocate(v *buf.Vec, n int) {
	if !k.pool.Alloc(v, n) {
		invariants.Fail("asd server: %d pages of %d lack in the pool, which has room for all its users", n, k.pages)
	}
	k.pages -= n
}

// givePages releases what takePages gave: all pages that v touches.
func (k *core) givePages(v *buf.Vec) {
	for _, s := range v.Segs {
		k.pages += s.Pages()
	}
	k.pool.ReleaseVec(v)
	k.pagesLine.wake()
}

func (k *core) add(c *conn) {
	c.next = k.conns
	if c.next != nil {
		c.next.prev = c
	}
	k.conns = c
	k.count.connections.Add(1)
	if !k.idle.Armed() {
		k.loop.After(&k.idle, k.opts.IdleTimeout/4)
	}
}

func (k *core) remove(c *conn) {
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		k.conns = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.prev, c.next = nil, nil
	k.count.connections.Add(-1)
}

// stallTick is how often silent peers are looked for while somebody waits.
const stallTick = 100 * time.Millisecond

func (k *core) waiting() bool {
	return k.requestsLine.head != nil || k.pagesLine.head != nil || k.puts.line.head != nil || k.gets.line.head != nil
}

func (k *core) watchStalls() {
	if !k.stalls.Armed() {
		k.loop.After(&k.stalls, stallTick)
	}
}

// lookForStalls closes connections that others wait for and whose peers have gone silent: in the middle of a
// put, or with replies that they do not take.
func (k *core) lookForStalls() {
	if !k.waiting() {
		return
	}
	for c := k.conns; c != nil; c = c.next {
		if c.link.Silent() >= k.opts.StallTimeout && c.holds() {
			k.count.stalled.Inc()
			c.link.Abort(errSilent)
		}
	}
	k.watchStalls()
}

// lookForIdle closes connections on which nothing happens.
func (k *core) lookForIdle() {
	for c := k.conns; c != nil; c = c.next {
		if c.unanswered == 0 && k.loop.Now()-c.link.LastMove() >= int64(k.opts.IdleTimeout) {
			k.count.idle.Inc()
			c.link.End(errIdle)
		}
	}
	if k.conns != nil {
		k.loop.After(&k.idle, k.opts.IdleTimeout/4)
	}
}
