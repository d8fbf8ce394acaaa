package remote

import (
	"syscall"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/ring"
)

// Shut closes it: what was not acknowledged fails. It blocks; any goroutine but the loop.
func (r *Remote) Shut() {
	done := make(chan struct{})
	if r.loop.Call(func() { r.shut(func() { close(done) }) }) {
		<-done
	}
}

// shutWait bounds how long a router may take to hear that the session is over. If it does not hear, others wait for the
// lease: look-ups that are under way are no reason for that.
const shutWait = time.Second

func (r *Remote) shut(done func()) {
	r.onDone = append(r.onDone, done)
	if r.closing || r.stopped {
		r.finish()
		return
	}
	r.closing = true
	r.cancel()
	r.forget()
	if r.conn != nil && r.state == up && r.fenced == nil {
		r.atRest() // or when what was sent is answered: nothing more is sent
		r.loop.After(&r.cut, shutWait)
	} else {
		r.cutOff()
	}
	if r.conn == nil {
		r.failAll(errs.Closed)
	}
	r.finish()
}

// finish completes Shut once all is quiet.
func (r *Remote) finish() {
	if r.conn != nil || r.dialing || !(r.closing || r.stopped) {
		return
	}
	if !r.ended {
		r.ended = true
		r.loop.StopTimer(&r.tick)
		r.loop.StopTimer(&r.cut)
		r.loop.StopTimer(&r.dropping)
		if !r.stopped {
			r.loop.Unhold(&r.anchor, r.token)
		}
		r.settle(errs.New(errs.Closed, "edge: stopping"))
	}
	fs := r.onDone
	r.onDone = nil
	for _, f := range fs {
		f()
	}
}

// anchor is Remote as the Completer of anchor: the loop stops.
type anchor Remote

func (a *anchor) RingDone(_ *ring.Op, res int32) {
	r := (*Remote)(a)
	if res != -int32(syscall.ECANCELED) {
		return
	}
	r.stopped = true
	r.cancel()
	r.dialing = false // its post will be refused
	if r.conn != nil {
		r.conn.Abort(errs.New(errs.Canceled, "the loop has stopped"))
	} else {
		r.failAll(errs.Closed)
	}
	r.finish()
}
