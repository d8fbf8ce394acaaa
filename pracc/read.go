package pracc

import (
	"syscall"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/ring"
)

// readOwner is whoever waits for a rangeRead. Neither is called from inside Client.read.
type readOwner interface {
	// readDone tells that it ended; r.kind says how. r is not the owner's any more.
	readDone(r *rangeRead)
	// late tells, again and again, that it takes longer than it should.
	late(r *rangeRead, how lateness)
}

// lateness is how much longer than it should a read takes.
type lateness uint8

const (
	// lateSome: longer than nearly all of its ASD's. What is done about that is a hedge, and costs one.
	lateSome lateness = iota
	// lateOut: its ASD is not in the fast set. Going round it costs no hedge.
	lateOut
	// lateStuck: longer than somebody should wait for anything. Whatever else can be asked is.
	lateStuck
)

// extentsFlying is how many extents of one range are read at a time. A fragment is one extent unless its
// drive is badly cut up; then the rest follows as these return.
const extentsFlying = 2

// rangeRead reads one range of one fragment from the ASD that holds it: the only step that touches drives
// and Remotes. It is in one of two states:
//
//	waited for ── ended ─────────────────────────> free
//	    └── abandon ──> stuck ── ended ──> free       its pages are its own now, and return with its end
//
// What is stuck writes, whenever that may be, into pages that nobody else has: they are given to the pool after
// the last of its operations ended, and the slot here is used again only then.
type rangeRead struct {
	c     *Client
	owner readOwner // nil: stuck

	t     *target
	class sizeClass
	since int64 // the Client's time when it was started
	// waited is since when nothing was begun in its place because it is stuck.
	waited int64
	// alone: it is not among those that sweep looks at. hedged: something was done about its being late. denied: that
	// was wanted and not allowed. judged: its ASD has left the fast set for it or with it, and does so only once.
	// off: it was called off, and says nothing about its ASD.
	alone, hedged, denied, judged, off bool

	vec    buf.Vec // whole pages for the whole range: a list of its own, as a Remote keeps it to the end
	kind   errs.Kind
	via    block.Rung
	flying int8
	voff   uint32 // bytes of vec that were started
	ops    [extentsFlying]ring.Op

	cached bool           // drive is Options.Cache, and t stands for it
	key    layout.FragKey // of a cached one
	drive  Drive
	pin    uint64
	exts   []layout.Extent
	next   int // extents started

	remote Remote // instead of drive, pin, exts and next
	token  uint64

	prevRead, nextRead *rangeRead // in Client.reads, the oldest first, or in Client.stuck; nextRead in the free list
}

// read begins to read n bytes, off bytes into the payload, of the fragment into the pages of vec. With OK the
// owner's readDone follows; with any other kind nothing is under way and it does not.
func (c *Client) read(owner readOwner, id ids.ASDID, key layout.FragKey, off, n uint32, vec *buf.Vec) (
	*rangeRead, errs.Kind) {
	drive, rm := c.reach(id)
	if drive == nil && rm == nil {
		c.stats.Unreachable.Inc()
		return nil, errs.Unreachable
	}
	r := c.getRead()
	r.t = c.targetOf(id)
	r.owner, r.class, r.since, r.kind = owner, classOf(n), c.now(), errs.OK
	r.waited = r.since
	r.vec.Segs = append(r.vec.Segs[:0], vec.Segs...)
	exts, pin, kind := r.exts[:0], uint64(0), errs.Unreachable
	if drive != nil {
		exts, pin, kind = drive.Locate(key, off, n, exts)
	}
	if kind == errs.Unreachable && rm != nil {
		r.launch()
		r.startRemote(rm, key, off, n)
		return r, errs.OK
	}
	if kind == errs.OK {
		if r.exts = exts; !joinExtents(&r.exts, n) {
			drive.Unpin(pin)
			kind = errs.Corrupt
		}
	}
	if kind != errs.OK {
		c.located(r.t, kind)
		c.putRead(r)
		return nil, kind
	}
	r.launch()
	r.via = block.FromDrive
	if c.opt.Remotes != nil {
		r.via = block.FromShortCircuit
	}
	r.startDrive(drive, pin)
	return r, errs.OK
}

