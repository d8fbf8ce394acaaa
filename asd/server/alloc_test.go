package server

import (
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/asd/handshake"
	"vstor/asd/proto"
	"vstor/asd/store"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
	"vstor/dataplane/layout"
	"vstor/dataplane/wire"
)

// raw joins the server by a bare descriptor in non-blocking mode, without the handshake: so a test can send and
// receive and allocate nothing itself.
func (w *world) raw(t testing.TB) int {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	must(t, err)
	must(t, syscall.SetNonblock(fds[1], true))
	must(t, w.srv.adopt(fds[0], &handshake.Peer{Name: "raw", Caps: proto.CapShortCircuit}))
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
		{"extents", proto.TExtents, proto.AppendKeys(nil, []layout.FragKey{key(1), key(99)}), 0, 8 + 16 + 4},
		{"lease", proto.TLease, make([]byte, 8), 0, 16},
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

// deafDrive takes what is written behind the superblocks without keeping it, and allocates nothing.
type deafDrive struct{ *dio.Mem }

func (d deafDrive) WriteAt(p []byte, off int64) error {
	if off < 2<<20 {
		return d.Mem.WriteAt(p, off)
	}
	return nil
}

func (d deafDrive) Sync() error { return nil }

// rekey makes a put of another key of a message.
func rekey(t *testing.T, message []byte, i int) {
	var h wire.Header
	if err := h.Decode(message); err != nil {
		t.Fatal(err)
	}
	key(i).Append(message[wire.HeaderSize:wire.HeaderSize])
	h.Seal(message)
}

// A put, from its frame to its reply, allocates nothing but what the index takes to commit it (see the test of
// the same name in package store) and to grow in RAM: received whole or straight into its pages, one at a time
// or several.
func TestPutAlloc(t *testing.T) {
	if raceEnabled || invariants.Enabled {
		t.Skip("SKIPPED: the detector and the checks allocate themselves")
	}
	so := store.Options{Data: deafDrive{dio.NewMem(4 << 30)}, FS: vfs.Default, Dir: filepath.Join(t.TempDir(), "index"),
		ID: 3, UUID: testUUID, Deployment: testDeploy}
	must(t, store.Format(so))
	st, err := store.Open(so)
	must(t, err)
	defer st.Close()
	srv, err := New(Options{Store: st, Secret: testSecret})
	must(t, err)
	defer srv.Shutdown(bg)
	fd := (&world{srv: srv}).raw(t)
	defer syscall.Close(fd)
	next := 0
	for _, tc := range []struct{ size, depth int }{{4096, 8}, {4096, 1}, {256 << 10, 1}, {256 << 10, 4}} {
		data := payload(1, tc.size)
		var out []byte
		var heads []int // where the frames begin
		for i := range tc.depth {
			heads = append(heads, len(out))
			out = append(out, message(proto.TPut, uint64(i), 0, putBody(i, data, nil), data)...)
		}
		want := tc.depth * wire.HeaderSize
		in := make([]byte, want)
		round := func() {
			for _, at := range heads {
				next++
				rekey(t, out[at:], next)
			}
			exchange(t, fd, out, in, want)
			for i := 0; i < want; i += wire.HeaderSize {
				var h wire.Header
				if err := h.Decode(in[i:]); err != nil || h.Kind() != errs.OK {
					t.Fatalf("%v, %v", h.Kind(), err)
				}
			}
		}
		reps := 256 / tc.depth
		for next < 2000 { // the maps grow
			round()
		}
		round()
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range reps {
			round()
		}
		runtime.ReadMemStats(&after)
		n := float64(after.Mallocs-before.Mallocs) / float64(reps*tc.depth)
		t.Logf("%d bytes, %d at a time: %.3f allocations per put", tc.size, tc.depth, n)
		if n > 0.5 { // one that each put makes would count 1
			t.Errorf("%d bytes, %d at a time: %.3f allocations per put", tc.size, tc.depth, n)
		}
	}
}
