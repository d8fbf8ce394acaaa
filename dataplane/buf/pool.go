// Package buf gives out 4 KiB-aligned pages of memory outside the Go heap, with a reference count per
// page, and scatter lists of them.
//
// A Pool belongs to one loop: only that loop allocates, retains and releases, so counts are plain
// integers. Other goroutines may read bytes of pages that the loop keeps referenced for them until
// they have posted back. Payload comes to rest in such pages once; the journal writes, the sockets
// send and the seal gathers from them in place.
package buf

import (
	"math/bits"

	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
)

// PageSize is the size and alignment of a page in bytes.
const PageSize = 4096

// Page is the index of a page in its Pool.
type Page uint32

// zeroPages pages at the start of every Pool hold zeros for ever: holes are served from them without
// a reference being counted.
const zeroPages = 64

// Zero is the first of the zero pages.
const Zero Page = 0

// ZeroRun is how many bytes one Seg that starts at Zero may span.
const ZeroRun = zeroPages * PageSize

const zeroGroups = zeroPages / groupPages

// groupPages is the number of pages in an allocation group: one word of the bitmap. A run never
// crosses a group, but runs of neighbouring groups merge in a Vec.
const groupPages = 64

// Pool is a fixed set of pages. See the package comment for who may call it.
//
// The obvious free list of single pages scatters the pages of a large request over all memory, and
// every one of them costs an iovec in the kernel. Instead the free pages are bits in words of 64: small
// requests are cut from words that are partly used, large ones from whole free words.
type Pool struct {
	mem  []byte
	refs []uint16
	free []uint64 // one bit per page, set = free
	// Summaries, one bit per group: whole = all 64 free; part = some but not all free.
	whole, part []uint64
	pages       int // that can be given out
	nfree       int // of them
	low         int // smallest nfree seen
	reserve     int // pages that only AllocReserved may take

	// See Lend.
	joined   []bool // by stretch: it was lent; what is left at the pool's end is none
	used     int    // stretches in which a page was ever given out, and those before
	lent     bool
	joins    int // stretches that came back
	lendable func()
}

// NewPool maps size bytes (rounded up to 256 KiB), and Spare, outside the Go heap. The last reserve bytes of it
// are given out by AllocReserved alone, so that whoever may never wait on a full pool does not.
func NewPool(size, reserve int64) (*Pool, error) {
	groups := int((size + groupPages*PageSize - 1) / (groupPages * PageSize))
	groups = max(groups, 2)
	pages := (groups - zeroGroups) * groupPages
	groups += Spare / (groupPages * PageSize)
	mem, err := mapPieces(groups * groupPages * PageSize)
	if err != nil {
		return nil, errs.Wrap(errs.IO, err, "buf: cannot map a pool of %d bytes", size)
	}
	p := &Pool{
		mem:     mem,
		refs:    make([]uint16, groups*groupPages),
		free:    make([]uint64, groups),
		whole:   make([]uint64, (groups+63)/64),
		part:    make([]uint64, (groups+63)/64),
		joined:  make([]bool, groups/stretchGroups),
		pages:   pages,
		nfree:   pages,
		low:     pages,
		reserve: int(reserve / PageSize),
	}
	for g := zeroGroups; g < groups; g++ {
		p.free[g] = ^uint64(0)
		p.whole[g/64] |= 1 << (g % 64)
	}
	return p, nil
}

// Close unmaps the memory. Nobody may hold a page, and the kernel may not have any in flight.
func (p *Pool) Close() error {
	mem := p.mem
	p.mem = nil
	return FreeBig(mem)
}

// Pages is the number of pages that can be given out; Free how many are free now, Low the fewest
// that ever were.
func (p *Pool) Pages() int { return p.pages }
func (p *Pool) Free() int  { return p.nfree }
func (p *Pool) Low() int   { return p.low }

// Reserve is how many pages Alloc leaves alone.
func (p *Pool) Reserve() int { return p.reserve }

// Alloc appends n pages to v, each with one reference, in as few runs as it can. It returns false, and
// changes nothing, if that would touch the reserve.
func (p *Pool) Alloc(v *Vec, n int) bool {
	if p.nfree-p.reserve < n {
		return false
	}
	p.take(v, n)
	return true
}

// AllocReserved is Alloc that may use the reserve.
func (p *Pool) AllocReserved(v *Vec, n int) bool {
	if p.nfree < n {
		return false
	}
	p.take(v, n)
	return true
}

func (p *Pool) take(v *Vec, n int) {
	p.nfree -= n
	p.low = min(p.low, p.nfree)
	for n >= groupPages {
		g, ok := firstBit(p.whole)
		if !ok {
			break
		}
		p.takeRun(v, g, 0, groupPages)
		n -= groupPages
	}
	for n > 0 {
		n -= p.takeSome(v, n)
	}
}

