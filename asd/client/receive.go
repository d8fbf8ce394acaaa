package client

import (
	"syscall"
	"time"

	"vstor/asd/proto"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/link"
	"vstor/dataplane/wire"
)

// handler is Reader as the link.Handler of its connection.
type handler Reader

var _ link.Handler = (*handler)(nil)

// FrameIn takes an answer. What makes no sense costs the peer its connection.
func (h *handler) FrameIn(head *wire.Header, body []byte, in *buf.Vec) link.Verdict {
	r := (*Reader)(h)
	r.heard()
	switch {
	case head.Type == proto.TReadRanges|wire.Reply:
		return r.reply(head, body, in)
	case head.Type == proto.TPing|wire.Reply && head.ID == pingID && r.pinged && head.Body == 0 && head.Data == 0:
		r.pinged = false
		r.probe() // of the drive, which may have hung as well, only a read tells
	case r.short.d != nil && h.shortFrame(head, body):
	default:
		r.nonsense("a %s with id %d", proto.TypeName(head.Type), head.ID)
	}
	return link.Skip
}

// shortFrame takes what concerns the drive; false: it does not, or nobody asked.
func (h *handler) shortFrame(head *wire.Header, body []byte) bool {
	r := (*Reader)(h)
	switch {
	case head.Type == proto.TForget && head.ID == 0:
		r.forgetCame(head, body)
	case head.Type == proto.TLease|wire.Reply && head.ID == leaseID && r.short.leaseOut:
		r.leaseCame(head, body)
	case head.Type == proto.TExtents|wire.Reply && head.ID == askID && len(r.short.asked) > 0:
		r.extentsCame(head, body)
	default:
		return false
	}
	return true
}

// heard notes that the peer lives.
func (r *Reader) heard() {
	r.since = r.loop.Now()
	r.stalled = false
}

func (r *Reader) nonsense(format string, args ...any) {
	r.stats.BadAnswers.Inc()
	r.conn.Abort(errs.New(errs.Corrupt, "the peer does not keep to the protocol: "+format, args...))
}

// reply takes the answer to a read.
func (r *Reader) reply(head *wire.Header, body []byte, in *buf.Vec) link.Verdict {
	s := r.find(head.ID)
	if s == nil || s.state != slotSent && s.state != slotLate {
		r.nonsense("an answer to read %#x, which is not under way", head.ID)
		return link.Skip
	}
	k, data := kindOf(head.Arg), uint32(0)
	if k == errs.OK {
		if len(body) != 1 {
			r.nonsense("an answer to one range of %d bytes", len(body))
			return link.Skip
		}
		if k = kindOf(uint32(body[0])); k == errs.OK {
			data = s.n
		}
	}
	if head.Data != data {
		r.nonsense("an answer with %d bytes of data; %d would be right", head.Data, data)
		return link.Skip
	}
	if k != errs.Canceled {
		r.sick = false // the drive lives, whatever it says
	}
	switch {
	case s.state == slotLate:
		r.lateAnswer(s)
		return link.Skip
	case k == errs.OK:
		r.timed(r.loop.Now() - s.start)
		s.state, r.landing = slotLanding, s
		in.Segs = append(in.Segs, s.v.Segs...)
		return link.Next
	case k == errs.Canceled: // it did not get to it in time
		r.timeout(s)
		r.end(s, -int32(syscall.ETIMEDOUT))
	default:
		r.end(s, -int32(k.Errno()))
	}
	r.answered(s)
	r.probe()
	return link.Skip
}

// kindOf is the kind that an answer names; one of a later build cannot be known.
func kindOf(arg uint32) errs.Kind {
	k := errs.Kind(arg)
	if arg > 255 || errs.FromErrno(k.Errno()) != k {
		return errs.Unreachable
	}
	return k
}

// lateAnswer takes an answer that nobody waits for.
func (r *Reader) lateAnswer(s *slot) {
	if !s.probe {
		r.stats.Late.Add(-1)
	}
	r.answered(s)
	r.probe()
}

// FrameData ends the read whose data was being received.
func (h *handler) FrameData(whole bool) {
	r := (*Reader)(h)
	s := r.landing
	r.landing = nil
	if whole {
		r.heard()
		r.end(s, int32(s.n))
		r.answered(s)
		return
	}
	s.state = slotSent // the connection has ended; Closed ends the read
}

// Ended begins the end of a connection: with what it owes gone, there is nothing to wait for.
func (h *handler) Ended(reason error) {
	r := (*Reader)(h)
	if !r.closing && !r.stopped {
		r.stats.Breaks.Inc()
		r.a.opts.Log.Info("asd reader: connection ended", "asd", r.a.opts.ID, "loop", r.loop.Name(), "why", reason)
	}
	r.conn.Abort(reason)
	r.endDirect()
}

// Closed ends the reads that were under way, and those that wait: others shall be asked now.
func (h *handler) Closed() {
	r := (*Reader)(h)
	r.conn = nil
	r.endDirect()
	r.stalled, r.sick, r.pinged = false, false, false
	r.endAll(r.brokenResult())
	for _, s := range r.slots {
		if s.state == slotLate || s.state == slotSent {
			if s.state == slotLate && !s.probe {
				r.stats.Late.Add(-1)
			}
			r.out--
			r.asked -= int64(s.n)
			r.put(s)
		}
	}
	r.stats.InFlight.Set(int64(r.out))
	r.loop.StopTimer(&r.timer)
	if r.closing || r.stopped {
		r.finish()
		return
	}
	// A peer that breaks each connection soon is not asked in a circle.
	if lived := time.Duration(r.loop.Now() - r.opened); lived > time.Second {
		r.again = 0
	} else {
		r.again = r.a.backOff(r.again, errs.Unreachable)
	}
	r.dial()
}

func (r *Reader) brokenResult() int32 {
	switch {
	case r.stopped:
		return -int32(syscall.ECANCELED)
	case r.closing:
		return -int32(errs.Closed.Errno())
	}
	return -int32(errs.Unreachable.Errno())
}

// endAll ends every read that can end now.
func (r *Reader) endAll(res int32) {
	for s := r.live.head; s != nil; {
		next := s.next
		if r.conn == nil && s.state == slotSent {
			r.end(s, res)
			s.state = slotLate
			r.stats.Late.Add(1)
		} else {
			r.abandon(s, res)
		}
		s = next
	}
}
