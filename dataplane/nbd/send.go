package nbd

import (
	"syscall"

	"vstor/dataplane/buf"
	"vstor/dataplane/ring"
)

// tx is the sending half of a connection. Replies queue up during a pass and leave together at its
// end; one batch is in flight at a time.
//
// The headers of a batch stand one behind the other in one page, which is written anew for each
// batch, so neighbouring replies without data are one segment; data goes out of the pages the device
// gave, which are released when the batch has left.
type tx struct {
	op     ring.Op
	busy   bool // op is under way
	hook   ring.Hook
	queue  requestQueue // completed, not in the batch (the first may be in part)
	flight requestQueue // wholly in the batch
	header buf.Vec      // the page of headers, or empty
	batch  buf.Vec      // what of the batch has not left yet
}

const (
	// batchSegs and batchBytes bound a batch: a longer one would hold its first pages until its
	// last has left. batchSegs also bounds what a connection keeps for its lists.
	batchSegs  = 256
	batchBytes = 1 << 20
)

// sendReplies is the hook at the end of a pass: all its replies leave in one send.
func (c *conn) sendReplies() {
	if c.tx.busy || c.dead || c.tx.queue.head == nil {
		return
	}
	c.fillBatch()
	c.send()
}

// fillBatch moves replies from the queue into an empty batch, as far as there is room.
func (c *conn) fillBatch() {
	page, at, bytes := c.tx.header.Segs[0].Page, 0, 0
	header := c.share.pool.Bytes(page)
	v := &c.tx.batch
	for r := c.tx.queue.head; r != nil; r = c.tx.queue.head {
		if len(v.Segs) >= batchSegs || bytes >= batchBytes || at+ReplySize > buf.PageSize {
			return
		}
		if r.sent == 0 {
			PutReply(header[at:], r.errno, r.cookie)
			addHeader(v, page, at)
			at += ReplySize
			bytes += ReplySize
			r.sent = 1
		}
		for i := r.sent - 1; i < len(r.Data.Segs) && len(v.Segs) < batchSegs && bytes < batchBytes; i++ {
			v.Segs = append(v.Segs, r.Data.Segs[i])
			bytes += int(r.Data.Segs[i].Len)
			r.sent++
		}
		if r.sent-1 < len(r.Data.Segs) {
			return
		}
		c.tx.flight.push(c.tx.queue.pop())
	}
}

// addHeader appends a header, to the segment before it if that is the neighbouring one.
func addHeader(v *buf.Vec, page buf.Page, at int) {
	if n := len(v.Segs); n > 0 {
		last := &v.Segs[n-1]
		if last.Page == page && int(last.Off+last.Len) == at {
			last.Len += ReplySize
			return
		}
	}
	v.Segs = append(v.Segs, buf.Seg{Page: page, Off: uint32(at), Len: ReplySize})
}

func (c *conn) send() {
	c.tx.busy = true
	c.lastMove = c.share.loop.Now()
	c.share.loop.SendV(&c.tx.op, c.fd, &c.tx.batch)
}

// sent takes the end of a send.
func (c *conn) sent(res int32) {
	c.tx.busy = false
	if res == -int32(syscall.EINTR) || res == -int32(syscall.EAGAIN) {
		res = 0
	}
	if res < 0 || c.dead {
		c.abort()
		return
	}
	if c.tx.batch.Advance(int(res)); !c.tx.batch.Empty() {
		c.send()
		return
	}
	for c.tx.flight.head != nil {
		r := c.tx.flight.pop()
		if r.errno == OK {
			c.share.counts.readBytes.Add(uint64(r.bytes))
		}
		c.drop(r)
	}
	if c.tx.queue.head != nil {
		c.share.loop.AtPassEnd(&c.tx.hook)
	}
	c.roomCame()
	if c.inflight == 0 {
		c.giveHeaderPage()
	}
}

// dropReplies frees all replies that will not leave. Pages of a batch in flight stay until the send
// has ended; sent then comes here again.
func (c *conn) dropReplies() {
	if c.tx.busy {
		return
	}
	c.tx.batch.Reset()
	for c.tx.flight.head != nil {
		c.drop(c.tx.flight.pop())
	}
	for c.tx.queue.head != nil {
		c.drop(c.tx.queue.pop())
	}
}
