package ring

import (
	iouring "github.com/iceber/iouring-go/syscall"
	"golang.org/x/sys/unix"

	"vstor/dataplane/buf"
)

// fill writes the part of an entry that depends on the operation.
func (u *uring) fill(e *sqe, op *Op, segs []buf.Seg) {
	switch op.code {
	case codeRead, codeWrite:
		u.fillFile(e, op, segs)
	case codeDatasync:
		e.opcode, e.off, e.opFlags = iouring.IORING_OP_FSYNC, 0, iouring.IORING_FSYNC_DATASYNC
	case codeRecvSelect:
		e.opcode, e.flags = iouring.IORING_OP_RECV, iouring.IOSQE_FLAGS_BUFFER_SELECT
		e.off, e.len, e.bufGroup = 0, uint32(u.opts.RecvBufSize), recvGroup
	case codeRecv:
		u.fillSocket(e, op, segs, iouring.IORING_OP_RECV, iouring.IORING_OP_RECVMSG)
		e.opFlags = unix.MSG_WAITALL
	case codeSend:
		// WAITALL makes the kernel wait for room in the socket and go on by itself.
		u.fillSocket(e, op, segs, iouring.IORING_OP_SEND, iouring.IORING_OP_SENDMSG)
		e.opFlags = unix.MSG_NOSIGNAL | unix.MSG_WAITALL
	}
}

func (u *uring) fillFile(e *sqe, op *Op, segs []buf.Seg) {
	single, vector := iouring.IORING_OP_READ, iouring.IORING_OP_READV
	if op.code == codeWrite {
		single, vector = iouring.IORING_OP_WRITE, iouring.IORING_OP_WRITEV
	}
	if op.tries > 0 {
		// It could not be done without waiting; a worker of the kernel may wait.
		e.flags = iouring.IOSQE_FLAGS_ASYNC
	}
	if len(segs) == 1 {
		e.opcode = single
		e.addr = uint64(u.pool.Addr(segs[0])) + uint64(op.skip)
		e.len = segs[0].Len - op.skip
		return
	}
	e.opcode = vector
	e.addr, e.len = u.iovecs(segs, op.skip), uint32(len(segs))
}

func (u *uring) fillSocket(e *sqe, op *Op, segs []buf.Seg, single, vector uint8) {
	e.off = 0
	if len(segs) == 1 {
		e.opcode = single
		e.addr = uint64(u.pool.Addr(segs[0])) + uint64(op.skip)
		e.len = segs[0].Len - op.skip
		return
	}
	e.opcode, e.len = vector, 1
	e.addr = u.message(u.iovecs(segs, op.skip), len(segs))
}

// iovecs lays segs out in scratch, the first without its first skip bytes.
func (u *uring) iovecs(segs []buf.Seg, skip uint32) uint64 {
	v, addr := u.scratchIovecs(len(segs))
	for i, s := range segs {
		v[i] = iovec{uint64(u.pool.Addr(s)), uint64(s.Len)}
	}
	v[0].base += uint64(skip)
	v[0].len -= uint64(skip)
	return addr
}
