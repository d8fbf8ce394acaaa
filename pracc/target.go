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

// troubleNanos is how long an ASD that failed a read is asked last when sources are chosen.
const troubleNanos = 2e9

// target is what a Client knows of one ASD.
type target struct {
	id       ids.ASDID
	flying   int32 // range reads under way
	troubled int64 // the loop's time until which others are better sources
	hopeless bool  // a fetch has waited all its patience for it, and it has not been read since
	stats    ASDStats
}

// targetOf finds the state of an ASD, or makes it. Only ASDs that could be asked once get one, so a
// manifest full of nonsense cannot fill memory.
func (c *Client) targetOf(id ids.ASDID) *target {
	t := c.targets[id]
	if t == nil {
		t = &target{id: id}
		c.targets[id] = t
		c.publish(t)
	}
	return t
}

// readOwner is told that its rangeRead ended; r.kind says how. It is never called from inside start.
type readOwner interface{ readDone(r *rangeRead) }

// extentsFlying is how many extents of one range are read at a time. A fragment is one extent unless its
// drive is badly cut up; then the rest follows as these return.
const extentsFlying = 2

// rangeRead reads one range of one fragment from the ASD that holds it: the only step that touches drives
// and Remotes. Its owner embeds it.
type rangeRead struct {
	c     *Client
	owner readOwner

	t      *target
	drive  Drive
	pin    uint64
	vec    *buf.Vec // the owner's: whole pages for the whole range
	exts   []layout.Extent
	next   int    // extents started
	voff   uint32 // bytes of vec they take
	flying int8
	kind   errs.Kind
	via    block.Rung
	ops    [extentsFlying]ring.Op

	// Of a read at a Remote, instead of drive, pin, exts and next.
	remote                 Remote
	token                  uint64
	prevRemote, nextRemote *rangeRead // in Client.remotes
}

func (r *rangeRead) init(c *Client, owner readOwner) {
	r.c, r.owner = c, owner
	r.exts = make([]layout.Extent, 0, extentsFlying)
	for i := range r.ops {
		r.ops[i].Done = r
	}
}

// start begins to read n bytes, off bytes into the payload, of the fragment into the pages of vec. With
// OK the owner's readDone follows; with any other kind nothing is under way and it does not.
func (r *rangeRead) start(id ids.ASDID, key layout.FragKey, off, n uint32, vec *buf.Vec) errs.Kind {
	c := r.c
	drive, rm := c.reach(id)
	exts, pin, kind := r.exts[:0], uint64(0), errs.Unreachable
	if drive != nil {
		exts, pin, kind = drive.Locate(key, off, n, exts)
	}
	if kind == errs.Unreachable && rm != nil {
		r.startRemote(rm, id, key, off, n, vec)
		return errs.OK
	}
	if drive == nil {
		c.stats.Unreachable.Inc()
		return errs.Unreachable
	}
	t := c.targetOf(id)
	if kind != errs.OK {
		c.located(t, kind)
		return kind
	}
	r.exts = exts
	if !joinExtents(&r.exts, n) {
		drive.Unpin(pin)
		c.located(t, errs.Corrupt)
		return errs.Corrupt
	}
	t.flying++
	r.t, r.drive, r.pin, r.vec, r.kind, r.via = t, drive, pin, vec, errs.OK, block.FromDrive
	r.next, r.voff, r.flying = 0, 0, 0
	for i := 0; i < extentsFlying && r.next < len(r.exts); i++ {
		r.startExtent(&r.ops[i])
	}
	return errs.OK
}

// located counts an answer of Locate, or a read's end, that was not OK.
func (c *Client) located(t *target, kind errs.Kind) {
	switch kind {
	case errs.Absent:
		t.stats.Absent.Inc()
	case errs.Corrupt, errs.Invalid:
		t.stats.Errors.Inc()
	default:
		t.stats.Errors.Inc()
		t.troubled = c.loop.Now() + troubleNanos
	}
}

// startExtent reads the next extent.
func (r *rangeRead) startExtent(op *ring.Op) {
	e := r.exts[r.next]
	r.next++
	r.flying++
	op.Tag = uint64(e.Len)
	v := r.vec
	if len(r.exts) > 1 {
		v = &r.c.sub
		v.Reset()
		subVec(v, r.vec, r.voff, e.Len)
	}
	r.voff += e.Len
	r.drive.File().ReadV(r.c.loop, op, v, e.Off)
}

// RingDone implements ring.Completer.
func (r *rangeRead) RingDone(op *ring.Op, res int32) {
	r.flying--
	switch {
	case r.remote != nil:
		r.remoteDone(res)
		r.ended()
		return
	case res == -int32(syscall.ECANCELED):
		// Nobody here cancels: the loop is stopping.
		r.c.shut()
		r.kind = errs.Closed
	case res < 0 || uint64(res) != op.Tag:
		r.kind = errs.IO
	}
	if r.kind == errs.OK && r.next < len(r.exts) {
		r.startExtent(op)
		return
	}
	if r.flying > 0 {
		return
	}
	if !r.drive.Unpin(r.pin) && r.kind == errs.OK {
		r.kind = errs.Unreachable // other bytes than the fragment's, perhaps
	}
	r.drive = nil
	r.ended()
}

// ended tells the owner. Nothing of the read is under way.
func (r *rangeRead) ended() {
	c, t := r.c, r.t
	t.flying--
	switch r.kind {
	case errs.OK:
		t.stats.Reads.Inc()
		t.stats.Bytes.Add(uint64(r.voff))
	case errs.Closed:
	default:
		c.located(t, r.kind)
	}
	r.owner.readDone(r)
	c.settle()
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
