package ring

import (
	"net"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"vstor/dataplane/errs"
)

// Socket gives the socket behind nc a descriptor of its own that a loop can use: in blocking mode (the ring
// waits, not the caller) and without Nagle's delay. nc must only be closed afterwards. Any goroutine.
// Errors: Unsupported if nc is no socket, IO.
//
// The obvious nc.File() brings an *os.File with a finalizer and a second poll registration; one fcntl
// does the same.
func Socket(nc net.Conn) (fd int, err error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return -1, errs.New(errs.Unsupported, "ring: a %T is no socket", nc)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, errs.Wrap(errs.IO, err, "ring: no access to the socket")
	}
	fd = -1
	var derr error
	err = raw.Control(func(orig uintptr) {
		if fd, derr = unix.FcntlInt(orig, unix.F_DUPFD_CLOEXEC, 0); derr != nil {
			return
		}
		if derr = unix.SetNonblock(fd, false); derr != nil {
			unix.Close(fd)
		}
	})
	if err == nil {
		err = derr
	}
	if err != nil {
		return -1, errs.Wrap(errs.IO, err, "ring: cannot take over the socket")
	}
	if _, tcp := nc.(*net.TCPConn); tcp {
		// Failing is slow, not wrong.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	return fd, nil
}

// Unpaced is the Control of a net.Dialer or net.ListenConfig: on a path that does not leave the machine it sets the
// plain congestion control. One that paces, as bbr does on machines that are set to it, takes a copy in memory for a
// path, measures it, and sends by timers what could go at once. It must be set before a connection begins: what paces
// once goes on pacing. Of ends elsewhere the machine's own choice stands.
func Unpaced(network, address string, c syscall.RawConn) error {
	host, _, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || !strings.HasPrefix(network, "tcp") || !ip.IsLoopback() {
		return nil
	}
	return c.Control(func(fd uintptr) {
		// Failing is slow, not wrong.
		_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno")
	})
}
