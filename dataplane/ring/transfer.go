package ring

import (
	"syscall"

	"vstor/dataplane/buf"
	"vstor/dataplane/invariants"
)

// transferMax is the most bytes one Op moves: its result is an int32.
const transferMax = 1 << 30

// triesMax is how often in a row an operation is tried again after EINTR or EAGAIN. Both mean "ask once
// more", but a socket that was left in non-blocking mode would answer EAGAIN for ever.
const triesMax = 100

// ReadV fills v from off of file fd. It ends with the length of v or a negated errno, never short: the
// file's end within the range is -EIO. v may be reused when the call returns, the pages only after op
// ended. Loop only, like all that follow.
func (l *Loop) ReadV(op *Op, fd int, v *buf.Vec, off int64) { l.begin(op, codeRead, fd, v, off) }

// WriteV writes v at off of file fd, under the rules of ReadV.
func (l *Loop) WriteV(op *Op, fd int, v *buf.Vec, off int64) { l.begin(op, codeWrite, fd, v, off) }

// Datasync makes writes to fd that ended before the call survive power loss. It ends with 0 or a negated
// errno.
func (l *Loop) Datasync(op *Op, fd int) { l.begin(op, codeDatasync, fd, nil, 0) }

// RecvSelect waits until stream socket fd has bytes and takes what is there into one of the loop's shared
// receive buffers: an idle socket holds no memory. It ends with the count, 0 at the end of the stream;
// RingDone gets the bytes from Selected. The socket is in blocking mode.
func (l *Loop) RecvSelect(op *Op, fd int) { l.begin(op, codeRecvSelect, fd, nil, 0) }

// Selected is the bytes that a RecvSelect took in. They are valid until the RingDone that was told of
// them returns. It is nil outside of it.
func (l *Loop) Selected(op *Op) []byte { return op.sel }

// RecvV fills the pages of v from stream socket fd. It ends with the length of v, with less at the end
// of the stream only, or with a negated errno. v may be reused when the call returns.
func (l *Loop) RecvV(op *Op, fd int, v *buf.Vec) { l.begin(op, codeRecv, fd, v, 0) }

// SendV sends v on stream socket fd. It ends with the count of bytes sent, which may be less than v holds
// (the caller goes on from there), or with a negated errno; a closed peer is -EPIPE, not a signal. v may
// be reused when the call returns, the pages only after op ended.
func (l *Loop) SendV(op *Op, fd int, v *buf.Vec) { l.begin(op, codeSend, fd, v, 0) }

// admit asserts that the Op is free to be started.
func (op *Op) admit() {
	invariants.Assert(op.state == opIdle, "ring: an Op was started that is still under way")
	invariants.Assert(op.Done != nil, "ring: an Op without a Completer was started")
}

func (l *Loop) begin(op *Op, code opCode, fd int, v *buf.Vec, off int64) {
	if invariants.Enabled {
		invariants.Assert(l.OnLoop(), "ring: an Op was started off its loop")
	}
	op.admit()
	op.code, op.fd, op.off = code, int32(fd), off
	op.canceled, op.tries = false, 0
	op.got, op.want, op.at, op.skip = 0, 0, 0, 0
	op.segs = op.segs[:0]
	if v != nil {
		op.segs = append(op.segs, v.Segs...)
		n := v.Len()
		invariants.Assert(n <= transferMax, "ring: a transfer of more than 1 GiB")
		op.want = uint32(n)
		if n == 0 {
			l.Defer(op, 0)
			return
		}
	}
	if l.closing {
		l.Defer(op, -int32(syscall.ECANCELED))
		return
	}
	l.launch(op)
}

// launch gives op to the engine, or puts it in line behind those that found no room before.
func (l *Loop) launch(op *Op) {
	if l.queue.head == nil && l.eng.start(op) {
		op.state = opFlying
		return
	}
	op.state = opQueued
	l.queue.push(op)
}

// landed takes an operation back from the engine: it goes on if there is more to move, and is told to
// its owner otherwise.
func (l *Loop) landed(op *Op, res int32, sel []byte) {
	l.spin.count(op)
	op.state = opIdle
	out, again := op.advance(res)
	if again {
		if !op.canceled && !l.closing {
			l.launch(op)
			return
		}
		out = -int32(syscall.ECANCELED)
	}
	op.sel = sel
	op.Done.RingDone(op, out)
	op.sel = nil
}

// advance books one answer of the kernel. again means that op must go out once more for the rest;
// otherwise out is its result.
func (op *Op) advance(res int32) (out int32, again bool) {
	switch syscall.Errno(-res) {
	case syscall.EINTR, syscall.EAGAIN:
		op.tries++
		return res, op.tries < triesMax
	case syscall.ENOBUFS:
		// More sockets had bytes than there are receive buffers. They are back by the end of the pass.
		return res, op.code == codeRecvSelect
	case syscall.EINVAL:
		if op.code <= codeWrite && op.got > 0 {
			// The device ended within a sector; the rest is not aligned any more.
			return -int32(syscall.EIO), false
		}
	}
	if res < 0 {
		return res, false
	}
	switch op.code {
	case codeRead, codeWrite:
		if res == 0 {
			return -int32(syscall.EIO), false
		}
	case codeRecv:
		if res == 0 {
			return int32(op.got), false
		}
	default:
		return res, false
	}
	op.consume(uint32(res))
	return int32(op.got), op.got < op.want
}

// consume moves the mark n bytes on.
func (op *Op) consume(n uint32) {
	op.tries = 0
	op.got += n
	op.off += int64(n)
	for n > 0 {
		left := op.segs[op.at].Len - op.skip
		if n < left {
			op.skip += n
			return
		}
		n -= left
		op.at, op.skip = op.at+1, 0
	}
}

// Cancel asks that op ends soon. It ends in any case, by a later RingDone: with -ECANCELED, or with its
// result if that came first. Reads and writes that a drive has begun are not interrupted. Canceling an
// Op that is not under way does nothing. Loop only.
func (l *Loop) Cancel(op *Op) {
	switch op.state {
	case opQueued:
		l.queue.remove(op)
	case opHeld:
		l.held.remove(op)
	case opFlying:
		if !op.canceled {
			op.canceled = true
			l.sendCancel(op)
		}
		return
	default:
		return
	}
	op.state = opIdle
	l.Defer(op, -int32(syscall.ECANCELED))
}

// sendCancel asks the engine; where it has no room now, retryCancels asks again at the end of the pass.
func (l *Loop) sendCancel(op *Op) {
	if !l.eng.cancel(op) {
		l.cancelMissed = true
	}
}
