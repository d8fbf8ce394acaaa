package nbd

import (
	"vstor/dataplane/block"
	"vstor/dataplane/buf"
)

// takeHeader gathers and parses a header; most lie whole in data.
func (c *conn) takeHeader(data []byte) []byte {
	head, size := data, c.rx.headSize
	if c.rx.nhead > 0 || len(data) < size {
		n := copy(c.rx.head[c.rx.nhead:size], data)
		c.rx.nhead += n
		data = data[n:]
		if c.rx.nhead < size {
			return data
		}
		c.rx.nhead = 0
		head = c.rx.head[:]
	} else {
		data = data[size:]
	}
	req, ok := &c.rx.req, false
	if c.terms.mode == Extended {
		*req, ok = ParseExtendedRequest(head)
		// What announces more payload than a request may carry is not skipped: it may as well be garbage.
		ok = ok && (req.Flags&FlagPayload == 0 || req.Length <= block.MaxRequest)
	} else {
		*req, ok = ParseRequest(head)
	}
	switch {
	case !ok: // what follows cannot be told apart any more
		c.share.counts.badPeers.Inc()
		c.end()
	case req.Type == CmdDisc:
		c.share.counts.requests[CmdDisc].Inc()
		c.end()
	default:
		c.announce(req)
	}
	return data
}

// announce takes note of a request and of the payload behind it.
func (c *conn) announce(req *Request) {
	c.rx.state, c.rx.why, c.rx.payload = rxAdmit, whyNot, 0
	if req.hasPayload(c.terms.mode) {
		c.rx.payload = int64(req.Length)
	}
	if req.Type != CmdBlockStatus {
		return
	}
	c.rx.want = c.terms.contexts
	if c.rx.want == 0 || req.Flags&FlagPayload == 0 || c.terms.mode != Extended {
		return
	}
	c.rx.why = whyContexts
	if req.Length > 0 && req.Length <= controlMax {
		c.rx.state = rxControl
	}
}

// takeControl gathers and parses the payload of a BLOCK_STATUS.
func (c *conn) takeControl(data []byte) []byte {
	n := copy(c.rx.head[c.rx.nhead:c.rx.payload], data)
	if c.rx.nhead += n; int64(c.rx.nhead) < c.rx.payload {
		return data[n:]
	}
	length, want, ok := parseControl(c.rx.head[:c.rx.nhead], c.terms.contexts)
	if ok {
		c.rx.req.Length, c.rx.want, c.rx.why = length, want, whyNot
	}
	c.rx.nhead, c.rx.payload, c.rx.state = 0, 0, rxAdmit
	return data[n:]
}

// admit takes the parsed request in, or stalls the connection. A request is counted in flight from
// here on.
func (c *conn) admit() bool {
	q, s := &c.rx.req, c.share
	errno, why := c.terms.check(q)
	if c.rx.why != whyNot {
		errno, why = EINVAL, c.rx.why
	}
	if c.inflight >= c.srv.opts.MaxInflight {
		c.stall = stallOwn
		return false
	}
	if !c.takeHeaderPage() {
		s.wait(c, true)
		return false
	}
	reads := int64(0) // bytes of the reply
	if errno == OK {
		switch q.Type {
		case CmdRead:
			reads = int64(q.Length)
		case CmdBlockStatus:
			if reads = statusBytes(c.rx.want); !c.hasPages(int(reads / buf.PageSize)) {
				return false
			}
		}
		if reads > 0 && !c.takeRead(reads) {
			return false
		}
	}
	c.inflight++
	r := s.getRequest(c)
	r.cookie, r.offset, r.cmd, r.errno, r.why, r.bad = q.Cookie, q.Offset, q.Type, errno, why, -1
	r.bytes = uint32(reads)
	if int(q.Type) < len(s.counts.requests) {
		s.counts.requests[q.Type].Inc()
	}
	c.rx.state = rxHeader
	c.start(r)
	return true
}

// start gets an admitted request on its way.
func (c *conn) start(r *request) {
	q := &c.rx.req
	switch {
	case r.errno != OK:
		if c.rx.payload > 0 {
			c.rx.left, c.rx.state = c.rx.payload, rxSkip
		}
		c.finish(r)
	case c.rx.payload > 0:
		c.rx.off, c.rx.left = int64(q.Offset), c.rx.payload
		r.open = true
		c.rx.write, c.rx.state = r, rxAlloc
	case q.Length == 0 && q.Type != CmdFlush:
		c.finish(r)
	case q.Type == CmdBlockStatus || q.Length > stepMax(q.Type):
		c.fill(r, int64(q.Offset), 0)
		c.startLong(r, int64(q.Length), c.rx.want)
	default:
		c.fill(r, int64(q.Offset), uint32(q.Length))
		r.whole = q.Flags&FlagDF != 0
		c.submit(r)
	}
}

// ops is the block operation of each command that reaches a device.
var ops = [...]block.Op{CmdRead: block.Read, CmdWrite: block.Write, CmdFlush: block.Flush,
	CmdTrim: block.Trim, CmdCache: block.Cache, CmdWriteZeroes: block.WriteZeroes,
	CmdBlockStatus: block.Extents}

// fill sets what the device is to do, out of the request that is being received.
func (c *conn) fill(r *request, off int64, n uint32) {
	q := &c.rx.req
	r.Op, r.Off, r.Len, r.Flags = ops[q.Type], off, n, 0
	if q.Flags == 0 {
		return
	}
	switch q.Type {
	case CmdWrite, CmdTrim, CmdWriteZeroes: // clients may set FUA on anything
		if q.Flags&FlagFUA != 0 {
			r.Flags |= block.FUA
		}
		if q.Flags&FlagNoHole != 0 {
			r.Flags |= block.NoHole
		}
		if q.Flags&FlagFastZero != 0 {
			r.Flags |= block.FastZero
		}
	case CmdBlockStatus:
		if q.Flags&FlagReqOne != 0 {
			r.Flags |= block.One
		}
	}
}
