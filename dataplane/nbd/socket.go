package nbd

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"vstor/dataplane/errs"
)

// detach gives the socket behind nc a descriptor of its own, in blocking mode (the ring waits, not
// the caller) and without Nagle's delay. nc must not be used afterwards, only closed.
//
// The obvious nc.File() brings an *os.File with a finalizer and a second poll registration; one fcntl
// does the same.
func detach(nc net.Conn) (int, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return -1, errs.New(errs.Unsupported, "nbd: a %T is no socket", nc)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, errs.Wrap(errs.IO, err, "nbd: no access to the socket")
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
		return -1, errs.Wrap(errs.IO, err, "nbd: cannot take over the socket")
	}
	if _, tcp := nc.(*net.TCPConn); tcp {
		// Failing is slow, not wrong.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	return fd, nil
}

func closeFD(fd int) { unix.Close(fd) }

// hangUp ends the stream in both directions: whatever waits on the socket returns.
func hangUp(fd int) { _ = unix.Shutdown(fd, unix.SHUT_RDWR) }
