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
	room   int          // bytes that the longest header needs
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
		for !r.begun || r.sent < len(r.Data.Segs) {
			if len(v.Segs) >= batchSegs || bytes >= batchBytes {
				return
			}
			if r.sent == r.upto {
				if at+c.tx.room > buf.PageSize {
					return
				}
				n := c.putHeader(header[at:], r)
				addHeader(v, page, at, n)
				at += n
				bytes += n
				r.begun = true
			}
			for ; r.sent < r.upto && len(v.Segs) < batchSegs && bytes < batchBytes; r.sent++ {
				v.Segs = append(v.Segs, r.Data.Segs[r.sent])
				bytes += int(r.Data.Segs[r.sent].Len)
			}
		}
		c.tx.flight.push(c.tx.queue.pop())
	}
}

// putHeader writes what stands before the next segments of r to b and returns its size. With it go the
// segments up to r.upto.
func (c *conn) putHeader(b []byte, r *request) int {
	if c.terms.mode == Simple {
		PutReply(b, r.errno, r.cookie)
		r.upto = len(r.Data.Segs)
		return ReplySize
	}
	return c.putChunkHeader(b, r)
}

// putChunkHeader is putHeader where replies are made of chunks. A reply that a simple one can give is a
// simple one where that is allowed; it is shorter.
func (c *conn) putChunkHeader(b []byte, r *request) int {
	m := c.terms.mode
	h := Chunk{Cookie: r.cookie, Offset: r.offset}
	switch {
	case r.errno != OK:
		return putError(b, m, h, r.errno, r.why.String(), r.bad)
	case len(r.Data.Segs) == 0 && m == Structured && r.cmd != CmdRead:
		PutReply(b, OK, r.cookie)
		return ReplySize
	case len(r.Data.Segs) == 0:
		h.Done = true
		return putChunk(b, m, h)
	}
	n, bytes, zeros := nextChunk(r.Data.Segs[r.sent:], r.whole)
	at := r.Off // the device has done with it: where the next chunk begins
	r.Off += bytes
	r.upto = r.sent + n
	h.Done = r.upto == len(r.Data.Segs) // nothing can fail any more: all data is here
	if zeros {
		r.sent = r.upto // zero pages are not counted: nobody misses them
		return putHole(b, m, h, at, bytes)
	}
	return putData(b, m, h, at, bytes)
}

// holeMin is from how many zeros on a chunk of their own is cheaper than to send them, in bytes.
const holeMin = 32 << 10

// nextChunk is how many of segs make the next chunk of a read, their bytes, and whether all are zeros, which
// need not be sent. Zeros are known by their page: nobody looks at data. whole: all of segs, in one chunk.
func nextChunk(segs []buf.Seg, whole bool) (n int, bytes int64, zeros bool) {
	for n < len(segs) && isZero(segs[n]) {
		bytes += int64(segs[n].Len)
		n++
	}
	if n == len(segs) || (bytes >= holeMin && !whole) {
		return n, bytes, true
	}
	run, runBytes := 0, int64(0) // zeros before segs[n]
	for ; n < len(segs); n++ {
		bytes += int64(segs[n].Len)
		if !isZero(segs[n]) {
			run, runBytes = 0, 0
			continue
		}
		run++
		if runBytes += int64(segs[n].Len); runBytes >= holeMin && !whole {
			return n + 1 - run, bytes - runBytes, false
		}
	}
	return n, bytes, false
}

// isZero reports whether s lies in the pages that hold zeros for ever.
func isZero(s buf.Seg) bool {
	return int64(s.Page)*buf.PageSize+int64(s.Off)+int64(s.Len) <= buf.ZeroRun
}

// addHeader appends n bytes of header, to the segment before it if that is the neighbouring one.
func addHeader(v *buf.Vec, page buf.Page, at, n int) {
	if k := len(v.Segs); k > 0 {
		last := &v.Segs[k-1]
		if last.Page == page && int(last.Off+last.Len) == at {
			last.Len += uint32(n)
			return
		}
	}
	v.Segs = append(v.Segs, buf.Seg{Page: page, Off: uint32(at), Len: uint32(n)})
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
		if r.errno == OK && r.cmd == CmdRead {
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
