package ring

import (
	"math"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
)

// plain carries operations where io_uring is forbidden: files by workers that block, sockets by epoll and calls
// that do not wait. It aims at being right, not fast. See engine for who calls what.
//
//	start          > fresh
//	enter    fresh > files > a worker > done
//	         fresh > desc.in, desc.out > ready       (epoll)
//	cancel   fresh, files, desc.in, desc.out > over
//	reap     done, over, ready > landed
//
// All of it belongs to the loop but done, which the workers fill.
type plain struct {
	opts *Options
	pool *buf.Pool

	errands []errand
	free    []int32
	nfree   int
	fresh   []*Op  // started since the last enter; not a list: the links of an Op are in use during start
	over    opList // ended without ado

	// Sockets.
	epoll  int
	descs  map[int32]*desc
	spare  []*desc
	events []unix.EpollEvent
	ready  []unix.EpollEvent // what of events the last enter brought
	iov    []unix.Iovec
	sel    []byte // what a RecvSelect lands in: one is enough, since it is free again when landed returns

	// Files.
	files   opList // wait for a worker
	idle    int    // workers
	busy    map[int32]int
	jobs    chan *Op
	workers sync.WaitGroup
	carry   func(*Op, []unix.Iovec) int32 // what they do; tests have drives that hang
	mu      sync.Mutex
	done    []answer
	taken   []answer // the other half of done

	wakes  wakeFD
	counts Stats
}

// errand is an operation under way.
type errand struct {
	op     *Op
	at     place
	stream bool   // a file operation on what turned out to be a pipe
	moved  uint32 // bytes of a send that are gone
	res    int32  // once at placeOver
}

// place is where an errand stands, and so what a cancel must do.
type place uint8

const (
	placeFresh place = iota
	placeFile        // in files
	placeWork        // a worker has it, and cannot be stopped
	placeIn          // until there is something to receive
	placeOut         // until there is room to send
	placeOver
)

// eventsMax is how many descriptors one enter finds ready; the kernel names the others next time.
const eventsMax = 256

func newPlain(o *Options) *plain {
	p := &plain{opts: o, pool: o.Pool, epoll: -1, carry: carry}
	p.wakes.fd = -1
	return p
}

func (p *plain) open() (err error) {
	defer func() {
		if err != nil {
			p.shutAll()
		}
	}()
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return errs.Wrap(errs.Busy, err, "ring: no epoll for loop %s", p.opts.Name)
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return errs.Wrap(errs.Busy, err, "ring: no eventfd for loop %s", p.opts.Name)
	}
	p.wakes.set(fd)
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	if err = unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return errs.Wrap(errs.IO, err, "ring: cannot wait for the eventfd of loop %s", p.opts.Name)
	}
	if p.sel, err = buf.AlignedBytes(p.opts.RecvBufSize); err != nil {
		return errs.Wrap(errs.IO, err, "ring: no memory for a receive buffer of %d bytes", p.opts.RecvBufSize)
	}
	n := p.opts.Entries * SlotsPerEntry
	p.errands = make([]errand, n)
	p.free = make([]int32, n)
	for i := range p.free {
		p.free[i] = int32(n - 1 - i)
	}
	p.nfree = n
	p.descs = make(map[int32]*desc)
	p.events = make([]unix.EpollEvent, eventsMax)
	p.iov = make([]unix.Iovec, 0, 16)
	p.hire()
	return nil
}

func (p *plain) start(op *Op) bool {
	if p.nfree == 0 {
		return false
	}
	p.nfree--
	op.slot = p.free[p.nfree]
	p.errands[op.slot] = errand{op: op, at: placeFresh}
	p.fresh = append(p.fresh, op)
	p.counts.SQEs++
	return true
}

func (p *plain) cancel(op *Op) bool {
	e := &p.errands[op.slot]
	switch e.at {
	case placeFresh: // enter passes it over
	case placeFile:
		p.files.remove(op)
	case placeIn, placeOut:
		p.forget(op, e)
	default:
		return true
	}
	p.finish(op, e, -int32(syscall.ECANCELED))
	return true
}

