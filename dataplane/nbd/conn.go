package nbd

import (
	"vstor/dataplane/block"
	"vstor/dataplane/ring"
)

// conn is a connection in transmission. All of it belongs to the loop of its export, but for the
// fields above the line, which never change.
//
// It ends in steps, each of which waits for nothing but the one before:
//
//	ended    nothing is received any more: good-bye, end of stream, broken protocol, shutdown
//	         ─ requests in flight complete, their replies leave
//	dead     nothing is sent any more: the socket failed, or time ran out
//	         ─ requests in flight complete, their replies are dropped
//	settled  no operation and no request is under way: the descriptor and the export are closed
type conn struct {
	srv   *Server
	share *share
	fd    int
	tls   *pump // nil, or what stands at the other end of fd
	exp   Export
	dev   block.Device
	terms terms
	// ------------------------------------------------------------------
	started  bool
	ended    bool
	dead     bool
	settled  bool
	inflight int // requests from admission until their reply has left or was dropped

	// receive.go
	rx rx

	// send.go
	tx tx

	readBytes  int64 // read payload from admission until sent
	writeBytes int64 // write payload from the first page until completed

	// steps.go
	long     int // requests that are taking steps
	longLine requestQueue
	draining bool // the server shuts down

	stall  stall
	linger ring.Timer

	lastMove int64 // loop time at which the peer last sent or took something

	prev, next         *conn // connections of the loop
	waitPrev, waitNext *conn // those that wait for its memory
}

// stall says why a connection does not read its socket.
type stall uint8

const (
	stallNone stall = iota
	stallOwn        // its own limits: a reply that leaves, or a write that completes, resumes it
	stallLoop       // the loop's memory: it stands in the share's line
)

func newConn(s *Server, sh *share, fd int, exp Export, t terms) *conn {
	c := &conn{srv: s, share: sh, fd: fd, exp: exp, dev: exp.Device(), terms: t}
	c.rx.op.Done, c.tx.op.Done = c, c
	c.rx.headSize, c.tx.room = RequestSize, ReplySize
	if t.mode == Extended {
		c.rx.headSize = ExtendedRequestSize
	}
	if t.mode != Simple {
		c.tx.room = errorRoom
	}
	c.tx.hook = ring.Hook{Run: c.sendReplies, Stage: ring.StageSocket}
	c.linger.Fire = c.lingered
	return c
}

// RunOnLoop starts the connection (ring.Message).
func (c *conn) RunOnLoop() {
	c.share.add(c)
	c.started = true
	c.lastMove = c.share.loop.Now()
	if c.ended || c.dead {
		c.settle()
		return
	}
	c.arm()
}

// RingDone is the end of a receive or a send (ring.Completer).
func (c *conn) RingDone(op *ring.Op, res int32) {
	if res > 0 {
		c.lastMove = c.share.loop.Now()
	}
	if op == &c.tx.op {
		c.sent(res)
	} else {
		c.received(res)
	}
	c.settle()
}

// submit hands r to the device.
func (c *conn) submit(r *request) {
	r.left++
	c.dev.Submit(&r.Request)
}

// finish gets a client's request whose last piece has completed on its way out.
func (c *conn) finish(r *request) {
	if r.dead || c.dead {
		c.drop(r)
		c.settle()
		return
	}
	if r.errno != OK {
		c.share.counts.errors.Inc()
		c.share.pool.ReleaseVec(&r.Data)
	}
	c.tx.queue.push(r)
	if !c.tx.busy {
		c.share.loop.AtPassEnd(&c.tx.hook)
	}
}

// drop frees a request whose reply has left or never will.
func (c *conn) drop(r *request) {
	c.share.pool.ReleaseVec(&r.Data)
	c.dropReplyPages(r)
	if r.bytes > 0 {
		c.readBytes -= int64(r.bytes)
		c.share.giveRead(int64(r.bytes))
	}
	c.share.putRequest(r)
	c.inflight--
}

// end stops receiving. What is in flight goes on.
func (c *conn) end() {
	if c.ended {
		return
	}
	c.ended = true
	c.stall = stallNone
	c.share.leave(c)
	c.dropStash()
	if !c.rx.busy || !c.rx.direct { // else the kernel has the pages until the receive has ended
		c.dropPayload()
	}
	if c.started {
		c.share.loop.After(&c.linger, c.srv.opts.LingerTimeout)
	}
}

// lingered looks after a connection that has ended: its peer may take its time, as long as it takes
// something. For the device there is no limit.
func (c *conn) lingered() {
	if c.tx.busy && c.share.loop.Now()-c.lastMove >= int64(c.srv.opts.LingerTimeout) {
		c.abort()
		return
	}
	c.share.loop.After(&c.linger, c.srv.opts.LingerTimeout)
}

// abort stops sending as well: replies are dropped as they come.
func (c *conn) abort() {
	if c.settled {
		return
	}
	c.end()
	c.dead = true
	if c.started {
		hangUp(c.fd) // brings operations in flight back
		if c.tls != nil {
			c.tls.cut()
		}
	}
	c.dropReplies()
	c.dropLine()
	c.settle()
}

// drain is Server.Shutdown's word to the loop: read nothing more, answer what was asked.
func (c *conn) drain() {
	if c.settled {
		return
	}
	c.draining = true
	c.end()
	c.share.loop.Cancel(&c.rx.op)
	c.settle()
}

// settle closes the connection once nothing of it is under way.
func (c *conn) settle() {
	if !c.ended || c.settled || !c.started {
		return
	}
	if c.rx.busy || c.tx.busy || c.inflight > 0 {
		return
	}
	c.settled = true
	c.share.loop.StopTimer(&c.linger)
	c.giveHeaderPage()
	c.share.remove(c)
	go c.srv.finished(c)
}

// takeHeaderPage makes sure that replies have a place for their headers, before a request is admitted:
// a reply must never wait for memory. An idle connection holds none.
func (c *conn) takeHeaderPage() bool {
	if !c.tx.header.Empty() {
		return true
	}
	return c.share.pool.AllocReserved(&c.tx.header, 1)
}

func (c *conn) giveHeaderPage() {
	if !c.tx.header.Empty() {
		c.share.pool.ReleaseVec(&c.tx.header)
	}
}

// roomCame resumes a connection that waits for its own limits.
func (c *conn) roomCame() {
	if c.stall == stallOwn {
		c.resume()
		c.settle()
	}
}

var (
	_ ring.Completer  = (*conn)(nil)
	_ ring.Message    = (*conn)(nil)
	_ block.Completer = (*request)(nil)
)
