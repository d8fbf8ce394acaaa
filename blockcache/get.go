package blockcache

import (
	"math/bits"

	"github.com/cespare/xxhash/v2"

	"vstor/blockcache/policy"
	"vstor/dataplane/buf"
	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
)

// Get gives the blocks of one stored piece that RAM has, from its first block on: sums has their checksums, one each.
// It appends one retained page per block to dst and returns how many leading blocks it served. On the loop,
// never blocks, allocates nothing once dst has its size.
func (c *Cache) Get(t *Tenant, ns ids.NamespaceID, sco ids.SCONum, off uint32, sums []uint32, dst *buf.Vec) int {
	if t.off {
		return 0
	}
	n := 0
	for n < len(sums) {
		k, part := c.key(ns, sco, off+uint32(n))
		want := min(1<<c.shift-part, len(sums)-n)
		e := c.pol.Find(k)
		if e == 0 {
			break
		}
		got := c.give(e, part, sums[n:n+want], dst)
		if got > 0 {
			c.pol.Touch(t.ram, e, partsMask(part, want))
		}
		n += got
		if got < want {
			break
		}
	}
	if n > 0 {
		t.Stats.RAM.Hits.Add(uint64(n))
	}
	return n
}

// give appends the leading parts that an entry has.
func (c *Cache) give(e policy.Entry, part int, sums []uint32, dst *buf.Vec) int {
	have := bits.TrailingZeros64(^(c.valid[e] >> part))
	for i, sum := range sums[:min(have, len(sums))] {
		s := c.slot(e, part+i)
		if !c.matches(e, part+i, sum) || c.pool.Refs(s.page) >= buf.RefsMost {
			return i
		}
		c.pool.Retain(s.page)
		dst.Add(buf.Seg{Page: s.page, Len: ids.BlockSize})
	}
	return min(have, len(sums))
}

// matches reports whether a part that RAM has is the block that a reader wants. One that is not is dropped: one of
// the two notes of its checksum is wrong, and the backend knows. REQUIRES: the part is valid.
func (c *Cache) matches(e policy.Entry, part int, sum uint32) bool {
	s := c.slot(e, part)
	if s.sum != sum {
		c.Stats.Mismatches.Inc()
		c.drop(e, part)
		return false
	}
	if invariants.Enabled && uint32(xxhash.Sum64(c.pool.Bytes(s.page))) != sum {
		invariants.Fail("blockcache: page %d changed while it was cached", s.page)
	}
	return true
}

// fill keeps blocks that were read, verified. asked says that a client wanted them now, rather than that they were
// read ahead.
func (c *Cache) fill(t *Tenant, ns ids.NamespaceID, sco ids.SCONum, off uint32, sums []uint32, pages []buf.Page,
	asked bool) {
	if c.pool.Free() < c.pool.Reserve() {
		c.Stats.Starved.Inc()
		return
	}
	for n := 0; n < len(sums); {
		k, part := c.key(ns, sco, off+uint32(n))
		run := min(1<<c.shift-part, len(sums)-n)
		c.fillBlock(t, k, part, sums[n:n+run], pages[n:n+run], asked)
		n += run
	}
	c.changed()
}

// fillBlock keeps parts of one cache block.
func (c *Cache) fillBlock(t *Tenant, k policy.Key, part int, sums []uint32, pages []buf.Page, asked bool) {
	e := c.pol.Find(k)
	if e != 0 {
		for m := c.valid[e] & partsMask(part, len(sums)); m != 0; m &= m - 1 {
			p := bits.TrailingZeros64(m)
			c.matches(e, p, sums[p-part])
		}
		e = c.pol.Find(k) // what did not match is gone, perhaps all of it
	}
	fresh, seen := partsMask(part, len(sums)), uint64(0)
	if asked {
		seen = fresh
	}
	if e != 0 {
		fresh &^= c.valid[e]
	}
	bytes := uint32(bits.OnesCount64(fresh) * ids.BlockSize)
	switch {
	case fresh == 0:
		return
	case e == 0:
		e = c.pol.Insert(t.ram, k, uint32(c.opts.entryBytes())+bytes, seen)
	case !c.pol.Grow(e, bytes, seen):
		return
	}
	if e == 0 {
		return
	}
	for m := fresh; m != 0; m &= m - 1 {
		p := bits.TrailingZeros64(m)
		pg := pages[p-part]
		c.pool.Retain(pg)
		*c.slot(e, p) = slot{pg, sums[p-part]}
	}
	c.valid[e] |= fresh
}
