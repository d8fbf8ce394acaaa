package router

import (
	"time"

	"vstor/dataplane/buf"
	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/link"
	"vstor/dataplane/ring"
	"vstor/dataplane/wire"
)

// session is one connection of an edge after its handshake, on the vDisk's loop. It lives from attach until nothing of
// it is under way.
type session struct {
	d    *VDisk
	srv  *Server
	link *link.Conn
	seat Seat

	open       *request // Open or Acquire, to be answered by the table
	opened     bool     // the first Open was granted
	unanswered int
	bytes      int64
	changing   int      // changes with the Driver
	left       bool     // the table was told that none is
	leaving    bool     // it waits for that
	receiving  *request // whose data is coming in
	ended      bool
	retry      ring.Timer // for pages

	pushes                  uint64 // ids given out
	revoke, yield, redirect push
	invals                  *inval // free
	live                    []*inval
}

// push is a request of the router's own.
type push struct {
	link.Frame
	id   uint64
	sent bool
}

// FrameSent needs nothing done (link.Sent).
func (p *push) FrameSent(*link.Frame, bool) {}

// inval is a pushed invalidation.
type inval struct {
	push
	x    *settling
	next *inval
}

// pageRetry is how soon a connection looks again for pages.
const pageRetry = time.Millisecond

// RunOnLoop starts the connection (ring.Message).
func (s *session) RunOnLoop() {
	if s.d.closing || s.srv.door.Closed() {
		s.ended = true
		s.link.Discard()
		s.srv.door.Finished(s)
		return
	}
	s.retry.Fire = s.link.Resume
	s.d.sessions[s] = struct{}{}
	s.d.Stats.Sessions.Set(int64(len(s.d.sessions)))
	s.link.Start()
}

// FrameIn takes a request in, or the answer to a push (link.Handler).
func (s *session) FrameIn(h *wire.Header, body []byte, in *buf.Vec) link.Verdict {
	if h.Type&wire.Reply != 0 {
		return s.answer(h)
	}
	if s.unanswered >= s.d.opt.Requests {
		return link.Stall // FrameSent resumes it
	}
	r := s.begin(h)
	v := s.dispatch(r, h, body, in)
	if v == link.Stall {
		s.takeBack(r)
	}
	return v
}

// dispatch begins to carry a request out. Stall: nothing was done.
func (s *session) dispatch(r *request, h *wire.Header, body []byte, in *buf.Vec) link.Verdict {
	switch {
	case h.Data != 0 && h.Type != proto.TWrite:
		return s.bad(r, errs.New(errs.Corrupt, "router: %s with %d bytes of data; it has none", proto.TypeName(h.Type),
			h.Data))
	case h.Type == proto.TOpen:
		return s.openRequest(r, body)
	case s.seat.fenced || !s.opened && (h.Type != proto.TStats || s.open == nil):
		return s.deny(r) // who waits for the answer to its Open may send Stats, to see that somebody is there
	}
	s.d.table.Heard(&s.seat)
	switch h.Type {
	case proto.TWrite:
		return s.write(r, h, body, in)
	case proto.TRead:
		return s.read(r, body)
	case proto.TFlush, proto.TTrim, proto.TZero:
		return s.change(r, h.Type, body)
	case proto.TLocations:
		return s.locations(r, body)
	case proto.TManifest:
		return s.manifest(r, body)
	case proto.TExtents, proto.TWarm:
		return s.look(r, h.Type, body)
	}
	return s.control(r, h.Type, body)
}

// control is what concerns the session itself.
func (s *session) control(r *request, t uint8, body []byte) link.Verdict {
	d := s.d
	if t == proto.TRot {
		var m proto.Rot
		if err := m.Decode(body); err != nil {
			return s.bad(r, err)
		}
		d.Stats.Rot.Inc()
		if d.opt.Rot != nil {
			d.opt.Rot(m)
		}
		r.ack()
		return link.Next
	}
	if t == proto.TStats {
		var m proto.Stats
		if err := m.Decode(body); err != nil {
			return s.bad(r, err)
		}
		if d.table.Holds(&s.seat) {
			d.Stats.EdgeReads.Set(int64(m.Reads))
			d.Stats.EdgeLocated.Set(int64(m.Located))
			d.Stats.EdgeAsked.Set(int64(m.Asked))
			d.Stats.EdgeKeeps.Set(int64(m.Cached))
		}
		r.ack()
		return link.Next
	}
	if len(body) > 0 {
		return s.bad(r, errs.New(errs.Corrupt, "router: %s with a body of %d bytes; it has none", proto.TypeName(t),
			len(body)))
	}
	switch t {
	case proto.TRenew:
		// The clock is read now, and not before the request came in: the edge's lease ends before ours.
		if !d.table.Renew(&s.seat, d.now()) {
			d.act()
			return s.deny(r)
		}
		m := proto.Renewed{Seq: d.opt.Driver.Sequence(), Lease: d.opt.Lease}
		r.body = m.Append(r.body[:0])
		r.reply()
		d.act()
	case proto.TAcquire:
		if s.open != nil {
			return s.bad(r, errs.New(errs.Corrupt, "router: acquire while an open is under way"))
		}
		s.open = r
		d.table.Acquire(&s.seat, d.now())
		d.act()
	case proto.TClose:
		r.ack()
		d.table.Closed(&s.seat, d.now())
		s.seat.fenced = true
		s.link.End(errs.New(errs.Closed, "router: the edge closed the session"))
		d.act()
	default:
		r.fail(errs.Unsupported, "the router does not know requests of "+proto.TypeName(t))
	}
	return link.Next
}

