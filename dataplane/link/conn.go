package link

import (
	"time"

	"golang.org/x/sys/unix"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
	"vstor/dataplane/ring"
)

// Conn is a connection that carries frames. All of it belongs to its hub's loop: every method is to be
// called there, unless it says otherwise.
//
// It ends in steps, each of which waits for nothing but the one before:
//
//	ended    nothing is received any more: end of stream, broken protocol, End
//	         ─ frames that were sent leave, those that are retained for are waited for
//	dead     nothing is sent any more: the socket failed, time ran out, Abort
//	         ─ frames come back unsent
//	settled  no operation is under way, nothing is retained: the descriptor is closed
type Conn struct {
	hub     *Hub
	loop    *ring.Loop
	pool    *buf.Pool
	fd      int
	handler Handler
	timeout time.Duration

	started, ended, dead, settled bool
	told                          bool // Ended was called
	reason                        error
	retained                      int

	rx       rx
	tx       tx
	turn     ring.Hook // whatever must not happen inside a method
	timer    ring.Timer
	lastMove int64 // loop time at which the peer last sent or took something
}

// New makes a Conn of a connected stream socket in blocking mode, as Take gives it, and owns fd from here on.
// Any goroutine; the next call is Start, or Discard.
func New(hub *Hub, fd int, h Handler, o Options) *Conn {
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	c := &Conn{hub: hub, loop: hub.loop, pool: hub.loop.Pool(), fd: fd, handler: h, timeout: o.Timeout}
	c.rx.op.Done, c.tx.op.Done = c, c
	c.turn = ring.Hook{Run: c.takeTurn, Stage: ring.StageDevice}
	c.tx.hook = ring.Hook{Run: c.sendBatch, Stage: ring.StageSocket}
	c.timer.Fire = c.watch
	return c
}

// Discard closes the descriptor of a Conn that is not started. Any goroutine.
func (c *Conn) Discard() { unix.Close(c.fd) }

// Start begins to receive.
func (c *Conn) Start() {
	if c.started {
		invariants.Fail("link: a connection was started twice")
	}
	c.started = true
	c.lastMove = c.loop.Now()
	if c.ended { // before it began
		c.later()
		return
	}
	c.arm()
}

// Send queues f. All frames that are sent in a pass leave at its end, in one go if they fit a batch; frames
// leave in the order of Send. It allocates nothing.
func (c *Conn) Send(f *Frame) {
	if f.queued || f.Done == nil || len(f.Body) > bodyMax {
		invariants.Fail("link: a frame of type %#x was sent that is under way, has no Done, or a body of %d bytes",
			f.Type, len(f.Body))
	}
	if c.settled {
		invariants.Fail("link: a frame was sent on a connection that is closed")
	}
	f.queued, f.parts = true, 0
	c.tx.queue.push(f)
	switch {
	case c.dead:
		c.later()
	case !c.tx.busy:
		c.loop.AtPassEnd(&c.tx.hook)
	}
}

// Withdraw takes a frame back of which nothing has left yet: true, and FrameSent is not called. False if
// it is under way or was not queued.
func (c *Conn) Withdraw(f *Frame) bool {
	if !f.queued || f.parts > 0 {
		return false
	}
	c.tx.queue.remove(f)
	f.queued = false
	return true
}

// Resume goes on after a Stall, in this pass or the next. Without one it does nothing.
func (c *Conn) Resume() {
	if c.rx.stalled && !c.ended {
		c.rx.resume = true
		c.later()
	}
}

// Stalled reports whether the connection waits for Resume.
func (c *Conn) Stalled() bool { return c.rx.stalled }

// Divert drops the rest of the data that is being received for the frame taken last, as it comes: its pages
// are the Handler's again at once, and FrameData is not called. False if there is no such data, or if
// the kernel has the pages: only Abort brings them back before all of it has come.
func (c *Conn) Divert() bool {
	if c.rx.state != rxData || c.rx.direct && c.rx.busy {
		return false
	}
	c.rx.state = rxSkip
	c.rx.data.Reset()
	return true
}

