package server

import (
	"os"

	"vstor/asd/proto"
	"vstor/asd/store"
	"vstor/dataplane/errs"
	"vstor/dataplane/link"
)

// quick answers what takes no IO, on the loop: it goes on answering while the drive hangs.
func (c *conn) quick(r *request, body []byte) link.Verdict {
	k := c.k
	switch r.typ {
	case proto.TLocate:
		rng, err := proto.DecodeRange(proto.TLocate, body)
		if err != nil {
			return c.refuse(r, err)
		}
		r.locate(&rng)
		return link.Next
	case proto.TEpoch:
		ns, _, err := proto.DecodeEpoch(proto.TEpoch, body)
		if err != nil {
			return c.refuse(r, err)
		}
		r.text = proto.AppendEpoch(r.text[:0], ns, k.store.HighestEpoch(ns))
		r.answer(errs.OK)
		return link.Next
	case proto.TExtents:
		return c.findExtents(r, body)
	case proto.TLease:
		return c.grantLease(r, body)
	case proto.TPing, proto.TInfo, proto.TStat:
		if len(body) > 0 {
			return c.refuse(r, errs.New(errs.Corrupt, "asd server: %s with a body of %d bytes; it has none",
				proto.TypeName(r.typ), len(body)))
		}
	default:
		return c.refuse(r, errs.New(errs.Unsupported, "asd server: this ASD does not know requests of %s",
			proto.TypeName(r.typ)))
	}
	r.text = r.text[:0]
	switch r.typ {
	case proto.TInfo:
		i := k.srv.info()
		r.text = i.Append(r.text)
	case proto.TStat:
		st := k.srv.stat()
		r.text = st.Append(r.text)
	}
	r.answer(errs.OK)
	return link.Next
}

// locate answers with extents. They stay what they are for as long as deleted space rests; nothing is
// pinned for a peer that may never come back.
func (r *request) locate(rng *proto.Range) {
	k := r.c.k
	extents, pin, kind := k.store.Locate(rng.Key, rng.Off, rng.Len, k.extents[:0])
	k.store.Unpin(pin)
	if kind != errs.OK {
		r.fail(errs.New(kind, "asd server: %d bytes at %d of %v cannot be located: %v", rng.Len, rng.Off, rng.Key, kind))
		return
	}
	r.text = proto.AppendExtents(r.text[:0], extents)
	r.answer(errs.OK)
}

func (s *Server) info() proto.Info {
	st := s.opts.Store.Stat()
	return proto.Info{ID: st.ID, PID: uint32(os.Getpid()), UUID: st.UUID, Deployment: st.Deployment,
		Incarnation: st.Incarnation, Capacity: st.Capacity, Quarantine: int64(s.opts.Store.Quarantine())}
}

// StatOf is a store's state as the protocol has it.
func StatOf(st store.Stat) proto.Stat {
	n := func(v uint64) int64 { return int64(v) }
	return proto.Stat{
		Incarnation: n(st.Incarnation), Capacity: st.Capacity, Used: st.Used, Quarantined: st.Quarantined,
		InFlight: st.InFlight, SetAside: st.SetAside, Free: st.Free, Reserve: st.Reserve, FreeRuns: int64(st.FreeRuns),
		Fragments: int64(st.Fragments), Puts: n(st.Puts), PutBytes: n(st.PutBytes), Gets: n(st.Gets),
		Deletes: n(st.Deletes), Syncs: n(st.Syncs), Batches: n(st.Batches), Full: n(st.Full), Corrupt: n(st.Corrupt),
		ReadErrors: n(st.ReadErrors), WriteErrors: n(st.WriteErrors), HealedSuperblocks: n(st.HealedSuperblocks),
		Failed: st.Failed,
	}
}

// stat is the store's state with the server's own figures.
func (s *Server) stat() proto.Stat {
	sv := s.Stats()
	out := StatOf(s.opts.Store.Stat())
	out.ReadErrors += int64(sv.ReadErrors)
	out.Reads, out.ReadBytes, out.Connections = int64(sv.Reads), int64(sv.SentBytes), sv.Connections
	out.BadPeers, out.CopiedBytes = int64(sv.BadPeers), int64(sv.CopiedBytes)
	out.RSS, out.CPUNanos = s.usage.read()
	return out
}