// startDrive begins to read r.exts.
func (r *rangeRead) startDrive(drive Drive, pin uint64) {
	r.drive, r.pin = drive, pin
	r.next, r.voff, r.flying = 0, 0, 0
	for i := 0; i < extentsFlying && r.next < len(r.exts); i++ {
		r.startExtent(&r.ops[i])
	}
}

// launch books a read that begins.
func (r *rangeRead) launch() {
	c := r.c
	r.alone, r.hedged, r.denied, r.judged, r.off = false, false, false, false, false
	r.t.flying++
	c.reading++
	c.reads.push(r)
	if !c.sweeper.Armed() {
		c.sweepAt(c.hedgeLeast)
	}
}

// getRead takes a rangeRead off the free list, or makes one: there are as many as ever were under way at once.
func (c *Client) getRead() *rangeRead {
	r := c.freeReads
	if r != nil {
		c.freeReads, r.nextRead = r.nextRead, nil
		return r
	}
	r = &rangeRead{c: c, exts: make([]layout.Extent, 0, extentsFlying)}
	for i := range r.ops {
		r.ops[i].Done = r
	}
	return r
}

func (c *Client) putRead(r *rangeRead) {
	r.owner, r.t, r.drive, r.remote, r.cached = nil, nil, nil, nil, false
	r.vec.Reset()
	r.nextRead, c.freeReads = c.freeReads, r
}

// startExtent reads the next extent.
func (r *rangeRead) startExtent(op *ring.Op) {
	e := r.exts[r.next]
	r.next++
	r.flying++
	op.Tag = uint64(e.Len)
	v := &r.vec
	if len(r.exts) > 1 {
		v = &r.c.sub
		v.Reset()
		subVec(v, &r.vec, r.voff, e.Len)
	}
	r.voff += e.Len
	r.drive.File().ReadV(r.c.loop, op, v, e.Off)
}

// RingDone implements ring.Completer.
func (r *rangeRead) RingDone(op *ring.Op, res int32) {
	r.flying--
	switch {
	case r.remote != nil:
		r.kind = r.remoteKind(res)
		r.ended()
		return
	case res == -int32(syscall.ECANCELED):
		// shut has called it off, or the loop is stopping. Nobody else does.
		r.c.shut()
		r.kind = errs.Closed
	case res < 0 || uint64(res) != op.Tag:
		r.kind = errs.IO
	}
	if r.kind == errs.OK && r.owner != nil && r.next < len(r.exts) {
		r.startExtent(op)
		return
	}
	if r.flying > 0 {
		return
	}
	if !r.drive.Unpin(r.pin) && r.kind == errs.OK {
		r.kind = errs.Unreachable // other bytes than the fragment's, perhaps
	}
	r.ended()
}

// ended tells the owner. Nothing of the read is under way.
func (r *rangeRead) ended() {
	c, t := r.c, r.t
	t.flying--
	c.reading--
	ns := c.now() - r.since
	switch {
	case r.cached && r.owner == nil && r.kind != errs.Closed: // nobody will look at the bytes, but how slow it was counts
		c.opt.Cache.Served(r.key, r.voff, ns, r.kind)
	case r.cached: // cachedDone tells the Cache
	case r.kind == errs.OK && (r.drive == nil || r.next == len(r.exts)):
		t.stats.Reads.Inc()
		t.stats.Bytes.Add(uint64(r.voff))
		t.fails, t.losses, t.heard = 0, 0, c.now()
		c.timed(t, r.class, ns)
	case r.kind == errs.Closed || r.kind == errs.OK:
	case r.off: // that it took at least so long is worth knowing
		c.timed(t, r.class, ns)
	default:
		c.located(t, r.kind)
	}
	if owner := r.owner; owner != nil {
		if !r.alone {
			c.reads.remove(r)
		}
		owner.readDone(r)
	} else {
		c.unstick(r)
	}
	c.putRead(r)
	c.settle()
}

