package pagemap

import (
	"math/bits"

	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
	"vstor/dataplane/layout"
)

// The pages of a map are the leaves of a tree of fixed shape: 32 pages to a leaf (32 MiB of vDisk, 2 KiB
// of RAM), 1024 leaves to a mid (32 GiB, 32 KiB of RAM), and a root that grows with the vDisk. A hash
// table would need the same 64 bytes per page and would lose two things: SCOs and sweeps come in address
// order, so here they walk memory in order; and a trim that covers a whole leaf or mid is one flag there.
//
// Only what is touched has nodes. A slot without a kid says what is known of all its pages at once.
const (
	leafPages = 32
	midLeaves = 1024
	midPages  = leafPages * midLeaves

	leafBytes     = leafPages * 64
	midBytes      = midLeaves * 32
	rootSlotBytes = 32
)

// unit is what is known of a page, or of all pages of a slot without a kid.
type unit struct {
	low  ids.CommitNum // commit of the oldest change that the base pages lack; 0: clean
	next ids.CommitNum // while flying: commit of the oldest change since it was handed out; 0: none

	// hole is 1 + the kind of hole that the page is below its deltas; 0: not known to be one.
	hole uint8
	// cover: the hole is a change that the base page lacks.
	cover bool
	// flying: a batch under way carries the unit's changes up to then; low is not counted meanwhile.
	flying bool
	// recovered: covered again while flying, so the batch carries nothing of what is here now.
	recovered bool

	// Of a slot with a leaf: how many of its nodes are dirty, and have a cached base.
	dirty, cached uint8
}

// node is a page in RAM: 64 bytes, a cache line, without pointers.
type node struct {
	unit
	bits   [4]uint64 // blocks that have a delta
	deltas uint32    // slot of the deltas, in order of their blocks; 0: none
	base   uint32    // 1 + index into Map.bases; 0: no copy of the base page
}

type leaf [leafPages]node

type midSlot struct {
	unit
	kid *leaf
}

type mid [midLeaves]midSlot

type rootSlot struct {
	unit
	kid *mid
}

// count is the number of deltas.
func (n *node) count() int {
	return bits.OnesCount64(n.bits[0]) + bits.OnesCount64(n.bits[1]) +
		bits.OnesCount64(n.bits[2]) + bits.OnesCount64(n.bits[3])
}

func (n *node) has(i uint8) bool { return n.bits[i>>6]>>(i&63)&1 != 0 }

// rank is the number of deltas of blocks before i.
func (n *node) rank(i uint8) int {
	r := bits.OnesCount64(n.bits[i>>6] & (1<<(i&63) - 1))
	for w := range i >> 6 {
		r += bits.OnesCount64(n.bits[w])
	}
	return r
}

// spot is the finest unit that holds a page. ms is nil if a root slot is it, n if a slot is it.
type spot struct {
	rs *rootSlot
	ms *midSlot
	n  *node
}

func (s spot) unit() *unit {
	switch {
	case s.n != nil:
		return &s.n.unit
	case s.ms != nil:
		return &s.ms.unit
	}
	return &s.rs.unit
}

// find returns where page p is; false beyond the root.
func (m *Map) find(p PageNo) (spot, bool) {
	r := int(p / midPages)
	if r >= len(m.root) {
		return spot{}, false
	}
	s := spot{rs: &m.root[r]}
	if s.rs.kid == nil {
		return s, true
	}
	s.ms = &s.rs.kid[p/leafPages%midLeaves]
	if s.ms.kid != nil {
		s.n = &s.ms.kid[p%leafPages]
	}
	return s, true
}

// growRoot makes room for page p. A map that had no record when it was opened has no base pages.
func (m *Map) growRoot(p PageNo) {
	for int(p/midPages) >= len(m.root) {
		u := unit{}
		if m.fresh {
			u.hole = 1 + layout.OffUnmapped
		}
		m.root = append(m.root, rootSlot{unit: u})
		m.addStructure(rootSlotBytes)
	}
}

