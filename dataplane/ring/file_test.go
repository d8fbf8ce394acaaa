package ring

import (
	"bytes"
	"path/filepath"
	"syscall"
	"testing"

	"vstor/dataplane/buf"
)

// tempFile makes a file of n bytes, opened for direct IO where the file system has it.
func tempFile(t testing.TB, n int64) int {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CREAT|syscall.O_CLOEXEC|syscall.O_DIRECT, 0o600)
	if err == syscall.EINVAL {
		fd, err = syscall.Open(path, syscall.O_RDWR|syscall.O_CREAT|syscall.O_CLOEXEC, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeFd(&fd) })
	if err := syscall.Ftruncate(fd, n); err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestFileWriteSyncRead(t *testing.T) { engines(t, testFileWriteSyncRead) }

func testFileWriteSyncRead(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	fd := tempFile(t, 16<<20)
	w := newWaiter(l)
	op := &Op{Done: w}
	for _, n := range []int{4096, 65536, 1 << 20, 5 << 20} {
		out, in := pages(t, l, n, byte(n>>12)), pages(t, l, n, 0)
		on(t, l, func() { l.WriteV(op, fd, out, 8192) })
		if r := w.wait(t); int(r) != n {
			t.Fatalf("wrote %d of %d", r, n)
		}
		on(t, l, func() { l.Datasync(op, fd) })
		if r := w.wait(t); r != 0 {
			t.Fatalf("datasync: %d", r)
		}
		on(t, l, func() { l.ReadV(op, fd, in, 8192) })
		if r := w.wait(t); int(r) != n {
			t.Fatalf("read %d of %d", r, n)
		}
		if !bytes.Equal(bytesOf(l, in), bytesOf(l, out)) {
			t.Fatalf("%d bytes differ", n)
		}
		on(t, l, func() { l.Pool().ReleaseVec(in); l.Pool().ReleaseVec(out) })
	}
}

func TestFileManySegments(t *testing.T) { engines(t, testFileManySegments) }

func testFileManySegments(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	const n = 2500
	fd := tempFile(t, n*buf.PageSize)
	out, in := scattered(t, l, n, 3), scattered(t, l, n, 0)
	w := newWaiter(l)
	op := &Op{Done: w}
	// The caller's list is its own again at once.
	on(t, l, func() {
		v := buf.Vec{Segs: append([]buf.Seg(nil), out.Segs...)}
		l.WriteV(op, fd, &v, 0)
		clear(v.Segs)
	})
	if r := w.wait(t); r != n*buf.PageSize {
		t.Fatalf("wrote %d", r)
	}
	on(t, l, func() { l.ReadV(op, fd, in, 0) })
	if r := w.wait(t); r != n*buf.PageSize {
		t.Fatalf("read %d", r)
	}
	if !bytes.Equal(bytesOf(l, in), bytesOf(l, out)) {
		t.Fatal("bytes differ")
	}
}

func TestFileErrors(t *testing.T) { engines(t, testFileErrors) }

func testFileErrors(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	fd := tempFile(t, 8192)
	w := newWaiter(l)
	op := &Op{Done: w}
	v := pages(t, l, 16384, 0)
	on(t, l, func() { l.ReadV(op, fd, v, 0) })
	if r := w.wait(t); r != -int32(syscall.EIO) {
		t.Fatalf("read across the end: %d, want EIO", r)
	}
	on(t, l, func() { l.ReadV(op, -1, v, 0) })
	if r := w.wait(t); r != -int32(syscall.EBADF) {
		t.Fatalf("read of no file: %d, want EBADF", r)
	}
	on(t, l, func() { l.ReadV(op, fd, &buf.Vec{}, 0) })
	if r := w.wait(t); r != 0 {
		t.Fatalf("read of nothing: %d", r)
	}
}

// fan counts completions of many operations.
type fan struct {
	left int
	bad  int
	done chan struct{}
}

func (f *fan) RingDone(op *Op, res int32) {
	if res != int32(op.Tag) {
		f.bad++
	}
	if f.left--; f.left == 0 {
		close(f.done)
	}
}

// Ten thousand operations at once on a ring of 64 entries wait in line and all end.
func TestTenThousandOps(t *testing.T) { engines(t, testTenThousandOps) }

func testTenThousandOps(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io, Entries: 64})
	const n = 10000
	const size = 256 * buf.PageSize
	fd := tempFile(t, size)
	v := pages(t, l, size, 9)
	f := &fan{left: n, done: make(chan struct{})}
	ops := make([]Op, n)
	on(t, l, func() {
		for i := range ops {
			op := &ops[i]
			op.Done, op.Tag = f, buf.PageSize
			one := buf.Vec{Segs: []buf.Seg{{Page: v.Segs[0].Page, Len: buf.PageSize}}}
			off := int64(i%256) * buf.PageSize
			switch i % 5 {
			case 0:
				op.Tag = 0
				l.Datasync(op, fd)
			case 1, 2:
				l.WriteV(op, fd, &one, off)
			case 3:
				one.Segs = append(one.Segs, buf.Seg{Page: v.Segs[0].Page + 7, Len: buf.PageSize})
				op.Tag = 2 * buf.PageSize
				l.WriteV(op, fd, &one, off%(128*buf.PageSize))
			default:
				l.WriteV(op, fd, &one, off)
			}
		}
	})
	<-f.done
	if f.bad > 0 {
		t.Fatalf("%d of %d ended wrong", f.bad, n)
	}
	// Counters are published at the end of a pass.
	on(t, l, func() {})
	on(t, l, func() {})
	if s := l.Stats(); s.SQEs < n || s.CQEs < n {
		t.Fatalf("counters: %+v", s)
	}
}

// A pipe hands out less than a file transfer wants: the loop goes on by itself, and the end of the
// pipe is an error.
func TestShortTransfersGoOn(t *testing.T) { engines(t, testShortTransfersGoOn) }

func testShortTransfersGoOn(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	var p [2]int
	if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer closeFd(&p[0])
	defer closeFd(&p[1])
	in := scattered(t, l, 3, 0)
	w := newWaiter(l)
	op := &Op{Done: w}
	on(t, l, func() { l.ReadV(op, p[0], in, 0) })
	want := make([]byte, 3*buf.PageSize)
	for i := range want {
		want[i] = byte(i * 7 >> 3)
	}
	for at := 0; at < len(want); at += 3000 {
		if _, err := syscall.Write(p[1], want[at:min(at+3000, len(want))]); err != nil {
			t.Fatal(err)
		}
	}
	if r := w.wait(t); int(r) != len(want) {
		t.Fatalf("read %d of %d", r, len(want))
	}
	if !bytes.Equal(bytesOf(l, in), want) {
		t.Fatal("bytes differ")
	}
	on(t, l, func() { l.ReadV(op, p[0], in, 0) })
	syscall.Write(p[1], want[:100])
	closeFd(&p[1])
	if r := w.wait(t); r != -int32(syscall.EIO) {
		t.Fatalf("short at the end: %d, want EIO", r)
	}
}
