package remote

import (
	"context"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/link"
	"vstor/dataplane/ring"
	"vstor/dataplane/wire"
)

// Remote is a vDisk that a router has. See the package comment.
//
//	down ─ dial ─► opening ─ Opened ─► replaying ─ all acknowledged ─► up
//	  ▲               │                    │                           │
//	  └── lost ───────┴────────────────────┴───────────────────────────┘
//
// and fenced, for ever, once a router said that another opener has had the vDisk, or that it is not what it was.
type Remote struct {
	opt  Options
	loop *ring.Loop
	pool *buf.Pool

	conn    *link.Conn // nil: none
	state   state
	dialing bool
	addr    string        // where the vDisk is; empty: where the options say
	again   time.Duration // before dialing again
	opened  int64         // loop time of the last Opened
	heard   int64         // loop time of the last frame
	limit   int           // requests that may be out
	room    int64         // bytes that they may carry or ask for
	arrive  arrival

	// The session.
	size     int64
	volume   ids.VolumeID
	epoch    ids.Epoch
	session  uint64 // in which it is or was exclusive; 0: none
	mode     proto.Mode
	wish     proto.Mode // to be opened with
	takeover bool
	until    int64 // boot time at which the lease runs out; 0: there is none
	life     uint32
	spaces   []ids.NamespaceID
	acked    ids.Seq // highest sequence of an acknowledgement
	yielding bool
	yieldID  uint64
	owners   int       // partial writes under way
	owning   []owning  // those that wait, oldest first
	owned    ring.Hook // a timer would not fire while the loop stops
	fenced   error

	open, renewal, acquiring, closer, report, rot control
	tick, cut                                     ring.Timer

	// Calls.
	calls       []*call
	free        *call
	waiting     callList
	replay      callList  // changes to be sent again
	out         callList  // sent, in that order
	bytes       int64     // of out
	changeBytes int64     // of the changes among out
	muts        *mutation // under way
	freeMuts    *mutation
	freeAsked   *asked
	lookups     []*call
	fetching    []*call // manifests fetched ahead
	landing     *call   // whose data is being received
	answer      *call   // of extents, while it is handed over
	recent      [recentMax]recent
	front       front
	locs        proto.Locations
	scratch     buf.Vec
	drops       []drop
	dropping    ring.Timer

	ready   chan struct{} // closed when the first Open is decided
	openErr error
	decided bool

	anchor  ring.Op // held: the loop's end comes by it
	token   uint64
	closing bool
	stopped bool
	ended   bool
	onDone  []func()
	ctx     context.Context // of dialing
	cancel  context.CancelFunc

	Stats Stats
}

type state uint8

const (
	down state = iota
	opening
	replaying
	up
)

