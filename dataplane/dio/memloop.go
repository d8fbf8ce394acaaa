package dio

import (
	"syscall"

	"vstor/dataplane/buf"
	"vstor/dataplane/ring"
)

// memOp is an operation of a loop under way. A write takes effect when it ends, and a sync covers what had
// ended when it began: who syncs before the write ended is found out by the next CrashClone, although a
// kinder drive would have forgiven it.
type memOp struct {
	m     *Mem
	l     *ring.Loop
	op    *ring.Op // the caller's, held
	token uint64
	inner ring.Op // stands for the drive's side
	tick  uint64  // token of the inner Op while the timer runs
	timer ring.Timer
	kind  access
	off   int64
	segs  buf.Vec
	data  []byte // of a write, for CrashClone
	upTo  uint64 // of a sync
	order uint64 // of writes under way
}

func (m *Mem) ReadV(l *ring.Loop, op *ring.Op, v *buf.Vec, off int64) {
	if inRange(l, op, m.size, off, v.Len()) {
		m.begin(l, op, onRead, v, off)
	}
}

func (m *Mem) WriteV(l *ring.Loop, op *ring.Op, v *buf.Vec, off int64) {
	if inRange(l, op, m.size, off, v.Len()) {
		m.begin(l, op, onWrite, v, off)
	}
}

func (m *Mem) Datasync(l *ring.Loop, op *ring.Op) { m.begin(l, op, onSync, nil, 0) }

func (m *Mem) begin(l *ring.Loop, op *ring.Op, kind access, v *buf.Vec, off int64) {
	m.mu.Lock()
	p := m.takeOp()
	p.l, p.op, p.kind, p.off, p.upTo = l, op, kind, off, m.seq
	p.segs.Reset()
	p.data = p.data[:0]
	if v != nil {
		p.segs.Segs = append(p.segs.Segs, v.Segs...)
	}
	if kind == onWrite {
		for _, s := range v.Segs {
			p.data = append(p.data, l.Pool().SegBytes(s)...)
		}
		m.seq++
		p.order = m.seq
		m.inflight[p] = struct{}{}
	}
	delay := m.delay
	m.mu.Unlock()
	p.token = l.Hold(op)
	if delay > 0 {
		p.tick = l.Hold(&p.inner)
		l.After(&p.timer, delay)
		return
	}
	l.Defer(&p.inner, 0)
}

func (m *Mem) takeOp() *memOp {
	if n := len(m.idle); n > 0 {
		p := m.idle[n-1]
		m.idle = m.idle[:n-1]
		return p
	}
	p := &memOp{m: m}
	p.inner.Done = p
	p.timer.Fire = p.fire
	return p
}

// fire is the timer's.
func (p *memOp) fire() {
	if p.l.Unhold(&p.inner, p.tick) {
		p.l.Defer(&p.inner, 0)
	}
}

// RingDone is the end of the drive's side: at once, by the timer, or because the loop stops. It gives the
// operation its effect and ends the caller's Op. If that was canceled, its pages may be somebody else's
// already: a read has no effect any more. A write may have had its effect or not, as with any drive.
func (p *memOp) RingDone(*ring.Op, int32) {
	m, l, op := p.m, p.l, p.op
	l.StopTimer(&p.timer)
	live := l.Unhold(op, p.token)
	m.mu.Lock()
	delete(m.inflight, p)
	res := int32(p.segs.Len())
	switch {
	case m.closed:
		res = -int32(syscall.EBADF)
	case p.kind == onWrite:
		if live || p.order*0x9e3779b97f4a7c15>>63 == 0 {
			m.write(p.data, p.off)
		}
	case !live:
	case p.kind == onRead:
		off := p.off
		for _, s := range p.segs.Segs {
			b := l.Pool().SegBytes(s)
			m.read(b, off)
			off += int64(len(b))
		}
	default:
		m.flush(p.upTo)
	}
	p.l, p.op = nil, nil
	m.idle = append(m.idle, p)
	m.mu.Unlock()
	if live {
		l.Defer(op, res)
	}
}
