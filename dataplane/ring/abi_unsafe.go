package ring

import "unsafe"

// What the kernel reads and writes, as <linux/io_uring.h> lays it out. The bindings' own entry types are
// interfaces, which cost a call per field on the hot path; they also stop at Linux 5.19. Numbers below
// are part of the kernel's ABI and never change.

// sqe is struct io_uring_sqe: one operation for the kernel.
type sqe struct {
	opcode      uint8
	flags       uint8
	ioprio      uint16
	fd          int32
	off         uint64
	addr        uint64
	len         uint32
	opFlags     uint32 // msg_flags, fsync_flags, cancel_flags
	userData    uint64
	bufGroup    uint16
	personality uint16
	spliceFd    int32
	addr3       uint64
	pad         uint64
}

// cqe is struct io_uring_cqe: one answer.
type cqe struct {
	userData uint64
	res      int32
	flags    uint32
}

// bufEntry is struct io_uring_buf: a receive buffer offered to the kernel. In entry 0 of the ring the
// tail lies where resv is.
type bufEntry struct {
	addr uint64
	len  uint32
	bid  uint16
	resv uint16
}

// bufReg is struct io_uring_buf_reg.
type bufReg struct {
	addr    uint64
	entries uint32
	group   uint16
	flags   uint16
	resv    [3]uint64
}

// enterArg is struct io_uring_getevents_arg.
type enterArg struct {
	sigmask   uint64
	sigmaskSz uint32
	pad       uint32
	ts        uint64
}

// timespec is struct __kernel_timespec.
type timespec struct {
	sec, nsec int64
}

type iovec struct {
	base, len uint64
}

// msghdr is struct msghdr of 64-bit machines.
type msghdr struct {
	name       uint64
	namelen    uint32
	_          uint32
	iov        uint64
	iovlen     uint64
	control    uint64
	controllen uint64
	flags      int32
	_          uint32
}

const (
	sqeSize    = 64
	cqeSize    = 16
	iovecSize  = 16
	msghdrSize = 56
)

// The sizes are the kernel's, or this does not compile.
var (
	_ [sqeSize]byte    = [unsafe.Sizeof(sqe{})]byte{}
	_ [cqeSize]byte    = [unsafe.Sizeof(cqe{})]byte{}
	_ [16]byte         = [unsafe.Sizeof(bufEntry{})]byte{}
	_ [40]byte         = [unsafe.Sizeof(bufReg{})]byte{}
	_ [24]byte         = [unsafe.Sizeof(enterArg{})]byte{}
	_ [16]byte         = [unsafe.Sizeof(timespec{})]byte{}
	_ [iovecSize]byte  = [unsafe.Sizeof(iovec{})]byte{}
	_ [msghdrSize]byte = [unsafe.Sizeof(msghdr{})]byte{}
	_ [14]byte         = [unsafe.Offsetof(bufEntry{}.resv)]byte{}
	_ [32]byte         = [unsafe.Offsetof(sqe{}.userData)]byte{}
	_ [40]byte         = [unsafe.Offsetof(sqe{}.bufGroup)]byte{}
)

// What the bindings lack.
const (
	setupSingleIssuer = 1 << 12 // 6.0
	setupDeferTaskrun = 1 << 13 // 6.1
	setupNoSQArray    = 1 << 16 // 6.6

	featExtArg = 1 << 8 // 5.11

	enterExtArg = 1 << 3

	registerPbufRing   = 22 // 5.19
	unregisterPbufRing = 23

	cqeFlagBuffer  = 1
	cqeBufferShift = 16
)
