package ring

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ring/ringtest"
)

// hanging is a plain loop on which a file hangs: each operation on it waits until let go.
func hanging(t *testing.T, fd int) (l *Loop, begun *atomic.Int32, letGo func()) {
	t.Helper()
	pool, err := buf.NewPool(4<<20, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	if l, err = New(Options{IO: IOPlain, Pool: pool}); err != nil {
		t.Fatal(err)
	}
	begun = new(atomic.Int32)
	gate := make(chan struct{})
	letGo = sync.OnceFunc(func() { close(gate) })
	l.eng.(*plain).carry = func(op *Op, iov []unix.Iovec) int32 {
		if int(op.fd) == fd {
			begun.Add(1)
			<-gate
		}
		return carry(op, iov)
	}
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Stop)
	t.Cleanup(letGo)
	return l, begun, letGo
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("in vain for " + what)
		}
	}
}

// Drives that hang leave workers to the others. Of theirs, what waits in line is canceled at once, what
// has begun ends when it ends, with its result.
func TestPlainDriveHangs(t *testing.T) {
	bad, good := tempFile(t, 1<<20), tempFile(t, 1<<20)
	l, begun, letGo := hanging(t, bad)
	v := pages(t, l, buf.PageSize, 1)
	const n = 100
	stuck := &waiter{l: l, got: make(chan int32, n)}
	var ops [n]Op
	on(t, l, func() {
		for i := range ops {
			ops[i].Done = stuck
			l.WriteV(&ops[i], bad, v, 0)
		}
	})
	w := newWaiter(l)
	op := &Op{Done: w}
	for range 50 {
		on(t, l, func() { l.ReadV(op, good, v, 0) })
		if r := w.wait(t); r != buf.PageSize {
			t.Fatalf("beside a drive that hangs: %d", r)
		}
	}
	waitFor(t, "the drive's share of the workers", func() bool { return begun.Load() == perFile })
	on(t, l, func() {
		for i := range ops {
			l.Cancel(&ops[i])
		}
	})
	for range n - perFile {
		if r := stuck.wait(t); r != canceled {
			t.Fatalf("got %d", r)
		}
	}
	if len(stuck.got) != 0 {
		t.Fatal("an operation that a drive had begun was given up")
	}
	letGo()
	for range perFile {
		if r := stuck.wait(t); r != buf.PageSize {
			t.Fatalf("got %d", r)
		}
	}
}

// Stop waits for what a drive has begun: its pages are not the owner's before.
func TestPlainStopWaitsForDrive(t *testing.T) {
	fd := tempFile(t, 1<<20)
	l, begun, letGo := hanging(t, fd)
	v := pages(t, l, buf.PageSize, 1)
	w := newWaiter(l)
	on(t, l, func() { l.WriteV(&Op{Done: w}, fd, v, 0) })
	waitFor(t, "the write", func() bool { return begun.Load() == 1 })
	stopped := make(chan struct{})
	go func() { l.Stop(); close(stopped) }()
	time.Sleep(20 * time.Millisecond)
	select {
	case <-stopped:
		t.Fatal("it did not wait")
	case <-w.got:
		t.Fatal("the write ended while the drive had its pages")
	default:
	}
	letGo()
	<-stopped
	if r := w.wait(t); r != buf.PageSize {
		t.Fatalf("got %d", r)
	}
}

