package ring

import (
	"bytes"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"vstor/dataplane/buf"
)

// A canceled send says how much of it is gone: the peer has just that.
func TestCancelHalfSent(t *testing.T) { engines(t, testCancelHalfSent) }

func testCancelHalfSent(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	a, b := socketpair(t)
	out := pages(t, l, 8<<20, 1)
	w := newWaiter(l)
	op := &Op{Done: w}
	on(t, l, func() { l.SendV(op, a, out) })
	waitFor(t, "the send to begin", func() bool {
		n, _, err := syscall.Recvfrom(b, make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return err == nil && n == 1
	})
	select {
	case r := <-w.got:
		t.Fatalf("a send that nobody takes ended with %d", r)
	case <-time.After(20 * time.Millisecond):
	}
	on(t, l, func() { l.Cancel(op) })
	sent := w.wait(t)
	if sent <= 0 || sent >= 8<<20 {
		t.Fatalf("got %d", sent)
	}
	syscall.Shutdown(a, syscall.SHUT_WR)
	var got []byte
	for p := make([]byte, 1<<20); ; {
		n, err := syscall.Read(b, p)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		got = append(got, p[:n]...)
	}
	if !bytes.Equal(got, bytesOf(l, out)[:sent]) {
		t.Fatalf("%d bytes came, or others; the send said %d", len(got), sent)
	}
}

// What cannot be done ends with the reason for it.
func TestWrongDescriptors(t *testing.T) { engines(t, testWrongDescriptors) }

func testWrongDescriptors(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	file := tempFile(t, 8192)
	lone, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFd(&lone)
	v := pages(t, l, buf.PageSize, 1)
	w := newWaiter(l)
	op := &Op{Done: w}
	for _, c := range []struct {
		name  string
		start func()
		want  syscall.Errno
	}{
		{"receive from a file", func() { l.RecvSelect(op, file) }, syscall.ENOTSOCK},
		{"fill from a file", func() { l.RecvV(op, file, v) }, syscall.ENOTSOCK},
		{"send to a file", func() { l.SendV(op, file, v) }, syscall.ENOTSOCK},
		{"receive from nothing", func() { l.RecvSelect(op, 1<<20) }, syscall.EBADF},
		{"fill from nothing", func() { l.RecvV(op, -1, v) }, syscall.EBADF},
		{"send to nothing", func() { l.SendV(op, -1, v) }, syscall.EBADF},
		{"write to nothing", func() { l.WriteV(op, -1, v, 0) }, syscall.EBADF},
		{"sync of nothing", func() { l.Datasync(op, -1) }, syscall.EBADF},
		{"sync of a socket", func() { l.Datasync(op, lone) }, syscall.EINVAL},
		{"receive unconnected", func() { l.RecvSelect(op, lone) }, syscall.ENOTCONN},
		{"send unconnected", func() { l.SendV(op, lone, v) }, syscall.EPIPE},
	} {
		on(t, l, c.start)
		if r := w.wait(t); r != -int32(c.want) {
			t.Errorf("%s: %d, want %v", c.name, r, c.want)
		}
	}
}

// A read of an empty pipe and a write to a full one wait, and can be canceled; what goes through arrives.
func TestPipes(t *testing.T) { engines(t, testPipes) }

func testPipes(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	var p [2]int
	if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer closeFd(&p[0])
	defer closeFd(&p[1])
	const n = 64
	out, in := scattered(t, l, n, 3), scattered(t, l, n, 0)
	wr, ww := newWaiter(l), newWaiter(l)
	read, write := &Op{Done: wr}, &Op{Done: ww}
	on(t, l, func() { l.ReadV(read, p[0], in, 0) })
	time.Sleep(5 * time.Millisecond)
	on(t, l, func() { l.Cancel(read) })
	if r := wr.wait(t); r != canceled {
		t.Fatalf("canceled read: %d", r)
	}
	on(t, l, func() { l.WriteV(write, p[1], out, 0) })
	on(t, l, func() { l.ReadV(read, p[0], in, 0) })
	if r := ww.wait(t); r != n*buf.PageSize {
		t.Fatalf("wrote %d", r)
	}
	if r := wr.wait(t); r != n*buf.PageSize || !bytes.Equal(bytesOf(l, in), bytesOf(l, out)) {
		t.Fatalf("read %d, or other bytes", r)
	}
	on(t, l, func() { l.WriteV(write, p[1], out, 0) }) // a pipe holds 16 pages
	time.Sleep(5 * time.Millisecond)
	on(t, l, func() { l.Cancel(write) })
	if r := ww.wait(t); r != canceled {
		t.Fatalf("canceled write: %d", r)
	}
}

// A descriptor may be closed as soon as the last operation on it has ended, and its number be another's in the
// next moment.
func TestDescriptorsComeBack(t *testing.T) { engines(t, testDescriptorsComeBack) }

func testDescriptorsComeBack(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	left := 500
	done := make(chan struct{})
	var fds [2]int
	fds[0], fds[1] = -1, -1
	var begin func()
	recv := new(Op)
	recv.Done = funcDone(func(op *Op, res int32) {
		want := byte(left)
		if s := l.Selected(op); left%3 != 0 && (res != 1 || s[0] != want) || left%3 == 0 && res != canceled {
			t.Errorf("round %d: %d %v", left, res, s)
		}
		closeFd(&fds[0])
		closeFd(&fds[1])
		if left--; left == 0 {
			close(done)
			return
		}
		begin()
	})
	var later Timer
	begin = func() {
		var err error
		if fds, err = syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0); err != nil {
			t.Error(err)
		}
		l.RecvSelect(recv, fds[0])
		later.Fire = func() {
			if left%3 == 0 {
				l.Cancel(recv)
				return
			}
			syscall.Write(fds[1], []byte{byte(left)})
		}
		l.After(&later, time.Duration(left%2)*100*time.Microsecond)
	}
	on(t, l, begin)
	<-done
}

