package server

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"vstor/asd/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
	"vstor/dataplane/link"
	"vstor/dataplane/wire"
)

// short is what the server keeps of a peer that reads the drive itself: nothing of what it told it, only how many
// deletes the peer has heard of. What a lease promises (proto/short.go) follows from three orders:
//
//	the store   a fragment is found no more, then it is named as deleted, then its rest begins
//	the loop    Extents, Lease and Forget are made here, one after the other
//	the stream  they arrive in the order in which they were made
//
// grantLease sends what the store names as deleted first. A fragment that it does not name then has its rest still to
// begin, and the rest is as long as a lease; one that it names is forgotten by the peer before it has the
// lease, and cannot be located after that.
type short struct {
	told   uint64 // deletes, by the store's count, up to which the Forgets that were sent go
	frame  link.Frame
	body   [wire.BodyMax]byte
	keys   []layout.FragKey // scratch, as many as fit
	all    bool             // the frame on its way says to forget all
	behind bool             // there are deletes that the frame has no room for

	until     time.Time // when the peer's lease has run out for sure
	forgotten uint64    // deletes of which it said that it has forgotten them
}

// startShort makes the state of a peer that was given the drive.
func (c *conn) startShort() {
	if c.peer.Caps&proto.CapShortCircuit == 0 {
		return
	}
	n := c.k.store.Deleted() // it knows nothing that was deleted before
	s := &short{told: n, forgotten: n, keys: make([]layout.FragKey, 0, proto.ForgetMax)}
	s.frame.Type, s.frame.Done = proto.TForget, c
	c.short = s
}

// findExtents says where fragments lie.
func (c *conn) findExtents(r *request, body []byte) link.Verdict {
	k := c.k
	if c.short == nil {
		return c.refuse(r, errNotShared)
	}
	keys, err := proto.DecodeKeys(c.short.keys[:0], body)
	if err != nil {
		return c.refuse(r, err)
	}
	r.text = binary.LittleEndian.AppendUint64(r.text[:0], k.srv.answer.Incarnation)
	for _, key := range keys {
		es, kind := k.store.Extents(key, k.extents[:0])
		if kind == errs.OK {
			k.count.located.Inc()
		}
		r.text = proto.AppendFound(r.text, kind, es)
	}
	r.answer(errs.OK)
	return link.Next
}

// grantLease tells of all deletes, and then promises that what the peer knows stays where it is.
func (c *conn) grantLease(r *request, body []byte) link.Verdict {
	s := c.short
	if s == nil {
		return c.refuse(r, errNotShared)
	}
	n, err := proto.DecodeForgotten(body)
	if err == nil && n > s.told {
		err = errs.New(errs.Corrupt, "asd server: %d deletes forgotten of %d", n, s.told)
	}
	if err != nil {
		return c.refuse(r, err)
	}
	s.forgotten = max(s.forgotten, n)
	c.forget()
	l := proto.Lease{Told: s.told}
	if !s.behind {
		l.Nanos = int64(c.k.opts.Lease)
		// By a clock that is read now: the loop's is as old as the pass, and a process that was stopped meanwhile
		// would think a lease over that was not asked for yet.
		s.until = time.Now().Add(c.k.opts.Lease)
	}
	c.k.endRest()
	r.text = l.Append(r.text[:0])
	r.answer(errs.OK)
	return link.Next
}

var errNotShared = errs.New(errs.Unsupported, "asd server: this peer was not given the drive")

// forget sends the keys of what was deleted since the last time. As long as nothing of a Forget has left it takes
// more in; one that is on its way has the rest follow it.
func (c *conn) forget() {
	s := c.short
	queued := s.frame.Queued()
	if queued && !c.link.Withdraw(&s.frame) {
		s.behind = s.told != c.k.store.Deleted()
		return
	}
	m := proto.Forget{Keys: s.keys[:0]}
	if queued && !s.all {
		m.Decode(s.frame.Body) // what it had
	}
	keys, next, more, lost := c.k.store.DeletedSince(s.told, m.Keys)
	s.all = lost || queued && s.all
	if s.all {
		keys, next, more = keys[:0], c.k.store.Deleted(), false
	}
	s.told, s.behind = next, more
	if !queued && len(keys) == 0 && !s.all {
		return
	}
	m.Told, m.Keys = next, keys
	s.frame.Body = m.Append(s.body[:0])
	c.k.count.forgets.Inc()
	c.link.Send(&s.frame)
}

// endRest ends the rest of deleted space that no lease can name any more: all peers whose lease may still hold have
// forgotten it, and so have, by the clock, those that went away and those of the process before this one.
func (k *core) endRest() {
	n, now := k.store.Deleted(), time.Now()
	for c := k.conns; c != nil; c = c.next {
		if c.short != nil && c.short.until.After(now) {
			n = min(n, c.short.forgotten)
		}
	}
	if k.gone.until.After(now) {
		n = min(n, k.gone.forgotten)
	}
	k.store.EndRest(n)
}

// leases are those of peers that went away, taken together: the end of the last, and the least that one had forgotten.
type leases struct {
	until     time.Time
	forgotten uint64
}

// leaveShort is the end of a connection: what was promised on it is kept.
func (c *conn) leaveShort() {
	s, g, now := c.short, &c.k.gone, time.Now()
	if s == nil || !s.until.After(now) {
		return
	}
	if !g.until.After(now) {
		*g = leases{s.until, s.forgotten}
	}
	g.forgotten = min(g.forgotten, s.forgotten)
	if s.until.After(g.until) {
		g.until = s.until
	}
}

// FrameSent is the end of a Forget (link.Sent).
func (c *conn) FrameSent(_ *link.Frame, sent bool) {
	if sent && !c.link.Dead() {
		c.forget()
	}
}

// deletedMessage tells the loop that the store has deleted something: peers forget soon what is gone. They need not,
// so a message that finds no room is no loss.
type deletedMessage struct {
	k      *core
	posted atomic.Bool
}

// wake is called by the store.
func (m *deletedMessage) wake() {
	if m.posted.Swap(true) {
		return
	}
	if !m.k.loop.TryPost(m) {
		m.posted.Store(false)
	}
}

// RunOnLoop implements ring.Message.
func (m *deletedMessage) RunOnLoop() {
	m.posted.Store(false) // now: what is deleted from here on may not be seen below
	for c := m.k.conns; c != nil; c = c.next {
		if c.short != nil && !c.link.Ended() {
			c.forget()
		}
	}
	m.k.endRest()
}
