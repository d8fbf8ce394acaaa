package ring

import (
	"net"
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
