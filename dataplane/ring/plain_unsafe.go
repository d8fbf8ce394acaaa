package ring

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of the plain engine. Those of x/sys take slices of slices and allocate. All return a count or a
// negated errno. REQUIRES: iov is not empty.

func preadv(fd int, iov []unix.Iovec, off int64) int32 {
	return transfer(unix.SYS_PREADV, fd, iov, uintptr(off))
}

func pwritev(fd int, iov []unix.Iovec, off int64) int32 {
	return transfer(unix.SYS_PWRITEV, fd, iov, uintptr(off))
}

func readv(fd int, iov []unix.Iovec) int32 { return transfer(unix.SYS_READV, fd, iov, 0) }

func writev(fd int, iov []unix.Iovec) int32 { return transfer(unix.SYS_WRITEV, fd, iov, 0) }

func transfer(call uintptr, fd int, iov []unix.Iovec, off uintptr) int32 {
	n, _, errno := syscall.Syscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)), off, 0, 0)
	return result(n, errno)
}

func fdatasync(fd int) int32 {
	n, _, errno := syscall.Syscall(unix.SYS_FDATASYNC, uintptr(fd), 0, 0)
	return result(n, errno)
}

// recvmsg and sendmsg do not wait, whatever mode the socket is in.
func recvmsg(fd int, iov []unix.Iovec) int32 {
	return message(unix.SYS_RECVMSG, fd, iov, unix.MSG_DONTWAIT)
}

func sendmsg(fd int, iov []unix.Iovec) int32 {
	return message(unix.SYS_SENDMSG, fd, iov, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

func message(call uintptr, fd int, iov []unix.Iovec, flags uintptr) int32 {
	m := unix.Msghdr{Iov: &iov[0], Iovlen: uint64(len(iov))}
	n, _, errno := syscall.Syscall(call, uintptr(fd), uintptr(unsafe.Pointer(&m)), flags)
	return result(n, errno)
}

func result(n uintptr, errno syscall.Errno) int32 {
	if errno != 0 {
		return -int32(errno)
	}
	return int32(n)
}
