package dio

import (
	"errors"
	"syscall"

	"vstor/dataplane/buf"
	"vstor/dataplane/ring"
)

func (f *Faulty) ReadV(l *ring.Loop, op *ring.Op, v *buf.Vec, off int64) {
	if b, ok := f.next(onRead, off, v.Len()); ok {
		f.aside(l, op, b, onRead, v, off)
		return
	}
	f.File.ReadV(l, op, v, off)
}

func (f *Faulty) WriteV(l *ring.Loop, op *ring.Op, v *buf.Vec, off int64) {
	if b, ok := f.next(onWrite, off, v.Len()); ok {
		f.aside(l, op, b, onWrite, v, off)
		return
	}
	f.File.WriteV(l, op, v, off)
}

func (f *Faulty) Datasync(l *ring.Loop, op *ring.Op) {
	if b, ok := f.next(onSync, 0, 0); ok {
		f.aside(l, op, b, onSync, nil, 0)
		return
	}
	f.File.Datasync(l, op)
}

// aside is a faulty operation of a loop: done blocking by a goroutine, with a buffer of its own, and posted
// back. So each fault is written once, and a stalled one survives the loop.
type aside struct {
	l     *ring.Loop
	op    *ring.Op
	token uint64
	a     access
	data  []byte
	v     buf.Vec
	res   int32
}

func (f *Faulty) aside(l *ring.Loop, op *ring.Op, b blow, a access, v *buf.Vec, off int64) {
	s := &aside{l: l, op: op, a: a}
	if v != nil {
		data, err := AlignedBuf(max(v.Len(), BlockSize))
		if err != nil {
			l.Defer(op, -int32(syscall.ENOMEM))
			return
		}
		s.v.Segs = append(s.v.Segs, v.Segs...)
		s.data = data[:v.Len()]
		s.res = int32(v.Len())
		n := 0
		for _, g := range v.Segs {
			n += copy(s.data[n:], l.Pool().SegBytes(g))
		}
	}
	s.token = l.Hold(op)
	go func() {
		if err := f.suffer(b, a, s.data, off); err != nil {
			s.res = negErrno(err)
		}
		if !l.Post(s) {
			s.free()
		}
	}()
}

// RunOnLoop brings the result home, unless the Op was canceled meanwhile.
func (s *aside) RunOnLoop() {
	if s.l.Unhold(s.op, s.token) {
		if s.a == onRead && s.res > 0 {
			n := 0
			for _, g := range s.v.Segs {
				n += copy(s.l.Pool().SegBytes(g), s.data[n:])
			}
		}
		s.l.Defer(s.op, s.res)
	}
	s.free()
}

func (s *aside) free() {
	if s.data != nil {
		_ = FreeBuf(s.data)
	}
}

// negErrno is how a loop is told of an error.
func negErrno(err error) int32 {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return -int32(errno)
	}
	return einval
}
