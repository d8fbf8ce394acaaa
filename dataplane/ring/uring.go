package ring

import (
	"errors"
	"math"
	"syscall"
	"time"

	iouring "github.com/iceber/iouring-go/syscall"
	"golang.org/x/sys/unix"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
)

// uring carries operations by io_uring. See engine for who calls what.
type uring struct {
	opts *Options
	pool *buf.Pool
	rings
	recv  recvRing
	rungs []setupFlags

	// The table of what is in the kernel. user_data is an index with the generation of its use: a Go
	// pointer could neither be followed by the collector there, nor told from that of a former life.
	slots    []slot
	free     []int32
	nfree    int
	stuck    int // enters in a row that took nothing
	reads    int // of drives, that are out
	early    int // reads that this pass handed over at once, of mayEarly
	mayEarly int
	lacks    string // the first feature this kernel does without
	counts   Stats
	wakes    wakeFD
}

type slot struct {
	op  *Op
	gen uint32
}

const (
	userWake   = math.MaxUint64
	userCancel = math.MaxUint64 - 1
	// iovMax is the kernel's limit of segments per operation (UIO_MAXIOV). Longer lists go out in parts.
	iovMax = 1024
)

func newUring(o *Options) *uring {
	u := &uring{opts: o, pool: o.Pool, rungs: ladder()}
	u.fd, u.wakes.fd = -1, -1
	return u
}

func (u *uring) open() (err error) {
	defer func() {
		if err != nil {
			u.shutAll()
		}
	}()
	if err := u.setup(); err != nil {
		return err
	}
	if err := u.recv.register(u.fd, u.opts.RecvBufs, u.opts.RecvBufSize); err != nil {
		return err
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return errs.Wrap(errs.IO, err, "ring: no eventfd for loop %s", u.opts.Name)
	}
	u.wakes.set(fd)
	// One slot per completion entry: the completion queue cannot overflow but for cancellations and the reads that are
	// handed over before their forerunners' entries are given back; the kernel keeps those (FEAT_NODROP).
	n := int(u.cqEntries)
	u.slots = make([]slot, n)
	u.free = make([]int32, n)
	for i := range u.free {
		u.free[i] = int32(n - 1 - i)
	}
	u.nfree = n
	if err := u.tryEnter(); err != nil {
		return err
	}
	u.armWake()
	return nil
}

// setup goes down the ladder until the kernel accepts.
func (u *uring) setup() error {
	var errno syscall.Errno
	for _, rung := range u.rungs {
		p := iouring.IOURingParams{Flags: rung.flags, CQEntries: uint32(u.opts.Entries * SlotsPerEntry)}
		if u.lacks == "" {
			u.lacks = rung.lacks
		}
		fd, err := iouring.IOURingSetup(uint(u.opts.Entries), &p)
		if err == nil {
			u.fd = fd
			return u.adopt(&p)
		}
		if !errors.As(err, &errno) || errno != syscall.EINVAL {
			break
		}
	}
	return setupError(errno, kernelRelease(), ioUringDisabled())
}

// tryEnter enters once: a filter may let rings be made and not used, which must be known before anybody relies
// on this one.
func (u *uring) tryEnter() error {
	if _, errno := u.sysEnter(0, 0, 0, 0); errno != 0 {
		return setupError(errno, kernelRelease(), ioUringDisabled())
	}
	return nil
}

// adopt takes over a ring that the kernel made.
func (u *uring) adopt(p *iouring.IOURingParams) error {
	for _, n := range needed() {
		if p.Features&n.bit == 0 {
			return missing(n.what)
		}
	}
	return u.rings.mapAll(p)
}

func (u *uring) start(op *Op) bool {
	if u.nfree == 0 {
		return false
	}
	rest := op.segs[op.at:]
	if len(rest) > iovMax {
		rest = rest[:iovMax]
	}
	if !u.room(len(rest)) {
		return false
	}
	u.nfree--
	op.slot = u.free[u.nfree]
	s := &u.slots[op.slot]
	s.op = op
	e := u.nextSQE()
	*e = sqe{fd: op.fd, off: uint64(op.off), userData: uint64(s.gen)<<32 | uint64(op.slot)}
	u.fill(e, op, rest)
	if op.code == codeRead {
		u.reads++
		if u.early < u.mayEarly && u.stuck == 0 {
			u.early++
			u.submit(0, 0, 0)
		}
	}
	return true
}

// lightMost is how many completions a pass may have brought for reads of drives to be handed over at once, each with an
// io_uring_enter of its own, and how many reads that are. At the end of the pass, with all the rest, they would save
// that; but the kernel holds back what comes in one batch until the last of it is issued, the replies' sends among it,
// and a drive that is told of one read earlier does more of them: alone on a drive at depth 32 one at a time gave 80
// thousand a second, two 78, four 73, all that came back at once 64. Where many come back at a time the loop is behind
// and not the drive.
const lightMost = 16

