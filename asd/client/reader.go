package client

import (
	"context"
	"syscall"
	"time"

	"vstor/asd/proto"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
	"vstor/dataplane/layout"
	"vstor/dataplane/link"
	"vstor/dataplane/ring"
)

// ReaderOptions of a Reader. Zero fields take the defaults in EnsureDefaults.
type ReaderOptions struct {
	InFlight    int           // reads sent and not answered; the ASD may allow fewer
	Reads       int           // reads that have not ended
	StallAfter  time.Duration // a connection that gives no byte for so long is passed by
	ReadTimeout time.Duration // a read that has not ended by then does
	Hub         *link.Hub     // of the loop; nil makes one
	ExtentBytes int64         // of RAM for where fragments lie, if Options.ShortCircuit
}

// EnsureDefaults fills in zero fields.
func (o *ReaderOptions) EnsureDefaults() {
	if o.InFlight == 0 {
		o.InFlight = 256
	}
	if o.Reads == 0 {
		o.Reads = 1024
	}
	if o.StallAfter == 0 {
		o.StallAfter = 250 * time.Millisecond
	}
	if o.ReadTimeout == 0 {
		o.ReadTimeout = 500 * time.Millisecond
	}
	if o.ExtentBytes == 0 {
		o.ExtentBytes = 1 << 20
	}
}

// Validate says what is wrong with o, if anything. Errors: Invalid.
func (o *ReaderOptions) Validate() error {
	switch {
	case o.InFlight < 1 || o.Reads < o.InFlight || o.Reads > readsMax:
		return errs.New(errs.Invalid,
			"asd reader: %d reads, %d of them in flight; between 1 and %d would be right, and no more "+
				"in flight than there are", o.Reads, o.InFlight, readsMax)
	case o.ExtentBytes < bucketBytes:
		return errs.New(errs.Invalid, "asd reader: %d bytes for extents; at least %d would be right", o.ExtentBytes,
			bucketBytes)
	case o.StallAfter <= 0 || o.ReadTimeout <= 0:
		return errs.New(errs.Invalid, "asd reader: StallAfter %v and ReadTimeout %v must be positive",
			o.StallAfter, o.ReadTimeout)
	}
	return nil
}

const readsMax = 1 << 20

// Reader reads ranges of an ASD's fragments on one loop, over a connection of its own, with many reads under way
// at a time. All of it is the loop's but Stats.
//
// A connection is in one of these states:
//
//	none ─ dialing ─► open ─► stalled   no byte for StallAfter while answers were due: all reads have ended,
//	  ▲                │  ▲      │      a Ping is under way; the next byte opens it again
//	  │                │  └──────┤
//	  └──── ended ◄────┴─────────┘
//
// and beside that, sick: a read took longer than ReadTimeout although the connection lives: a drive that
// hangs. The first answer of the drive, for that read or one sent to find out, ends it.
type Reader struct {
	a    *ASD
	loop *ring.Loop
	opt  ReaderOptions
	hub  *link.Hub

	conn    *link.Conn // nil: none
	dialing bool
	opened  int64         // loop time when conn was
	life    uint64        // incarnation of the process at its other end
	again   time.Duration // before dialing again
	stalled bool
	sick    bool
	limit   int   // requests that may be under way
	room    int64 // bytes that they may ask for

	slots   []*slot
	free    *slot
	live    slotList // reads that have not ended, oldest first: those sent before those that wait
	unsent  *slot    // the oldest that waits
	out     int      // requests under way, those included whose read has ended
	asked   int64    // bytes that they ask for
	landing *slot    // whose data is being received

	since  int64 // loop time of the last byte, or since when there are reads if that is later
	timer  ring.Timer
	due    int64          // when timer shall fire
	ping   link.Frame     // asks a stalled connection whether it lives
	pinged bool           // its answer is due
	probed layout.FragKey // of the read that made the drive sick
	frames frameOwner
	short  short

	anchor  ring.Op // held: the loop's end comes by it
	token   uint64
	wake    ring.Op
	closing bool
	stopped bool
	onDone  func()
	ctx     context.Context // of dialing
	cancel  context.CancelFunc
	arrive  arrival

	stats ReaderStats
}

// NewReader makes a Reader and begins to connect. On the loop, or before it runs. Errors: Invalid, Closed.
func (a *ASD) NewReader(loop *ring.Loop, o ReaderOptions) (*Reader, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Hub == nil {
		o.Hub = link.NewHub(loop, link.HubOptions{})
	}
	r := &Reader{a: a, loop: loop, opt: o, hub: o.Hub}
	r.ctx, r.cancel = context.WithCancel(a.ctx)
	r.timer.Fire = r.tick
	r.anchor.Done, r.wake.Done = (*readerAnchor)(r), (*readerWake)(r)
	r.ping = link.Frame{Type: proto.TPing, ID: pingID, Done: &r.frames}
	r.frames.r = r
	r.arrive.r = r
	r.initShort()
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return nil, errs.New(errs.Closed, "asd %d: its client is closed", a.opts.ID)
	}
	a.readers[r] = struct{}{}
	a.mu.Unlock()
	r.token = loop.Hold(&r.anchor)
	r.dial()
	return r, nil
}

