package nbd

import (
	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/ring"
)

// rx is the receiving half of a connection: a state machine over whatever bytes come, in pieces of
// any size.
//
//	          ┌──────────────────────────────────────────────────────────────┐
//	header ───┴─► admit ─┬─► (read, flush, trim ... : submitted) ─────────────┤
//	                     ├─► alloc ─► payload ─► (piece submitted) ─┬─ last ──┤
//	                     │     ▲                                    │         │
//	                     │     └──────────── more pieces ───────────┘         │
//	                     └─► skip (payload of a refused write) ───────────────┘
//
// admit and alloc may have to wait for room. Then the connection stalls: it keeps what it had
// received already (the stash), and does not read its socket until room came.
type rx struct {
	op     ring.Op
	busy   bool // op is under way
	direct bool // op is a RecvV into the pages of piece
	state  rxState

	head  [RequestSize]byte // a header that came in parts
	nhead int
	req   Request // parsed, in state admit

	write *request // the client's write whose payload is being received
	piece *request // the piece of it that is being filled; nil in state alloc
	at    int      // where in piece's pages the next byte goes
	need  int      // bytes piece still lacks
	off   int64    // where on the device the next piece begins
	left  int64    // payload bytes behind piece; in state skip, bytes to skip

	stash   []byte // received, not consumed; whole buffer
	stashAt int    // the first byte of it not consumed
}

type rxState uint8

const (
	rxHeader rxState = iota
	rxAdmit
	rxAlloc
	rxPayload
	rxSkip
)

// directMin is from how many missing payload bytes on they are received straight into their pages. A
// shorter rest is copied out of the receive buffer: a second receive costs more than the copy.
const directMin = 32 << 10

// arm asks the ring for more.
func (c *conn) arm() {
	c.rx.busy = true
	c.rx.direct = c.rx.state == rxPayload && int64(c.rx.need)+c.rx.left >= directMin
	if !c.rx.direct {
		c.share.loop.RecvSelect(&c.rx.op, c.fd)
		return
	}
	v := &c.share.scratch
	v.Reset()
	v.AppendRange(&c.rx.piece.Data, c.rx.at, c.rx.need)
	c.lastMove = c.share.loop.Now()
	c.share.loop.RecvV(&c.rx.op, c.fd, v)
}

// received takes the end of a receive.
func (c *conn) received(res int32) {
	c.rx.busy = false
	if c.ended {
		c.dropPayload()
		return
	}
	if res <= 0 {
		if c.rx.nhead > 0 || c.rx.state != rxHeader {
			c.share.counts.badPeers.Inc()
		}
		c.end()
		return
	}
	if !c.rx.direct {
		c.pump(c.share.loop.Selected(&c.rx.op))
		return
	}
	c.rx.at += int(res)
	c.rx.need -= int(res)
	if c.rx.need > 0 { // the stream ended inside the payload
		c.share.counts.badPeers.Inc()
		c.end()
		return
	}
	c.pieceFull()
	c.pump(nil)
}

// pump consumes data and decides how to go on.
func (c *conn) pump(data []byte) {
	rest := c.consume(data)
	switch {
	case c.ended:
		return
	case c.stall == stallNone:
		c.arm()
		return
	case c.stall == stallLoop:
		c.share.counts.waits.Inc()
	}
	if len(rest) > 0 && !c.keep(rest) {
		c.share.counts.overloaded.Inc()
		c.abort()
	}
}

// resume goes on after a stall, first with the stash.
func (c *conn) resume() {
	c.stall = stallNone
	rest := c.consume(c.rx.stash[c.rx.stashAt:])
	switch {
	case c.ended:
	case c.stall == stallNone:
		c.dropStash()
		c.arm()
	default:
		c.rx.stashAt = len(c.rx.stash) - len(rest)
	}
}

// consume runs the state machine over data and returns what it could not place: nothing, unless the
// connection stalled or ended.
func (c *conn) consume(data []byte) []byte {
	for !c.ended {
		switch c.rx.state {
		case rxHeader:
			if len(data) == 0 {
				return nil
			}
			data = c.takeHeader(data)
		case rxAdmit:
			if !c.admit() {
				return data
			}
		case rxAlloc:
			if !c.allocPiece() {
				return data
			}
		case rxPayload:
			if len(data) == 0 {
				return nil
			}
			data = c.takePayload(data)
		case rxSkip:
			if len(data) == 0 && c.rx.left > 0 {
				return nil
			}
			n := min(int64(len(data)), c.rx.left)
			data = data[n:]
			if c.rx.left -= n; c.rx.left == 0 {
				c.rx.state = rxHeader
			}
		}
	}
	return nil
}

// takeHeader gathers and parses a header; most lie whole in data.
func (c *conn) takeHeader(data []byte) []byte {
	head := data
	if c.rx.nhead > 0 || len(data) < RequestSize {
		n := copy(c.rx.head[c.rx.nhead:], data)
		c.rx.nhead += n
		data = data[n:]
		if c.rx.nhead < RequestSize {
			return data
		}
		c.rx.nhead = 0
		head = c.rx.head[:]
	} else {
		data = data[RequestSize:]
	}
	req, ok := ParseRequest(head)
	switch {
	case !ok: // what follows cannot be told apart any more
		c.share.counts.badPeers.Inc()
		c.end()
	case req.Type == CmdDisc:
		c.share.counts.requests[CmdDisc].Inc()
		c.end()
	default:
		c.rx.req, c.rx.state = req, rxAdmit
	}
	return data
}