// Retain says that a Send is still to come: a connection that has ended waits for it. Release takes it back; who
// answers calls it in FrameSent, so that Closed comes last.
func (c *Conn) Retain() { c.retained++ }

// Release is the opposite of Retain.
func (c *Conn) Release() {
	c.retained--
	if c.retained < 0 {
		invariants.Fail("link: a connection was released more often than retained")
	}
	if c.ended && c.retained == 0 {
		c.later()
	}
}

// End stops receiving. Frames that are queued leave, and those that Retain announced. reason is for Ended.
func (c *Conn) End(reason error) {
	if c.ended {
		return
	}
	c.ended, c.reason = true, reason
	c.loop.Cancel(&c.rx.op)
	c.later()
}

// Abort ends it all: nothing is received or sent any more, frames come back unsent. reason is for Ended.
// The pages that the kernel has come back when it lets go of them, which takes no longer than a pass or two.
func (c *Conn) Abort(reason error) {
	if c.dead || c.settled {
		return
	}
	c.End(reason)
	c.dead = true
	// Brings operations in flight back, where a cancel may come too late.
	_ = unix.Shutdown(c.fd, unix.SHUT_RDWR)
	c.later()
}

// Ended reports whether nothing is received any more, Dead whether nothing is sent either.
func (c *Conn) Ended() bool { return c.ended }
func (c *Conn) Dead() bool  { return c.dead }

// Silent is for how long nothing moved while the peer is in the middle of a frame, or does not take ours; 0 if it
// owes nothing. For those who must choose which connection to close.
func (c *Conn) Silent() time.Duration {
	if !c.midway() || c.settled {
		return 0
	}
	return time.Duration(c.loop.Now() - c.lastMove)
}

// LastMove is when the peer last sent or took something, on the clock of the loop's Now.
func (c *Conn) LastMove() int64 { return c.lastMove }

// Loop is where the connection lives.
func (c *Conn) Loop() *ring.Loop { return c.loop }

// midway: the peer owes the rest of a frame, or has to take the rest of ours.
func (c *Conn) midway() bool {
	return c.tx.busy || c.rx.busy && (c.rx.state != rxFrame || c.rx.npart > 0)
}

// watch is the timer, which is armed while the peer is in the middle of something and a little longer: arming
// it for every frame would cost more than looking now and then.
func (c *Conn) watch() {
	if c.dead || !c.midway() {
		return
	}
	silent := time.Duration(c.loop.Now() - c.lastMove)
	if silent >= c.timeout {
		c.hub.Counts.Silent.Inc()
		c.Abort(errs.New(errs.Unreachable, "link: the peer was silent for %v in the middle of a frame", silent))
		return
	}
	c.loop.After(&c.timer, c.timeout-silent)
}

func (c *Conn) expect() {
	if !c.timer.Armed() {
		c.loop.After(&c.timer, c.timeout)
	}
}

// RingDone is the end of a receive or a send (ring.Completer).
func (c *Conn) RingDone(op *ring.Op, res int32) {
	if res > 0 {
		c.lastMove = c.loop.Now()
	}
	if op == &c.tx.op {
		c.sent(res)
	} else {
		c.received(res)
	}
}

// later makes takeTurn run in this pass or the next.
func (c *Conn) later() {
	if c.started && !c.settled {
		c.loop.AtPassEnd(&c.turn)
	}
}

// takeTurn does what methods put off: a Handler is never called inside one.
func (c *Conn) takeTurn() {
	if c.settled {
		return
	}
	if c.rx.resume && !c.ended {
		c.goOn()
	}
	if !c.ended {
		return
	}
	if !c.told {
		c.told = true
		c.handler.Ended(c.reason)
	}
	if !c.rx.busy {
		c.dropReceived()
	}
	if c.dead && !c.tx.busy {
		c.dropFrames()
	}
	if c.rx.busy || c.tx.busy || c.tx.queue.head != nil || c.retained > 0 || c.turn.Armed() {
		return
	}
	c.settled = true
	c.loop.StopTimer(&c.timer)
	c.giveHeaderPage()
	unix.Close(c.fd)
	c.handler.Closed()
}

var _ ring.Completer = (*Conn)(nil)
