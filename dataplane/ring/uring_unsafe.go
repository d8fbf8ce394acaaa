package ring

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	iouring "github.com/iceber/iouring-go/syscall"
	"golang.org/x/sys/unix"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
)

// scratchSize is room for iovecs and message headers of what was started and not yet submitted. The
// kernel copies them while it takes an entry (FEAT_SUBMIT_STABLE), so they live no longer than that. One
// operation needs at most a quarter of it.
const scratchSize = 256 << 10

// The first bytes of the control page.
const (
	ctlWake = 0  // what the read of the eventfd lands in
	ctlArg  = 64 // enterArg
	ctlTime = 128
)

// rings is the memory shared with the kernel. Only the heads and tails are touched by both sides:
//
//	sqHead  written by the kernel, behind its reads of the entries
//	sqTail  written here, behind the writes of the entries
//	cqHead  written here, behind the reads of the completions
//	cqTail  written by the kernel, behind its writes of the completions
//
// Go's atomics are sequentially consistent, which is more than the acquire and release these need.
type rings struct {
	fd      int
	ringMem []byte
	sqeMem  []byte
	ctl     []byte
	scratch []byte
	sqHead  *uint32
	sqTail  *uint32
	cqHead  *uint32
	cqTail  *uint32
	sqes    []sqe
	cqes    []cqe
	sqMask  uint32
	cqMask  uint32
	tail    uint32 // of the submission queue, before it is shown to the kernel
	arg     *enterArg
	ts      *timespec
	ctlAddr uintptr
	scrAddr uintptr

	cqEntries   uint32
	scratchUsed int
}

func (r *rings) mapAll(p *iouring.IOURingParams) (err error) {
	size := int(p.CQOffset.Cqes) + int(p.CQEntries)*cqeSize
	array := p.Flags&setupNoSQArray == 0
	if array {
		size = max(size, int(p.SQOffset.Array)+int(p.SQEntries)*4)
	}
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if r.ringMem, err = unix.Mmap(r.fd, int64(iouring.IORING_OFF_SQ_RING), size, prot, flags); err != nil {
		return errs.Wrap(errs.Unsupported, err, "ring: cannot map the queues")
	}
	sqes := int(p.SQEntries) * sqeSize
	if r.sqeMem, err = unix.Mmap(r.fd, int64(iouring.IORING_OFF_SQES), sqes, prot, flags); err != nil {
		return errs.Wrap(errs.Unsupported, err, "ring: cannot map the submission entries")
	}
	if r.ctl, err = buf.AlignedBytes(buf.PageSize); err != nil {
		return errs.Wrap(errs.IO, err, "ring: no memory")
	}
	if r.scratch, err = buf.AlignedBytes(scratchSize); err != nil {
		return errs.Wrap(errs.IO, err, "ring: no memory")
	}
	r.sqHead, r.sqTail = r.u32(p.SQOffset.Head), r.u32(p.SQOffset.Tail)
	r.cqHead, r.cqTail = r.u32(p.CQOffset.Head), r.u32(p.CQOffset.Tail)
	r.sqMask, r.cqMask = *r.u32(p.SQOffset.RingMask), *r.u32(p.CQOffset.RingMask)
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&r.sqeMem[0])), p.SQEntries)
	r.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&r.ringMem[p.CQOffset.Cqes])), p.CQEntries)
	r.cqEntries = p.CQEntries
	r.tail = atomic.LoadUint32(r.sqTail)
	r.arg = (*enterArg)(unsafe.Pointer(&r.ctl[ctlArg]))
	r.ts = (*timespec)(unsafe.Pointer(&r.ctl[ctlTime]))
	r.ctlAddr = uintptr(unsafe.Pointer(&r.ctl[0]))
	r.scrAddr = uintptr(unsafe.Pointer(&r.scratch[0]))
	if array {
		// Entries are used in order, so the indirection is filled in once and for all.
		idx := unsafe.Slice(r.u32(p.SQOffset.Array), p.SQEntries)
		for i := range idx {
			idx[i] = uint32(i)
		}
	}
	return nil
}

func (r *rings) u32(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.ringMem[off])) }

func (r *rings) unmapAll() {
	for _, m := range [...][]byte{r.ringMem, r.sqeMem} {
		if m != nil {
			_ = unix.Munmap(m)
		}
	}
	for _, m := range [...][]byte{r.ctl, r.scratch} {
		if m != nil {
			_ = buf.FreeAligned(m)
		}
	}
	if r.fd >= 0 {
		_ = unix.Close(r.fd)
	}
	*r = rings{fd: -1}
}

// sqPending is how many entries the kernel has not taken, sqFree how many can be written.
func (r *rings) sqPending() uint32 { return r.tail - atomic.LoadUint32(r.sqHead) }
func (r *rings) sqFree() uint32    { return r.sqMask + 1 - r.sqPending() }

// nextSQE is the next entry. REQUIRES: sqFree() > 0. It is written before anything else is called.
func (r *rings) nextSQE() *sqe {
	e := &r.sqes[r.tail&r.sqMask]
	r.tail++
	return e
}

func (r *rings) cqBounds() (head, tail uint32) {
	return *r.cqHead, atomic.LoadUint32(r.cqTail)
}

func (r *rings) cqeAt(i uint32) cqe { return r.cqes[i&r.cqMask] }

func (r *rings) cqAdvance(head uint32) { atomic.StoreUint32(r.cqHead, head) }

func (r *rings) wakeBuf() uint64 { return uint64(r.ctlAddr + ctlWake) }

func (r *rings) scratchFree() int { return scratchSize - r.scratchUsed }

// scratchIovecs takes n iovecs from scratch. REQUIRES: they fit.
func (r *rings) scratchIovecs(n int) ([]iovec, uint64) {
	at := r.scratchUsed
	r.scratchUsed += n * iovecSize
	return unsafe.Slice((*iovec)(unsafe.Pointer(&r.scratch[at])), n), uint64(r.scrAddr) + uint64(at)
}

// message takes a message header from scratch, for n iovecs at iov.
func (r *rings) message(iov uint64, n int) uint64 {
	at := r.scratchUsed
	r.scratchUsed += msghdrSize
	*(*msghdr)(unsafe.Pointer(&r.scratch[at])) = msghdr{iov: iov, iovlen: uint64(n)}
	return uint64(r.scrAddr) + uint64(at)
}

// sysEnter is io_uring_enter; nanos bounds the wait for least completions, negative: no bound. Syscall6 tells
// the scheduler that the thread may be gone for a while. RawSyscall would not: it saved CPU at depth 1
// and cost throughput elsewhere.
func (r *rings) sysEnter(submit, least, flags uint32, nanos int64) (int, syscall.Errno) {
	atomic.StoreUint32(r.sqTail, r.tail)
	var arg, size uintptr
	if least > 0 && nanos >= 0 {
		*r.ts = timespec{nanos / 1e9, nanos % 1e9}
		*r.arg = enterArg{ts: uint64(r.ctlAddr + ctlTime)}
		flags |= enterExtArg
		arg, size = r.ctlAddr+ctlArg, unsafe.Sizeof(enterArg{})
	}
	n, _, errno := syscall.Syscall6(iouring.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(submit), uintptr(least),
		uintptr(flags), arg, size)
	return int(n), errno
}
