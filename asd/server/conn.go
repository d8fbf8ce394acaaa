package server

import (
	"vstor/asd/handshake"
	"vstor/asd/proto"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/link"
	"vstor/dataplane/wire"
)

// conn is a connection after its handshake, on the loop.
type conn struct {
	k    *core
	link *link.Conn
	peer *handshake.Peer

	unanswered int
	bytes      int64    // asked for or carried by them
	reads      int64    // of them, what ReadRanges ask for
	gets       int      // buffers for verified reads that they hold
	requests   *request // them
	receiving  *request // whose data is coming in
	ending     bool     // the server shuts down: what was asked is answered
	short      *short   // of a peer that reads the drive itself; else nil

	line               *line
	linePrev, lineNext *conn
	prev, next         *conn
}

var (
	errSilent   = errs.New(errs.Unreachable, "asd server: the peer is silent and others wait for what it holds")
	errIdle     = errs.New(errs.Closed, "asd server: nothing happened on the connection for long")
	errShutdown = errs.New(errs.Closed, "asd server: shutting down")
)

// holds reports whether the connection has memory that others may wait for.
func (c *conn) holds() bool { return c.unanswered > 0 }

// RunOnLoop starts the connection (ring.Message).
func (c *conn) RunOnLoop() {
	c.k.add(c)
	c.startShort()
	c.link.Start()
	if c.k.srv.door.Closed() {
		c.shutdown()
	}
}

// FrameIn takes a request in (link.Handler).
func (c *conn) FrameIn(h *wire.Header, body []byte, in *buf.Vec) link.Verdict {
	switch {
	case h.Type&wire.Reply != 0:
		return c.bad(errs.New(errs.Corrupt, "asd server: a %s came in", proto.TypeName(h.Type)))
	case h.Type == proto.TCancel:
		return c.cancel(h, body)
	case c.unanswered >= c.k.opts.MaxRequests:
		return link.Stall // FrameSent resumes it
	}
	r := c.begin(h)
	if r == nil {
		return link.Stall
	}
	v := c.dispatch(r, h, body, in)
	if v == link.Stall {
		c.takeBack(r)
		return v
	}
	c.leaveLine()
	return v
}

// dispatch begins to carry a request out. Stall: nothing was done.
func (c *conn) dispatch(r *request, h *wire.Header, body []byte, in *buf.Vec) link.Verdict {
	c.k.count.request(h.Type)
	switch h.Type {
	case proto.TReadRanges:
		return c.readRanges(r, h, body)
	case proto.TPut:
		return c.put(r, h, body, in)
	case proto.TDelete:
		return c.delete(r, h, body, in)
	}
	if h.Data != 0 {
		r.fail(errs.New(errs.Unsupported, "asd server: %s with %d bytes of data; it has none", proto.TypeName(h.Type),
			h.Data))
		return link.Skip
	}
	switch h.Type {
	case proto.TGet:
		return c.get(r, body)
	case proto.TList:
		return c.list(r, body)
	case proto.TDescribe:
		return c.describe(r, body)
	case proto.TVerify:
		return c.verify(r, body)
	case proto.TFence:
		return c.fence(r, body)
	case proto.TFault:
		return c.fault(r, body)
	}
	return c.quick(r, body)
}

// FrameData is the end of a put's or delete's data (link.Handler).
func (c *conn) FrameData(whole bool) {
	r := c.receiving
	c.receiving = nil
	if !whole {
		r.drop()
		return
	}
	c.k.count.receivedBytes.Add(uint64(r.size))
	c.k.srv.work.add(r)
}

// cancel marks a request; it is answered by whoever would have begun it.
func (c *conn) cancel(h *wire.Header, body []byte) link.Verdict {
	id, err := proto.DecodeCancel(body)
	if err != nil || h.Data != 0 {
		return c.bad(errs.New(errs.Corrupt, "asd server: a cancel of %d bytes with %d of data", len(body), h.Data))
	}
	for r := c.requests; r != nil; r = r.next {
		if r.frame.ID == id {
			r.canceled.Store(true)
		}
	}
	return link.Next
}

// bad closes the connection of a peer that breaks the protocol.
func (c *conn) bad(err error) link.Verdict {
	c.k.count.badPeers.Inc()
	c.link.Abort(err)
	return link.Skip
}

// refuse answers a request whose body does not hold what it should; a body that does not parse ends the
// connection.
func (c *conn) refuse(r *request, err error) link.Verdict {
	if errs.Of(err) == errs.Corrupt {
		c.bad(err)
		r.drop()
		return link.Skip
	}
	r.fail(err)
	return link.Skip
}

// fits reports whether n more bytes may be asked for or carried now; if not, FrameSent resumes the connection.
func (c *conn) fits(n int64) bool { return c.bytes == 0 || c.bytes+n <= c.k.opts.MaxBytes }

// fair reports whether the connection may hold n more bytes of pages; if not, FrameSent resumes it. With its next
// request it may have at most half of what is free: one greedy or sleeping peer then gets a third of
// all, the next a third of the rest, and a newcomer with a small request finds room.
func (c *conn) fair(n int64) bool {
	return c.reads == 0 || 2*(c.reads+n) <= int64(c.k.pages)*buf.PageSize
}

// shutdown reads nothing more, and answers what was asked.
func (c *conn) shutdown() {
	c.ending = true
	c.link.End(errShutdown)
}

// Ended cancels what was asked, but for a shutdown (link.Handler).
func (c *conn) Ended(reason error) {
	c.leaveLine()
	if k := errs.Of(reason); k != errs.Closed && k != errs.Canceled {
		c.k.srv.opts.Log.Debug("asd server: connection lost", "asd", c.k.opts.Name, "peer", c.peer.Name, "reason", reason)
	}
	if c.ending {
		return
	}
	for r := c.requests; r != nil; r = r.next {
		r.canceled.Store(true)
	}
}

// Closed is the end (link.Handler).
func (c *conn) Closed() {
	c.leaveShort()
	c.k.remove(c)
	c.k.srv.door.Finished(c)
}

var _ link.Handler = (*conn)(nil)