func (s *session) openRequest(r *request, body []byte) link.Verdict {
	var m proto.Open
	if err := m.Decode(body); err != nil || s.open != nil || s.opened {
		return s.bad(r, errs.New(errs.Corrupt, "router: an open that does not parse, or one too many"))
	}
	s.open = r
	s.seat.Mode, s.seat.Takeover, s.seat.Former = m.Mode, m.Takeover, m.Former
	s.d.table.Open(&s.seat, s.d.now())
	s.d.act()
	return link.Next
}

// granted answers Open or Acquire. The lease is counted from now, when the answer leaves.
func (s *session) granted() {
	d, r := s.d, s.open
	if r == nil || s.ended {
		return
	}
	s.open, s.opened = nil, true
	m := proto.Opened{Seq: d.opt.Driver.Sequence(), Volume: d.opt.ID, Size: d.opt.Device.Info().Size, Epoch: d.opt.Epoch,
		Mode: s.seat.Mode, ReadOnly: d.opt.ReadOnly()}
	if m.Mode == proto.Exclusive {
		m.Session, m.Lease = d.table.Tenure(), d.opt.Lease
		d.opt.Log.Info("an edge has the vDisk", "vdisk", d.opt.Name, "edge", s.seat.Edge, "tenure", m.Session)
	}
	r.body = m.Append(r.body[:0])
	r.reply()
	for _, x := range d.settling {
		if d.table.Holds(&s.seat) && x.tenure == d.table.Tenure() {
			s.invalidate(x)
		}
	}
}

func (s *session) refused(k errs.Kind, why string) {
	if r := s.open; r != nil && !s.ended {
		s.open = nil
		r.fail(k, why)
	}
}

// leave begins to wait until nothing of the session is under way: then the table is told.
func (s *session) leave() {
	s.leaving = true
	s.rested()
}

func (s *session) rested() {
	if s.leaving && !s.left && s.changing == 0 {
		s.left = true
		s.d.table.Left(&s.seat, s.d.now())
		s.d.act()
	}
}

// deny answers a request of a session that may not ask.
func (s *session) deny(r *request) link.Verdict {
	s.d.Stats.Refused.Inc()
	r.fail(errs.Refused, "the session is over: another edge has the vDisk, or its lease has run out")
	return link.Skip
}

// bad ends the connection of a peer that breaks the protocol.
func (s *session) bad(r *request, err error) link.Verdict {
	s.d.Stats.BadPeers.Inc()
	s.d.opt.Log.Warn("an edge does not keep to the protocol", "vdisk", s.d.opt.Name, "edge", s.seat.Edge, "error", err)
	s.link.Abort(err)
	r.fail(errs.Of(err), "")
	return link.Skip
}

// push sends a request of the router's own; one that is still on its way says it already.
func (s *session) push(p *push, t uint8, body []byte) {
	if s.ended || p.Queued() {
		return
	}
	s.pushes++
	p.id, p.sent = s.pushes, true
	p.Type, p.ID, p.Body, p.Done = t, p.id, body, p
	s.link.Send(&p.Frame)
}

func (s *session) invalidate(x *settling) {
	p := s.invals
	if p == nil {
		p = new(inval)
	} else {
		s.invals = p.next
	}
	p.x = x
	m := proto.Invalidate{Object: x.object}
	s.live = append(s.live, p)
	s.push(&p.push, proto.TInvalidate, m.Append(nil))
}

// answer takes the reply to a push.
func (s *session) answer(h *wire.Header) link.Verdict {
	d, now := s.d, s.d.now()
	is := func(p *push, t uint8) bool { return p.sent && h.ID == p.id && h.Type == t|wire.Reply && !p.Queued() }
	switch {
	case h.Data != 0 || h.Body != 0:
		s.link.Abort(errs.New(errs.Corrupt, "router: the answer to a push has %d bytes", h.Data+h.Body))
	case is(&s.revoke, proto.TRevoke):
		d.table.Revoked(&s.seat, now)
	case is(&s.yield, proto.TYield):
		s.yield.sent = false
		if s.changing > 0 { // it would change what another holds
			s.link.Abort(errs.New(errs.Corrupt, "router: the edge yields while %d changes are under way", s.changing))
			return link.Skip
		}
		d.table.Yielded(&s.seat, now)
	case is(&s.redirect, proto.TRedirect):
	default:
		for i, p := range s.live {
			if is(&p.push, proto.TInvalidate) {
				s.live = append(s.live[:i], s.live[i+1:]...)
				p.x.end()
				p.x, p.sent = nil, false
				p.next, s.invals = s.invals, p
				break
			}
		}
	}
	d.act()
	return link.Skip
}

// FrameData is the end of a write's data (link.Handler).
func (s *session) FrameData(whole bool) {
	r := s.receiving
	s.receiving = nil
	r.arrived(whole)
}

// Ended: the opener may be back; what is under way goes on (link.Handler).
func (s *session) Ended(reason error) {
	s.ended = true
	if errs.Of(reason) != errs.Closed {
		s.d.opt.Log.Debug("connection lost", "vdisk", s.d.opt.Name, "edge", s.seat.Edge, "reason", reason)
	}
	s.d.loop.StopTimer(&s.retry)
	if r := s.open; r != nil {
		s.open = nil
		r.fail(errs.Closed, "")
	}
	s.d.table.Lost(&s.seat, s.d.now())
	s.seat.fenced = true
	s.d.act()
}

// Closed is the end (link.Handler).
func (s *session) Closed() {
	delete(s.d.sessions, s)
	s.d.Stats.Sessions.Set(int64(len(s.d.sessions)))
	s.srv.door.Finished(s)
	s.d.finish()
}

var _ link.Handler = (*session)(nil)
