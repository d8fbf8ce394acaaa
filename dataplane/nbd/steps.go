package nbd

import (
	"math"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
)

// Requests that take the device more than one operation: TRIM, WRITE_ZEROES and CACHE of long ranges (with
// extended headers of the whole vDisk), and BLOCK_STATUS, which asks until its reply is full.
//
// The obvious way is to submit all pieces at once; one request of 32 bytes would then make tens of
// thousands. Instead a request takes steps: a few pieces are under way, and the end of one starts the
// next. A connection has longMax such requests under way; further ones stand in its line, where they cost
// no more than any request does.
const (
	// rangeStep and cacheStep are the most that one operation covers, in bytes: the first is one record
	// of the journal whatever its length, the second may bring that much from the drives.
	rangeStep = 1 << 30
	cacheStep = block.MaxRequest / 2
	// rangeSteps is how many of them a request has under way; of CACHE it is one.
	rangeSteps = 4

	longMax = 4
)

// stepMax is the longest range of a command that the device gets in one piece, in bytes.
func stepMax(cmd Command) uint64 {
	switch cmd {
	case CmdTrim, CmdWriteZeroes:
		return rangeStep
	case CmdCache:
		return cacheStep
	}
	return math.MaxUint64
}

// startLong begins r, whose range is n bytes from r.Off on, or puts it in the line.
func (c *conn) startLong(r *request, n int64, want contextSet) {
	r.long, r.open, r.end, r.want = true, true, r.Off+n, want
	if r.cmd == CmdBlockStatus {
		c.takeReplyPages(r)
	}
	if c.long >= longMax {
		c.longLine.push(r)
		return
	}
	c.long++
	c.step(r)
}

// step takes r on as far as it may go, and finishes it at the end.
func (c *conn) step(r *request) {
	if r.cmd == CmdBlockStatus {
		if c.stepStatus(r) {
			return
		}
	} else if c.stepRange(r) {
		return
	}
	r.open = false
	c.long--
	c.finish(r)
	if c.long < longMax && c.longLine.head != nil {
		c.long++
		c.step(c.longLine.pop())
	}
}

// stepRange keeps pieces of r under way; false when it has come to its end.
func (c *conn) stepRange(r *request) bool {
	most := int32(rangeSteps)
	if r.cmd == CmdCache {
		most = 1
	}
	switch {
	case r.errno != OK || c.dead:
		r.end = r.Off
	case r.Off < r.end && r.cmd == CmdCache && c.ended: // nobody will read it here
		r.end = r.Off
	case r.Off < r.end && c.draining:
		r.failed(errs.Closed, r.Off)
		r.end = r.Off
	}
	for r.left < most && r.Off < r.end {
		n := pieceLen(r.Off, r.end-r.Off, int64(stepMax(r.cmd)))
		c.piece(r, r.Op, r.Off, n)
		r.Off += n
	}
	if r.left == 0 && r.Flags&block.FUA != 0 && r.errno == OK && !c.dead {
		// One sync behind all pieces, instead of one each.
		r.Flags &^= block.FUA
		c.piece(r, block.Flush, 0, 0)
	}
	return r.left > 0
}

// piece submits one operation of r.
func (c *conn) piece(r *request, op block.Op, off, n int64) {
	p := c.share.getRequest(c)
	p.first = r
	p.Op, p.Off, p.Len, p.Flags = op, off, uint32(n), r.Flags&^block.FUA
	r.left++
	c.dev.Submit(&p.Request)
}

// dropLine gives up the requests that have not begun.
func (c *conn) dropLine() {
	for c.longLine.head != nil {
		c.drop(c.longLine.pop())
	}
}
