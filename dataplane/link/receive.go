package link

import (
	"syscall"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
	"vstor/dataplane/ring"
	"vstor/dataplane/wire"
)

// rx is the receiving half of a connection: a state machine over whatever bytes come, in pieces of any size.
//
//	       ┌─────────────────────────────────────────────┐
//	frame ─┴─► FrameIn ─┬─ Next, no data ─────────────────┤
//	             ▲      ├─ Next ─► data ─► FrameData ─────┤
//	             │      ├─ Skip ─► skip ──────────────────┘
//	           Resume ◄─┴─ Stall: what was received is kept, the socket is not read
type rx struct {
	op     ring.Op
	busy   bool // op is under way
	direct bool // it is a RecvV into data
	state  rxState

	part  [buf.PageSize]byte // header and body of a frame that came in parts
	npart int
	head  wire.Header

	data buf.Vec // where the data goes
	at   int     // where in it the next byte goes
	need int     // bytes that are still to come; in state skip too

	stalled bool
	resume  bool
	stash   []byte // received, not consumed; whole buffer
	stashAt int    // the first byte of it not consumed
	scratch buf.Vec
}

type rxState uint8

const (
	rxFrame rxState = iota
	rxData
	rxSkip
)

const bodyMax = wire.BodyMax

// A header with its body fits a page.
const _ = uint(buf.PageSize - wire.HeaderSize - bodyMax)

// directMin is from how many missing bytes of data on they are received straight into their pages. A
// shorter rest is copied out of the receive buffer: a second receive costs more than the copy.
const directMin = 32 << 10

// arm asks the ring for more.
func (c *Conn) arm() {
	c.rx.busy = true
	if c.midway() {
		c.expect()
	}
	c.rx.direct = c.rx.state == rxData && c.rx.need >= directMin
	if !c.rx.direct {
		c.loop.RecvSelect(&c.rx.op, c.fd)
		return
	}
	v := &c.rx.scratch
	v.Reset()
	v.AppendRange(&c.rx.data, c.rx.at, c.rx.need)
	c.lastMove = c.loop.Now()
	c.loop.RecvV(&c.rx.op, c.fd, v)
}

// received takes the end of a receive.
func (c *Conn) received(res int32) {
	c.rx.busy = false
	switch {
	case c.ended:
		c.later()
	case res == -int32(syscall.ECANCELED): // the loop stops
		c.Abort(errs.New(errs.Canceled, "link: the loop has stopped"))
	case res < 0:
		c.Abort(errs.Wrap(errs.Unreachable, syscall.Errno(-res), "link: receiving"))
	case c.rx.direct:
		c.rx.at += int(res)
		c.rx.need -= int(res)
		c.hub.Counts.BytesIn.Add(uint64(res))
		if c.rx.need > 0 {
			c.endOfStream()
			return
		}
		c.dataCame()
		c.pump(nil)
	case res == 0:
		c.endOfStream()
	default:
		c.pump(c.loop.Selected(&c.rx.op))
	}
}

func (c *Conn) endOfStream() {
	if c.rx.state == rxFrame && c.rx.npart == 0 {
		c.End(errs.New(errs.Closed, "link: the peer closed the connection"))
		return
	}
	c.hub.Counts.BadPeers.Inc()
	c.End(errs.New(errs.Unreachable, "link: the peer closed the connection in the middle of a frame"))
}

// bad ends a connection whose bytes cannot be told apart any more.
func (c *Conn) bad(err error) {
	c.hub.Counts.BadPeers.Inc()
	c.Abort(err)
}

// pump consumes data and decides how to go on.
func (c *Conn) pump(data []byte) {
	rest := c.consume(data)
	switch {
	case c.ended:
	case !c.rx.stalled:
		c.arm()
	case len(rest) > 0 && !c.keep(rest):
		c.hub.Counts.Overloaded.Inc()
		c.Abort(errs.New(errs.Busy, "link: stalled connections hold as much as they may"))
	}
}

// goOn continues after a stall, first with the stash.
func (c *Conn) goOn() {
	c.rx.stalled, c.rx.resume = false, false
	rest := c.consume(c.rx.stash[c.rx.stashAt:])
	switch {
	case c.ended:
	case c.rx.stalled:
		c.rx.stashAt = len(c.rx.stash) - len(rest)
	default:
		c.dropStash()
		c.arm()
	}
}

