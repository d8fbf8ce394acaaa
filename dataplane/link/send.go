package link

import (
	"syscall"
	"time"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ring"
	"vstor/dataplane/wire"
)

// tx is the sending half of a connection. Frames queue up during a pass and leave together at its end;
// one batch is in flight at a time.
//
// The headers and bodies of a batch stand one behind the other in one page, which is written anew for
// each batch, so neighbouring frames without data are one segment; data goes out of the pages the sender
// gave.
type tx struct {
	op     ring.Op
	busy   bool // op is under way
	hook   ring.Hook
	queue  frameList // not wholly in a batch (the first may be in part)
	flight frameList // with data, wholly in the batch
	copied frameList // without data: nothing of it is needed any more
	header buf.Vec   // the page of headers, or empty
	batch  buf.Vec   // what of the batch has not left yet
	retry  ring.Timer
}

const (
	// batchSegs and batchBytes bound a batch: a longer one would hold its first pages until its last has
	// left. batchSegs also bounds what a connection keeps for its lists.
	batchSegs  = 256
	batchBytes = 1 << 20
	// pageRetry is how soon a connection looks again for a page for its headers. Nothing tells when pages
	// come back to a pool.
	pageRetry = time.Millisecond
)

// sendBatch is the hook at the end of a pass.
func (c *Conn) sendBatch() {
	if c.tx.busy || c.dead || c.tx.queue.head == nil {
		return
	}
	if c.tx.header.Empty() && !c.pool.AllocReserved(&c.tx.header, 1) {
		c.tx.retry.Fire = c.sendBatch
		c.loop.After(&c.tx.retry, pageRetry)
		return
	}
	c.fillBatch()
	c.send()
	c.expect()
	// Only now: whoever is told may send again, and that must wait for the next batch.
	c.tellCopied(true)
}

// fillBatch moves frames from the queue into an empty batch, as far as there is room.
func (c *Conn) fillBatch() {
	page, at, bytes := c.tx.header.Segs[0].Page, 0, 0
	header := c.pool.Bytes(page)
	v := &c.tx.batch
	for f := c.tx.queue.head; f != nil; f = c.tx.queue.head {
		if len(v.Segs) >= batchSegs || bytes >= batchBytes {
			return
		}
		if f.parts == 0 {
			n := wire.HeaderSize + len(f.Body)
			if at+n > buf.PageSize {
				return
			}
			putFrame(header[at:at+n], f)
			addHeader(v, page, at, n)
			at += n
			bytes += n
			f.parts = 1
		}
		for i := f.parts - 1; i < len(f.Data.Segs) && len(v.Segs) < batchSegs && bytes < batchBytes; i++ {
			v.Segs = append(v.Segs, f.Data.Segs[i])
			bytes += int(f.Data.Segs[i].Len)
			c.hub.Counts.BytesOut.Add(uint64(f.Data.Segs[i].Len))
			f.parts++
		}
		if f.parts-1 < len(f.Data.Segs) {
			return
		}
		c.tx.queue.remove(f)
		if f.Data.Empty() {
			c.tx.copied.push(f)
		} else {
			c.tx.flight.push(f)
		}
	}
}

// putFrame writes header and body.
func putFrame(b []byte, f *Frame) {
	copy(b[wire.HeaderSize:], f.Body)
	h := wire.Header{Type: f.Type, Flags: f.Flags, ID: f.ID, Body: uint32(len(f.Body)), Data: uint32(f.Data.Len()),
		Arg: f.Arg}
	h.Seal(b)
}

// addHeader appends a header, to the segment before it if that is the neighbouring one.
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

func (c *Conn) send() {
	c.tx.busy = true
	c.lastMove = c.loop.Now()
	c.loop.SendV(&c.tx.op, c.fd, &c.tx.batch)
}

// sent takes the end of a send.
func (c *Conn) sent(res int32) {
	c.tx.busy = false
	if res == -int32(syscall.EINTR) || res == -int32(syscall.EAGAIN) {
		res = 0
	}
	switch {
	case c.dead:
		c.later()
		return
	case res == -int32(syscall.ECANCELED): // the loop stops
		c.Abort(errs.New(errs.Canceled, "link: the loop has stopped"))
		return
	case res < 0:
		c.Abort(errs.Wrap(errs.Unreachable, syscall.Errno(-res), "link: sending"))
		return
	}
	if c.tx.batch.Advance(int(res)); !c.tx.batch.Empty() {
		c.send()
		return
	}
	c.tell(&c.tx.flight, true)
	switch {
	case c.tx.busy || c.dead:
	case c.tx.queue.head != nil:
		c.loop.AtPassEnd(&c.tx.hook)
	default:
		c.giveHeaderPage()
	}
	if c.ended {
		c.later()
	}
}

func (c *Conn) tellCopied(sent bool) { c.tell(&c.tx.copied, sent) }

// tell hands frames back.
func (c *Conn) tell(q *frameList, sent bool) {
	for f := q.head; f != nil; f = q.head {
		q.remove(f)
		f.queued = false
		if sent {
			c.hub.Counts.FramesOut.Inc()
		}
		f.Done.FrameSent(f, sent)
	}
}

// dropFrames hands back all frames that will not leave. The kernel has none of their pages.
func (c *Conn) dropFrames() {
	c.tx.batch.Reset()
	c.tell(&c.tx.flight, false)
	c.tell(&c.tx.queue, false)
}

func (c *Conn) giveHeaderPage() {
	c.loop.StopTimer(&c.tx.retry)
	if !c.tx.header.Empty() {
		c.pool.ReleaseVec(&c.tx.header)
	}
}

// frameList is a list through the frames' own links: standing in line allocates nothing.
type frameList struct{ head, tail *Frame }

func (q *frameList) push(f *Frame) {
	f.next, f.prev = nil, q.tail
	if q.tail == nil {
		q.head = f
	} else {
		q.tail.next = f
	}
	q.tail = f
}

func (q *frameList) remove(f *Frame) {
	if f.prev == nil {
		q.head = f.next
	} else {
		f.prev.next = f.next
	}
	if f.next == nil {
		q.tail = f.prev
	} else {
		f.next.prev = f.prev
	}
	f.next, f.prev = nil, nil
}
