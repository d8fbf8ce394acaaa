package edge

import (
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
	"vstor/dataplane/ring"
)

// A question about 4 GiB of a vDisk can take milliseconds, and a client may ask many at once. So all of them
// together have a bounded share of each pass of the loop; those that do not fit it take turns, a pass's share
// at a time. Reads and writes come in between, and a question is answered block by block as of the moment
// that it came by, like a read that goes to several drives.

// scanWork bounds what is looked at in a pass, in units of about 10 ns.
const scanWork = 10000

// scanBlocks is how many blocks one question is answered of at most: the Driver's bound.
const scanBlocks = 1<<20 - 1

// scans are the questions that wait for their turn, oldest first, linked by next.
type scans struct {
	first *io
	last  *io
	timer ring.Timer
	pass  int64 // the loop's clock when left was full
	left  int   // of this pass's work
}

// startExtents begins a question.
func (x *io) startExtents() {
	invariants.Assert(cap(x.r.Extents) > 0, "edge: no room for an extent")
	x.r.Extents = x.r.Extents[:0]
	if x.r.Flags&block.One != 0 {
		x.r.Extents = x.r.Extents[:0:1]
	}
	x.at, x.n, x.blind = x.first, min(x.count, scanBlocks), false
	if x.r.Len == 0 {
		x.count = 0
	}
	x.d.loop.Defer(&x.op, 0)
}

// turn begins the pass's share if nobody did, and says how much is left of it.
func (d *Disk) turn() int {
	s := &d.scans
	if now := d.loop.Now(); now != s.pass {
		s.pass, s.left = now, scanWork
	}
	return s.left
}

// scanNow goes on with a question if this pass has time and nobody waits for it.
func (x *io) scanNow() {
	if x.d.turn() <= 0 || x.d.scans.first != nil {
		x.scanLater()
		return
	}
	x.scan()
}

// scanLater queues a question.
func (x *io) scanLater() {
	s := &x.d.scans
	x.next = nil
	if s.first == nil {
		s.first = x
		x.d.loop.After(&s.timer, 0)
	} else {
		s.last.next = x
	}
	s.last = x
}

// scanWaiting goes on with those that wait, in a new pass.
func (d *Disk) scanWaiting() {
	s := &d.scans
	for s.first != nil && d.turn() > 0 {
		x := s.first
		s.first, x.next = x.next, nil
		x.scan()
	}
	if s.first != nil {
		d.loop.After(&s.timer, 0)
	}
}

// scan asks the driver about what is left of the range, and waits for what it must wait for.
func (x *io) scan() {
	s := &x.d.scans
	if x.d.closing {
		x.scanLoaded(errs.Closed)
		return
	}
	got, ok := x.d.driver.Extents(x.at, x.n, x.blind, &x.r.Extents, &s.left, x)
	x.at += ids.BlockAddr(got)
	x.n -= got
	if got > 0 {
		x.blind = false
	}
	switch {
	case !ok:
	case x.n > 0 && s.left <= 0:
		x.scanLater()
	default:
		x.endScan()
	}
}

// scanLoaded goes on after a page of the map came, at once: later it might be gone again.
//
// A page that cannot be read does not end the question. It would end a copy of the whole vDisk, of which all
// but a megabyte is there; "allocated, or not known" is what the protocol has for this, and whoever goes on to
// read there gets the error.
func (x *io) scanLoaded(k errs.Kind) {
	switch k {
	case errs.OK:
	case errs.Busy: // so many wait that one more was not taken: they need nobody's help to end
		x.d.loop.After(&x.timer, time.Millisecond)
		return
	case errs.Closed:
		x.r.Err, x.r.Extents = k, x.r.Extents[:0]
		x.finish()
		return
	default:
		x.blind = true
		x.d.Stats.Unknown.Add(1)
	}
	x.d.turn()
	x.scan()
}

// endScan cuts the answer, which is of whole blocks, to the bytes that were asked for.
func (x *io) endScan() {
	e := x.r.Extents
	e[0].Len -= uint32(x.r.Off & ids.BlockMask)
	if over := int64(x.at)<<ids.BlockShift - (x.r.Off + int64(x.r.Len)); over > 0 {
		e[len(e)-1].Len -= uint32(over)
	}
	x.finish()
}