// room makes sure of an entry and of scratch for n segments. All but reads of a loop with little to do wait for the
// end of the pass; only a full queue is handed over at once.
func (u *uring) room(n int) bool {
	need := n*iovecSize + msghdrSize
	if u.sqFree() > 0 && u.scratchFree() >= need {
		return true
	}
	u.submit(0, 0, 0)
	return u.sqFree() > 0 && u.scratchFree() >= need
}

func (u *uring) cancel(op *Op) bool {
	if !u.room(0) {
		return false
	}
	e := u.nextSQE()
	*e = sqe{opcode: iouring.IORING_OP_ASYNC_CANCEL, fd: -1, userData: userCancel,
		addr: uint64(u.slots[op.slot].gen)<<32 | uint64(op.slot)}
	return true
}

func (u *uring) each(f func(*Op)) {
	for i := range u.slots {
		if op := u.slots[i].op; op != nil {
			f(op)
		}
	}
}

func (u *uring) flying() int  { return len(u.slots) - u.nfree }
func (u *uring) reading() int { return u.reads }

// retryNanos is how long a ring sleeps at most when the kernel had no memory for what it was given.
const retryNanos = int64(time.Millisecond)

func (u *uring) enter(wait bool, nanos int64) {
	if !u.wakes.armed {
		u.armWake()
	}
	var least uint32
	if wait {
		least = 1
		if u.stuck > 0 && (nanos < 0 || nanos > retryNanos) {
			nanos = retryNanos
		}
	}
	u.early = 0
	u.submit(iouring.IORING_ENTER_FLAGS_GETEVENTS, least, nanos)
}

// submit enters the kernel once.
func (u *uring) submit(flags, least uint32, nanos int64) {
	pending := u.sqPending()
	n, errno := u.sysEnter(pending, least, flags, nanos)
	u.counts.Enters++
	switch errno {
	case 0:
		u.counts.SQEs += uint64(n)
	case syscall.ETIME, syscall.EINTR:
	case syscall.EAGAIN, syscall.EBUSY, syscall.ENOMEM:
		// No memory for requests, or completions wait to be taken first: the entries stay.
		u.stuck++
		if flags != 0 && u.stuck > 8 {
			time.Sleep(time.Duration(retryNanos))
		}
		return
	default:
		panic("BUG: ring: io_uring_enter: " + errno.Error())
	}
	if u.sqPending() == 0 {
		u.stuck = 0
		u.scratchUsed = 0
	}
}

func (u *uring) reap(landed func(*Op, int32, []byte)) {
	head, tail := u.cqBounds()
	if head == tail {
		return
	}
	u.counts.CQEs += uint64(tail - head)
	if u.mayEarly = lightMost; tail-head > lightMost {
		u.mayEarly = 0
	}
	for ; head != tail; head++ {
		c := u.cqeAt(head)
		u.dispatch(c, landed)
	}
	// Entries were read in place, so they are given back only now.
	u.cqAdvance(head)
	u.recv.publish()
}

func (u *uring) dispatch(c cqe, landed func(*Op, int32, []byte)) {
	switch c.userData {
	case userWake:
		u.counts.Wakeups++
		u.armWake()
		return
	case userCancel:
		return
	}
	i := uint32(c.userData)
	s := &u.slots[i]
	op := s.op
	invariants.Assert(op != nil && s.gen == uint32(c.userData>>32),
		"ring: a completion of an operation that had ended")
	s.op = nil
	s.gen++
	u.free[u.nfree] = int32(i)
	u.nfree++
	if op.code == codeRead {
		u.reads--
	}
	if c.flags&cqeFlagBuffer == 0 {
		landed(op, c.res, nil)
		return
	}
	bid := uint16(c.flags >> cqeBufferShift)
	var sel []byte
	if c.res > 0 {
		sel = u.recv.bytes(bid, int(c.res))
	}
	landed(op, c.res, sel)
	u.recv.giveBack(bid)
}

// armWake reads the eventfd through the ring. A wake-up that was written already completes it at once.
func (u *uring) armWake() {
	if u.wakes.shutting {
		u.wakes.armed = false
		return
	}
	ok := u.room(0)
	u.wakes.armed = ok
	if !ok {
		return
	}
	e := u.nextSQE()
	*e = sqe{opcode: iouring.IORING_OP_READ, fd: int32(u.wakes.fd), addr: u.wakeBuf(), len: 8,
		userData: userWake}
}

func (u *uring) wake() { u.wakes.write() }

// shut waits for the read of the eventfd, which the kernel would otherwise finish into memory that is
// gone, and gives all back.
func (u *uring) shut() {
	u.wakes.shutting = true
	u.wakes.write()
	for u.wakes.armed {
		u.enter(true, -1)
		u.reap(func(*Op, int32, []byte) { panic("BUG: ring: an operation outlived its loop") })
	}
	u.shutAll()
}

func (u *uring) shutAll() {
	u.wakes.close()
	u.recv.unregister(u.fd)
	u.unmapAll()
}

func (u *uring) counters(s *Stats) {
	s.Enters, s.SQEs, s.CQEs, s.Wakeups = u.counts.Enters, u.counts.SQEs, u.counts.CQEs, u.counts.Wakeups
}
