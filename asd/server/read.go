package server

import (
	"vstor/asd/proto"
	"vstor/asd/store"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/link"
	"vstor/dataplane/ring"
	"vstor/dataplane/wire"
)

// rangeRead is one range of a ReadRanges: where it comes to lie, and how it went.
type rangeRead struct {
	kind errs.Kind
	pin  store.Pin // keeps what is read from being used again
	data buf.Vec
}

// readOp is one read of the drive.
type readOp struct {
	op   ring.Op
	r    *request
	at   int // the range
	next *readOp
}

// readRanges reads the drive on the loop, into the pages that the socket then sends.
func (c *conn) readRanges(r *request, h *wire.Header, body []byte) link.Verdict {
	k := c.k
	parsed, err := proto.DecodeReadRanges(k.parsed[:0], body)
	k.parsed = parsed[:0]
	if err == nil && h.Data != 0 {
		err = errs.New(errs.Invalid, "asd server: a read with %d bytes of data; it has none", h.Data)
	}
	if err != nil {
		return c.refuse(r, err)
	}
	bytes := int64(0)
	for i := range parsed {
		bytes += int64(parsed[i].Len)
	}
	if !c.fits(bytes) || !c.fair(bytes) {
		return link.Stall
	}
	if k.pages < int(bytes/buf.PageSize) || !k.pagesLine.admits(c) {
		k.pagesLine.join(c)
		return link.Stall
	}
	r.charge(bytes)
	c.reads += bytes
	r.makeRanges(len(parsed))
	for i := range parsed {
		r.startRange(i, &parsed[i])
	}
	c.leaveLine()
	k.pagesLine.wake()
	if r.left == 0 {
		r.readsDone()
	}
	return link.Next
}

// makeRanges makes r.ranges n long, each empty, and keeps the lists that they had.
func (r *request) makeRanges(n int) {
	if cap(r.ranges) < n {
		r.ranges = make([]rangeRead, n)
	}
	r.ranges = r.ranges[:n]
	for i := range r.ranges {
		rr := &r.ranges[i]
		rr.kind, rr.pin = errs.OK, store.Pin{}
		rr.data.Reset()
	}
}

// startRange begins to read a range, in as many reads as it has extents.
func (r *request) startRange(i int, p *proto.Range) {
	k, rr := r.c.k, &r.ranges[i]
	extents, pin, kind := k.store.Locate(p.Key, p.Off, p.Len, k.extents[:0])
	if rr.kind, rr.pin = kind, pin; kind != errs.OK {
		return
	}
	k.count.reads.Inc()
	k.allocate(&rr.data, int(p.Len/buf.PageSize))
	at := uint32(0)
	for _, e := range extents {
		v := &rr.data
		if len(extents) > 1 {
			v = &k.scratch
			v.Reset()
			subVec(v, &rr.data, at, e.Len)
			at += e.Len
		}
		o := k.getReadOp()
		o.r, o.at = r, i
		r.left++
		k.file.ReadV(k.loop, &o.op, v, e.Off)
	}
}

// RingDone is the end of a read of the drive (ring.Completer).
func (o *readOp) RingDone(_ *ring.Op, res int32) {
	r := o.r
	k := r.c.k
	if res < 0 {
		k.count.readErrors.Inc()
		r.ranges[o.at].kind = errs.IO
	}
	k.putReadOp(o)
	if r.left--; r.left == 0 {
		r.readsDone()
	}
}

// readsDone answers: what was read leaves, what failed has its kind.
func (r *request) readsDone() {
	k := r.c.k
	r.text = r.text[:0]
	for i := range r.ranges {
		rr := &r.ranges[i]
		k.store.Unpin(rr.pin)
		r.text = append(r.text, byte(rr.kind))
		if rr.kind != errs.OK {
			k.count.rangeErrors.Inc()
			k.givePages(&rr.data)
			continue
		}
		for _, s := range rr.data.Segs {
			r.frame.Data.Add(s)
		}
		rr.data.Reset()
	}
	r.answer(errs.OK)
}

func (k *core) getReadOp() *readOp {
	o := k.freeReads
	if o == nil {
		o = &readOp{}
		o.op.Done = o
		return o
	}
	k.freeReads, o.next = o.next, nil
	return o
}

// putReadOp: there are never more than pages of the pool.
func (k *core) putReadOp(o *readOp) {
	o.r = nil
	o.next, k.freeReads = k.freeReads, o
}

// subVec appends to dst the pages that hold bytes [off, off+n) of the page-aligned list src; both are
// multiples of the page size. References are not touched.
func subVec(dst, src *buf.Vec, off, n uint32) {
	for _, s := range src.Segs {
		if n == 0 {
			return
		}
		if off >= s.Len {
			off -= s.Len
			continue
		}
		run := min(s.Len-off, n)
		dst.Add(buf.Seg{Page: s.Page + buf.Page(off/buf.PageSize), Len: run})
		n -= run
		off = 0
	}
}
