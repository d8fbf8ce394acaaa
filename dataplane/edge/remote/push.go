package remote

import (
	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/link"
	"vstor/dataplane/wire"
)

// pushReply answers something that the router pushed. They are rare.
type pushReply struct{ link.Frame }

// FrameSent needs nothing done (link.Sent).
func (p *pushReply) FrameSent(*link.Frame, bool) {}

func (r *Remote) replyPush(t uint8, id uint64) {
	if r.conn == nil || r.conn.Ended() {
		return
	}
	p := &pushReply{link.Frame{Type: t | wire.Reply, ID: id}}
	p.Done = p
	r.conn.Send(&p.Frame)
}

// pushed takes what the router wants known.
func (r *Remote) pushed(h *wire.Header, body []byte) link.Verdict {
	if h.Data != 0 {
		return r.nonsense("a %s with %d bytes of data", proto.TypeName(h.Type), h.Data)
	}
	switch h.Type {
	case proto.TInvalidate:
		var m proto.Invalidate
		if err := m.Decode(body); err != nil {
			return r.nonsense("%v", err)
		}
		r.Stats.Invalidations.Inc()
		if m.SCO == 0 {
			r.invalidate(m.Addr, m.Count)
			r.replyPush(h.Type, h.ID)
			break
		}
		r.drops = append(r.drops, drop{object: m.Object, id: h.ID, life: r.life})
		r.loop.After(&r.dropping, 0)
	case proto.TYield:
		if r.mode == proto.Exclusive {
			r.yielding, r.yieldID = true, h.ID
			r.atRest()
		}
	case proto.TRevoke:
		r.forget()
		r.replyPush(h.Type, h.ID)
		r.fence(errs.New(errs.Refused, "%s", link.Printable(body)))
	case proto.TRedirect:
		r.replyPush(h.Type, h.ID)
		r.addr = string(body)
		r.loop.After(&r.cut, cutAfter)
	default:
		return r.nonsense("a %s was pushed", proto.TypeName(h.Type))
	}
	return link.Skip
}

// atRest gives the vDisk up, if it is to be, once all changes that were sent are acknowledged and no partial write is
// under way.
func (r *Remote) atRest() {
	switch {
	case r.out.changes > 0 || r.replay.n > 0 || r.state != up:
		return
	case r.closing:
		r.sendControl(&r.closer, nil)
		return
	case !r.yielding || r.owners > 0:
		return
	}
	r.opt.Log.Info("the vDisk is given up to another edge", "vdisk", r.opt.VDisk)
	r.yielding = false
	r.forget()
	r.mode, r.wish, r.session = proto.Passive, proto.Passive, 0
	r.replyPush(proto.TYield, r.yieldID)
	r.sendNext()
	r.ownSoon()
}

// drop is an object of which nothing may be kept any more.
type drop struct {
	object proto.Object
	id     uint64
	life   uint32
	at     int
}

// dropTogether is how many pages of the cache are looked through in a pass, about 200 us.
const dropTogether = 4096

// dropSome looks through a part of the cache. What is not reached yet may still be used: the router waits for the
// answer.
func (r *Remote) dropSome() {
	if len(r.drops) == 0 {
		return
	}
	d := &r.drops[0]
	done := true
	if d.life == r.life {
		for i, ns := range r.spaces {
			if ns == d.object.NS {
				d.at, done = r.opt.Cache.dropObject(r.life, uint16(i), d.object.SCO, d.at, dropTogether)
			}
		}
	}
	if done {
		if r.opt.Objects != nil {
			r.opt.Objects.Forget(d.object.NS, d.object.SCO)
		}
		r.replyPush(proto.TInvalidate, d.id)
		r.drops = append(r.drops[:0], r.drops[1:]...)
	}
	if len(r.drops) > 0 {
		r.loop.After(&r.dropping, 0)
	}
}
