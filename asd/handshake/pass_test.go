package handshake

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vstor/asd/proto"
	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/link"
	"vstor/dataplane/ring"
	"vstor/dataplane/wire"
)

// unixPair is the two ends of a connection as Go has them.
func unixPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	for i, c := range []**net.UnixConn{&a, &b} {
		f := os.NewFile(uintptr(fds[i]), "end")
		nc, err := net.FileConn(f)
		must(t, err)
		f.Close()
		*c = nc.(*net.UnixConn)
		t.Cleanup(func() { nc.Close() })
		nc.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return a, b
}

// sharing gives descriptors of a file of this test; Share of a Disk is tested where it is.
func sharing(t *testing.T) Sharer {
	path := filepath.Join(t.TempDir(), "drive")
	must(t, os.WriteFile(path, []byte("the drive"), 0o600))
	return func() (int, dio.Shared, error) {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return fd, dio.Shared{Size: 4096, Device: 5, Inode: 6}, err
	}
}

func shortAsking() AskOptions {
	o := asking()
	o.Caps |= proto.CapShortCircuit
	return o
}

// over runs both sides of a handshake over two ends.
func over(t *testing.T, a, b net.Conn, ask AskOptions, answer AnswerOptions) (asker *Peer, askErr, asdErr error) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, asdErr = Answer(b, answer)
	}()
	asker, askErr = Ask(a, ask)
	if askErr != nil {
		a.Close()
	}
	wait(t, "Answer", done)
	return asker, askErr, asdErr
}

// The drive goes to who asks for it and is authenticated, over a unix socket; what follows it on the stream stays
// there.
func TestDriveIsHandedOver(t *testing.T) {
	answer := answering()
	answer.Share = sharing(t)
	a, b := unixPair(t)
	peer, err, asdErr := over(t, a, b, shortAsking(), answer)
	must(t, err)
	must(t, asdErr)
	if peer.Drive == nil || peer.Caps&proto.CapShortCircuit == 0 || peer.Drive.Is != (dio.Shared{Size: 4096, Device: 5,
		Inode: 6}) {
		t.Fatalf("%+v", peer)
	}
	defer peer.Drive.Close()
	got := make([]byte, 9)
	if n, err := unix.Pread(peer.Drive.FD, got, 0); err != nil || string(got[:n]) != "the drive" {
		t.Fatalf("%q %v", got[:n], err)
	}
	if flags, err := unix.FcntlInt(uintptr(peer.Drive.FD), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Fatalf("children would inherit it: %#x %v", flags, err)
	}
	b.Write([]byte("next"))
	if n, err := a.Read(got); err != nil || string(got[:n]) != "next" {
		t.Fatalf("%q %v", got[:n], err)
	}
}

// Nobody gets it who does not ask, whom the ASD does not let, or who is not on a unix socket.
func TestDriveIsNotHandedOver(t *testing.T) {
	answer := answering()
	answer.Share = func() (int, dio.Shared, error) {
		t.Error("the drive was opened")
		return -1, dio.Shared{}, errs.New(errs.IO, "no")
	}
	a, b := unixPair(t)
	if peer, err, _ := over(t, a, b, asking(), answer); err != nil || peer.Drive != nil || peer.Caps != 4 {
		t.Errorf("not asked for: %+v, %v", peer, err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	must(t, err)
	defer c.Close()
	d, err := ln.Accept()
	must(t, err)
	defer d.Close()
	if peer, err, _ := over(t, c, d, shortAsking(), answer); err != nil || peer.Drive != nil || peer.Caps != 4 {
		t.Errorf("over TCP: %+v, %v", peer, err)
	}
	answer.Share = nil
	a, b = unixPair(t)
	if peer, err, _ := over(t, a, b, shortAsking(), answer); err != nil || peer.Drive != nil || peer.Caps != 4 {
		t.Errorf("switched off: %+v, %v", peer, err)
	}
	answer.Share = func() (int, dio.Shared, error) { return -1, dio.Shared{}, errs.New(errs.IO, "too many files") }
	a, b = unixPair(t)
	if peer, err, _ := over(t, a, b, shortAsking(), answer); err != nil || peer.Drive != nil {
		t.Errorf("it cannot be opened: %+v, %v", peer, err)
	}
}

// A stranger gets no descriptor, whatever it announces.
func TestStrangerGetsNoDrive(t *testing.T) {
	answer := answering()
	answer.Share = sharing(t)
	a, b := unixPair(t)
	done := make(chan error)
	go func() {
		_, err := Answer(b, answer)
		b.Close()
		done <- err
	}()
	a.Write(helloFrame(func(h *proto.Hello) { h.Caps = proto.CapShortCircuit; h.UUID = [16]byte{2}; h.ID = 3 }))
	a.Write(message(proto.TAuth, make([]byte, proto.ProofSize)))
	oob := make([]byte, 256)
	for p := make([]byte, 1024); ; {
		_, oobn, _, _, err := a.ReadMsgUnix(p, oob)
		if oobn > 0 {
			t.Fatal("a descriptor came")
		}
		if err != nil {
			break
		}
	}
	if err := <-done; errs.Of(err) != errs.Refused {
		t.Error(err)
	}
}

// openFDs is how many descriptors of this process refer to path.
func openFDs(path string) (n int) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to == path {
			n++
		}
	}
	return n
}