// admit takes the parsed request in, or stalls the connection. A request is counted in flight from
// here on.
func (c *conn) admit() bool {
	q, s := &c.rx.req, c.share
	errno := check(*q, c.size, c.ro)
	reads := q.Type == CmdRead && errno == OK
	if c.inflight >= c.srv.opts.MaxInflight {
		c.stall = stallOwn
		return false
	}
	if !c.takeHeaderPage() {
		s.wait(c, true)
		return false
	}
	if reads && !c.takeRead(int64(q.Length)) {
		return false
	}
	c.inflight++
	r := s.getRequest(c)
	r.cookie, r.cmd, r.errno = q.Cookie, q.Type, errno
	if int(q.Type) < len(s.counts.requests) {
		s.counts.requests[q.Type].Inc()
	}
	c.rx.state = rxHeader
	switch {
	case q.Type == CmdWrite && q.Length > 0:
		c.rx.off, c.rx.left = int64(q.Offset), int64(q.Length)
		if errno != OK {
			c.rx.state = rxSkip
			c.finish(r)
			return true
		}
		r.open = true
		c.rx.write, c.rx.state = r, rxAlloc
	case errno != OK || (q.Length == 0 && q.Type != CmdFlush):
		c.finish(r)
	default:
		c.fill(r, int64(q.Offset), q.Length)
		if reads {
			r.bytes = q.Length
		}
		c.submit(r)
	}
	return true
}

// ops is the block operation of each command that reaches a device.
var ops = [...]block.Op{CmdRead: block.Read, CmdWrite: block.Write, CmdFlush: block.Flush,
	CmdTrim: block.Trim, CmdWriteZeroes: block.WriteZeroes}

// fill sets what the device is to do, out of the request that is being received.
func (c *conn) fill(r *request, off int64, n uint32) {
	q := &c.rx.req
	r.Op, r.Off, r.Len, r.Flags = ops[q.Type], off, n, 0
	if q.Type == CmdRead || q.Type == CmdFlush { // clients may set FUA on anything
		return
	}
	if q.Flags&FlagFUA != 0 {
		r.Flags |= block.FUA
	}
	if q.Flags&FlagNoHole != 0 {
		r.Flags |= block.NoHole
	}
}

// pieceLen is how many of left bytes at device offset off the next piece takes: all of it if that is
// little more than the limit, else up to a multiple of the limit, so that pieces are aligned.
func pieceLen(off, left, limit int64) int64 {
	if left <= limit+buf.PageSize {
		return left
	}
	return limit - off%limit
}

// allocPiece gets the pages of the next piece of the write being received, or stalls the connection.
func (c *conn) allocPiece() bool {
	s := c.share
	n := pieceLen(c.rx.off, c.rx.left, s.pieceMax)
	head := c.rx.off % buf.PageSize
	pages := int((head + n + buf.PageSize - 1) / buf.PageSize)
	if c.writeBytes > 0 && c.writeBytes+n > c.srv.opts.MaxWriteBytes {
		c.stall = stallOwn
		return false
	}
	p := c.rx.write
	if p.left > 0 || p.Len > 0 { // the first piece is under way or done
		p = s.getRequest(c)
		p.first = c.rx.write
	}
	if !s.takePages(c, &p.Data, pages) {
		if p.first != nil {
			s.putRequest(p)
		}
		return false
	}
	c.fill(p, c.rx.off, uint32(n))
	c.rx.write.left++
	c.writeBytes += n
	c.rx.off += n
	c.rx.left -= n
	c.rx.piece, c.rx.at, c.rx.need = p, int(head), int(n)
	c.rx.state = rxPayload
	return true
}

// takePayload copies what has arrived to its place.
func (c *conn) takePayload(data []byte) []byte {
	n := min(len(data), c.rx.need)
	c.share.pool.CopyIn(&c.rx.piece.Data, c.rx.at, data[:n])
	c.share.counts.copiedBytes.Add(uint64(n))
	c.rx.at += n
	c.rx.need -= n
	if c.rx.need == 0 {
		c.pieceFull()
	}
	return data[n:]
}

// pieceFull submits the piece being received.
func (c *conn) pieceFull() {
	p, w := c.rx.piece, c.rx.write
	c.rx.piece, c.rx.state = nil, rxAlloc
	if c.rx.left == 0 {
		w.open = false
		c.rx.write, c.rx.state = nil, rxHeader
	}
	c.share.givePages(p.Data.Len())
	c.share.counts.writtenBytes.Add(uint64(p.Len))
	c.dev.Submit(&p.Request)
}

// dropPayload gives up the write whose payload will not come: pieces the device has run to their end,
// unanswered.
func (c *conn) dropPayload() {
	w, p := c.rx.write, c.rx.piece
	if w == nil {
		return
	}
	c.rx.write, c.rx.piece = nil, nil
	w.open, w.dead = false, true
	if p != nil {
		c.share.givePages(p.Data.Len())
		c.share.pool.ReleaseVec(&p.Data)
		c.writeBytes -= int64(p.Len)
		if p != w {
			c.share.putRequest(p)
		}
		w.left--
	}
	if w.left == 0 {
		c.drop(w)
	}
}

// keep stashes bytes that came before the connection stalled; false if the loop has no room for them.
func (c *conn) keep(rest []byte) bool {
	stash := c.share.getStash(len(rest))
	if stash == nil {
		return false
	}
	copy(stash, rest)
	c.rx.stash, c.rx.stashAt = stash, 0
	c.share.counts.copiedBytes.Add(uint64(len(rest)))
	return true
}

func (c *conn) dropStash() {
	if c.rx.stash != nil {
		c.share.putStash(c.rx.stash)
		c.rx.stash, c.rx.stashAt = nil, 0
	}
}
