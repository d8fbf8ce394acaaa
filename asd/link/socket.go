package link

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"vstor/dataplane/errs"
)

// Take makes of nc, whose handshake is done, a descriptor for New: the socket itself, or for everything that
// is none, such as a TLS connection, one end of a pair that Pump fills. nc is not the caller's any more,
// also after an error.
func Take(nc net.Conn) (fd int, err error) {
	if _, ok := nc.(syscall.Conn); !ok {
		return Pump(nc)
	}
	fd, err = detach(nc)
	nc.Close() // after detach this closes one of two descriptors of the socket
	return fd, err
}

// detach gives the socket behind nc a descriptor of its own, in blocking mode (the ring waits, not the
// caller) and without Nagle's delay.
//
// The obvious nc.File() brings an *os.File with a finalizer and a second poll registration; one fcntl
// does the same.
func detach(nc net.Conn) (int, error) {
	raw, err := nc.(syscall.Conn).SyscallConn()
	if err != nil {
		return -1, errs.Wrap(errs.IO, err, "link: no access to the socket")
	}
	fd := -1
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
		return -1, errs.Wrap(errs.IO, err, "link: cannot take over the socket")
	}
	if _, tcp := nc.(*net.TCPConn); tcp {
		// Failing is slow, not wrong.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	return fd, nil
}
