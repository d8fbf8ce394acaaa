package buf

import (
	"golang.org/x/sys/unix"

	"vstor/dataplane/invariants"
)

// A drive is told of each physically contiguous piece of memory apart, so what goes to it or comes from it should lie
// in big pages. To ask for those when the pool is mapped would have whoever touches one first zero all of it, and that
// is a loop (see mapAnon); to have the kernel join pages that are in use would stop whoever uses them meanwhile, and
// does nothing for pages that a drive has. So a stretch of the pool is lent, while all its pages are free, to a
// goroutine that can wait. It gives the memory back to the kernel, asks for a big page in its place, and returns the
// stretch:
//
//	untouched or in single pages, free ─ Lend ─► Join ─ TakeBack ─► in a big page, free
//
// That is done to what was used and the next, so an idle process does not grow, and once to each: where the machine has
// no big pages left, single pages come, and nobody asks again. The first, where the zeros lie, stays as it is.
//
// Whoever finds pages free counts on them. So no pages are counted as lent: there is a stretch more than are given out.

// Spare is what a Pool maps beyond its size, in bytes.
const Spare = bigPage

// stretchGroups is the number of groups in a big page.
const stretchGroups = bigPage / (groupPages * PageSize)

const stretchPages = stretchGroups * groupPages

// stretchesAhead is how many stretches beyond those that were used may be lent.
const stretchesAhead = 1

// Stretch is a part of a Pool, of the size and alignment of a big page, that is lent.
type Stretch struct {
	pool  *Pool
	index int
}

// OnLendable has f called whenever there may be something to Lend, and now: amid Alloc and Release, so it may do no
// more than wake somebody. The caller is as for Alloc.
func (p *Pool) OnLendable(f func()) {
	p.lendable = f
	f()
}

// Lend takes a stretch that is free and was not joined yet out of the pool. False: there is none, or one is lent. The
// caller is as for Alloc. Each that is lent is taken back.
func (p *Pool) Lend() (Stretch, bool) {
	if p.lent {
		return Stretch{}, false
	}
	for i := range min(p.used+stretchesAhead, len(p.joined)) {
		if !p.joined[i] && p.stretchFree(i) {
			p.lent, p.joined[i] = true, true
			p.setStretch(i, 0)
			return Stretch{p, i}, true
		}
	}
	return Stretch{}, false
}

// Join puts a big page behind a stretch; a wish, see BigBytes. It may take milliseconds. Any goroutine.
func (s Stretch) Join() {
	from := s.index * bigPage
	b := s.pool.mem[from : from+bigPage]
	_ = unix.Madvise(b, unix.MADV_DONTNEED) // the single pages
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	// In the kernel and not by writing to it: a goroutine amid a page fault would hold up the collector, which waits for
	// all that run. A kernel that cannot (before Linux 5.14) leaves it untouched: single pages again, as they are used.
	_ = unix.Madvise(b, unix.MADV_POPULATE_WRITE)
	// What was not done now the kernel shall not do by itself later, when the pages are in use.
	_ = unix.Madvise(b, unix.MADV_NOHUGEPAGE)
}

// TakeBack returns a stretch. The caller is as for Alloc.
func (p *Pool) TakeBack(s Stretch) {
	invariants.Assert(p.lent && s.pool == p, "buf: a stretch is taken back that was not lent")
	p.lent = false
	p.setStretch(s.index, ^uint64(0))
	p.joins++
}

// setStretch makes all pages of a stretch free or not.
func (p *Pool) setStretch(i int, free uint64) {
	for g := i * stretchGroups; g < (i+1)*stretchGroups; g++ {
		p.free[g] = free
		p.summarize(g)
	}
}

// Joined is how many stretches were joined. The caller is as for Alloc.
func (p *Pool) Joined() int { return p.joins }

// stretchFree reports whether all pages of a stretch are free: its groups are a byte of the summary.
func (p *Pool) stretchFree(i int) bool {
	const all = 1<<stretchGroups - 1
	at := i * stretchGroups
	return p.whole[at/64]>>(at%64)&all == all
}

// grew notes that the pages before end are used.
func (p *Pool) grew(end int) {
	p.used = (end + stretchPages - 1) / stretchPages
	p.wake()
}

// freed notes that all of a group is free.
func (p *Pool) freed(g int) {
	if i := g / stretchGroups; i < len(p.joined) && !p.joined[i] && p.stretchFree(i) {
		p.wake()
	}
}

func (p *Pool) wake() {
	if p.lendable != nil {
		p.lendable()
	}
}
