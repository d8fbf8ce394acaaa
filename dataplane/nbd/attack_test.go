package nbd_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/nbd"
	"vstor/dataplane/nbd/nbdtest"
)

// expectEOF: the server hung up.
func expectEOF(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || os.IsTimeout(err) {
		t.Fatalf("read %d, %v; the server should have hung up", n, err)
	}
}

func TestRefusedRequests(t *testing.T) {
	r := newRig(t, rigOptions{})
	size := uint64(r.ram.Info().Size)
	c := r.dial()
	defer c.Close()
	big := make([]byte, block.MaxRequest+1)
	for _, tc := range []struct {
		req  nbd.Request
		data []byte
		want nbd.Errno
	}{
		{nbd.Request{Type: nbd.CmdRead, Offset: size, Length: 1}, nil, nbd.EINVAL},
		{nbd.Request{Type: nbd.CmdRead, Offset: size - 1, Length: 2}, nil, nbd.EINVAL},
		{nbd.Request{Type: nbd.CmdWrite, Offset: size - 1, Length: 5000}, big[:5000], nbd.ENOSPC},
		{nbd.Request{Type: nbd.CmdWrite, Length: uint64(len(big))}, big, nbd.EINVAL},
		{nbd.Request{Type: nbd.CmdRead, Length: uint64(len(big))}, nil, nbd.EINVAL},
		{nbd.Request{Type: nbd.CmdWrite, Flags: nbd.FlagDF, Length: 100000}, big[:100000], nbd.EINVAL},
		{nbd.Request{Type: nbd.CmdTrim, Offset: size, Length: 1}, nil, nbd.EINVAL},
		{nbd.Request{Type: nbd.CmdWriteZeroes, Offset: size, Length: 1}, nil, nbd.ENOSPC},
		{nbd.Request{Type: nbd.CmdCache, Flags: nbd.FlagDF, Length: 1}, nil, nbd.EINVAL},
		{nbd.Request{Type: nbd.CmdBlockStatus, Length: 1}, nil, nbd.EINVAL},
		{nbd.Request{Type: 4711}, nil, nbd.EINVAL},
		{nbd.Request{Type: nbd.CmdRead}, nil, nbd.OK},
		{nbd.Request{Type: nbd.CmdWrite}, nil, nbd.OK},
		{nbd.Request{Type: nbd.CmdTrim, Offset: size}, nil, nbd.OK},
	} {
		err := c.Do(tc.req, tc.data, nil)
		if got := nbdtest.ErrnoOf(err); got != tc.want || (err != nil && got == nbd.OK) {
			t.Errorf("%v: %v, want %v", tc.req, err, tc.want)
		}
	}
	r.loop.Call(func() {
		for op := block.Read; op <= block.WriteZeroes; op++ {
			if n := r.ram.Seen(op); n != 0 {
				t.Errorf("%d requests of kind %d reached the device", n, op)
			}
		}
	})
	if st := r.srv.Stats(); st.Errors != 11 {
		t.Errorf("%d errors counted", st.Errors)
	}
}

func TestReadOnly(t *testing.T) {
	r := newRig(t, rigOptions{info: block.Info{ReadOnly: true, Rotational: true}})
	c := r.dial()
	defer c.Close()
	if c.Flags != nbd.TransHasFlags|nbd.TransReadOnly|nbd.TransSendFlush|nbd.TransSendFUA|nbd.TransRotational|
		nbd.TransCanMultiConn|nbd.TransSendCache {
		t.Errorf("flags %#x", c.Flags)
	}
	for _, err := range []error{c.WriteAt(make([]byte, 70000), 0, 0), c.Trim(0, 4096, 0), c.Zero(0, 4096, 0)} {
		if nbdtest.ErrnoOf(err) != nbd.EPERM {
			t.Errorf("%v, want EPERM", err)
		}
	}
	must(t, c.ReadAt(make([]byte, 4096), 0))
	must(t, c.Flush())
}

func TestTrimAndZero(t *testing.T) {
	r := newRig(t, rigOptions{})
	c := r.dial()
	defer c.Close()
	want := fill(make([]byte, 64<<10), 1)
	must(t, c.WriteAt(want, 0, 0))
	must(t, c.Zero(1000, 10000, nbd.FlagFUA|nbd.FlagNoHole))
	clear(want[1000:11000])
	must(t, c.Trim(20000, 10000, nbd.FlagFUA))
	clear(want[20480:28672])
	got := make([]byte, len(want))
	must(t, c.ReadAt(got, 0))
	if !bytes.Equal(got, want) {
		t.Error("wrong data")
	}
}

