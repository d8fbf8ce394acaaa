package remote

import (
	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/link"
	"vstor/dataplane/wire"
)

// call is one request until it was answered, however many connections that takes. It is pooled; one in steady state
// allocates nothing.
type call struct {
	link.Frame
	r          *Remote
	index      uint32 // in Remote.calls
	turn       uint32 // goes up each time it is used: an answer to an earlier use is told by it
	state      callState
	replied    bool // the answer came before the kernel gave the data back
	prev, next *call

	body  []byte
	addr  ids.BlockAddr
	count uint64
	size  int64 // bytes of data that it carries or asks for
	since int64 // loop time when it was asked

	by     *call  // what held it last, see held
	byTurn uint32 // of by

	mut    *mutation // of a change or a flush
	asked  *asked    // of a read
	at     int       // where in its pages, in bytes
	sums   []uint32
	broken int // answers whose data was wrong

	loaded  block.Loaded // of Extents and Warm
	extents []block.Extent

	life    uint32 // of a look-up
	floor   ids.Seq
	lo, hi  ids.BlockAddr // what changed meanwhile
	spoiled bool

	object proto.Object // of a manifest
	data   buf.Vec
	wanted *wanted // who waits for it; nil: it is fetched ahead
}

type callState uint8

const (
	callFree callState = iota
	callWaiting
	callReplay
	callOut
)

// changes reports whether the call is one whose order counts and that is repeated.
func (c *call) changes() bool {
	return c.Type == proto.TWrite || c.Type == proto.TTrim || c.Type == proto.TZero
}

func (c *call) overlaps(addr ids.BlockAddr, count uint64) bool {
	return c.addr < addr+ids.BlockAddr(count) && addr < c.addr+ids.BlockAddr(c.count)
}

// spoil notes that a range of what is looked up changes meanwhile.
func (c *call) spoil(addr ids.BlockAddr, count uint64) {
	end := addr + ids.BlockAddr(count)
	if !c.spoiled {
		c.lo, c.hi, c.spoiled = addr, end, true
		c.r.Stats.LookupsSpoiled.Inc()
		return
	}
	c.lo, c.hi = min(c.lo, addr), max(c.hi, end)
}

// newCall makes a call of n blocks from addr on.
func (r *Remote) newCall(t uint8, addr ids.BlockAddr, n uint64) *call {
	c := r.free
	if c == nil {
		c = &call{r: r, index: uint32(len(r.calls))}
		c.Done = c
		r.calls = append(r.calls, c)
	} else {
		r.free = c.next
		c.next = nil
	}
	c.turn = (c.turn + 1) & 0x7fff_ffff // the highest bit is controlBit
	c.Type, c.Arg, c.ID = t, 0, uint64(c.turn)<<32|uint64(c.index)
	c.addr, c.count, c.size, c.since = addr, n, 0, r.loop.Now()
	c.replied, c.broken, c.by = false, 0, nil
	c.body = c.body[:0]
	return c
}

func (r *Remote) putCall(c *call) {
	c.state, c.mut, c.asked, c.loaded, c.wanted = callFree, nil, nil, nil, nil
	c.spoiled = false
	c.next, r.free = r.free, c
}

// FrameSent: the kernel is done with it, or the connection is (link.Sent). What was not answered then waits for
// the connection's end.
func (c *call) FrameSent(*link.Frame, bool) {
	if c.replied {
		c.replied = false
		c.r.acknowledged(c)
	}
}

var _ link.Sent = (*call)(nil)

// callList is a list through the calls' own links.
type callList struct {
	head, tail *call
	n          int
	changes    int // of n
}

func (l *callList) count(c *call, by int) {
	l.n += by
	if c.changes() {
		l.changes += by
	}
}

func (l *callList) push(c *call) {
	c.prev, c.next = l.tail, nil
	if l.tail == nil {
		l.head = c
	} else {
		l.tail.next = c
	}
	l.tail = c
	l.count(c, 1)
}

func (l *callList) pushFront(c *call) {
	c.prev, c.next = nil, l.head
	if l.head == nil {
		l.tail = c
	} else {
		l.head.prev = c
	}
	l.head = c
	l.count(c, 1)
}

