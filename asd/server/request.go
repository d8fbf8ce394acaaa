package server

import (
	"sync/atomic"
	"time"

	"vstor/asd/proto"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/link"
	"vstor/dataplane/wire"
)

// request is one request from its header until its reply has left. It comes from the loop's free list and
// belongs to the loop, but for the time a worker has it: then to that worker, apart from canceled.
type request struct {
	frame link.Frame // the reply; its Type and ID are set from the beginning
	c     *conn
	typ   uint8
	kind  errs.Kind // what a worker found
	size  int64     // bytes that it asks for or carries
	until time.Time // zero: no limit
	// canceled: nobody waits for it; whoever has not begun answers Canceled.
	canceled atomic.Bool

	text []byte // the reply's body is made here

	// Reads.
	ranges []rangeRead
	left   int // reads of the drive under way

	// Of puts and verified reads: a contiguous buffer.
	run    buf.Seg
	hasRun bool
	put    proto.Put
	desc   []byte
	frag   layout.FragPut

	// Of what else workers do.
	rng   proto.Range
	list  proto.List
	ns    ids.NamespaceID // of a fence
	epoch ids.Epoch
	sum   uint64
	fault string
	pages buf.Vec // of deletes, lists and descriptors

	prev, next *request // of the connection, or free
	queued     *request // in the workers' queue
}

const (
	freeRequestsMax = 512
	// segsKept and rangesKept are what a free request keeps of its lists.
	segsKept   = 64
	rangesKept = 8
)

// begin makes the request that a header announces, or puts the connection in line.
func (c *conn) begin(h *wire.Header) *request {
	k := c.k
	// Who stands in another line had its turn in this one.
	passed := c.line != nil && c.line != &k.requestsLine
	if k.requests >= requestsMax || !passed && !k.requestsLine.admits(c) {
		k.requestsLine.join(c)
		return nil
	}
	r := k.free
	if r == nil {
		r = &request{}
		r.frame.Done = r
	} else {
		k.free, r.next = r.next, nil
		k.nfree--
	}
	k.requests++
	r.c, r.typ, r.left, r.size = c, h.Type, 0, 0
	r.frame.Type, r.frame.ID, r.frame.Arg = h.Type|wire.Reply, h.ID, 0
	r.canceled.Store(false)
	r.until = time.Time{}
	if h.Arg > 0 {
		r.until = time.Now().Add(time.Duration(h.Arg) * time.Millisecond)
	}
	r.prev, r.next = nil, c.requests
	if r.next != nil {
		r.next.prev = r
	}
	c.requests = r
	c.unanswered++
	c.link.Retain()
	return r
}

// charge counts n bytes that r asks for or carries.
func (r *request) charge(n int64) {
	r.size = n
	r.c.bytes += n
}

// takeBack undoes begin: the frame comes again.
func (c *conn) takeBack(r *request) { r.end() }

// drop ends a request that is not answered: its connection is gone. Nobody else has it.
func (r *request) drop() {
	r.release()
	r.end()
}

// release gives back all memory of the loop that r holds.
func (r *request) release() {
	k := r.c.k
	if r.hasRun {
		r.hasRun = false
		if r.typ == proto.TPut {
			k.puts.give(r.run)
		} else {
			r.c.gets--
			k.gets.give(r.run)
		}
		r.frame.Data.Reset()
	}
	if !r.pages.Empty() {
		r.frame.Data.Reset()
		k.givePages(&r.pages)
	}
	if !r.frame.Data.Empty() {
		k.givePages(&r.frame.Data)
	}
}

// end takes r out of its connection, which may go on with the next one, and frees it.
func (r *request) end() {
	c, k := r.c, r.c.k
	if r.prev == nil {
		c.requests = r.next
	} else {
		r.prev.next = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	}
	c.unanswered--
	c.bytes -= r.size
	if r.typ == proto.TReadRanges {
		c.reads -= r.size
	}
	k.requests--
	r.c = nil
	k.recycle(r)
	k.requestsLine.wake()
	c.link.Resume()
	c.link.Release()
}

// recycle keeps a request for the next one, without its long lists.
func (k *core) recycle(r *request) {
	r.prev, r.next = nil, nil
	if k.nfree >= freeRequestsMax {
		return
	}
	if cap(r.frame.Data.Segs) > segsKept {
		r.frame.Data.Segs = nil
	}
	if cap(r.ranges) > rangesKept {
		r.ranges = nil
	}
	r.next = k.free
	k.free = r
	k.nfree++
}

// FrameSent is the end of the reply (link.Sent).
func (r *request) FrameSent(f *link.Frame, sent bool) {
	if sent {
		r.c.k.count.sentBytes.Add(uint64(f.Data.Len()))
	}
	r.drop()
}

// over reports whether r need not begin any more. Any goroutine that has r.
func (r *request) over() bool {
	return r.canceled.Load() || !r.until.IsZero() && !time.Now().Before(r.until)
}

// answer sends the reply: kind, with r.text as body. Data is there already.
func (r *request) answer(k errs.Kind) {
	if k != errs.OK {
		r.c.k.count.errors.Inc()
		r.release()
	}
	r.frame.Arg, r.frame.Body = uint32(k), r.text
	r.c.link.Send(&r.frame)
}

// fail answers with an error: its kind, and its sentence as body.
func (r *request) fail(err error) {
	r.setError(err)
	r.answer(errs.Of(err))
}

// setError makes the sentence of an error the body of the reply.
func (r *request) setError(err error) {
	s := err.Error()
	r.text = append(r.text[:0], s[:min(len(s), proto.TextMax)]...)
}

// gone is the answer to a request that nobody waits for.
var gone = errs.New(errs.Canceled, "asd server: canceled, or its time was over, before it began")