// splitRoot gives a root slot a mid whose slots know what it knew.
func (m *Map) splitRoot(rs *rootSlot) {
	if rs.kid != nil {
		return
	}
	rs.kid = new(mid)
	m.addStructure(midBytes)
	for i := range rs.kid {
		rs.kid[i].unit = rs.unit
	}
	m.multiply(&rs.unit, midLeaves)
	rs.unit = unit{}
}

// splitMid gives a mid's slot a leaf.
func (m *Map) splitMid(ms *midSlot) {
	if ms.kid != nil {
		return
	}
	ms.kid = new(leaf)
	m.addStructure(leafBytes)
	for i := range ms.kid {
		ms.kid[i].unit = ms.unit
	}
	m.multiply(&ms.unit, leafPages)
	dirty := uint8(0)
	if ms.low != 0 {
		dirty = leafPages
	}
	ms.unit = unit{dirty: dirty}
}

// multiply counts n copies of u where u was.
func (m *Map) multiply(u *unit, n int) {
	if u.low == 0 {
		return
	}
	m.dirtyUnits += n - 1
	if !u.flying {
		m.commits.add(u.low, n-1)
	}
	if u.next != 0 {
		m.commits.add(u.next, n-1)
	}
}

// node returns the node of page p, made if need be, and its slot.
func (m *Map) node(p PageNo) (*midSlot, *node) {
	m.growRoot(p)
	rs := &m.root[p/midPages]
	m.splitRoot(rs)
	ms := &rs.kid[p/leafPages%midLeaves]
	m.splitMid(ms)
	return ms, &ms.kid[p%leafPages]
}

// touch says that commit c changed u. ms is u's slot if u is a node's, else nil.
func (m *Map) touch(u *unit, ms *midSlot, c ids.CommitNum) {
	switch {
	case u.flying:
		if u.next == 0 {
			u.next = c
			m.commits.add(c, 1)
		}
	case u.low == 0:
		u.low = c
		m.commits.add(c, 1)
		m.dirtyUnits++
		if ms != nil {
			ms.dirty++
		}
	}
}

// forget takes u's changes out of the counts: something newer stands for them, or they are in the base.
func (m *Map) forget(u *unit, ms *midSlot) {
	if u.low == 0 {
		return
	}
	if !u.flying {
		m.commits.add(u.low, -1)
	}
	if u.next != 0 {
		m.commits.add(u.next, -1)
	}
	u.low, u.next, u.flying, u.recovered, u.cover = 0, 0, false, false, false
	m.dirtyUnits--
	if ms != nil {
		ms.dirty--
	}
}

// setDelta makes loc the delta of block i of n. REQUIRES: touch was called.
func (m *Map) setDelta(n *node, i uint8, loc layout.Location) {
	r := n.rank(i)
	if n.has(i) {
		d := &m.slabs.get(n.deltas)[r]
		m.countDelta(*d, -1)
		*d = loc
	} else {
		n.deltas = m.slabs.insert(n.deltas, n.count(), r, loc)
		n.bits[i>>6] |= 1 << (i & 63)
		m.deltas++
	}
	m.countDelta(loc, 1)
}

// dropDeltas forgets all deltas of n.
func (m *Map) dropDeltas(n *node) {
	if n.deltas == 0 {
		return
	}
	c := n.count()
	for _, loc := range m.slabs.get(n.deltas)[:c] {
		m.countDelta(loc, -1)
	}
	m.slabs.free(n.deltas)
	m.deltas -= c
	n.deltas, n.bits = 0, [4]uint64{}
}

// dropBase forgets the cached copy of n's base page.
func (m *Map) dropBase(n *node, ms *midSlot) {
	if n.base == 0 {
		return
	}
	m.freeBase(n.base - 1)
	n.base = 0
	ms.cached--
}

// dropLeaf takes a slot's leaf away. REQUIRES: no node of it is dirty or has a base.
func (m *Map) dropLeaf(ms *midSlot) {
	invariants.Assert(ms.dirty == 0 && ms.cached == 0, "leaf with %d dirty and %d cached pages dropped",
		ms.dirty, ms.cached)
	hole := ms.kid[0].hole
	for i := range ms.kid {
		if ms.kid[i].hole != hole {
			hole = 0
			break
		}
	}
	ms.kid = nil
	ms.unit = unit{hole: hole}
	m.addStructure(-leafBytes)
}
