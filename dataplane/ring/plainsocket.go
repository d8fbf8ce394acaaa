package ring

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// desc is a descriptor that operations wait for. epoll knows it just as long: its owner may close it, and the
// number come back as another's, as soon as the last one has landed.
type desc struct {
	fd     int32
	in     opList
	out    opList
	events uint32 // what epoll looks for
}

// wouldBlock is the result of what cannot be done without waiting.
const wouldBlock = -int32(syscall.EAGAIN)

// await has op wait until its descriptor is ready for it, first come, first served.
func (p *plain) await(op *Op, e *errand) {
	d := p.descs[op.fd]
	if d == nil {
		d = p.newDesc(op.fd)
	}
	e.at = placeIn
	if op.code == codeSend || op.code == codeWrite {
		e.at = placeOut
	}
	d.list(e.at).push(op)
	if errno := p.watch(d); errno != 0 {
		d.list(e.at).remove(op)
		p.watch(d)
		if errno == unix.EPERM { // epoll's word for a file
			errno = unix.ENOTSOCK
		}
		p.finish(op, e, -int32(errno))
	}
}

// forget is the opposite of await. When it returns, op's owner may close the descriptor if nothing else of
// his is under way there.
func (p *plain) forget(op *Op, e *errand) {
	d := p.descs[op.fd]
	d.list(e.at).remove(op)
	p.watch(d)
}

func (d *desc) list(at place) *opList {
	if at == placeOut {
		return &d.out
	}
	return &d.in
}

func (p *plain) newDesc(fd int32) *desc {
	var d *desc
	if n := len(p.spare); n > 0 {
		d, p.spare = p.spare[n-1], p.spare[:n-1]
	} else {
		d = new(desc)
	}
	*d = desc{fd: fd}
	p.descs[fd] = d
	return d
}

// watch tells epoll what d's operations wait for, and drops d if there are none. What epoll does not take
// stays as it was.
func (p *plain) watch(d *desc) syscall.Errno {
	ev := unix.EpollEvent{Fd: d.fd}
	if d.in.head != nil {
		ev.Events |= unix.EPOLLIN
	}
	if d.out.head != nil {
		ev.Events |= unix.EPOLLOUT
	}
	if ev.Events != d.events {
		op := unix.EPOLL_CTL_MOD
		switch {
		case d.events == 0:
			op = unix.EPOLL_CTL_ADD
		case ev.Events == 0:
			op = unix.EPOLL_CTL_DEL
		}
		err := unix.EpollCtl(p.epoll, op, int(d.fd), &ev)
		if errno, _ := err.(syscall.Errno); errno != 0 && ev.Events != 0 {
			return errno
		}
		d.events = ev.Events
	}
	if ev.Events == 0 {
		delete(p.descs, d.fd)
		p.spare = append(p.spare, d)
	}
	return 0
}

// serve moves what an event has made movable. A RingDone on the way may cancel what waits, even all of it;
// what it starts waits for the next enter, so that d, dropped, is nobody else's before.
func (p *plain) serve(ev unix.EpollEvent, landed func(*Op, int32, []byte)) {
	const broken = unix.EPOLLHUP | unix.EPOLLERR // is told to both sides
	d := p.descs[ev.Fd]
	if d == nil {
		return
	}
	if ev.Events&(unix.EPOLLIN|broken) != 0 {
		p.pump(&d.in, landed)
	}
	if ev.Events&(unix.EPOLLOUT|broken) != 0 {
		p.pump(&d.out, landed)
	}
}

// pump carries operations out in their order until one must wait.
func (p *plain) pump(list *opList, landed func(*Op, int32, []byte)) {
	for op := list.head; op != nil; op = list.head {
		e := &p.errands[op.slot]
		res := p.try(op, e)
		if res == wouldBlock {
			return
		}
		if res < 0 && e.moved > 0 {
			res = int32(e.moved)
		}
		var sel []byte
		if op.code == codeRecvSelect && res > 0 {
			sel = p.sel[:res:res]
		}
		p.forget(op, e)
		p.land(op, res, sel, landed)
	}
}

// try moves what can be moved without waiting: some bytes of what is received, as the loop comes again for
// the rest, but all of a send, which would end short.
func (p *plain) try(op *Op, e *errand) int32 {
	fd := int(op.fd)
	switch op.code {
	case codeRecvSelect:
		p.iov = append(p.iov[:0], unix.Iovec{Base: &p.sel[0], Len: uint64(p.opts.RecvBufSize)})
		return recvmsg(fd, p.iov)
	case codeRecv:
		p.iov = segments(p.iov, p.pool, op, 0)
		return recvmsg(fd, p.iov)
	case codeSend:
		return p.send(op, e)
	}
	return p.pipe(op)
}

// sendRounds bounds how long a peer that takes as fast as we send has the loop for itself.
const sendRounds = 16

func (p *plain) send(op *Op, e *errand) int32 {
	for range sendRounds {
		p.iov = segments(p.iov, p.pool, op, e.moved)
		n := sendmsg(int(op.fd), p.iov)
		if n < 0 {
			return n
		}
		if e.moved += uint32(n); e.moved == op.want {
			return int32(e.moved)
		}
	}
	return wouldBlock
}

// pipeUnit is what a pipe takes without waiting if it takes anything (PIPE_BUF).
const pipeUnit = 4096

// pipe is a read or write of what has no offsets. There is no call for it that does not wait, so it is asked first.
func (p *plain) pipe(op *Op) int32 {
	ask := []unix.PollFd{{Fd: op.fd, Events: unix.POLLIN}}
	if op.code == codeWrite {
		ask[0].Events = unix.POLLOUT
	}
	if n, err := unix.Poll(ask, 0); err != nil || n == 0 {
		return wouldBlock
	}
	p.iov = segments(p.iov, p.pool, op, 0)
	if op.code == codeRead {
		return readv(int(op.fd), p.iov)
	}
	p.iov = p.iov[:1]
	p.iov[0].Len = min(p.iov[0].Len, pipeUnit)
	return writev(int(op.fd), p.iov)
}
