package pracc

import (
	"syscall"

	"vstor/dataplane/block"
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

// reachable reports whether an ASD can be read now.
func (c *Client) reachable(id ids.ASDID) bool {
	d, rm := c.reach(id)
	return d != nil || rm != nil
}

// startRemote is the second half of read for an ASD that another process serves. It cannot fail: readDone follows.
func (r *rangeRead) startRemote(rm Remote, key layout.FragKey, off, n uint32) {
	r.t.hopeless = false
	r.remote, r.via, r.voff, r.flying = rm, block.FromASD, n, 1
	r.token = rm.ReadRange(&r.ops[0], key, off, n, &r.vec)
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
