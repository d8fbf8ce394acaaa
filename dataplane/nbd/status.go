package nbd

import (
	"math/bits"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
)

// status is a BLOCK_STATUS on its way: rounds of questions to the device, whose answers are merged and
// written, as they come, into the pages that will be sent, one per context. The reply ends where a page
// is full, where the range ends, or after roundsMax; the client asks again for the rest, as the protocol
// has it.
type status struct {
	next   *status // in the free list
	rounds int
	runs   [contextCount]statusRun
	found  [foundMax]block.Extent
}

// statusRun is the extent of a context that may still grow, and how many stand in its page before it.
type statusRun struct {
	length uint64
	status uint32
	n      int
}

const (
	foundMax  = 128 // extents that a round may bring
	roundsMax = 256
	roundMax  = 1 << 30 // bytes that a round asks about

	statusesKept = 64 // free ones of a loop
)

// statusMemory is what longMax requests of a connection may hold on the Go heap, in bytes.
const statusMemory = longMax * (foundMax*8 + 128)

// statusBytes is what a reply for these contexts takes of the read limits.
func statusBytes(want contextSet) int64 { return int64(bits.OnesCount8(uint8(want))) * buf.PageSize }

// hasPages looks whether n pages for a reply are free, or stalls the connection.
func (c *conn) hasPages(n int) bool {
	s := c.share
	if s.pagesWanted || s.pool.Free()-s.pool.Reserve() < n {
		s.wait(c, true)
		return false
	}
	return true
}

// takeReplyPages takes the pages that hasPages has found. They stand beside Data, which is the device's while
// it is asked.
func (c *conn) takeReplyPages(r *request) {
	v := &c.share.scratch
	for range bits.OnesCount8(uint8(r.want)) {
		v.Reset()
		if !c.share.pool.Alloc(v, 1) {
			invariants.Fail("nbd: pages of a reply that were free are not")
		}
		r.pages[r.npages] = v.Segs[0].Page
		r.npages++
	}
}

func (c *conn) dropReplyPages(r *request) {
	for r.npages > 0 {
		r.npages--
		c.share.pool.Release(r.pages[r.npages])
	}
}

// stepStatus takes in what a round has brought and asks on; false when r has come to its end.
func (c *conn) stepStatus(r *request) bool {
	st := r.status
	switch {
	case st == nil:
		st = c.share.getStatus()
		r.status = st
	case r.errno == OK && !c.dead && r.collect(c.terms.mode, c.share.pool): // and on
	default:
		if st.rounds > 0 { // the error, if there is one, belongs to what the client asks next
			r.errno, r.why, r.bad = OK, whyNot, -1
			c.writeStatus(r)
		}
		c.dropReplyPages(r)
		r.Extents, r.status = nil, nil
		c.share.putStatus(st)
		return false
	}
	most := foundMax
	if r.Flags&block.One != 0 {
		most = 1
	}
	r.Len = uint32(min(r.end-r.Off, roundMax))
	r.Extents, r.Err = st.found[:0:most], errs.OK
	r.left++
	c.dev.Submit(&r.Request)
	return true
}

// collect merges a round into the reply, and reports whether another one makes sense.
func (r *request) collect(m Mode, pool *buf.Pool) bool {
	st := r.status
	if len(r.Extents) == 0 {
		invariants.Fail("nbd: a device told nothing of %d bytes at %d", r.Len, r.Off)
	}
	most := (buf.PageSize - statusHead(m)) / statusEntry(m)
	if r.Flags&block.One != 0 {
		most = 1
	}
	st.rounds++
	for _, e := range r.Extents {
		if e.Len == 0 || int64(e.Len) > r.end-r.Off {
			invariants.Fail("nbd: a device told of %d bytes at %d; the range ends at %d", e.Len, r.Off, r.end)
		}
		if r.full(e.State, most) {
			return false
		}
		seg := 0
		for i := range st.runs {
			if !r.want.has(i) {
				continue
			}
			run, status := &st.runs[i], contextStatus(i, e.State)
			if run.length > 0 && run.status != status {
				r.writeRun(m, pool, seg, run)
				run.length = 0
			}
			run.status = status
			run.length += uint64(e.Len)
			seg++
		}
		r.Off += int64(e.Len)
	}
	return r.Off < r.end && st.rounds < roundsMax
}

// full reports whether an extent of this state needs one more entry than some context may have.
func (r *request) full(state block.ExtentState, most int) bool {
	for i := range r.status.runs {
		run := &r.status.runs[i]
		if r.want.has(i) && run.length > 0 && run.status != contextStatus(i, state) && run.n+2 > most {
			return true
		}
	}
	return false
}

// writeRun writes a run that is complete into its page.
func (r *request) writeRun(m Mode, pool *buf.Pool, seg int, run *statusRun) {
	page := pool.Bytes(r.pages[seg])
	putExtent(page[statusHead(m)+run.n*statusEntry(m):], m, run.length, run.status)
	run.n++
}

// writeStatus completes the chunks: r is ready to be sent as it lies in its pages.
func (c *conn) writeStatus(r *request) {
	m, seg := c.terms.mode, 0
	for i := range r.status.runs {
		if !r.want.has(i) {
			continue
		}
		run := &r.status.runs[i]
		r.writeRun(m, c.share.pool, seg, run)
		page := r.pages[seg]
		seg++
		h := Chunk{Done: seg == r.npages, Cookie: r.cookie, Offset: r.offset}
		putStatusHead(c.share.pool.Bytes(page), m, h, uint32(i+1), run.n)
		// Not by Add: each context is a segment of its own.
		r.Data.Segs = append(r.Data.Segs, buf.Seg{Page: page, Len: uint32(statusHead(m) + run.n*statusEntry(m))})
	}
	r.npages = 0
	r.begun, r.upto = true, len(r.Data.Segs)
}

func (s *share) getStatus() *status {
	st := s.freeStatus
	if st == nil {
		return &status{}
	}
	s.freeStatus = st.next
	s.nfreeStatus--
	st.next, st.rounds, st.runs = nil, 0, [contextCount]statusRun{}
	return st
}

func (s *share) putStatus(st *status) {
	if s.nfreeStatus < statusesKept {
		st.next, s.freeStatus = s.freeStatus, st
		s.nfreeStatus++
	}
}