func TestDeviceErrors(t *testing.T) {
	r := newRig(t, rigOptions{})
	kind := errs.OK
	at := int64(-1)
	r.loop.Call(func() {
		r.ram.Fail = func(q *block.Request) errs.Kind {
			if at >= 0 && (q.Off > at || q.Off+int64(q.Len) <= at) {
				return errs.OK
			}
			return kind
		}
	})
	set := func(k errs.Kind, where int64) { r.loop.Call(func() { kind, at = k, where }) }
	c := r.dial()
	defer c.Close()
	for k, want := range map[errs.Kind]nbd.Errno{errs.Full: nbd.ENOSPC, errs.IO: nbd.EIO, errs.Closed: nbd.ESHUTDOWN} {
		set(k, -1)
		for _, err := range []error{c.WriteAt(make([]byte, 5000), 0, 0), c.ReadAt(make([]byte, 5000), 0), c.Flush(),
			c.Trim(0, 8192, 0), c.Zero(0, 8192, 0)} {
			if nbdtest.ErrnoOf(err) != want {
				t.Errorf("%v: %v, want %v", k, err, want)
			}
		}
	}
	// One piece of a large write fails: the whole write does.
	set(errs.IO, 5<<20)
	if err := c.WriteAt(make([]byte, 8<<20), 100, 0); nbdtest.ErrnoOf(err) != nbd.EIO {
		t.Errorf("%v, want EIO", err)
	}
	set(errs.OK, -1)
	must(t, c.WriteAt(make([]byte, 8<<20), 100, 0))
}

func TestLargest(t *testing.T) {
	r := newRig(t, rigOptions{size: 40 << 20, pool: 256 << 20})
	c := r.dial()
	defer c.Close()
	p := fill(make([]byte, block.MaxRequest), 3)
	got := make([]byte, len(p))
	for _, off := range []int64{0, 12345} {
		must(t, c.WriteAt(p, off, 0))
		must(t, c.ReadAt(got, off))
		if !bytes.Equal(p, got) {
			t.Fatalf("32 MiB at %d came back different", off)
		}
	}
}

// TestDribble: every byte on its own, so that every state is entered with an empty buffer.
func TestDribble(t *testing.T) {
	r := newRig(t, rigOptions{withTCP: true})
	c := r.dialAt("tcp", r.tcp)
	defer c.Close()
	p := fill(make([]byte, 300), 4)
	for i := range 3 {
		q := nbd.Request{Type: nbd.CmdWrite, Offset: uint64(4000 + i), Length: uint64(len(p))}
		for _, b := range append(c.Header(&q), p...) {
			c.Conn.Write([]byte{b})
		}
		if e, cookie, err := c.Recv(); e != nbd.OK || cookie != q.Cookie || err != nil {
			t.Fatal(e, cookie, err)
		}
		got := make([]byte, len(p))
		must(t, c.ReadAt(got, int64(4000+i)))
		if !bytes.Equal(p, got) {
			t.Fatal("wrong data")
		}
	}
}

// TestBadPeers: garbage, half a request, a vanished client: each loses its own connection, none anybody
// else's, and nothing leaks (newRig looks).
func TestBadPeers(t *testing.T) {
	r := newRig(t, rigOptions{})
	bystander := r.dial()
	defer bystander.Close()
	rnd := rand.New(rand.NewPCG(5, 6))
	for i := range 40 {
		c := r.dial()
		p := make([]byte, 1+rnd.IntN(3<<20))
		switch i % 5 {
		case 0: // garbage
			c.Conn.Write(fill(make([]byte, 1000), uint64(i)))
			expectEOF(t, c.Conn)
		case 1: // part of a header
			q := nbd.Request{Type: nbd.CmdRead, Length: 1}
			c.Conn.Write(c.Header(&q)[:1+rnd.IntN(27)])
		case 2: // part of a payload
			q := nbd.Request{Type: nbd.CmdWrite, Length: uint64(len(p) + 1)}
			c.Conn.Write(append(c.Header(&q), p[:rnd.IntN(len(p))]...))
		case 3: // many requests, no interest in the replies
			for range 20 {
				c.Send(nbd.Request{Type: nbd.CmdRead, Length: uint64(len(p))}, nil)
			}
		case 4: // a good request, and then garbage
			q := nbd.Request{Type: nbd.CmdWrite, Length: uint64(len(p))}
			c.Conn.Write(append(append(c.Header(&q), p...), "GARBAGE GARBAGE GARBAGE GARBAGE"...))
			if e, _, err := c.Recv(); e != nbd.OK || err != nil {
				t.Errorf("the good request: %v %v", e, err)
			}
			expectEOF(t, c.Conn)
		}
		c.Conn.Close()
		must(t, bystander.WriteAt(p, 0, 0))
	}
	eventually(t, "one connection is left", func() bool { return r.srv.Stats().Connections == 1 })
	if n := r.srv.Stats().BadPeers; n < 16 {
		t.Errorf("%d bad peers counted", n)
	}
}

