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
	cmd    Command
	errno  Errno  // first error of any piece
	bytes  uint32 // read payload that counts against the read limits

	first *request // nil, or the request this one is a further piece of
	left  int32    // pieces the device has, or that are being received
	open  bool     // more pieces will come
	dead  bool     // no reply: the payload never came

	sent int      // segments of Data that went into a batch, + 1 for the header
	next *request // in the free list, or in a queue of replies
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
		invariants.Assert(r.Data.Empty(), "nbd: a request was freed that still holds pages")
	}
	segs := r.Data.Segs[:0]
	if cap(segs) > segsKept {
		segs = nil
	}
	if s.nfree >= freeRequestsMax {
		return
	}
	*r = request{Request: block.Request{Data: buf.Vec{Segs: segs}, Done: r}, next: s.free}
	s.free = r
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
	invariants.Assert(b == &r.Request, "nbd: a device completed another request than it was given")
	c, kind, write := r.c, r.Err, r.Op == block.Write
	if write {
		invariants.Assert(r.Data.Empty(), "nbd: a device gave back the pages of a write")
		c.writeBytes -= int64(r.Len)
	}
	if r.Op == block.Read && kind == errs.OK && r.Data.Len() != int(r.Len) {
		// Behind an if: the arguments of a plain Assert are allocated whether it holds or not.
		invariants.Assert(false, "nbd: a device answered a read of %d bytes with %d", r.Len, r.Data.Len())
	}
	first := r
	if r.first != nil {
		first = r.first
		c.share.putRequest(r)
	}
	if first.errno == OK {
		first.errno = errnoOf(kind)
	}
	first.left--
	if first.left == 0 && !first.open {
		c.finish(first)
	}
	if write { // room for write payload, which the connection may wait for
		c.roomCame()
	}
}
