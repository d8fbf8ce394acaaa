package errs

import "syscall"

// errnos carry a Kind as the result of an operation on a loop: a count, or one of these negated. The
// kernel's own errors go the same way, so FromErrno knows more of them.
var errnos = [...]syscall.Errno{
	OK:          0,
	Invalid:     syscall.EINVAL,
	Absent:      syscall.ENOENT,
	Unreachable: syscall.EHOSTUNREACH,
	Corrupt:     syscall.EBADMSG,
	Full:        syscall.ENOSPC,
	Refused:     syscall.ESTALE,
	IO:          syscall.EIO,
	Busy:        syscall.EBUSY,
	Exists:      syscall.EEXIST,
	Closed:      syscall.ESHUTDOWN,
	Canceled:    syscall.ECANCELED,
	Version:     syscall.EPROTONOSUPPORT,
	Unsupported: syscall.EOPNOTSUPP,
}

// Errno is the errno that stands for k. What a later build means by a Kind cannot be known here: that says
// as little as Unreachable.
func (k Kind) Errno() syscall.Errno {
	if int(k) < len(errnos) {
		return errnos[k]
	}
	return syscall.EHOSTUNREACH
}

// FromErrno is the Kind that an errno stands for: the opposite of Errno, and Unreachable for what says
// that a peer is gone or silent. What it does not know is IO.
func FromErrno(e syscall.Errno) Kind {
	switch e {
	case syscall.ETIMEDOUT, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE,
		syscall.ENOTCONN, syscall.EHOSTDOWN, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.ENETRESET:
		return Unreachable
	}
	for k, errno := range errnos {
		if errno == e {
			return Kind(k)
		}
	}
	return IO
}
