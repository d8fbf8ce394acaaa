package router

import (
	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/link"
	"vstor/dataplane/wire"
)

// write takes a Write in: its data goes to pages of the loop's pool, which become those of the overlay.
func (s *session) write(r *request, h *wire.Header, body []byte, in *buf.Vec) link.Verdict {
	if err := r.write.Decode(body, h.Data); err != nil {
		return s.bad(r, err)
	}
	r.rng = proto.Range{Addr: r.write.Addr, Count: uint64(r.write.Count)}
	switch {
	case !s.mayChange():
		return s.deny(r)
	case !r.inside():
		return link.Skip
	case !r.fits(int64(h.Data)):
		return link.Stall
	case !s.d.loop.Pool().Alloc(&r.mut.Data, int(r.write.Count)):
		s.d.Stats.PageWaits.Inc()
		s.bytes -= r.size
		if !s.retry.Armed() {
			s.d.loop.After(&s.retry, pageRetry)
		}
		return link.Stall
	}
	in.AppendRange(&r.mut.Data, 0, int(h.Data))
	s.receiving = r
	return link.Next
}

// mayChange: only the holder may.
func (s *session) mayChange() bool {
	return s.opened && !s.seat.fenced && s.d.table.Holds(&s.seat)
}

// constant refuses a change of a vDisk that was made read-only. That is no matter of the session, which goes on: who
// was told that it is over would come back and send the change again.
func (r *request) constant() bool {
	if !r.s.d.opt.ReadOnly() {
		return false
	}
	r.fail(errs.Invalid, "the vDisk is read-only")
	return true
}

// arrived checks a write's data against its sums and begins the change. Data that is not what was sent ends the
// connection, as any frame does whose checksum is wrong: the edge sends it again on the next one.
func (r *request) arrived(whole bool) {
	s, d := r.s, r.s.d
	pool := d.loop.Pool()
	if !whole || !s.mayChange() {
		pool.ReleaseVec(&r.mut.Data)
		s.deny(r)
		return
	}
	if r.constant() {
		pool.ReleaseVec(&r.mut.Data)
		return
	}
	r.sums = r.sums[:0]
	for _, seg := range r.mut.Data.Segs {
		r.sums = appendSums(r.sums, pool.SegBytes(seg))
	}
	for i, sum := range r.sums {
		if sum != r.write.Sums[i] {
			pool.ReleaseVec(&r.mut.Data)
			s.bad(r, errs.New(errs.Corrupt, "router: block %d of a write arrived with checksum %#x; it was sent with %#x",
				r.write.Addr+ids.BlockAddr(i), sum, r.write.Sums[i]))
			return
		}
	}
	d.Stats.Writes.Inc()
	d.Stats.WriteBytes.Add(uint64(r.size))
	r.mut.Sums = r.write.Sums
	r.mutate(block.Put)
}

// change begins Flush, Trim and Zero.
func (s *session) change(r *request, t uint8, body []byte) link.Verdict {
	if t == proto.TFlush {
		if len(body) > 0 {
			return s.bad(r, errs.New(errs.Corrupt, "router: a flush with a body of %d bytes; it has none", len(body)))
		}
		s.d.Stats.Flushes.Inc()
		r.rng = proto.Range{}
		r.mutate(block.Sync)
		return link.Next
	}
	if err := r.rng.Decode(t, body, proto.RangeMax+1); err != nil {
		return s.bad(r, err)
	}
	switch {
	case !s.mayChange():
		return s.deny(r)
	case r.constant() || !r.inside():
		return link.Next
	}
	s.d.Stats.Discards.Inc()
	r.mut.Sums = nil
	if t == proto.TTrim {
		r.mutate(block.Discard)
	} else {
		r.mutate(block.ZeroFill)
	}
	return link.Next
}

func (r *request) mutate(op block.MutationOp) {
	r.mut.Op, r.mut.Addr, r.mut.Count, r.mut.Err = op, r.rng.Addr, r.rng.Count, errs.OK
	r.s.changing++
	r.s.d.opt.Driver.Mutate(&r.mut)
}

// MutationDone answers a change (block.MutationDone). One that took effect before its session was fenced is answered
// as what it is: done.
func (r *request) MutationDone(m *block.Mutation) {
	s := r.s
	s.changing--
	if m.Err != errs.OK {
		r.fail(ownKind(m.Err), m.Err.String())
	} else {
		r.ack()
	}
	s.rested()
}

// ownKind is the kind of a failure of the vDisk's as it is sent: Refused is said of sessions alone.
func ownKind(k errs.Kind) errs.Kind {
	if k == errs.Refused {
		return errs.IO
	}
	return k
}
