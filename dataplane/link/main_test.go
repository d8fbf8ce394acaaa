package link

import (
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vstor/dataplane/buf"
	"vstor/dataplane/leaktest"
	"vstor/dataplane/ring"
)

func TestMain(m *testing.M) { leaktest.Main(m, ring.Probe) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is a loop with a hub.
type rig struct {
	t    testing.TB
	pool *buf.Pool
	loop *ring.Loop
	hub  *Hub
}

func newRig(t testing.TB, o HubOptions) *rig {
	t.Helper()
	pool, err := buf.NewPool(64<<20, 1<<20)
	must(t, err)
	l, err := ring.New(ring.Options{Pool: pool, RecvBufs: 4, RecvBufSize: 32 << 10})
	must(t, err)
	must(t, l.Start())
	r := &rig{t: t, pool: pool, loop: l, hub: NewHub(l, o)}
	free := pool.Free()
	t.Cleanup(func() {
		l.Call(func() {
			if pool.Free() != free {
				t.Errorf("%d pages leaked", free-pool.Free())
			}
			if r.hub.Stashed() != 0 {
				t.Errorf("%d bytes of stashes leaked", r.hub.Stashed())
			}
		})
		l.Stop()
		pool.Close()
	})
	return r
}

// pair is two ends of a connection: a descriptor for a Conn, and a net.Conn for a test.
func pair(t testing.TB) (int, net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	f := os.NewFile(uintptr(fds[1]), "peer")
	nc, err := net.FileConn(f)
	must(t, err)
	f.Close()
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(60 * time.Second))
	return fds[0], nc
}

func wait(t testing.TB, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(60 * time.Second):
		b := make([]byte, 1<<20)
		t.Fatalf("%s did not come in 60 s\n%s", what, b[:runtime.Stack(b, true)])
	}
}

func socketpair(t testing.TB) [2]int {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	return fds
}