// takeSome takes a run of at most n pages, best from a partly used group, and says how many.
func (p *Pool) takeSome(v *Vec, n int) int {
	g, ok := firstBit(p.part)
	if n > 1 {
		// A partly used group may be full of holes: for a run, a fresh group is better than a
		// dozen iovecs, as long as there is one.
		if ok && longestRun(p.free[g]) < min(n, groupPages) {
			if w, wok := firstBit(p.whole); wok {
				g = w
			}
		}
	}
	if !ok {
		g, ok = firstBit(p.whole)
		if !ok {
			invariants.Fail("buf: pages are counted free, none found")
		}
	}
	start, run := bestRun(p.free[g], n)
	p.takeRun(v, g, start, run)
	return run
}

func (p *Pool) takeRun(v *Vec, g, start, run int) {
	mask := runMask(start, run)
	if p.free[g]&mask != mask {
		invariants.Fail("buf: run %d+%d of group %d is not free", start, run, g)
	}
	p.free[g] &^= mask
	p.summarize(g)
	first := g*groupPages + start
	for i := first; i < first+run; i++ {
		p.refs[i] = 1
	}
	v.Add(Seg{Page: Page(first), Len: uint32(run * PageSize)})
	if first+run > p.used*stretchPages {
		p.grew(first + run)
	}
}

func (p *Pool) summarize(g int) {
	w, bit := g/64, uint64(1)<<(g%64)
	p.whole[w] &^= bit
	p.part[w] &^= bit
	switch p.free[g] {
	case 0:
	case ^uint64(0):
		p.whole[w] |= bit
	default:
		p.part[w] |= bit
	}
}

// RefsMost is how many references a page has at most before it is not shared further with whoever asks: they are
// counted in 16 bits, and what holds pages for its own ends needs some.
const RefsMost = 1 << 15

// Refs is the number of references to a page, for those who share it; see RefsMost.
func (p *Pool) Refs(pg Page) int { return int(p.refs[pg]) }

// Retain adds a reference to a page.
func (p *Pool) Retain(pg Page) {
	if pg < zeroPages {
		return
	}
	if p.refs[pg] == 0 || p.refs[pg] == ^uint16(0) {
		invariants.Fail("buf: retain of page %d, which has %d references", pg, p.refs[pg])
	}
	p.refs[pg]++
}

// Release drops a reference; the last one frees the page. In invariants builds a freed page is
// filled with poison, so that whoever reads it afterwards fails a checksum.
func (p *Pool) Release(pg Page) {
	if pg < zeroPages {
		return
	}
	if p.refs[pg] == 0 {
		invariants.Fail("buf: release of free page %d", pg)
	}
	p.refs[pg]--
	if p.refs[pg] > 0 {
		return
	}
	if invariants.Enabled {
		poison(p.Bytes(pg))
	}
	g := int(pg) / groupPages
	p.free[g] |= 1 << (int(pg) % groupPages)
	p.summarize(g)
	p.nfree++
	if p.free[g] == ^uint64(0) {
		p.freed(g)
	}
}

// ReleaseVec drops a reference to every page that v touches, and resets v.
func (p *Pool) ReleaseVec(v *Vec) {
	for _, s := range v.Segs {
		for i := 0; i < s.Pages(); i++ {
			p.Release(s.Page + Page(i))
		}
	}
	v.Reset()
}

// Bytes is the memory of one page.
func (p *Pool) Bytes(pg Page) []byte {
	off := int(pg) * PageSize
	return p.mem[off : off+PageSize : off+PageSize]
}

// SegBytes is the memory of a run.
func (p *Pool) SegBytes(s Seg) []byte {
	off := int(s.Page)*PageSize + int(s.Off)
	return p.mem[off : off+int(s.Len) : off+int(s.Len)]
}

// AddZeros appends n bytes of zeros to v without taking a reference.
func (p *Pool) AddZeros(v *Vec, n int) {
	for n > 0 {
		run := min(n, ZeroRun)
		v.Segs = append(v.Segs, Seg{Page: Zero, Len: uint32(run)})
		n -= run
	}
}

func poison(b []byte) {
	for i := range b {
		b[i] = 0xdb
	}
}

func firstBit(words []uint64) (int, bool) {
	for i, w := range words {
		if w != 0 {
			return i*64 + bits.TrailingZeros64(w), true
		}
	}
	return 0, false
}

func runMask(start, run int) uint64 {
	if run == 64 {
		return ^uint64(0)
	}
	return (uint64(1)<<run - 1) << start
}

// longestRun is the length of the longest run of set bits: each step shortens all runs by one.
func longestRun(w uint64) int {
	n := 0
	for w != 0 {
		w &= w << 1
		n++
	}
	return n
}

// bestRun finds a run of n set bits in w, or else its longest run.
func bestRun(w uint64, n int) (start, run int) {
	if n == 1 {
		return bits.TrailingZeros64(w), 1
	}
	for w != 0 {
		s := bits.TrailingZeros64(w)
		l := bits.TrailingZeros64(^(w >> s))
		if l >= n {
			return s, n
		}
		if l > run {
			start, run = s, l
		}
		if s+l >= 64 {
			break
		}
		w &^= runMask(s, l)
	}
	return start, run
}
