package pracc

import (
	"syscall"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// reach is how an ASD can be read now: by its drive, where Locate knows the fragment, or through its process. Both
// nil: not at all.
func (c *Client) reach(id ids.ASDID) (d Drive, rm Remote) {
	if c.opt.Drives != nil {
		d = c.opt.Drives(id)
	}
	if c.opt.Remotes != nil {
		if rm = c.opt.Remotes(id); rm != nil && !rm.Ready() {
			rm = nil
		}
	}
	return d, rm
}

// startRemote is start for an ASD that another process serves. It cannot fail: readDone follows.
func (r *rangeRead) startRemote(rm Remote, id ids.ASDID, key layout.FragKey, off, n uint32, vec *buf.Vec) {
	c := r.c
	r.t = c.targetOf(id)
	r.t.flying++
	r.t.hopeless = false
	r.remote, r.vec, r.kind, r.via = rm, vec, errs.OK, block.FromASD
	r.voff, r.flying = n, 1
	c.remotes.push(r)
	r.token = rm.ReadRange(&r.ops[0], key, off, n, vec)
}

// remoteDone is the end of what startRemote began.
func (r *rangeRead) remoteDone(res int32) {
	r.c.remotes.remove(r)
	r.remote = nil
	r.kind = r.remoteKind(res)
}

// remoteKind is the meaning of a result. Absent, Corrupt, Invalid and IO are answers of the ASD, about the
// fragment. All else says nothing about it: that is Unreachable, and nobody may take it for more.
func (r *rangeRead) remoteKind(res int32) errs.Kind {
	if res >= 0 {
		if uint32(res) == r.voff {
			return errs.OK
		}
		return errs.Unreachable // a Remote that gives less than was asked for cannot be talked to
	}
	switch k := errs.FromErrno(syscall.Errno(-res)); k {
	case errs.Absent, errs.Corrupt, errs.Invalid, errs.IO:
		return k
	case errs.Canceled:
		// By shut, or the loop is stopping. The Client hears of the latter by its anchor, not from here: a
		// Remote that cancels for a reason of its own must not close it.
		if r.c.closing {
			return errs.Closed
		}
	}
	return errs.Unreachable
}

// remoteList is the reads under way at Remotes, to cancel them.
type remoteList struct{ head *rangeRead }

func (l *remoteList) push(r *rangeRead) {
	r.prevRemote, r.nextRemote = nil, l.head
	if l.head != nil {
		l.head.prevRemote = r
	}
	l.head = r
}

func (l *remoteList) remove(r *rangeRead) {
	if r.prevRemote == nil {
		l.head = r.nextRemote
	} else {
		r.prevRemote.nextRemote = r.nextRemote
	}
	if r.nextRemote != nil {
		r.nextRemote.prevRemote = r.prevRemote
	}
	r.prevRemote, r.nextRemote = nil, nil
}

// cancel asks for the end of all of them; their results come later.
func (l *remoteList) cancel() {
	for r := l.head; r != nil; r = r.nextRemote {
		r.remote.Cancel(r.token)
	}
}
