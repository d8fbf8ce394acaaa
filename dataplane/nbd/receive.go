package nbd

import (
	"vstor/dataplane/buf"
	"vstor/dataplane/ring"
)

// rx is the receiving half of a connection: a state machine over whatever bytes come, in pieces of
// any size.
//
//	          ┌──────────────────────────────────────────────────────────────┐
//	header ─┬─┴─► admit ─┬─► (read, flush, trim ... : submitted) ─────────────┤
//	        │      ▲     ├─► alloc ─► payload ─► (piece submitted) ─┬─ last ──┤
//	        │      │     │     ▲                                    │         │
//	        │      │     │     └──────────── more pieces ───────────┘         │
//	        │      │     └─► skip (payload of what is refused) ───────────────┘
//	        └─► control (what an extended BLOCK_STATUS wants)
//
// admit and alloc may have to wait for room. Then the connection stalls: it keeps what it had
// received already (the stash), and does not read its socket until room came.
type rx struct {
	op     ring.Op
	busy   bool // op is under way
	direct bool // op is a RecvV into the pages of piece
	state  rxState

	head     [ExtendedRequestSize]byte // a header, or a control payload, that came in parts
	nhead    int
	headSize int
	req      Request    // parsed, in state admit
	payload  int64      // bytes that follow it
	want     contextSet // of a BLOCK_STATUS
	why      reason     // not whyNot: EINVAL, whatever check says

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
	rxControl
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
		case rxControl:
			if len(data) == 0 {
				return nil
			}
			data = c.takeControl(data)
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
