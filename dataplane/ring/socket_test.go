package ring

import (
	"bytes"
	"net"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"vstor/dataplane/buf"
)

func TestRecvSelect(t *testing.T) { engines(t, testRecvSelect) }

func testRecvSelect(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io, RecvBufs: 2, RecvBufSize: 8192})
	a, b := socketpair(t)
	w := newWaiter(l)
	op := &Op{Done: w}
	var sent []byte
	for i := range 20 {
		msg := bytes.Repeat([]byte{byte(i + 1)}, 100+i*300)
		on(t, l, func() { l.RecvSelect(op, a) })
		if _, err := syscall.Write(b, msg); err != nil {
			t.Fatal(err)
		}
		if n := w.wait(t); int(n) != len(msg) {
			t.Fatalf("received %d of %d bytes", n, len(msg))
		}
		sent = append(sent, msg...)
	}
	on(t, l, func() { l.RecvSelect(op, a) })
	syscall.Shutdown(b, syscall.SHUT_WR)
	if n := w.wait(t); n != 0 {
		t.Fatalf("end of stream: %d", n)
	}
	if !bytes.Equal(w.sel, sent) {
		t.Fatal("other bytes came than were sent")
	}
}

// More sockets than receive buffers become readable at once: all are served, after the buffers came back.
func TestRecvSelectMoreSocketsThanBuffers(t *testing.T) {
	engines(t, testRecvSelectMoreSocketsThanBuffers)
}

func testRecvSelectMoreSocketsThanBuffers(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io, RecvBufs: 2, RecvBufSize: 4096})
	const n = 50
	var ops [n]Op
	var ws [n]*waiter
	for round := range 3 {
		var as, bs [n]int
		for i := range n {
			as[i], bs[i] = socketpair(t)
			ws[i] = newWaiter(l)
			ops[i].Done = ws[i]
			if round == 0 {
				syscall.Write(bs[i], []byte{byte(i), 1})
			}
		}
		on(t, l, func() {
			for i := range n {
				l.RecvSelect(&ops[i], as[i])
			}
		})
		if round != 0 {
			for i := range n {
				syscall.Write(bs[i], []byte{byte(i), 1})
			}
		}
		for i := range n {
			if r := ws[i].wait(t); r != 2 {
				t.Fatalf("socket %d: %d", i, r)
			}
			if !bytes.Equal(ws[i].sel, []byte{byte(i), 1}) {
				t.Fatalf("socket %d got %v", i, ws[i].sel)
			}
		}
	}
}

func TestSendAndRecvPages(t *testing.T) { engines(t, testSendAndRecvPages) }

func testSendAndRecvPages(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	a, b := socketpair(t)
	for _, n := range []int{1, 4096, 70000, 3 << 20} {
		out, in := pages(t, l, n, byte(n)), pages(t, l, n, 0)
		ws, wr := newWaiter(l), newWaiter(l)
		send, recv := &Op{Done: ws}, &Op{Done: wr}
		on(t, l, func() {
			l.RecvV(recv, a, in)
			l.SendV(send, b, out)
		})
		if r := ws.wait(t); int(r) != n {
			t.Fatalf("sent %d of %d", r, n)
		}
		if r := wr.wait(t); int(r) != n {
			t.Fatalf("received %d of %d", r, n)
		}
		if !bytes.Equal(bytesOf(l, in), bytesOf(l, out)) {
			t.Fatalf("%d bytes differ", n)
		}
		on(t, l, func() { l.Pool().ReleaseVec(in); l.Pool().ReleaseVec(out) })
	}
}

// 3000 segments are more than the kernel takes at once: the send ends short, the receive goes on by itself.
func TestSocketManySegments(t *testing.T) { engines(t, testSocketManySegments) }

func testSocketManySegments(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	a, b := socketpair(t)
	const n = 3000
	out, in := scattered(t, l, n, 7), scattered(t, l, n, 0)
	wr, ws := newWaiter(l), newWaiter(l)
	recv, send := &Op{Done: wr}, &Op{Done: ws}
	on(t, l, func() { l.RecvV(recv, a, in) })
	rest := &buf.Vec{Segs: append([]buf.Seg(nil), out.Segs...)}
	for !rest.Empty() {
		on(t, l, func() { l.SendV(send, b, rest) })
		r := ws.wait(t)
		if r <= 0 {
			t.Fatalf("send: %d", r)
		}
		for r > 0 {
			k := min(uint32(r), rest.Segs[0].Len)
			rest.Segs[0].Off += k
			rest.Segs[0].Len -= k
			r -= int32(k)
			if rest.Segs[0].Len == 0 {
				rest.Segs = rest.Segs[1:]
			}
		}
	}
	if r := wr.wait(t); r != n*buf.PageSize {
		t.Fatalf("received %d", r)
	}
	if !bytes.Equal(bytesOf(l, in), bytesOf(l, out)) {
		t.Fatal("bytes differ")
	}
}

func TestRecvShortAtEnd(t *testing.T) { engines(t, testRecvShortAtEnd) }

func testRecvShortAtEnd(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	a, b := socketpair(t)
	in := pages(t, l, 10000, 0)
	w := newWaiter(l)
	op := &Op{Done: w}
	on(t, l, func() { l.RecvV(op, a, in) })
	syscall.Write(b, make([]byte, 5000))
	syscall.Shutdown(b, syscall.SHUT_WR)
	if r := w.wait(t); r != 5000 {
		t.Fatalf("got %d, want 5000", r)
	}
}

func TestSendToClosedPeer(t *testing.T) { engines(t, testSendToClosedPeer) }

func testSendToClosedPeer(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fds[0])
	syscall.Close(fds[1])
	w := newWaiter(l)
	op := &Op{Done: w}
	out := scattered(t, l, 3, 1)
	on(t, l, func() { l.SendV(op, fds[0], out) })
	if r := w.wait(t); r != -int32(syscall.EPIPE) {
		t.Fatalf("got %d, want EPIPE", r)
	}
}

// Both ends of a connection within the machine are not paced; a listener for all addresses is left as it was.
func TestUnpaced(t *testing.T) {
	control := func(c syscall.Conn) (name string) {
		t.Helper()
		raw, err := c.SyscallConn()
		if err == nil {
			raw.Control(func(fd uintptr) {
				name, err = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
			})
		}
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimRight(name, "\x00")
	}
	listen := func(addr string, lc net.ListenConfig) *net.TCPListener {
		t.Helper()
		l, err := lc.Listen(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l.(*net.TCPListener)
	}
	l := listen("127.0.0.1:0", net.ListenConfig{Control: Unpaced})
	d := net.Dialer{Control: Unpaced}
	c, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, end := range []net.Conn{c, s} {
		if got := control(end.(*net.TCPConn)); got != "reno" {
			t.Errorf("%v has congestion control %s", end.LocalAddr(), got)
		}
	}
	usual := control(listen(":0", net.ListenConfig{}))
	if got := control(listen(":0", net.ListenConfig{Control: Unpaced})); got != usual {
		t.Errorf("a listener for all addresses has congestion control %s instead of %s", got, usual)
	}
}
