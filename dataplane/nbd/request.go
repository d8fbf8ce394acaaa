package nbd

import (
	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
)

// request is one request of a client from its header to the end of its reply. It comes from the free
// list of its loop.
//
// A write of more than one piece has a request per piece: the first is the client's and carries the
// reply, the others point to it. Devices then get writes of bounded size as they arrive, and a
// connection never holds 32 MiB of pages for a payload that may never come.
type request struct {
	block.Request
	c      *conn
	cookie uint64
	offset uint64 // as the client said it
	cmd    Command
	errno  Errno  // first error of any piece
	why    reason // of errno
	bad    int64  // where on the device it failed, or -1
	bytes  uint32 // read payload, or pages of a reply, that count against the read limits

	first *request // nil, or the request this one is a further piece of
	left  int32    // pieces the device has, or that are being received
	open  bool     // more pieces will come
	dead  bool     // no reply: the payload never came

	// steps.go: a request that takes the device several operations; Off is where the next one begins.
	long   bool
	end    int64
	want   contextSet
	pages  [contextCount]buf.Page // of the reply to a BLOCK_STATUS that is being written
	npages int
	status *status

	// send.go
	begun bool     // a header went into a batch
	whole bool     // the data may not be cut into chunks
	sent  int      // segments of Data that went into a batch
	upto  int      // the segment the chunk under way ends before
	next  *request // in the free list, or in a queue
}

// segsKept is the longest scatter list whose array a free request keeps, in segments.
const segsKept = 256

// freeRequestsMax bounds a loop's free list; more go back to the Go heap.
const freeRequestsMax = 2048

func (s *share) getRequest(c *conn) *request {
	r := s.free
	if r == nil {
		r = &request{}
		r.Done = r
	} else {
		s.free, r.next = r.next, nil
		s.nfree--
	}
	r.c = c
	return r
}

func (s *share) putRequest(r *request) {
	if invariants.Enabled {
		invariants.Assert(r.Data.Empty() && r.npages == 0, "nbd: a request was freed that still holds pages")
	}
	segs := r.Data.Segs[:0]
	if cap(segs) > segsKept {
		segs = nil
	}
	if s.nfree >= freeRequestsMax {
		return
	}
	// What admit and fill set anyway is left alone: this runs for every request.
	r.Data.Segs, r.Extents, r.status, r.Len, r.Flags = segs, nil, nil, 0, 0
	r.c, r.first, r.left = nil, nil, 0
	r.open, r.dead, r.long, r.begun, r.whole = false, false, false, false, false
	r.sent, r.upto = 0, 0
	r.next, s.free = s.free, r
	s.nfree++
}

// requestQueue is a FIFO through request.next.
type requestQueue struct{ head, tail *request }

func (q *requestQueue) push(r *request) {
	r.next = nil
	if q.tail == nil {
		q.head = r
	} else {
		q.tail.next = r
	}
	q.tail = r
}

func (q *requestQueue) pop() *request {
	r := q.head
	q.head = r.next
	if q.head == nil {
		q.tail = nil
	}
	r.next = nil
	return r
}

// Completed is the device's answer (block.Completer). On the loop, never inside Submit.
func (r *request) Completed(b *block.Request) {
	if b != &r.Request {
		invariants.Fail("nbd: a device completed another request than it was given")
	}
	c, kind, write, off := r.c, r.Err, r.Op == block.Write, r.Off
	if write {
		if !r.Data.Empty() {
			invariants.Fail("nbd: a device gave back the pages of a write")
		}
		c.writeBytes -= int64(r.Len)
	}
	if r.Op == block.Read && kind == errs.OK && r.Data.Len() != int(r.Len) {
		invariants.Fail("nbd: a device answered a read of %d bytes with %d", r.Len, r.Data.Len())
	}
	first := r
	if r.first != nil {
		first = r.first
		c.share.putRequest(r)
	}
	if kind != errs.OK {
		first.failed(kind, off)
	}
	first.left--
	switch {
	case first.long:
		c.step(first)
	case first.left == 0 && !first.open:
		c.finish(first)
	}
	if write { // room for write payload, which the connection may wait for
		c.roomCame()
	}
}

// failed notes that the piece at off has; the error is that of the first to end, the place the lowest.
func (r *request) failed(kind errs.Kind, off int64) {
	if r.cmd == CmdFlush {
		off = -1
	}
	if r.errno == OK {
		r.errno, r.why = errnoOf(kind, r.Flags&block.FastZero != 0)
		r.bad = off
	}
	r.bad = min(r.bad, off)
}
