package pracc

import (
	"math/bits"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
)

// stepLean is the shortest step, in blocks, that is begun while others are under way: rather than read
// a long range in crumbs, a rebuild waits for the scratch pages of those.
const stepLean = 16

// plan sets up the next step of p: the bad blocks of one word of its set, so at most 64 of them or 256 KiB
// of each source, and its sources.
func (rb *rebuild) plan(p *part) {
	rb.p = p
	word := 0
	for p.bad[word] == 0 {
		word++
	}
	first := bits.TrailingZeros64(p.bad[word])
	rb.lo = uint32(64*word + first)
	rb.want = p.bad[word] >> first
	rb.n = uint32(bits.Len64(rb.want))
	rb.tried, rb.good, rb.flying, rb.late, rb.last, rb.worst = 0, 0, 0, 0, 0, errs.OK

	e := p.ent
	if n := int(e.n) - 1; cap(rb.srcs) < n {
		rb.srcs = make([]source, n)
	}
	rb.srcs = rb.srcs[:0]
	now := rb.c.now()
	for frag := range int(e.n) {
		if frag == p.frag {
			continue
		}
		ref := e.frag(p.chunk, frag)
		if ref.state != refASD {
			if ref.state == refForeign {
				rb.worst = worse(rb.worst, errs.Unreachable)
			}
			continue
		}
		if !rb.c.reachable(ref.asd) {
			// Left out, not put last: k answers are needed, and if they cannot come none is worth a read.
			rb.c.stats.Unreachable.Inc()
			rb.worst = worse(rb.worst, errs.Unreachable)
			continue
		}
		rb.srcs = rb.srcs[:len(rb.srcs)+1]
		s := &rb.srcs[len(rb.srcs)-1]
		s.rb, s.frag, s.good, s.tard, s.slow = rb, uint8(frag), false, false, rb.c.isOut(ref.asd)
		if s.slow {
			rb.c.wanted(ref.asd, e, p.chunk, frag, p.off)
		}
		s.rank = rb.c.rank(e, p.chunk, frag, p.frag, now)
		if p.suspect&(1<<frag) != 0 {
			s.rank |= 1 << 63
		}
	}
	rb.sortSources()
}

// sortSources is an insertion sort of what may be moved: which fragment stands where.
func (rb *rebuild) sortSources() {
	for i := 1; i < len(rb.srcs); i++ {
		for j := i; j > 0 && rb.srcs[j].rank < rb.srcs[j-1].rank; j-- {
			a, b := &rb.srcs[j], &rb.srcs[j-1]
			a.frag, b.frag = b.frag, a.frag
			a.slow, b.slow = b.slow, a.slow
			a.rank, b.rank = b.rank, a.rank
		}
	}
}

// takeScratch gets pages for every source of the step, also those that are read only if the first k do
// not do: a step that had to ask for more while it holds some could wait for another that does the same.
// It may shorten the step; the rest is another step.
func (rs *rebuilds) takeScratch(c *Client, rb *rebuild) bool {
	s := len(rb.srcs)
	room := min(rs.pagesMax-rs.pages, c.pool.Free())
	n := min(int(rb.n), room/s)
	if n < min(int(rb.n), stepLean) && rs.going > 0 {
		return false // whoever is under way comes by here when it ends
	}
	if n > 0 {
		rb.pages = n * s
		c.pool.AllocReserved(&rb.scratch, rb.pages)
		rs.pages += rb.pages
		c.stats.ScratchPages.Set(int64(rs.pages))
	} else {
		n, rb.pages = 1, 0
		rb.scratch.Segs = append(rb.scratch.Segs[:0], rs.floor.Segs...)
	}
	if n < int(rb.n) {
		rb.n = uint32(n)
		rb.want &= 1<<n - 1
	}
	return true
}

// share gives each source its pages.
func (rb *rebuild) share() {
	each := rb.n * buf.PageSize
	for i := range rb.srcs {
		v := &rb.srcs[i].vec
		v.Reset()
		subVec(v, &rb.scratch, uint32(i)*each, each)
	}
}