// hose sends a numbered stream through one socket and receives it at the other end, both on the loop; sends and
// receives are canceled at random and go on where they ended.
type hose struct {
	t          *testing.T
	l          *Loop
	rng        *rand.Rand
	from, to   int
	send, recv Op
	fill       Op
	out, in    buf.Vec
	sent, got  int
	total      int
	ended      func()
}

func (h *hose) at(i int) byte { return byte(i>>8) ^ byte(i*7) }

func (h *hose) sendMore() {
	n := min(1+h.rng.IntN(3*buf.PageSize), h.total-h.sent)
	h.out.Segs[0].Len = uint32(n)
	b := h.l.Pool().SegBytes(h.out.Segs[0])
	for i := range b {
		b[i] = h.at(h.sent + i)
	}
	h.l.SendV(&h.send, h.from, &h.out)
	if h.rng.IntN(10) == 0 {
		h.l.Cancel(&h.send)
	}
}

func (h *hose) recvMore() {
	if h.rng.IntN(2) == 0 {
		h.l.RecvSelect(&h.recv, h.to)
	} else {
		h.in.Segs[0].Len = uint32(min(1+h.rng.IntN(2*buf.PageSize), h.total-h.got))
		h.l.RecvV(&h.fill, h.to, &h.in)
		return // canceled it would not say how much it took
	}
	if h.rng.IntN(10) == 0 {
		h.l.Cancel(&h.recv)
	}
}

func (h *hose) RingDone(op *Op, res int32) {
	if res == canceled {
		res = 0
	}
	if res < 0 {
		h.t.Errorf("got %d", res)
		h.ended()
		return
	}
	if op == &h.send {
		if h.sent += int(res); h.sent < h.total {
			h.sendMore()
		}
		return
	}
	b := h.l.Selected(op)
	if op == &h.fill {
		b = h.l.Pool().SegBytes(h.in.Segs[0])
	}
	for _, c := range b {
		if c != h.at(h.got) {
			h.t.Errorf("byte %d of the stream is another", h.got)
			break
		}
		h.got++
	}
	if h.got >= h.total || h.t.Failed() {
		h.ended()
		return
	}
	h.recvMore()
}

// Many streams beside file IO come through whole and in order, on a ring so small that all stand in line.
func TestManyStreams(t *testing.T) { engines(t, testManyStreams) }

func testManyStreams(t *testing.T, io IO) {
	for _, entries := range []int{8, 1024} {
		l := startLoop(t, Options{IO: io, Entries: entries, RecvBufs: 2, RecvBufSize: 8192})
		const streams = 12 // two operations each: they must not fill the small ring with what waits for one another
		left := streams
		done := make(chan struct{})
		for i := range streams {
			a, b := socketpair(t)
			h := &hose{t: t, l: l, rng: rand.New(rand.NewPCG(uint64(i), uint64(entries))), from: a, to: b, total: 1 << 20}
			h.send.Done, h.recv.Done, h.fill.Done = h, h, h
			h.ended = func() {
				if left--; left == 0 {
					close(done)
				}
			}
			on(t, l, func() {
				if !l.Pool().Alloc(&h.out, 3) || !l.Pool().Alloc(&h.in, 2) {
					t.Error("pool is empty")
				}
				h.recvMore()
				h.sendMore()
			})
		}
		fd := tempFile(t, 1<<20)
		w := newWaiter(l)
		op := &Op{Done: w}
		v := pages(t, l, 65536, 1)
		for range 20 {
			on(t, l, func() { l.WriteV(op, fd, v, 65536) })
			if r := w.wait(t); r != 65536 {
				t.Fatalf("write: %d", r)
			}
		}
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			t.Fatalf("%d streams have not ended", left)
		}
		l.Stop()
	}
}

// A timer of less than a millisecond does not keep the loop awake, nor one of hours asleep.
func TestShortTimerSleeps(t *testing.T) { engines(t, testShortTimerSleeps) }

func testShortTimerSleeps(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	const rounds = 20
	n := 0
	done := make(chan struct{})
	var tm, far Timer
	far.Fire = func() { t.Error("it is early") }
	tm.Fire = func() {
		if n++; n == rounds {
			close(done)
			return
		}
		l.After(&tm, 300*time.Microsecond)
	}
	var before uint64
	on(t, l, func() {
		before = l.counts.Passes
		l.After(&far, 100*24*time.Hour)
		l.After(&tm, 0)
	})
	<-done
	on(t, l, func() {
		l.StopTimer(&far)
		if passes := l.counts.Passes - before; passes > 10*rounds {
			t.Errorf("%d timers took %d passes", rounds, passes)
		}
	})
}