// Ready reports whether a read is likely to be answered soon: connected, and neither the process nor its drive
// owes an answer for long.
func (r *Reader) Ready() bool {
	return r.conn != nil && !r.stalled && !r.sick && !r.closing && r.a.up.Load() && !r.conn.Ended()
}

// ReadRange reads bytes [off, off+n) of a fragment's payload as they lie on the drive, unverified: whole blocks,
// at most proto.ReadMax bytes, into the pages of v, n bytes long. v and its pages are the Reader's until op
// ends: with n, or a negated errno of errs.Kind.Errno, and never inside the call. -ENOENT, -EBADMSG, -EINVAL and
// -EIO are answers of the ASD; -ETIMEDOUT is its silence. It allocates nothing.
func (r *Reader) ReadRange(op *ring.Op, key layout.FragKey, off, n uint32, v *buf.Vec) (token uint64) {
	if n == 0 || n > proto.ReadMax || (n|off)%ids.BlockSize != 0 || v.Len() != int(n) {
		invariants.Fail("asd: a read of %d bytes at %d into %d bytes of pages", n, off, v.Len())
	}
	switch {
	case r.stopped:
		r.loop.Defer(op, -int32(syscall.ECANCELED))
		return 0
	case r.closing:
		r.loop.Defer(op, -int32(errs.Closed.Errno()))
		return 0
	case !r.Ready():
		r.stats.Errors.Inc()
		r.loop.Defer(op, -int32(errs.Unreachable.Errno()))
		return 0
	}
	s := r.get()
	if s == nil {
		r.stats.Errors.Inc()
		r.loop.Defer(op, -int32(errs.Busy.Errno()))
		return 0
	}
	s.op, s.key, s.off, s.n, s.v, s.state = op, key, off, n, v, slotWaiting
	s.start = r.loop.Now()
	if r.live.head == nil {
		r.since = s.start
	}
	r.live.push(s)
	if r.unsent == nil {
		r.unsent = s
	}
	r.sendNext()
	r.armTimer()
	return s.id()
}

// sendNext sends what waits, as far as the bounds allow.
func (r *Reader) sendNext() {
	if r.stalled || r.closing || r.stopped || r.conn == nil || r.conn.Ended() {
		return
	}
	for s := r.unsent; s != nil; s = r.unsent {
		if r.out > 0 && (r.out >= r.limit || r.asked+int64(s.n) > r.room) {
			return
		}
		r.unsent = s.next
		s.state = slotSent
		r.send(s, uint32(max(r.opt.ReadTimeout.Milliseconds(), 1)))
	}
}

// send asks for the range of s.
func (r *Reader) send(s *slot, limit uint32) {
	rg := proto.Range{Key: s.key, Off: s.off, Len: s.n}
	s.frame.Type, s.frame.ID, s.frame.Arg = proto.TReadRanges, s.id(), limit
	s.frame.Body = rg.Append(s.body[:0])
	r.out++
	r.asked += int64(s.n)
	r.conn.Send(&s.frame)
	r.stats.InFlight.Set(int64(r.out))
}

// Cancel asks that the read of that token ends. If the answer's data is on its way into the pages, the read
// waits for it; else it ends with -ECANCELED, not inside the call. A token whose read has ended means nothing.
func (r *Reader) Cancel(token uint64) {
	s := r.find(token)
	if s == nil || s.op == nil {
		return
	}
	r.stats.Canceled.Inc()
	r.abandon(s, -int32(syscall.ECANCELED))
}

// abandon ends the read of s before its answer: at once, unless the kernel has its pages. The request is taken
// back, or the ASD told that nobody waits.
func (r *Reader) abandon(s *slot, res int32) {
	switch {
	case s.state == slotWaiting:
		r.end(s, res)
		r.put(s)
	case s.state == slotLanding && !r.conn.Divert():
		return // it ends with its data, or the connection
	case s.state == slotLanding: // the rest of the data is dropped
		r.landing = nil
		r.end(s, res)
		r.answered(s)
	case r.conn.Withdraw(&s.frame):
		r.end(s, res)
		r.answered(s)
	default:
		r.end(s, res)
		s.state = slotLate
		r.stats.Late.Add(1)
		if res == -int32(syscall.ECANCELED) && !r.conn.Ended() {
			r.sendCancel(s)
		}
	}
}

// end tells the caller. The slot is still what it was.
func (r *Reader) end(s *slot, res int32) {
	if r.unsent == s {
		r.unsent = s.next
	}
	r.live.remove(s)
	op := s.op
	s.op, s.v = nil, nil
	if res < 0 {
		r.stats.Errors.Inc()
	} else {
		r.stats.Reads.Inc()
		r.stats.Bytes.Add(uint64(res))
	}
	r.loop.Defer(op, res)
}

// answered is the end of a request: nothing more will come for it.
func (r *Reader) answered(s *slot) {
	r.out--
	r.asked -= int64(s.n)
	r.stats.InFlight.Set(int64(r.out))
	r.put(s)
	r.sendNext()
	if r.live.head == nil {
		r.loop.StopTimer(&r.timer)
	}
}