// setAlone takes r out of the sight of sweep.
func (r *rangeRead) setAlone() {
	r.c.reads.remove(r)
	r.alone = true
}

// abandon is the owner's last word: nobody waits for r any more. Its pages are its own from now on, wherever they
// came from, and return to the pool when it has ended. REQUIRES: r.c.mayStick, or the Client is closing.
func (r *rangeRead) abandon() {
	c := r.c
	if !r.alone {
		c.reads.remove(r)
	}
	r.owner, r.alone = nil, false
	c.stuck.push(r)
	if r.judged = r.judged || r.remote != nil; !r.judged {
		c.watched++
	}
	c.stuckReads++
	c.stuckPages += r.vec.Len() / buf.PageSize
	c.stuckChanged()
	if r.remote != nil {
		r.callOff()
	}
}

// unstick is the end of an abandoned read.
func (c *Client) unstick(r *rangeRead) {
	c.stuck.remove(r)
	if !r.judged {
		c.watched--
	}
	c.stuckReads--
	c.stuckPages -= r.vec.Len() / buf.PageSize
	c.pool.ReleaseVec(&r.vec)
	c.stuckChanged()
}

func (c *Client) stuckChanged() {
	c.stats.StuckReads.Set(int64(c.stuckReads))
	c.stats.StuckPages.Set(int64(c.stuckPages))
}

// mayStick reports whether reads of so many pages may be abandoned, now or later: those under way in vain and the
// pages that hedges hold to take their place stay within Options.StuckReads and StuckBytes together.
func (c *Client) mayStick(pages int) bool {
	return c.stuckReads+c.shadows < c.opt.StuckReads &&
		int64(c.stuckPages+c.shadowPages+pages)*buf.PageSize <= c.opt.StuckBytes
}

// callOff asks that r ends soon, of a Remote: it can give the pages back before the answer is there. A drive that
// has begun cannot, so there is no use in asking it, but when the loop is to be left.
func (r *rangeRead) callOff() {
	switch {
	case r.off:
	case r.remote != nil:
		r.off = true
		r.remote.Cancel(r.token)
	case r.c.closing:
		r.off = true
		for i := range r.ops {
			r.c.loop.Cancel(&r.ops[i])
		}
	}
}

// readList is reads under way, in the order of their start.
type readList struct{ head, tail *rangeRead }

func (l *readList) push(r *rangeRead) {
	r.prevRead, r.nextRead = l.tail, nil
	if l.tail == nil {
		l.head = r
	} else {
		l.tail.nextRead = r
	}
	l.tail = r
}

func (l *readList) remove(r *rangeRead) {
	if r.c.walk == r {
		r.c.walk = r.nextRead
	}
	if r.prevRead == nil {
		l.head = r.nextRead
	} else {
		r.prevRead.nextRead = r.nextRead
	}
	if r.nextRead == nil {
		l.tail = r.prevRead
	} else {
		r.nextRead.prevRead = r.prevRead
	}
	r.prevRead, r.nextRead = nil, nil
}

// joinExtents merges extents that adjoin, so that they are one read, and checks that they are n whole
// blocks together. Ranges of different fragments never adjoin on a drive: a header lies before each.
func joinExtents(exts *[]layout.Extent, n uint32) bool {
	out, sum := (*exts)[:0], uint64(0)
	for _, e := range *exts {
		if e.Len == 0 || e.Len%ids.BlockSize != 0 || e.Off%ids.BlockSize != 0 || e.Off < 0 {
			return false
		}
		sum += uint64(e.Len)
		if l := len(out); l > 0 && out[l-1].Off+int64(out[l-1].Len) == e.Off {
			out[l-1].Len += e.Len
			continue
		}
		out = append(out, e)
	}
	*exts = out
	return sum == uint64(n)
}