func (l *callList) remove(c *call) {
	if c.prev == nil {
		l.head = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next == nil {
		l.tail = c.prev
	} else {
		c.next.prev = c.prev
	}
	c.prev, c.next = nil, nil
	l.count(c, -1)
}

// pop takes the first out.
func (l *callList) pop() *call {
	c := l.head
	l.remove(c)
	return c
}

// overlap is the first change in the list that has blocks in common with c.
func (l *callList) overlap(c *call) *call {
	if l.changes == 0 {
		return nil
	}
	for o := l.head; o != nil; o = o.next {
		if o.changes() && o.overlaps(c.addr, c.count) {
			return o
		}
	}
	return nil
}

// takeOut takes those out of which which is true, to be ended one by one. To end them on the way would be wrong: who is
// told may ask for more, and what is in line may leave.
func (l *callList) takeOut(which func(*call) bool) (out callList) {
	for c := l.head; c != nil; {
		next := c.next
		if which(c) {
			l.remove(c)
			out.push(c)
		}
		c = next
	}
	return out
}

// enqueue puts a call in line.
func (r *Remote) enqueue(c *call) {
	c.state = callWaiting
	r.waiting.push(c)
	r.sendNext()
}

// sendNext sends what waits, as far as the bounds and the session allow: first what is repeated, and no other change
// until all of that is acknowledged.
func (r *Remote) sendNext() {
	for r.conn != nil && !r.conn.Ended() && !r.closing {
		if r.state == replaying && r.replay.head == nil && r.out.changes == 0 {
			r.state = up
			r.atRest() // asked to while it was away
			r.ownSoon()
			continue
		}
		var c *call
		switch r.state {
		case replaying:
			if c = r.replay.head; c == nil || !r.hasRoomFor(c) {
				c = r.besideReplay()
			}
		case up:
			c = r.nextWaiting()
		}
		if c == nil || r.out.n > 0 && (r.out.n >= r.limit || r.bytes+c.size > r.room) {
			break
		}
		r.send(c)
	}
	r.Stats.Waiting.Set(int64(r.waiting.n + r.replay.n))
}

// nextWaiting is the first in line that may leave. Where changes may not, because another edge has the vDisk or the
// router has as many as it may, reads and flushes pass them, which are concurrent with them anyway: how long those take
// is nothing to a reader. A passive opener asks to become exclusive before its first change is sent.
func (r *Remote) nextWaiting() *call {
	c := r.waiting.head
	if c == nil || !c.changes() || r.mayChange() && r.hasRoomFor(c) {
		return c
	}
	if !r.mayChange() && !r.yielding {
		r.acquire()
	}
	return r.passing(func(*call) bool { return true })
}

// besideReplay is the first in line that may leave while changes are repeated: nothing that tells of their blocks (see
// the package comment). A flush does not, since it is about what was acknowledged. So drives that are full when a
// router comes back keep no reader waiting.
func (r *Remote) besideReplay() *call {
	return r.passing(func(c *call) bool { return !r.held(c) })
}

// held reports whether a call would tell of a block that is changed again. A look-up does not: what it says of such is
// not kept. What held it is looked at first, as it mostly still does: many may wait for many.
func (r *Remote) held(c *call) bool {
	if c.Type == proto.TLocations {
		return false
	}
	if by := c.by; by != nil && by.turn == c.byTurn && (by.state == callReplay || by.state == callOut) {
		return true
	}
	if c.by = r.replay.overlap(c); c.by == nil {
		c.by = r.out.overlap(c)
	}
	if c.by != nil {
		c.byTurn = c.by.turn
	}
	return c.by != nil
}

// passing is the first in line that is no change and that may leave before those.
func (r *Remote) passing(may func(*call) bool) *call {
	if r.waiting.changes == r.waiting.n {
		return nil
	}
	for c := r.waiting.head; c != nil; c = c.next {
		if !c.changes() && may(c) {
			return c
		}
	}
	return nil
}

// hasRoomFor reports whether one more change may be out. Changes wait at the router while drives are full, and there
// may be any number of them: a quarter of what may be out is left to what does not wait.
func (r *Remote) hasRoomFor(c *call) bool {
	return r.out.changes == 0 || r.out.changes < r.limit-r.limit/4 && r.changeBytes+c.size <= r.room-r.room/4
}

// mayChange reports whether changes may leave: those of a partial write that is under way do even while this edge is
// asked to yield.
func (r *Remote) mayChange() bool { return r.mode == proto.Exclusive && (!r.yielding || r.owners > 0) }

func (r *Remote) send(c *call) {
	if c.state == callReplay {
		r.replay.remove(c)
		r.Stats.Replayed.Inc()
	} else {
		r.waiting.remove(c)
	}
	c.state = callOut
	r.out.push(c)
	r.bytes += c.size
	if c.changes() {
		r.changeBytes += c.size
	}
	c.Body = c.body
	r.conn.Send(&c.Frame)
}

// unsend takes a call off the connection: it is answered, or the connection is gone.
func (r *Remote) unsend(c *call) {
	r.out.remove(c)
	r.bytes -= c.size
	if c.changes() {
		r.changeBytes -= c.size
	}
}

// requeue puts what was sent and not answered back in line, before what waits: changes to be repeated, the rest as if
// it had not been sent. Look-ups are given up: nobody waits for them. REQUIRES: the connection has given all frames
// back.
func (r *Remote) requeue() {
	for c := r.out.tail; c != nil; c = r.out.tail {
		r.unsend(c)
		c.replied = false
		switch {
		case c.changes():
			c.state = callReplay
			r.replay.pushFront(c)
		case c.Type == proto.TLocations || c.Type == proto.TManifest && c.wanted == nil:
			r.dropAhead(c)
		default:
			c.state = callWaiting
			r.waiting.pushFront(c)
		}
	}
}

// FrameIn takes an answer, or what the router pushes (link.Handler).
func (r *Remote) FrameIn(h *wire.Header, body []byte, in *buf.Vec) link.Verdict {
	r.heard = r.loop.Now()
	if h.Type&wire.Reply == 0 {
		return r.pushed(h, body)
	}
	if h.ID&controlBit != 0 {
		return r.controlled(h, body)
	}
	i := uint32(h.ID)
	if int(i) >= len(r.calls) {
		return r.nonsense("an answer to nothing")
	}
	c := r.calls[i]
	if c.ID != h.ID || c.state != callOut || c.replied || h.Type != c.Type|wire.Reply {
		return r.nonsense("a %s came as the answer to a %s", proto.TypeName(h.Type), proto.TypeName(c.Type))
	}
	switch k := h.Kind(); {
	case k == errs.OK:
		return r.answered(c, h, body, in)
	case h.Data != 0:
		return r.nonsense("a failed %s with %d bytes of data", proto.TypeName(c.Type), h.Data)
	case r.fenced != nil: // the last word is on its way out; then the connection ends, and this with it
	case k == errs.Refused && c.Type == proto.TLocations && !c.Queued(): // the vDisk was given up meanwhile
		r.unsend(c)
		r.dropAhead(c)
		r.sendNext()
	case k == errs.Refused || k == errs.Closed || k == errs.Canceled:
		// The session is over, or the router stops. What comes of that the next Open says.
		r.conn.Abort(errs.New(k, "the router says: %s", link.Printable(body)))
	case c.Queued(): // refused before all of it had left: it ends with the connection
		return r.nonsense("a %s was answered before it was there", proto.TypeName(c.Type))
	default:
		full := k == errs.Full && c.changes()
		r.unsend(c)
		r.failed(c, k)
		if full { // what waits here as long has waited for the same: it does not begin to wait there
			r.stallChanges(r.loop.Now(), k)
		}
		r.atRest()
		r.sendNext()
	}
	return link.Skip
}

// answered takes an answer that is OK.
func (r *Remote) answered(c *call, h *wire.Header, body []byte, in *buf.Vec) link.Verdict {
	if data := c.Type == proto.TRead || c.Type == proto.TManifest; !data && h.Data != 0 {
		return r.nonsense("a %s with %d bytes of data", proto.TypeName(h.Type), h.Data)
	}
	var err error
	switch c.Type {
	case proto.TRead:
		return r.readAnswered(c, h, body, in)
	case proto.TManifest:
		return r.manifestAnswered(c, h, in)
	case proto.TLocations:
		err = r.located(c, body)
	case proto.TExtents:
		err = r.extentsAnswered(c, body)
	default:
		var seq ids.Seq
		if seq, err = proto.DecodeAck(c.Type, body); err == nil {
			r.acked = max(r.acked, seq)
			if c.Queued() {
				c.replied = true // FrameSent goes on
			} else {
				r.acknowledged(c)
			}
		}
	}
	if err != nil {
		return r.nonsense("%v", err)
	}
	return link.Skip
}

// nonsense ends a connection on which something came that should not.
func (r *Remote) nonsense(format string, args ...any) link.Verdict {
	err := errs.New(errs.Corrupt, "edge: the router does not keep to the protocol: "+format, args...)
	r.opt.Log.Warn("the connection to the router is given up", "vdisk", r.opt.VDisk, "error", err)
	r.conn.Abort(err)
	return link.Skip
}

// acknowledged ends a call whose answer is an Ack.
func (r *Remote) acknowledged(c *call) {
	r.unsend(c)
	if c.Type == proto.TWarm {
		l := c.loaded
		r.putCall(c)
		l.MapLoaded(errs.OK)
	} else {
		r.changed(c, errs.OK)
	}
	r.atRest()
	r.sendNext()
}

// failed ends a call that has no good answer. It is in no list.
func (r *Remote) failed(c *call, k errs.Kind) {
	switch c.Type {
	case proto.TRead:
		r.readEnded(c, k)
	case proto.TLocations:
		r.dropAhead(c)
	case proto.TManifest:
		r.manifestEnded(c, nil, k)
	case proto.TExtents, proto.TWarm:
		l := c.loaded
		r.putCall(c)
		if k != errs.Busy {
			k = errs.Closed // whoever asks knows what that is
		}
		l.MapLoaded(k)
	default:
		r.changed(c, k)
	}
}
