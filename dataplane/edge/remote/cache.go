package remote

import (
	"math/bits"

	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/stat"
)

// Cache keeps where blocks lie, for all vDisks of a loop together. It belongs to the loop.
//
// Locations stand in pages of 64 blocks, 12 bytes a block, found by a hash chain of 4 bytes a page. A page has a bit
// for each block that it knows, so what is dropped is dropped by clearing bits. What a vDisk knows is its life: a new
// life knows nothing, and the pages of an old one are taken again when the hand of the clock comes by, so to forget
// all of a vDisk is one addition.
type Cache struct {
	heads  []uint32 // page number + 1, by hash
	pages  []page
	locs   []*[chunkPages]pageLocs
	max    int // pages
	hand   int
	lives  uint32
	blocks int64 // known, of lives that may have ended

	Stats CacheStats
}

// CacheStats count what the Cache did. The loop writes, anyone reads.
type CacheStats struct {
	Blocks  stat.Gauge // known
	Bytes   stat.Gauge // that it takes
	Evicted stat.Counter
}

const (
	pageShift  = 6
	pageBlocks = 1 << pageShift
	chunkPages = 64 // made at a time
	hotMax     = 3
)

type pageLocs [pageBlocks]layout.Location

// page is what is known of the blocks from no*pageBlocks on.
type page struct {
	life  uint32
	no    uint32 // a vDisk has 2^34 blocks at most
	known uint64 // a bit for each block
	next  uint32 // page number + 1, in the chain of its hash
	hot   uint8
}

// PageBytes is what a page takes with its share of everything; at most 16 bytes for each of its blocks.
const PageBytes = pageBlocks*layout.LocationSize + 32 + 8

const _ = uint(16*pageBlocks - PageBytes)

// NewCache makes a Cache of at most so many bytes, and at least a page.
func NewCache(bytes int64) *Cache {
	n := int(max(bytes/PageBytes, 1))
	heads := 1 << bits.Len(uint(n))
	return &Cache{max: n, heads: make([]uint32, heads)}
}

// newLife is the name of what a vDisk is going to know.
func (c *Cache) newLife() uint32 {
	c.lives++
	return c.lives
}

func (c *Cache) slot(life, no uint32) *uint32 {
	h := (uint64(life)<<32 | uint64(no)) * 0x9e3779b97f4a7c15
	return &c.heads[h>>(64-bits.Len(uint(len(c.heads)-1)))%uint64(len(c.heads))]
}

// find is the page that knows of those blocks, or -1.
func (c *Cache) find(life, no uint32) int {
	for i := *c.slot(life, no); i != 0; i = c.pages[i-1].next {
		if p := &c.pages[i-1]; p.no == no && p.life == life {
			return int(i - 1)
		}
	}
	return -1
}

// knows reports whether something is known of those blocks.
func (c *Cache) knows(life, no uint32) bool {
	i := c.find(life, no)
	return i >= 0 && c.pages[i].known != 0
}

// get is where a block lies, if that is known. i is its page, -1 if there is none.
func (c *Cache) get(i int, addr ids.BlockAddr) (layout.Location, bool) {
	if i < 0 {
		return layout.Location{}, false
	}
	in := addr % pageBlocks
	if c.pages[i].known>>in&1 == 0 {
		return layout.Location{}, false
	}
	return c.locs[i/chunkPages][i%chunkPages][in], true
}

func (c *Cache) heat(i int) {
	if p := &c.pages[i]; p.hot < hotMax {
		p.hot++
	}
}

// make is the page of those blocks, which it empties another one for if need be.
func (c *Cache) make(life, no uint32) int {
	if i := c.find(life, no); i >= 0 {
		return i
	}
	i := len(c.pages)
	if i < c.max {
		if i%chunkPages == 0 {
			c.locs = append(c.locs, new([chunkPages]pageLocs))
			c.Stats.Bytes.Set(int64(len(c.locs)) * chunkPages * PageBytes)
		}
		c.pages = append(c.pages, page{})
	} else {
		i = c.victim()
	}
	head := c.slot(life, no)
	c.pages[i] = page{life: life, no: no, next: *head}
	*head = uint32(i + 1)
	return i
}

// victim takes a cold page out: the hand cools what it passes.
func (c *Cache) victim() int {
	for {
		i := c.hand
		c.hand = (i + 1) % len(c.pages)
		p := &c.pages[i]
		if p.hot > 0 {
			p.hot--
			continue
		}
		c.forget(p, ^uint64(0))
		for s := c.slot(p.life, p.no); *s != 0; s = &c.pages[*s-1].next {
			if int(*s-1) == i {
				*s = p.next
				break
			}
		}
		c.Stats.Evicted.Inc()
		return i
	}
}

func (c *Cache) put(i int, addr ids.BlockAddr, loc layout.Location) {
	p, in := &c.pages[i], addr%pageBlocks
	c.locs[i/chunkPages][i%chunkPages][in] = loc
	if p.known>>in&1 == 0 {
		p.known |= 1 << in
		c.blocks++
		c.Stats.Blocks.Set(c.blocks)
	}
}

// forget drops the blocks of a mask.
func (c *Cache) forget(p *page, mask uint64) {
	if n := bits.OnesCount64(p.known & mask); n > 0 {
		p.known &^= mask
		c.blocks -= int64(n)
		c.Stats.Blocks.Set(c.blocks)
	}
}

// drop forgets a range.
func (c *Cache) drop(life uint32, addr ids.BlockAddr, count uint64) {
	end := addr + ids.BlockAddr(count)
	first, last := uint32(addr>>pageShift), uint32((end-1)>>pageShift)
	if uint64(last-first) < uint64(len(c.pages)) {
		for no := first; no <= last; no++ {
			if i := c.find(life, no); i >= 0 {
				c.forget(&c.pages[i], rangeMask(no, addr, end))
			}
		}
		return
	}
	for i := range c.pages {
		if p := &c.pages[i]; p.life == life && p.no >= first && p.no <= last {
			c.forget(p, rangeMask(p.no, addr, end))
		}
	}
}

// rangeMask has the bits of page no that lie in [from, to).
func rangeMask(no uint32, from, to ids.BlockAddr) uint64 {
	start := ids.BlockAddr(no) << pageShift
	mask := ^uint64(0)
	if from > start {
		mask <<= from - start
	}
	if end := start + pageBlocks; to < end {
		mask &= 1<<(to-start) - 1
	}
	return mask
}

// dropObject forgets what lies in an object, among n pages from the one on that was reached; it returns where it
// stopped, and whether that is the end.
func (c *Cache) dropObject(life uint32, ns uint16, sco ids.SCONum, at, n int) (int, bool) {
	for ; n > 0 && at < len(c.pages); at, n = at+1, n-1 {
		p := &c.pages[at]
		if p.life != life || p.known == 0 {
			continue
		}
		mask := uint64(0)
		for in, loc := range c.locs[at/chunkPages][at%chunkPages] {
			if loc.SCO == sco && loc.NS == ns {
				mask |= 1 << in
			}
		}
		c.forget(p, mask)
	}
	return at, at >= len(c.pages)
}