// Open opens a vDisk. It blocks until a router has decided, which may take a lease's length where another edge went
// away without a word, or until ctx ends; not for loops. Errors: Busy (open elsewhere), Refused (another secret or
// deployment), Absent (no such vDisk), Version, Unreachable.
func Open(ctx context.Context, o Options) (*Remote, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	r := &Remote{opt: o, loop: o.Loop, pool: o.Loop.Pool(), wish: o.Mode, takeover: o.Takeover,
		ready: make(chan struct{}), front: front{next: ^group(0)}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	if !r.loop.Call(r.begin) {
		return nil, errs.New(errs.Closed, "edge: the loop has stopped")
	}
	select {
	case <-r.ready:
	case <-ctx.Done():
		last := r.Trouble()
		r.Shut()
		if last == nil {
			last = ctx.Err()
		}
		return nil, errs.Wrap(errs.Unreachable, last, "vDisk %s cannot be opened: the router does not answer", o.VDisk)
	}
	if r.openErr != nil {
		r.Shut()
		return nil, r.openErr
	}
	return r, nil
}

func (r *Remote) begin() {
	r.arrive.r = r
	r.anchor.Done = (*anchor)(r)
	r.token = r.loop.Hold(&r.anchor)
	r.life = r.opt.Cache.newLife()
	r.tick.Fire, r.cut.Fire, r.dropping.Fire = r.look, r.cutOff, r.dropSome
	r.owned = ring.Hook{Run: r.ownNext, Stage: ring.StageDevice}
	for i, c := range r.controls() {
		c.r, c.ID, c.Done = r, controlBit|uint64(i), c
	}
	r.open.Type, r.renewal.Type, r.acquiring.Type, r.closer.Type, r.report.Type, r.rot.Type = proto.TOpen,
		proto.TRenew, proto.TAcquire, proto.TClose, proto.TStats, proto.TRot
	r.loop.After(&r.tick, r.opt.RenewEvery/looks)
	r.dial()
}

// control is a request that concerns the session; there is one of each, and they do not wait in line.
type control struct {
	link.Frame
	r       *Remote
	pending bool
	sent    int64 // boot time before it was
}

func (r *Remote) controls() [6]*control {
	return [...]*control{&r.open, &r.renewal, &r.acquiring, &r.closer, &r.report, &r.rot}
}

// controlBit marks the ids of those.
const controlBit = 1 << 63

// FrameSent needs nothing done (link.Sent).
func (c *control) FrameSent(*link.Frame, bool) {}

func (r *Remote) sendControl(c *control, body []byte) {
	if c.pending || c.Queued() || r.conn == nil || r.conn.Ended() {
		return
	}
	c.pending, c.sent, c.Body = true, r.opt.Clock(), body
	r.conn.Send(&c.Frame)
}

// started begins a session on a new connection.
func (r *Remote) started() {
	r.state = opening
	r.heard = r.loop.Now()
	m := proto.Open{Mode: r.wish, Takeover: r.takeover, Former: r.session}
	r.sendControl(&r.open, m.Append(nil))
}

// ReportRot tells the router of a fragment that was found damaged. False: that cannot be said now, as the router is
// not there or has not answered the one before. Any goroutine but the loop.
func (r *Remote) ReportRot(m proto.Rot) (sent bool) {
	r.loop.Call(func() {
		if sent = r.state >= replaying && !r.rot.pending && !r.rot.Queued(); sent {
			r.sendControl(&r.rot, m.Append(nil))
		}
	})
	return sent
}

func (r *Remote) acquire() { r.sendControl(&r.acquiring, nil) }

// controlled takes the answer to one of those requests.
func (r *Remote) controlled(h *wire.Header, body []byte) link.Verdict {
	for _, c := range r.controls() {
		if c.ID == h.ID && c.pending && h.Type == c.Type|wire.Reply && h.Data == 0 {
			c.pending = false
			r.decide(c, h.Kind(), body)
			return link.Skip
		}
	}
	return r.nonsense("an answer to nothing")
}

func (r *Remote) decide(c *control, k errs.Kind, body []byte) {
	why := errs.New(k, "%s", link.Printable(body))
	switch {
	case c == &r.open && k != errs.OK:
		r.notOpened(why)
	case c == &r.acquiring && k != errs.OK:
		r.notAcquired(why)
	case c == &r.open || c == &r.acquiring:
		var m proto.Opened
		if err := m.Decode(body); err != nil {
			r.nonsense("%v", err)
			return
		}
		r.isOpen(&m, c.sent)
	case c == &r.closer:
		r.conn.Abort(errs.New(errs.Closed, "closed"))
	case c == &r.rot: // whatever came of it
	case k != errs.OK:
		r.conn.Abort(why)
	case c == &r.renewal:
		var m proto.Renewed
		if err := m.Decode(body); err != nil {
			r.nonsense("%v", err)
			return
		}
		if r.mode == proto.Exclusive {
			r.Holds() // what was kept under a lease that has run out is not good again
			r.until = max(r.until, c.sent+int64(m.Lease))
		}
	}
}

// isOpen begins or goes on with a session. What was kept is good in another session of the same number and epoch:
// nobody else had the vDisk since.
func (r *Remote) isOpen(m *proto.Opened, sent int64) {
	if why := r.broken(m); why != nil {
		r.fence(why)
		r.cutOff()
		return
	}
	if m.Epoch != r.epoch || m.Session != r.session || m.Mode != proto.Exclusive {
		r.forget()
	}
	r.size, r.volume = m.Size, m.Volume
	r.epoch, r.mode, r.wish = m.Epoch, m.Mode, m.Mode
	r.acked = max(r.acked, m.Seq)
	r.takeover = false
	r.opened = r.loop.Now()
	r.Stats.Connected.Set(1)
	if m.Mode == proto.Exclusive {
		r.session = m.Session
		// It may have waited long: then this is past, and the next renewal counts.
		r.until = max(r.until, sent+int64(m.Lease))
		r.sendControl(&r.renewal, nil)
	}
	if r.state == opening {
		r.state = replaying
	}
	r.settle(nil)
	r.sendNext()
	// At once, as with the changes: who is asked to yield as soon as it has the vDisk would never get anything done.
	r.ownNext()
}

// broken says why a vDisk that was open here is not any more what clients were told. What was acknowledged had ended
// in the router's journal and is there again whatever becomes of its process, so the sequence goes back only if the
// machine lost what its drive had not yet written through. The clients count on it: they may have read it back, and
// their next FLUSH would say that it is safe. To fail that FLUSH and go on would not do: it is one client's of several,
// the next one would be acknowledged over the same hole, and until then they would go by blocks that have gone back. So
// it is as with a journal of which a write failed: nothing more until it is opened anew.
func (r *Remote) broken(m *proto.Opened) error {
	switch {
	case r.volume == 0: // never open here
	case m.Volume != r.volume:
		return errs.New(errs.Refused, "it was removed, and vDisk %d has its name now", m.Volume)
	case m.Seq < r.acked:
		return errs.New(errs.Corrupt, "the router's machine lost changes that were acknowledged, and not flushed: "+
			"change %d was the last, and now it is %d", r.acked, m.Seq)
	}
	return nil
}

// notOpened: who asks for the first time is told; who was there before is over if another has been, and else tries on.
func (r *Remote) notOpened(why error) {
	switch k := errs.Of(why); {
	case !r.decided && k != errs.Closed && k != errs.Canceled:
		r.settle(why)
		r.conn.Abort(why)
	case r.decided && k == errs.Refused:
		r.fence(why)
	default:
		r.conn.Abort(why)
	}
}

// notAcquired: the changes that wait for it fail.
func (r *Remote) notAcquired(why error) {
	if errs.Of(why) == errs.Closed {
		r.conn.Abort(why)
		return
	}
	r.opt.Log.Warn("the vDisk is passive here and cannot be changed", "vdisk", r.opt.VDisk, "error", why)
	changes := r.waiting.takeOut((*call).changes)
	for changes.head != nil {
		r.failed(changes.pop(), errs.Refused)
	}
	r.failOwning(errs.Refused, r.loop.Now())
	r.sendNext()
}

// settle tells whoever opened it for the first time.
func (r *Remote) settle(err error) {
	if !r.decided {
		r.decided, r.openErr = true, err
		close(r.ready)
	}
}

// fence ends it for good: nothing is answered any more but that.
func (r *Remote) fence(why error) {
	if r.fenced != nil {
		return
	}
	r.fenced = why
	r.forget()
	r.Stats.Fenced.Set(1)
	r.opt.Log.Error("the vDisk is lost to this edge: open it anew", "vdisk", r.opt.VDisk, "error", why)
	r.cancel()
	if r.conn == nil {
		r.failAll(errs.IO)
		return
	}
	r.loop.After(&r.cut, cutAfter)
}

// cutAfter is what a last word may take.
const cutAfter = 50 * time.Millisecond

func (r *Remote) cutOff() {
	if r.conn != nil {
		r.conn.Abort(errs.New(errs.Closed, "this session is over"))
	}
}

// failAll ends all that waits. Nothing is out.
func (r *Remote) failAll(k errs.Kind) {
	for _, l := range []*callList{&r.replay, &r.waiting} {
		for c := l.head; c != nil; c = l.head {
			l.remove(c)
			r.failed(c, k)
		}
	}
	r.failOwning(k, r.loop.Now())
	r.Stats.Waiting.Set(0)
}

// looks is how often in RenewEvery the tick comes.
const looks = 5

// look is what time wants done.
func (r *Remote) look() {
	if r.closing || r.stopped || r.fenced != nil {
		return
	}
	r.loop.After(&r.tick, r.opt.RenewEvery/looks)
	now := r.loop.Now()
	if r.conn != nil && r.state >= opening {
		if r.state >= replaying && r.mode == proto.Exclusive &&
			r.opt.Clock()-r.renewal.sent >= int64(r.opt.RenewEvery) {
			r.sendControl(&r.renewal, nil)
		}
		// Also while Open is not answered, which may take a lease: the answer tells that somebody is there.
		if r.opt.Clock()-r.report.sent >= int64(r.opt.RenewEvery) {
			s := proto.Stats{Located: r.Stats.Located.Load() + r.Stats.Zeros.Load(), Asked: r.Stats.Asked.Load(),
				Cached: uint64(r.opt.Cache.blocks)}
			s.Reads = s.Located + s.Asked
			r.sendControl(&r.report, s.Append(nil))
		}
		if now-r.heard >= int64(silence*r.opt.RenewEvery) { // perhaps nobody is there any more to close it
			r.conn.Abort(errs.New(errs.Unreachable, "the router is silent"))
		}
	}
	r.stall(now)
}

// silence is how many renewals may go unanswered, one behind the other, before another connection is tried.
const silence = 6

// Ended: the connection is of no use any more (link.Handler). Its frames and pages come back before Closed.
func (r *Remote) Ended(reason error) {
	if r.state >= replaying {
		r.opt.Log.Info("the connection to the router is lost", "vdisk", r.opt.VDisk, "reason", reason)
	}
	r.state = down
	r.yielding, r.drops = false, r.drops[:0] // the router asks again
	r.Stats.Connected.Set(0)
	r.conn.Abort(reason)
}

// Closed: all frames and pages are back (link.Handler).
func (r *Remote) Closed() {
	r.conn = nil
	for _, c := range r.controls() {
		c.pending = false
	}
	r.requeue()
	switch k := r.over(); {
	case k != errs.OK:
		r.failAll(k)
	case r.openErr == nil:
		if r.loop.Now()-r.opened > int64(time.Second) {
			r.again = 0
		}
		r.sendNext() // which sends nothing now, and counts
		r.dial()
	}
	r.finish()
}

// Info is what is known of the session, for people. Any goroutine but the loop.
type Info struct {
	Size      int64
	Volume    ids.VolumeID
	Exclusive bool
	Connected bool
	Fenced    error
}

// Info tells of the session.
func (r *Remote) Info() (i Info) {
	r.loop.Call(func() {
		i = Info{Size: r.size, Volume: r.volume, Exclusive: r.mode == proto.Exclusive, Connected: r.state >= replaying,
			Fenced: r.fenced}
	})
	return i
}

var _ interface {
	Mutate(*block.Mutation)
	link.Handler
} = (*Remote)(nil)