// What a worker is told to try again is tried again, and short transfers go on.
func TestPlainMoodyDrive(t *testing.T) {
	pool, err := buf.NewPool(4<<20, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	l, err := New(Options{IO: IOPlain, Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int32
	l.eng.(*plain).carry = func(op *Op, iov []unix.Iovec) int32 {
		switch calls.Add(1) % 3 {
		case 0:
			return -int32(syscall.EINTR)
		case 1:
			return -int32(syscall.EAGAIN)
		}
		return carry(op, iov[:1])
	}
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	defer l.Stop()
	const n = 20
	fd := tempFile(t, n*buf.PageSize)
	out, in := scattered(t, l, n, 5), scattered(t, l, n, 0)
	w := newWaiter(l)
	op := &Op{Done: w}
	on(t, l, func() { l.WriteV(op, fd, out, 0) })
	if r := w.wait(t); r != n*buf.PageSize {
		t.Fatalf("wrote %d", r)
	}
	on(t, l, func() { l.ReadV(op, fd, in, 0) })
	if r := w.wait(t); r != n*buf.PageSize || string(bytesOf(l, in)) != string(bytesOf(l, out)) {
		t.Fatalf("read %d, or other bytes", r)
	}
}

// refusing is an engine that does not open.
type refusing struct {
	engine
	err error
}

func (r refusing) open() error { return r.err }

// Where io_uring lacks or forbids something the loop is plain, and says why; what may pass, and what was asked
// for by name, is an error.
func TestFallsBackToPlain(t *testing.T) {
	pool, err := buf.NewPool(1<<20, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	forbidden, busy := setupError(syscall.EPERM, "6.6.1", "2\n"), setupError(syscall.EMFILE, "6.6.1", "0\n")
	old := missing("REGISTER_PBUF_RING (Linux 5.19)")
	hidden := setupError(syscall.ENOSYS, "6.6.1", "")
	for _, c := range []struct {
		io    IO
		err   error
		plain bool
	}{
		{IOAuto, forbidden, true}, {IOAuto, old, true}, {IOAuto, hidden, true}, {IOAuto, busy, false},
		{IOUring, forbidden, false}, {IOUring, old, false},
	} {
		l, err := New(Options{IO: c.io, Pool: pool})
		if err != nil {
			t.Fatal(err)
		}
		l.eng = refusing{err: c.err}
		err = l.Start()
		if c.plain {
			plain, why := l.Plain()
			if err != nil || !plain || why != c.err {
				t.Errorf("%v: started with %v, plain %v for %v", c.err, err, plain, why)
			}
			if !l.Call(func() {}) {
				t.Errorf("%v: the loop does not run", c.err)
			}
		} else if err != c.err {
			t.Errorf("%v: started with %v", c.err, err)
		}
		l.Stop()
	}
	l := startLoop(t, Options{IO: IOPlain})
	if plain, why := l.Plain(); !plain || why != nil {
		t.Errorf("told to be plain it is %v, for %v", plain, why)
	}
}

const forbidCall, forbidErrno = "VSTOR_RING_FORBID_CALL", "VSTOR_RING_FORBID_ERRNO"

// In a real process under a real seccomp filter the loop is plain, whichever of the calls is forbidden.
func TestForbiddenByFilter(t *testing.T) {
	for _, c := range []struct {
		call  uint32
		errno syscall.Errno
	}{
		{ringtest.Setup, syscall.EPERM}, {ringtest.Setup, syscall.ENOSYS}, {ringtest.Setup, syscall.EACCES},
		{ringtest.Enter, syscall.EPERM}, {ringtest.Register, syscall.EPERM},
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestUnderFilter$", "-test.v")
		cmd.Env = append(os.Environ(), forbidCall+"="+strconv.Itoa(int(c.call)),
			forbidErrno+"="+strconv.Itoa(int(c.errno)))
		out, err := cmd.CombinedOutput()
		switch {
		case err != nil:
			t.Errorf("call %d forbidden with %v: %v\n%s", c.call, c.errno, err, out)
		case strings.Contains(string(out), "--- SKIP"):
			t.Skipf("SKIPPED, no seccomp filter is possible here: %s", out)
		case !strings.Contains(string(out), "--- PASS: TestUnderFilter"):
			t.Errorf("the test did not run: %s", out)
		}
	}
}

// TestUnderFilter is the child of TestForbiddenByFilter.
func TestUnderFilter(t *testing.T) {
	call, _ := strconv.Atoi(os.Getenv(forbidCall))
	errno, _ := strconv.Atoi(os.Getenv(forbidErrno))
	if call == 0 {
		return
	}
	if why := Probe(); why != nil {
		t.Skip("SKIPPED, there is nothing left to forbid: ", why)
	}
	if err := ringtest.Forbid(syscall.Errno(errno), uint32(call)); err != nil {
		t.Skip("SKIPPED: ", err)
	}
	if why := Probe(); errs.Of(why) != errs.Unsupported || !errors.Is(why, syscall.Errno(errno)) {
		t.Errorf("Probe: %v", why)
	}
	l := startLoop(t, Options{})
	if plain, why := l.Plain(); !plain || why == nil {
		t.Errorf("plain: %v, because %v", plain, why)
	}
	fd := tempFile(t, 1<<20)
	w := newWaiter(l)
	op := &Op{Done: w}
	v := pages(t, l, 8192, 3)
	on(t, l, func() { l.WriteV(op, fd, v, 0) })
	if r := w.wait(t); r != 8192 {
		t.Errorf("write: %d", r)
	}
	a, b := socketpair(t)
	on(t, l, func() { l.RecvSelect(op, a) })
	syscall.Write(b, []byte("hello"))
	if r := w.wait(t); r != 5 || string(w.sel) != "hello" {
		t.Errorf("receive: %d %q", r, w.sel)
	}
	m, err := New(Options{IO: IOUring, Pool: l.Pool()})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Start(); errs.Of(err) != errs.Unsupported {
		t.Errorf("a loop that must have io_uring: %v", err)
	}
}
