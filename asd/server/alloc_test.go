package server

import (
	"runtime"
	"syscall"
	"testing"

	"vstor/asd/link"
	"vstor/asd/proto"
	"vstor/dataplane/invariants"
	"vstor/dataplane/wire"
)

// raw joins the server by a bare descriptor in non-blocking mode, without the handshake: so a test can send and
// receive and allocate nothing itself.
func (w *world) raw(t testing.TB) int {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	must(t, err)
	must(t, syscall.SetNonblock(fds[1], true))
	w.srv.live.Add(1)
	must(t, w.srv.adopt(fds[0], &link.Peer{Name: "raw"}))
	return fds[1]
}

// exchange writes all of out and reads want bytes into in, over and over.
func exchange(t *testing.T, fd int, out, in []byte, want int) {
	left, got := out, 0
	for len(left) > 0 || got < want {
		if len(left) > 0 {
			if n, err := syscall.Write(fd, left); n > 0 {
				left = left[n:]
				continue
			} else if err != syscall.EAGAIN {
				t.Fatalf("write: %v", err)
			}
		}
		if n, err := syscall.Read(fd, in[got:]); n > 0 {
			got += n
		} else if err != syscall.EAGAIN {
			t.Fatalf("read: %v", err)
		}
		runtime.Gosched()
	}
}

// A raw read allocates nothing on the server, of one range or several, of one extent or several, found or
// absent; nor do a ping or a locate.
func TestNoAllocation(t *testing.T) {
	if raceEnabled || invariants.Enabled {
		t.Skip("SKIPPED: the detector and the checks allocate themselves")
	}
	w := newWorld(t, nil)
	p := w.dial()
	for i := range 4 {
		must(t, p.put(i, 256<<10))
	}
	fd := w.raw(t)
	defer syscall.Close(fd)
	for _, tc := range []struct {
		name string
		typ  uint8
		body []byte
		data int // bytes of data in the reply
		tail int // bytes of body in it
	}{
		{"4k", proto.TReadRanges, rangesBody(rng(1, 8192, 4096)), 4096, 1},
		{"128k", proto.TReadRanges, rangesBody(rng(1, 8192, 128<<10)), 128 << 10, 1},
		{"3 ranges", proto.TReadRanges, rangesBody(rng(0, 0, 4096), rng(1, 4096, 8192), rng(2, 0, 4096)), 16384, 3},
		{"absent", proto.TReadRanges, rangesBody(rng(99, 0, 4096)), 0, 1},
		{"ping", proto.TPing, nil, 0, 0},
		{"locate", proto.TLocate, rangeBody(1, 0, 4096), 0, 12},
	} {
		const depth = 8
		var out []byte
		for i := range depth {
			out = append(out, message(tc.typ, uint64(i), 0, tc.body, nil)...)
		}
		want := depth * (wire.HeaderSize + tc.tail + tc.data)
		in := make([]byte, want)
		for range 50 {
			exchange(t, fd, out, in, want)
		}
		const reps = 200
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range reps {
			exchange(t, fd, out, in, want)
		}
		runtime.ReadMemStats(&after)
		// The runtime allocates a little on its own, now and then.
		if n := float64(after.Mallocs-before.Mallocs) / (reps * depth); n > 0.05 {
			t.Errorf("%s: %.3f allocations per request", tc.name, n)
		}
	}
}
