package ring

import (
	"syscall"
	"testing"
	"time"

	"vstor/dataplane/buf"
)

// echo is a loop's hot path in small: receive, write to the file, sync, read back, reply at the end of
// the pass.
type echo struct {
	l        *Loop
	sock, fd int
	recv, io Op
	send     Op
	v        buf.Vec
	hook     Hook
	timer    Timer
	step     int
}

func (e *echo) RingDone(op *Op, res int32) {
	if res <= 0 && !(op == &e.io && e.step == 2 && res == 0) {
		return
	}
	switch op {
	case &e.recv:
		e.v.Reset()
		if !e.l.Pool().Alloc(&e.v, 3) {
			panic("pool is empty")
		}
		copy(e.l.Pool().SegBytes(e.v.Segs[0]), e.l.Selected(op))
		e.step = 1
		e.l.WriteV(&e.io, e.fd, &e.v, 0)
		e.l.After(&e.timer, time.Hour)
	case &e.io:
		e.step++
		switch e.step {
		case 2:
			e.l.Datasync(op, e.fd)
		case 3:
			e.l.ReadV(op, e.fd, &e.v, 0)
		case 4:
			e.l.Defer(op, 1)
		case 5:
			e.l.AtPassEnd(&e.hook)
		}
	case &e.send:
		e.l.Pool().ReleaseVec(&e.v)
		e.l.RecvSelect(&e.recv, e.sock)
	}
}

func (e *echo) reply() {
	e.l.StopTimer(&e.timer)
	e.l.SendV(&e.send, e.sock, &e.v)
}

func (e *echo) RunOnLoop() {}

func newEcho(t testing.TB, io IO) (*echo, int) {
	l := startLoop(t, Options{IO: io})
	a, b := socketpair(t)
	e := &echo{l: l, sock: a, fd: tempFile(t, 1<<20)}
	e.recv.Done, e.io.Done, e.send.Done = e, e, e
	e.hook = Hook{Stage: StageSocket, Run: e.reply}
	e.timer.Fire = func() {}
	on(t, l, func() { l.RecvSelect(&e.recv, a) })
	return e, b
}

func TestNothingIsAllocatedPerOp(t *testing.T) { engines(t, testNothingIsAllocatedPerOp) }

func testNothingIsAllocatedPerOp(t *testing.T, io IO) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	e, peer := newEcho(t, io)
	msg := make([]byte, 3*buf.PageSize)
	for i := range msg {
		msg[i] = byte(i)
	}
	round := func() {
		if _, err := syscall.Write(peer, msg[:100]); err != nil {
			t.Fatal(err)
		}
		e.l.Post(e)
		for got := 0; got < len(msg); {
			n, err := syscall.Read(peer, msg[got:])
			if err != nil {
				t.Fatal(err)
			}
			got += n
		}
	}
	round()
	if n := testing.AllocsPerRun(200, round); n != 0 {
		t.Fatalf("%v allocations per round", n)
	}
}

func BenchmarkRead(b *testing.B) {
	b.Run("io_uring", func(b *testing.B) { benchmarkRead(b, IOUring) })
	b.Run("plain", func(b *testing.B) { benchmarkRead(b, IOPlain) })
}

func benchmarkRead(b *testing.B, io IO) {
	l := startLoop(b, Options{IO: io})
	const depth = 32
	fd := tempFile(b, 1<<20)
	v := pages(b, l, buf.PageSize, 1)
	left := b.N
	done := make(chan struct{})
	var ops [depth]Op
	out := depth
	f := funcDone(func(op *Op, res int32) {
		if left--; left > 0 {
			l.ReadV(op, fd, v, 0)
			return
		}
		if out--; out == 0 {
			close(done)
		}
	})
	b.ResetTimer()
	on(b, l, func() {
		for i := range ops {
			ops[i].Done = f
			l.ReadV(&ops[i], fd, v, 0)
		}
	})
	<-done
}
