package ring

import (
	"syscall"

	"golang.org/x/sys/unix"

	"vstor/dataplane/buf"
)

const (
	// plainWorkers is how many file operations a loop has under way at once; more wait in line.
	plainWorkers = 24
	// perFile of them at most are those of one descriptor: a drive that hangs must leave workers to the
	// others.
	perFile = 6
)

// answer is what a worker brings back.
type answer struct {
	op  *Op
	res int32
}

// hire starts the workers. Each costs a stack until it has something to do, and a thread while it blocks.
func (p *plain) hire() {
	p.busy = make(map[int32]int)
	p.done = make([]answer, 0, plainWorkers)
	p.taken = make([]answer, 0, plainWorkers)
	p.jobs = make(chan *Op, plainWorkers)
	p.idle = plainWorkers
	for range plainWorkers {
		p.workers.Go(p.work)
	}
}

// dismiss ends the workers and waits until they are gone. REQUIRES: they have nothing to do.
func (p *plain) dismiss() {
	if p.jobs != nil {
		close(p.jobs)
		p.workers.Wait()
		p.jobs = nil
	}
}

// dispatch hands files' operations to idle workers, oldest first but for those of descriptors that have their
// share.
func (p *plain) dispatch() {
	var next *Op
	for op := p.files.head; op != nil && p.idle > 0; op = next {
		next = op.next
		if p.busy[op.fd] >= perFile {
			continue
		}
		p.files.remove(op)
		p.errands[op.slot].at = placeWork
		p.busy[op.fd]++
		p.idle--
		p.jobs <- op // there is room for one per worker
	}
}

// collect lands what the workers brought back.
func (p *plain) collect(landed func(*Op, int32, []byte)) {
	p.mu.Lock()
	p.taken, p.done = p.done, p.taken[:0]
	p.mu.Unlock()
	for _, a := range p.taken {
		p.idle++
		if p.busy[a.op.fd]--; p.busy[a.op.fd] == 0 {
			delete(p.busy, a.op.fd)
		}
		if a.res == -int32(syscall.ESPIPE) {
			// A pipe may block for ever, and must be given up when canceled: no work for a worker.
			e := &p.errands[a.op.slot]
			if e.stream = true; a.op.canceled {
				p.finish(a.op, e, -int32(syscall.ECANCELED))
				continue
			}
			e.at = placeFresh
			p.fresh = append(p.fresh, a.op)
			continue
		}
		p.land(a.op, a.res, nil, landed)
	}
	clear(p.taken)
}

// work is a worker. While it has an Op nobody changes what it reads of it.
func (p *plain) work() {
	var iov []unix.Iovec
	for op := range p.jobs {
		iov = segments(iov, p.pool, op, 0)
		res := p.carry(op, iov)
		p.mu.Lock()
		p.done = append(p.done, answer{op, res})
		first := len(p.done) == 1
		p.mu.Unlock()
		if first {
			p.wakes.write()
		}
	}
}

// carry does an operation on a file, and blocks.
func carry(op *Op, iov []unix.Iovec) int32 {
	switch op.code {
	case codeRead:
		return preadv(int(op.fd), iov, op.off)
	case codeWrite:
		return pwritev(int(op.fd), iov, op.off)
	}
	return fdatasync(int(op.fd))
}

// segments lays out in iov what op has still to move but for its first moved bytes, as far as one call takes
// it, and returns iov.
func segments(iov []unix.Iovec, pool *buf.Pool, op *Op, moved uint32) []unix.Iovec {
	iov = iov[:0]
	skip := op.skip + moved
	for _, s := range op.segs[op.at:] {
		if skip >= s.Len {
			skip -= s.Len
			continue
		}
		b := pool.SegBytes(s)[skip:]
		skip = 0
		iov = append(iov, unix.Iovec{Base: &b[0], Len: uint64(len(b))})
		if len(iov) == iovMax {
			break
		}
	}
	return iov
}