func TestBadHandshakes(t *testing.T) { patiently(t, badHandshakes) }

func badHandshakes(t *testing.T, timeout time.Duration) (late bool) {
	r := newRig(t, rigOptions{server: nbd.Options{HandshakeTimeout: timeout, MaxConnections: 20}})
	var silent []net.Conn
	begun := time.Now()
	for range 20 {
		nc, err := net.Dial("unix", r.sock)
		must(t, err)
		defer nc.Close()
		silent = append(silent, nc)
		nc.SetReadDeadline(time.Now().Add(time.Minute))
		_, err = io.ReadFull(nc, make([]byte, 18))
		if time.Since(begun) > timeout/2 {
			return true
		}
		must(t, err)
	}
	extra, err := net.Dial("unix", r.sock)
	must(t, err)
	defer extra.Close()
	extra.SetReadDeadline(time.Now().Add(time.Minute))
	n, err := extra.Read(make([]byte, 1)) // over the limit: not even a greeting
	if time.Since(begun) > timeout/2 {
		return true
	}
	if n != 0 || err == nil {
		t.Fatalf("read %d, %v; the server should have hung up", n, err)
	}
	for _, nc := range silent {
		expectEOF(t, nc) // over the deadline
	}
	eventually(t, "all are gone", func() bool { return r.srv.Stats().Connections == 0 })
	if st := r.srv.Stats(); st.Refused != 1 || st.HandshakesFailed != 20 || st.Accepted != 20 {
		t.Errorf("%+v", st)
	}
	must(t, r.dial().Close())
	return false
}

// TestIdle: what 2000 connections that do nothing cost.
func TestIdle(t *testing.T) {
	const n = 2000
	raiseFDLimit(t, 2*n+200)
	r := newRig(t, rigOptions{server: nbd.Options{MaxConnections: n + 1}})
	before, free := residentKiB(t), r.freePages()
	conns := make([]*nbdtest.Client, n)
	for i := range conns {
		conns[i] = r.dial()
	}
	for _, c := range conns { // idle after work, not before
		must(t, c.WriteAt(make([]byte, 100), 0, 0))
	}
	if now := r.freePages(); now < free-1 {
		t.Errorf("%d idle connections hold %d pages", n, free-now)
	}
	per := (residentKiB(t) - before) / n
	t.Logf("%d KiB of memory per idle connection, the client's half included", per)
	if per > 16 && !raceEnabled {
		t.Errorf("%d KiB per idle connection", per)
	}
	for _, c := range conns {
		c.Close()
	}
	eventually(t, "all are gone", func() bool { return r.srv.Stats().Connections == 0 })
}

func (r *rig) freePages() (n int) {
	r.loop.Call(func() { n = r.pool.Free() })
	return n
}

func residentKiB(t *testing.T) int {
	runtime.GC()
	b, err := os.ReadFile("/proc/self/status")
	must(t, err)
	for _, l := range strings.Split(string(b), "\n") {
		if f := strings.Fields(l); len(f) == 3 && f[0] == "VmRSS:" {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

func raiseFDLimit(t *testing.T, n uint64) {
	var l syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l))
	if l.Cur < n {
		l.Cur = n
		if l.Max < n || syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l) != nil {
			t.Skipf("SKIPPED: %d descriptors are needed and %d allowed", n, l.Max)
		}
	}
}

// TestFlood: 64k requests in one go, from a client that reads replies late. The server takes in what
// its limits allow, and in the end answers all.
func TestFlood(t *testing.T) {
	r := newRig(t, rigOptions{})
	c := r.dial()
	const n = 64 << 10
	go func() {
		var b []byte
		for i := range uint64(n) {
			q := nbd.Request{Type: nbd.CmdRead, Cookie: i + 1, Offset: i * 7, Length: 512}
			b = append(b, c.Header(&q)...)
		}
		c.Conn.Write(b)
	}()
	bystander := r.dial()
	for range 50 {
		must(t, bystander.WriteAt(make([]byte, 4096), 4096, 0))
	}
	if held := r.pool.Pages() - r.freePages(); held > 1000 {
		t.Errorf("%d pages are held", held)
	}
	seen := make([]bool, n+1)
	buf := make([]byte, 512)
	for range n {
		e, cookie, err := c.Recv()
		must(t, err)
		if e != nbd.OK || cookie > n || seen[cookie] {
			t.Fatalf("reply %v to %d", e, cookie)
		}
		seen[cookie] = true
		_, err = io.ReadFull(c.Conn, buf)
		must(t, err)
	}
	c.Close()
	bystander.Close()
}