// finish puts op, which stands in no list, where the next reap finds it. What a send has sent counts more than
// how it ended: the next one meets the same end.
func (p *plain) finish(op *Op, e *errand, res int32) {
	if res < 0 && e.moved > 0 {
		res = int32(e.moved)
	}
	e.at, e.res = placeOver, res
	p.over.push(op)
}

func (p *plain) each(f func(*Op)) {
	for i := range p.errands {
		if op := p.errands[i].op; op != nil {
			f(op)
		}
	}
}

func (p *plain) flying() int  { return len(p.errands) - p.nfree }
func (p *plain) reading() int { return 0 }

func (p *plain) enter(wait bool, nanos int64) {
	for _, op := range p.fresh {
		if e := &p.errands[op.slot]; e.op == op && e.at == placeFresh {
			p.place(op, e)
		}
	}
	clear(p.fresh)
	p.fresh = p.fresh[:0]
	p.dispatch()
	if !wait || p.over.head != nil {
		nanos = 0
	}
	p.sleep(nanos)
}

// place sends an operation on its way. Sends are tried at once: mostly there is room.
func (p *plain) place(op *Op, e *errand) {
	switch {
	case op.code <= codeDatasync && !e.stream:
		e.at = placeFile
		p.files.push(op)
	case op.code != codeSend:
		p.await(op, e)
	default:
		if d := p.descs[op.fd]; d == nil || d.out.head == nil {
			if res := p.try(op, e); res != wouldBlock {
				p.finish(op, e, res)
				return
			}
		}
		p.await(op, e)
	}
}

// sleep waits until something happened or nanos passed (negative: no limit). epoll counts in milliseconds:
// rounded down, a timer of less would have the loop spin until it is due.
func (p *plain) sleep(nanos int64) {
	ms := -1
	if nanos >= 0 {
		ms = int(min((nanos+int64(time.Millisecond)-1)/int64(time.Millisecond), math.MaxInt32))
	}
	n, err := unix.EpollWait(p.epoll, p.events, ms)
	p.counts.Enters++
	if err != nil {
		invariants.Assert(err == unix.EINTR, "ring: epoll_wait: %v", err)
		n = 0
	}
	p.ready = p.events[:n]
	for _, ev := range p.ready {
		if ev.Fd == int32(p.wakes.fd) {
			p.awoken()
		}
	}
}

// awoken empties the eventfd, before anybody looks for what it announced: a word that comes later must stay.
func (p *plain) awoken() {
	var b [8]byte
	_, _ = unix.Read(p.wakes.fd, b[:])
	p.counts.Wakeups++
}

func (p *plain) reap(landed func(*Op, int32, []byte)) {
	p.collect(landed)
	for n := p.over.n; n > 0; n-- {
		op := p.over.pop()
		p.land(op, p.errands[op.slot].res, nil, landed)
	}
	ready := p.ready
	p.ready = nil
	for _, ev := range ready {
		p.serve(ev, landed)
	}
}

// land gives op back to the loop.
func (p *plain) land(op *Op, res int32, sel []byte, landed func(*Op, int32, []byte)) {
	p.errands[op.slot] = errand{}
	p.free[p.nfree] = op.slot
	p.nfree++
	p.counts.CQEs++
	landed(op, res, sel)
}

func (p *plain) wake() { p.wakes.write() }

func (p *plain) shut() { p.shutAll() }

func (p *plain) shutAll() {
	p.dismiss()
	p.wakes.close()
	if p.epoll >= 0 {
		_ = unix.Close(p.epoll)
	}
	if p.sel != nil {
		_ = buf.FreeAligned(p.sel)
	}
	p.epoll, p.sel = -1, nil
}

func (p *plain) counters(s *Stats) {
	s.Enters, s.SQEs, s.CQEs, s.Wakeups = p.counts.Enters, p.counts.SQEs, p.counts.CQEs, p.counts.Wakeups
}
