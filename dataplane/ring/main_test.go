package ring

import (
	"syscall"
	"testing"
	"time"

	"vstor/dataplane/buf"
	"vstor/dataplane/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m, Probe) }

// engines runs f on each engine.
func engines(t *testing.T, f func(t *testing.T, io IO)) {
	t.Run("io_uring", func(t *testing.T) {
		if why := Probe(); why != nil {
			t.Skip("SKIPPED, the plain engine alone is tested: ", why)
		}
		f(t, IOUring)
	})
	t.Run("plain", func(t *testing.T) { f(t, IOPlain) })
}

// waiter is a Completer that hands results to a goroutine, and the bytes of a RecvSelect.
type waiter struct {
	l   *Loop
	got chan int32
	sel []byte
}

func newWaiter(l *Loop) *waiter { return &waiter{l: l, got: make(chan int32, 16)} }

func (w *waiter) RingDone(op *Op, res int32) {
	w.sel = append(w.sel, w.l.Selected(op)...)
	w.got <- res
}

func (w *waiter) wait(t *testing.T) int32 {
	t.Helper()
	select {
	case r := <-w.got:
		return r
	case <-time.After(30 * time.Second):
		t.Fatal("no completion in 30 s")
		return 0
	}
}

func startLoop(t testing.TB, o Options) *Loop {
	t.Helper()
	if o.Pool == nil {
		p, err := buf.NewPool(64<<20, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		o.Pool = p
	}
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Stop)
	return l
}

// on runs f on the loop.
func on(t testing.TB, l *Loop, f func()) {
	t.Helper()
	if !l.Call(f) {
		t.Fatal("the loop is stopped")
	}
}

// pages takes n bytes of pages, filled with a pattern.
func pages(t testing.TB, l *Loop, n int, fill byte) *buf.Vec {
	t.Helper()
	v := new(buf.Vec)
	on(t, l, func() {
		if !l.Pool().Alloc(v, (n+buf.PageSize-1)/buf.PageSize) {
			t.Error("pool is empty")
			return
		}
		left := n
		for i := range v.Segs {
			s := &v.Segs[i]
			s.Len = min(s.Len, uint32(left))
			left -= int(s.Len)
			b := l.Pool().SegBytes(*s)
			for j := range b {
				b[j] = fill + byte(j>>3) + byte(i)
			}
		}
	})
	return v
}

// scattered takes n single pages that do not touch one another.
func scattered(t testing.TB, l *Loop, n int, fill byte) *buf.Vec {
	t.Helper()
	v := new(buf.Vec)
	on(t, l, func() {
		for i := range n {
			var two buf.Vec
			if !l.Pool().Alloc(&two, 2) {
				t.Error("pool is empty")
				return
			}
			pg := two.Segs[0].Page
			v.Segs = append(v.Segs, buf.Seg{Page: pg, Len: buf.PageSize})
			b := l.Pool().Bytes(pg)
			for j := range b {
				b[j] = fill + byte(i) + byte(j>>5)
			}
		}
	})
	return v
}

func bytesOf(l *Loop, v *buf.Vec) []byte {
	var out []byte
	for _, s := range v.Segs {
		out = append(out, l.Pool().SegBytes(s)...)
	}
	return out
}

// socketpair makes a connected pair of blocking stream sockets.
func socketpair(t testing.TB) (a, b int) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeFd(&fds[0]); closeFd(&fds[1]) })
	return fds[0], fds[1]
}

func closeFd(fd *int) {
	if *fd >= 0 {
		syscall.Close(*fd)
		*fd = -1
	}
}
