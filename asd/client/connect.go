package client

import (
	"syscall"
	"time"

	"vstor/asd/handshake"
	"vstor/asd/proto"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
	"vstor/dataplane/link"
	"vstor/dataplane/ring"
)

var errStalled = errs.New(errs.Unreachable, "the answer stopped in the middle of its data")

// arrival is what a dialing goroutine posts to the loop: a connection, or none.
type arrival struct {
	r    *Reader
	conn *link.Conn
	peer *handshake.Peer
	file *dio.Disk // nil: the drive is not to be had
}

// discard closes what did not come to be used.
func (v *arrival) discard() {
	if v.conn != nil {
		v.conn.Discard()
	}
	if v.file != nil {
		v.file.Close()
	}
	v.conn, v.file = nil, nil
}

// dial connects in a goroutine. If that fails the ASD's coming up begins it again; if the ASD is up, it tries on.
func (r *Reader) dial() {
	if r.dialing || r.conn != nil || r.closing || r.stopped {
		return
	}
	r.dialing = true
	go r.connect(r.again)
}

// connect runs in a goroutine of its own: it alone touches r.arrive until it has posted.
func (r *Reader) connect(wait time.Duration) {
	pause(r.ctx, wait)
	for r.ctx.Err() == nil && r.a.Up() {
		err := r.line()
		if err == nil {
			break
		}
		wait = r.a.backOff(wait, err)
		pause(r.ctx, wait)
	}
	if !r.loop.Post(&r.arrive) {
		r.arrive.discard()
	}
}

// line makes a connection, and a drive if the ASD hands it over, and puts them into r.arrive. An ASD that hands over
// what is none is asked for its bytes, as one that hands over nothing.
func (r *Reader) line() error {
	want := caps
	if r.a.opts.ShortCircuit {
		want |= proto.CapShortCircuit
	}
	l, err := r.a.dial(r.ctx, r.a.opts.Patience, want)
	if errs.Of(err) == errs.Corrupt && want != caps {
		r.a.opts.Log.Warn("asd reader: the drive did not come as it should: its bytes go over the socket", "asd",
			r.a.opts.ID, "why", err)
		l, err = r.a.dial(r.ctx, r.a.opts.Patience, caps)
	}
	if err != nil {
		return err
	}
	v := &r.arrive
	if d := l.peer.Drive; d != nil {
		l.peer.Drive = nil
		if v.file, err = dio.Adopt(d.FD, r.a.opts.Addr, d.Is); err != nil {
			r.a.opts.Log.Warn("asd reader: what was handed over is not the drive: its bytes go over the socket", "asd",
				r.a.opts.ID, "why", err)
		}
	}
	fd, err := link.Take(l.nc)
	if err != nil {
		v.discard()
		return err
	}
	// The Reader's own times are shorter; this one is for what they do not see.
	v.conn, v.peer = link.New(r.hub, fd, (*handler)(r), link.Options{Timeout: r.a.opts.CallTimeout}), l.peer
	return nil
}

// RunOnLoop implements ring.Message: dialing has ended.
func (v *arrival) RunOnLoop() {
	r, conn, peer, file := v.r, v.conn, v.peer, v.file
	v.conn, v.peer, v.file = nil, nil, nil // now: a dial from here on has v for itself
	r.dialing = false
	switch {
	case conn == nil:
		// It may have come up again between the goroutine's look and now.
		if r.a.Up() {
			r.dial()
		}
	case r.closing || r.stopped:
		(&arrival{conn: conn, file: file}).discard()
	default:
		r.conn, r.opened, r.life = conn, r.loop.Now(), peer.Incarnation
		r.limit = max(min(r.opt.InFlight, int(peer.Requests)-ownRequests), 1)
		r.room = int64(min(peer.Bytes, 1<<62))
		r.stats.Connects.Inc()
		r.conn.Start()
		if file != nil {
			r.startDirect(file)
		}
	}
	if r.closing || r.stopped {
		r.finish()
	}
}

// upMessage is Reader as the message that the ASD has come up.
type upMessage Reader

// RunOnLoop implements ring.Message.
func (m *upMessage) RunOnLoop() {
	r := (*Reader)(m)
	if r.conn != nil && (r.stalled || r.life != r.a.life.Load()) {
		// Perhaps nobody is there any more to close it.
		r.conn.Abort(errs.New(errs.Unreachable, "it is silent or of an earlier life, and the ASD came up anew"))
		return
	}
	r.dial()
}

// Close ends all reads, with -ESHUTDOWN, and the connection; done, which may be nil, is called on the loop
// when nothing of either is left, never inside Close. On the loop, or after it has ended, where done is called
// at once. A loop that stops ends reads and connection by itself.
func (r *Reader) Close(done func()) {
	r.cancel()
	r.a.mu.Lock()
	delete(r.a.readers, r)
	r.a.mu.Unlock()
	if r.stopped || !r.loop.OnLoop() {
		r.closing = true
		if done != nil {
			done()
		}
		return
	}
	invariants.Assert(!r.closing, "asd: a reader was closed twice")
	r.closing, r.onDone = true, done
	r.endAll(-int32(errs.Closed.Errno()))
	if r.conn != nil {
		r.conn.Abort(errs.New(errs.Closed, "the reader is closed"))
	}
	r.loop.Defer(&r.wake, 0)
}

// finish completes a Close or a stop once all is quiet.
func (r *Reader) finish() {
	if r.conn != nil || r.dialing || !r.closing {
		return
	}
	if !r.stopped && !r.loop.Unhold(&r.anchor, r.token) {
		return // it was done, or the loop is stopping and brings it
	}
	if done := r.onDone; done != nil {
		r.onDone = nil
		done()
	}
}

// readerWake is Reader as the Completer of wake.
type readerWake Reader

func (w *readerWake) RingDone(*ring.Op, int32) { (*Reader)(w).finish() }

// readerAnchor is Reader as the Completer of anchor: the loop stops. The connection's own operations end with
// it, and take the read with them whose data is being received.
type readerAnchor Reader

func (a *readerAnchor) RingDone(_ *ring.Op, res int32) {
	r := (*Reader)(a)
	if res != -int32(syscall.ECANCELED) {
		return
	}
	r.stopped = true
	r.cancel()
	r.endAll(-int32(syscall.ECANCELED))
	if r.conn != nil {
		r.conn.Abort(errs.New(errs.Canceled, "the loop has stopped"))
	}
	r.dialing = false // its post will be refused
	r.finish()
}