// What else an ASD may send in that place is an error, and no descriptor stays open; descriptors that come with
// other bytes do not even arrive.
func TestFalseDrives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "drive")
	must(t, os.WriteFile(path, nil, 0o600))
	drive := (&proto.Drive{Size: 4096}).Append(nil)
	none := (&proto.Drive{}).Append(nil)
	odd := message(proto.TDrive, drive)
	odd[40] ^= 1
	long := message(proto.TDrive, drive)
	h := wire.Header{Type: proto.TDrive, Body: uint32(len(drive)), Data: 5}
	h.Seal(long)
	for _, c := range []struct {
		name  string
		frame []byte
		fds   int
		kind  errs.Kind
	}{
		{"right", message(proto.TDrive, drive), 1, errs.OK},
		{"none to give", message(proto.TDrive, none), 0, errs.OK},
		{"none", message(proto.TDrive, drive), 0, errs.Corrupt},
		{"two", message(proto.TDrive, drive), 2, errs.Corrupt},
		{"as many as fit", message(proto.TDrive, drive), rightsMax, errs.Corrupt},
		{"far too many", message(proto.TDrive, drive), 100, errs.Corrupt},
		{"one although there is none", message(proto.TDrive, none), 1, errs.Corrupt},
		{"another message", message(proto.TReady, drive), 1, errs.Corrupt},
		{"not a drive", message(proto.TDrive, drive[1:]), 1, errs.Corrupt},
		{"damaged", odd, 1, errs.Corrupt},
		{"with data", long, 1, errs.Corrupt},
		{"cut", message(proto.TDrive, drive)[:20], 1, errs.Unreachable},
	} {
		a, b := unixPair(t)
		var fds []int
		for range c.fds {
			fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			must(t, err)
			fds = append(fds, fd)
		}
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		_, _, err := b.WriteMsgUnix(c.frame, rights, nil)
		must(t, err)
		for _, fd := range fds {
			unix.Close(fd)
		}
		b.Close()
		d, err := receiveDrive(a)
		if errs.Of(err) != c.kind || (d != nil) != (c.name == "right") {
			t.Errorf("%s: %v, %v", c.name, d, err)
		}
		d.Close()
		if n := openFDs(path); n != 0 {
			t.Fatalf("%s: %d descriptors are still open", c.name, n)
		}
	}
}

// Descriptors that come where none are due, before the drive or after the handshake, do not arrive.
func TestUnaskedDescriptors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, nil, 0o600))
	pass := func(c *net.UnixConn, b []byte) {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		must(t, err)
		defer unix.Close(fd)
		_, _, err = c.WriteMsgUnix(b, unix.UnixRights(fd, fd, fd), nil)
		must(t, err)
	}
	a, b := unixPair(t)
	pass(b, message(proto.TWelcome, make([]byte, 80)))
	if _, err := Ask(a, asking()); err == nil {
		t.Error("a welcome without proof passes")
	}
	a, b = unixPair(t)
	pass(a, helloFrame(func(*proto.Hello) {}))
	pass(a, message(proto.TAuth, make([]byte, proto.ProofSize)))
	if _, err := Answer(b, answering()); err == nil {
		t.Error("a stranger was let in")
	}
	hub, loop := newHub(t)
	a, b = unixPair(t)
	fd, err := link.Take(b)
	must(t, err)
	got := &collector{ended: make(chan struct{}), closed: make(chan struct{})}
	c := link.New(hub, fd, got, link.Options{})
	loop.Call(c.Start)
	for range 3 {
		pass(a, message(proto.TPing, nil))
	}
	a.Close()
	<-got.ended
	<-got.closed
	if n := openFDs(path); n != 0 || got.frames != 3 {
		t.Errorf("%d descriptors arrived, %d frames", n, got.frames)
	}
}

// newHub is a loop for connections whose handshake is done.
func newHub(t *testing.T) (*link.Hub, *ring.Loop) {
	t.Helper()
	pool, err := buf.NewPool(4<<20, 1<<20)
	must(t, err)
	l, err := ring.New(ring.Options{Pool: pool, RecvBufs: 4, RecvBufSize: 32 << 10})
	must(t, err)
	must(t, l.Start())
	t.Cleanup(func() {
		l.Stop()
		pool.Close()
	})
	return link.NewHub(l, link.HubOptions{}), l
}

// collector counts frames.
type collector struct {
	frames        int
	ended, closed chan struct{}
}

func (c *collector) FrameIn(*wire.Header, []byte, *buf.Vec) link.Verdict {
	c.frames++
	return link.Next
}
func (c *collector) FrameData(bool) {}
func (c *collector) Ended(error)    { close(c.ended) }
func (c *collector) Closed()        { close(c.closed) }