// consume runs the state machine over data and returns what it could not place: nothing, unless the
// connection stalled or ended.
func (c *Conn) consume(data []byte) []byte {
	for !c.ended {
		switch c.rx.state {
		case rxFrame:
			frame, rest, ok := c.frame(data)
			if !ok {
				return nil
			}
			if c.frameCame(frame) == Stall {
				c.rx.stalled = true
				c.hub.Counts.Stalls.Inc()
				if c.rx.npart > 0 {
					return rest // the frame stays where its parts were gathered
				}
				return data
			}
			data = rest
		case rxData:
			if len(data) == 0 {
				return nil
			}
			data = c.takeData(data)
		case rxSkip:
			n := min(len(data), c.rx.need)
			data = data[n:]
			if c.rx.need -= n; c.rx.need > 0 {
				return nil
			}
			c.rx.state = rxFrame
		}
	}
	return nil
}

// frame finds a header with its body at the start of data, where most lie whole, or gathers them. ok is
// false if more must come, or the peer speaks something else.
func (c *Conn) frame(data []byte) (frame, rest []byte, ok bool) {
	r := &c.rx
	if r.npart == 0 && len(data) >= wire.HeaderSize {
		if !c.decode(data) {
			return nil, nil, false
		}
		if n := wire.HeaderSize + int(r.head.Body); len(data) >= n {
			return data[:n], data[n:], c.verify(data[:n])
		}
	}
	if r.npart < wire.HeaderSize {
		n := copy(r.part[r.npart:wire.HeaderSize], data)
		data = data[n:]
		if r.npart += n; r.npart < wire.HeaderSize || !c.decode(r.part[:]) {
			return nil, nil, false
		}
	}
	whole := wire.HeaderSize + int(r.head.Body)
	n := copy(r.part[r.npart:whole], data)
	if r.npart += n; r.npart < whole {
		return nil, nil, false
	}
	return r.part[:whole], data[n:], c.verify(r.part[:whole])
}

func (c *Conn) decode(b []byte) bool {
	if err := c.rx.head.Decode(b); err != nil {
		c.bad(err)
		return false
	}
	return true
}

func (c *Conn) verify(frame []byte) bool {
	if err := c.rx.head.Verify(frame); err != nil {
		c.bad(err)
		return false
	}
	return true
}

// frameCame asks the Handler what to do with a frame.
func (c *Conn) frameCame(frame []byte) Verdict {
	r := &c.rx
	r.data.Reset()
	v := c.handler.FrameIn(&r.head, frame[wire.HeaderSize:], &r.data)
	if c.ended && v == Stall {
		v = Skip
	}
	if v == Stall {
		return v
	}
	c.hub.Counts.FramesIn.Inc()
	r.npart, r.at, r.need = 0, 0, int(r.head.Data)
	switch {
	case r.need == 0:
	case v == Skip:
		r.state = rxSkip
	case r.data.Len() != r.need:
		invariants.Fail("link: a frame has %d bytes of data; its reader named pages for %d", r.need, r.data.Len())
	default:
		r.state = rxData
	}
	return v
}

// takeData copies what has arrived to its place.
func (c *Conn) takeData(data []byte) []byte {
	r := &c.rx
	n := min(len(data), r.need)
	c.pool.CopyIn(&r.data, r.at, data[:n])
	c.hub.Counts.CopiedBytes.Add(uint64(n))
	c.hub.Counts.BytesIn.Add(uint64(n))
	r.at += n
	if r.need -= n; r.need == 0 {
		c.dataCame()
	}
	return data[n:]
}

func (c *Conn) dataCame() {
	c.rx.state = rxFrame
	c.rx.data.Reset()
	c.handler.FrameData(true)
}

// dropReceived gives up what will not come. The kernel has no pages any more.
func (c *Conn) dropReceived() {
	r := &c.rx
	c.dropStash()
	r.stalled, r.resume, r.npart = false, false, 0
	if r.state == rxData {
		r.data.Reset()
		r.state = rxFrame
		c.handler.FrameData(false)
	}
	r.state = rxFrame
}

// keep stashes bytes that came before the connection stalled; false if the hub has no room for them.
func (c *Conn) keep(rest []byte) bool {
	stash := c.hub.getStash(len(rest))
	if stash == nil {
		return false
	}
	copy(stash, rest)
	c.rx.stash, c.rx.stashAt = stash, 0
	c.hub.Counts.CopiedBytes.Add(uint64(len(rest)))
	return true
}

func (c *Conn) dropStash() {
	if c.rx.stash != nil {
		c.hub.putStash(c.rx.stash)
		c.rx.stash, c.rx.stashAt = nil, 0
	}
}
