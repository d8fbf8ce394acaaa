package overlay

import "vstor/dataplane/ids"

// A range of gigabytes has a million blocks, and a batch tells of a few thousand that lie anywhere. To look
// each block up in each batch takes tens of milliseconds, all of it for nothing where nothing was written. A
// sorted index of the entries would tell what comes next, and every write would pay for it. So a batch keeps
// two bits per page of 256 blocks, in a bitmap by hash (a Bloom filter, both bits in one word): a write sets
// them in passing, and where one is not set no entry of the batch lies in the page. Set by chance for other
// pages, they cost the look-ups that they are there to save, no more.
const (
	pageShift = 8
	// PageBlocks is what a View covers at most, in blocks; views never cross a multiple of it.
	PageBlocks = 1 << pageShift
	// slotsPerMark: a word of marks, 64 bits, for so many slots of the table. At least 8 bits per entry, so of
	// pages without an entry at most 6 in 100 have their bits set.
	slotsPerMark = 16
)

// View is what an overlay knows of blocks that lie together in a page.
type View struct {
	Kinds [PageBlocks]Kind // by block of the range; all of one kind are not filled in: see Look
	Work  int              // how much was looked at, an entry being one
}

func (b *Batch) markOf(addr ids.BlockAddr) (word int, bits uint64) {
	h := hash(addr >> pageShift)
	return int(h >> 12 & uint64(len(b.marks)-1)), 1<<(h&63) | 1<<(h>>6&63)
}

func (b *Batch) mark(addr ids.BlockAddr) {
	w, bits := b.markOf(addr)
	b.marks[w] |= bits
}

// marked reports whether entries may lie in addr's page.
func (b *Batch) marked(addr ids.BlockAddr) bool {
	w, bits := b.markOf(addr)
	return b.marks[w]&bits == bits
}

// Look says what the overlay knows of the n blocks from addr on, which lie in one page. If uniform, all are
// of kind k and v.Kinds is not touched; else v.Kinds[:n] says it by block. Allocates nothing.
func (o *Overlay) Look(addr ids.BlockAddr, n int, v *View) (k Kind, uniform bool) {
	left := n // blocks that no batch told of yet
	v.Work = 1
	for i := len(o.closed); i >= 0 && left > 0; i-- {
		b := o.open
		if i < len(o.closed) {
			b = o.closed[i]
		}
		v.Work++
		if len(b.entries) > 0 && b.marked(addr) {
			left = b.lookEntries(addr, n, left, v)
		}
		if len(b.holes.list) == 0 {
			continue
		}
		if at := b.holes.after(addr); at < len(b.holes.list) {
			h := &b.holes.list[at]
			if left == n && h.Addr <= addr && h.end() >= addr+ids.BlockAddr(n) {
				return h.kind(), true
			}
			left = b.lookHoles(at, addr, n, left, v)
		}
	}
	return Unknown, left == n
}

// lookEntries fills in the blocks that the batch has data of.
func (b *Batch) lookEntries(addr ids.BlockAddr, n, left int, v *View) int {
	v.Work += n
	clean := left == n // Kinds was not touched yet
	for i := range n {
		if !clean && v.Kinds[i] != Unknown {
			continue
		}
		e, _ := b.find(addr + ids.BlockAddr(i))
		if e == nil || e.dead {
			continue
		}
		if clean {
			clear(v.Kinds[:n])
			clean = false
		}
		v.Kinds[i] = Data
		left--
	}
	return left
}

// lookHoles fills in the blocks that holes of the batch cover, from hole at on.
func (b *Batch) lookHoles(at int, addr ids.BlockAddr, n, left int, v *View) int {
	end := addr + ids.BlockAddr(n)
	clean := left == n
	for ; at < len(b.holes.list) && b.holes.list[at].Addr < end; at++ {
		h := &b.holes.list[at]
		if clean {
			clear(v.Kinds[:n])
			clean = false
		}
		from, to := max(h.Addr, addr), min(h.end(), end)
		v.Work += int(to - from)
		for i := from - addr; i < to-addr; i++ {
			if v.Kinds[i] == Unknown {
				v.Kinds[i] = h.kind()
				left--
			}
		}
	}
	return left
}
