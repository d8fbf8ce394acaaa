package fragcache

import (
	"vstor/dataplane/dio"
	"vstor/dataplane/layout"
)

// freeWanted is how many segments the writer keeps free ahead of the open one: what is filed again out of a
// victim goes there, and a segment that is evicted may have to wait for the last reads in it.
const freeWanted = 3

// chances is how many segments in a row get second chances before ahead must have come forward: two victims of
// which half is filed again give one free segment, but for what is lost at the ends of segments.
const chances = 4

// ahead evicts until enough segments are free, and the index has entries left. Writer only. REQUIRES: mu is
// not held.
func (c *Cache) ahead() {
	for n := 0; ; n++ {
		c.mu.Lock()
		c.release()
		enough := len(c.free)+len(c.draining) >= freeWanted && (c.index.free != 0 || int(c.index.fresh) < len(c.index.slab))
		c.mu.Unlock()
		if enough || !c.reclaim(n < chances) {
			return
		}
	}
}

// worth is what deserves to stay of a segment, in bytes.
type worth struct {
	shared int64 // of vDisks within their share
	read   int64 // of others, but read since
}

// judge says if an entry deserves to stay. REQUIRES: mu, and shares as weigh gave them.
func (c *Cache) judge(e *entry, shares []int64) (shared, read bool) {
	if c.tenants[e.tenant].used <= shares[e.tenant] {
		return true, false
	}
	return false, e.read.Load() != 0
}

func (c *Cache) survey(s *segment, shares []int64) (w worth) {
	for slot := s.list.head; slot != 0; {
		e := &c.index.slab[slot]
		switch shared, read := c.judge(e, shares); {
		case shared:
			w.shared += e.size()
		case read:
			w.read += e.size()
		}
		slot = e.snext
	}
	return w
}

// victim picks the segment to evict: the first in line of which less than half deserves to stay. Those before it
// go to the end of the line. If there is none, it is the one with least. REQUIRES: mu.
func (c *Cache) victim(shares []int64) (best uint32, found bool) {
	least := int64(-1)
	for range c.sealed.n {
		i := c.sealed.head - 1
		s := &c.segs[i]
		w := c.survey(s, shares)
		keep := w.shared + w.read
		if keep <= c.sb.Segment/2 {
			return i, true
		}
		if least < 0 || keep < least {
			best, least = i, keep
		}
		c.dequeue(&c.sealed, i)
		c.enqueue(&c.sealed, i)
		c.count.passed.Add(1)
		for slot := s.list.head; slot != 0; slot = c.index.slab[slot].snext {
			c.index.slab[slot].read.Store(0)
		}
	}
	return best, least >= 0
}

// reclaim evicts a segment, with second chances or without; false if there is none to evict. What it files again
// stays findable throughout.
func (c *Cache) reclaim(chance bool) bool {
	c.mu.Lock()
	shares := c.weigh()
	i, ok := c.victim(shares)
	if !ok {
		c.mu.Unlock()
		return false
	}
	s := &c.segs[i]
	generation := s.generation
	if keep := c.cull(i, shares, chance); len(keep) > 0 {
		c.mu.Unlock()
		for _, d := range keep {
			c.refile(i, d)
		}
		c.mu.Lock()
	}
	if s.generation == generation { // else a quota emptied it meanwhile, and it is the open one by now
		for s.list.head != 0 {
			c.evict(s.list.head) // the last one drains the segment
		}
		if s.state == segSealed {
			c.drain(i)
		}
	}
	c.release()
	c.count.reclaimed.Add(1)
	c.mu.Unlock()
	return true
}

// cull evicts what goes with its segment, and returns what is to be filed again: at most half a segment, and what was
// read only as far as what is within a share leaves room. REQUIRES: mu.
func (c *Cache) cull(i uint32, shares []int64, chance bool) (keep []deadEntry) {
	s := &c.segs[i]
	left := worth{shared: c.sb.Segment / 2}
	if !chance {
		left.shared = 0
	}
	left.read = max(0, left.shared-c.survey(s, shares).shared)
	var next uint32
	for slot := s.list.head; slot != 0 && s.state == segSealed; slot = next {
		e := &c.index.slab[slot]
		next = e.snext
		n := e.size()
		switch shared, read := c.judge(e, shares); {
		case shared && n <= left.shared:
			left.shared -= n
		case read && n <= left.read:
			left.read -= n
		default:
			c.evict(slot)
			continue
		}
		keep = append(keep, deadEntry{slot, e.seq})
	}
	return keep
}

// refile appends a fragment of segment i to the open one, if it is still what d says and its bytes are right;
// else it stays to be evicted.
func (c *Cache) refile(i uint32, d deadEntry) {
	c.mu.Lock()
	e := &c.index.slab[d.slot]
	alive := c.stands(d)
	old := Place{Segment: i, Block: e.block, Generation: c.segs[i].generation, Seq: e.seq}
	key, blocks := e.key, e.blocks
	room := c.fits(int64(blocks+1)<<blockShift) || len(c.free) > 0
	c.mu.Unlock()
	if !alive || !room || c.resting.Load() {
		return
	}
	b := c.spare[:int(blocks+1)<<blockShift]
	var h Header
	switch ok, err := c.readWhole(b, &h, old, key.unpack(), blocks); {
	case err != nil:
		c.count.readErrors.Add(1)
		return
	case !ok:
		c.rotten(key.unpack())
		return
	}
	at, ok := c.reserve(int64(len(b)))
	if !ok {
		return
	}
	h.Place = at
	h.Encode(b)
	if err := c.file.WriteAt(b, c.at(at.Segment, at.Block)); err != nil {
		c.failed(at, int64(len(b)), err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stands(d) {
		return // dropped meanwhile: the copy is dead space
	}
	c.moved(d.slot, at)
	c.count.refiled.Add(1)
	c.count.refiledBytes.Add(uint64(len(b)))
}

// stands reports whether a slot has what d says, and readers can find it: what they took out keeps slot and sequence
// until it is buried, which a move would hinder. REQUIRES: mu.
func (c *Cache) stands(d deadEntry) bool {
	e := &c.index.slab[d.slot]
	return e.seq == d.seq && c.index.find(e.key) == d.slot
}

// moved enters that a fragment lies elsewhere now, as the youngest of its vDisk. REQUIRES: mu.
func (c *Cache) moved(slot uint32, at Place) {
	e := &c.index.slab[slot]
	from, to, t := &c.segs[e.seg], &c.segs[at.Segment], c.tenants[e.tenant]
	c.index.cutOfSegment(&from.list, slot)
	from.live -= e.size()
	c.index.move(slot, at.Segment, at.Block, at.Seq)
	c.index.pushOfSegment(&to.list, slot)
	to.live += e.size()
	c.index.cutOfTenant(&t.list, slot)
	c.index.pushOfTenant(&t.list, slot)
}

// readWhole reads a fragment and verifies all of it: that it is the one at that place, and its payload.
func (c *Cache) readWhole(b []byte, h *Header, at Place, key layout.FragKey, blocks uint32) (bool, error) {
	if err := c.file.ReadAt(b, c.at(at.Segment, at.Block)); err != nil {
		return false, err
	}
	ok := h.Decode(b) == nil && h.is(c.sb.UUID, key, at, blocks<<blockShift) && h.regionsMatch(0, b[dio.BlockSize:])
	return ok, nil
}
