package pagemap

import (
	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
	"vstor/dataplane/layout"
)

// Entry is a data block of a write SCO.
type Entry struct {
	Addr ids.BlockAddr
	Off  uint16 // in the SCO, in blocks
	Sum  uint32 // low half of XXH64 of the block
}

// Move is a block that a cleaning SCO copied from Old.
type Move struct {
	Addr ids.BlockAddr
	Old  layout.Location
	Off  uint16 // in the cleaning SCO, in blocks
}

// A commit is applied by any number of calls of ApplyTrim, Apply and ApplyMoves with its number, then
// one of Commit. Within a commit the later call wins. Commits come in order, without gaps, from the
// checkpoint on; calls may be as small as the loop wants its passes to be (a SCO of 16k random blocks
// touches 16k pages).

// Apply says that the entries' blocks lie in sco now. Sorted by address is fastest. Entries are read
// only. REQUIRES: AddSCO of sco.
func (m *Map) Apply(c ids.CommitNum, sco ids.SCONum, entries []Entry) {
	m.checkOrder(c)
	last := PageNo(1<<32 - 1)
	var n *node
	for i := range entries {
		e := &entries[i]
		if e.Addr >= SizeMax { // Assert's arguments would allocate per entry
			invariants.Assert(false, "block %d of commit %d lies beyond 64 TiB", e.Addr, c)
		}
		if p := PageOf(e.Addr); p != last {
			var ms *midSlot
			ms, n = m.node(p)
			m.touch(&n.unit, ms, c)
			last = p
		}
		m.setDelta(n, uint8(e.Addr), layout.Location{SCO: sco, Off: e.Off, NS: m.opts.NS, Sum: e.Sum})
	}
	m.flush.absorbed += len(entries)
	m.settle()
}

// ApplyTrim makes count blocks from the address on holes of a kind (layout.OffUnmapped, OffZero or
// OffTrimmed). Whole pages are dropped in ranges, without their deltas and without reading them here:
// what lay in them leaves the counts when the range is flushed.
func (m *Map) ApplyTrim(c ids.CommitNum, from ids.BlockAddr, count uint64, kind uint16) {
	m.checkOrder(c)
	invariants.Assert(kind <= layout.OffTrimmed, "hole of kind %d: there are 3", kind)
	invariants.Assert(count <= uint64(SizeMax) && uint64(from)+count <= uint64(SizeMax),
		"trim of %d blocks from %d lies beyond 64 TiB", count, from)
	end := from + ids.BlockAddr(count)
	if up := (from + PageBlocks - 1) &^ (PageBlocks - 1); from < end && from != up {
		to := min(end, up)
		m.holeBlocks(c, from, to, kind)
		from = to
	}
	down := max(from, end&^(PageBlocks-1))
	if from < down {
		m.cover(c, PageOf(from), PageNo(down>>PageShift), kind)
	}
	if down < end {
		m.holeBlocks(c, down, end, kind)
	}
	m.settle()
}

// ApplyMoves applies the moves of a cleaning SCO: each only if its block still lies at Old. It stops at
// the first whose answer needs a page that is not in RAM, returns how many are settled, and appends to
// need the pages that those behind it want, as many as need has capacity for and at least one. The caller
// Loads them, then calls again with moves[settled:]; until that call, once loaded they are not evicted (a
// batch that ends meanwhile may still make one unknown: at most once, since nothing is applied). Nothing
// else may be applied before all are settled. REQUIRES: AddSCO of sco; cap(need) > len(need).
//
// Taking all pages at once would overdraw any budget: a cleaning SCO names up to 16k of them, 48 MiB.
func (m *Map) ApplyMoves(c ids.CommitNum, sco ids.SCONum, moves []Move, need []PageNo) (
	settled int, missing []PageNo) {
	m.checkOrder(c)
	invariants.Assert(cap(need) > len(need), "ApplyMoves without room for a page number")
	for settled < len(moves) && m.move(c, sco, &moves[settled]) {
		settled++
	}
	m.flush.absorbed += settled
	m.settle()
	for _, v := range moves[settled:] {
		p := PageOf(v.Addr)
		if n := len(need); n > 0 && need[n-1] == p {
			continue
		}
		if len(need) == cap(need) {
			break
		}
		if _, ok := m.Lookup(v.Addr); !ok {
			need = append(need, p)
		}
	}
	m.pins = append(m.pins[:0], need...)
	return settled, need
}

// move settles one move; false if it cannot.
func (m *Map) move(c ids.CommitNum, sco ids.SCONum, v *Move) bool {
	at, ok := m.Lookup(v.Addr)
	if !ok {
		return false
	}
	if at != v.Old || v.Old.Hole() {
		return true
	}
	ms, n := m.node(PageOf(v.Addr))
	m.touch(&n.unit, ms, c)
	m.setDelta(n, uint8(v.Addr), layout.Location{SCO: sco, Off: v.Off, NS: m.opts.NS, Sum: v.Old.Sum})
	return true
}

// Commit ends commit c, whose last write sequence (or that of a commit before it) is seq. Write back may
// begin.
func (m *Map) Commit(c ids.CommitNum, seq ids.Seq) {
	m.checkOrder(c)
	m.lastSeq = max(m.lastSeq, seq)
	m.commits.end(c, m.lastSeq)
	for _, n := range m.live.added { // a SCO of trims alone holds nothing from the start
		if m.live.all[n] != nil {
			m.live.died(n)
		}
	}
	m.live.added = m.live.added[:0]
	m.flush.stalled = false
	m.pins = m.pins[:0]
	m.maintain()
}

func (m *Map) checkOrder(c ids.CommitNum) {
	if c != m.commits.ended+1 {
		invariants.Assert(false, "commit %d applied after %d: commits are applied in order", c, m.commits.ended)
	}
}

// holeBlocks makes the blocks [from, to) of one page holes.
func (m *Map) holeBlocks(c ids.CommitNum, from, to ids.BlockAddr, kind uint16) {
	p := PageOf(from)
	if s, ok := m.find(p); ok && m.sameHole(s.unit(), kind) && (s.n == nil || s.n.deltas == 0) {
		return
	}
	ms, n := m.node(p)
	touched := false
	for a := from; a < to; a++ {
		i := uint8(a)
		if !n.has(i) && m.sameHole(&n.unit, kind) {
			continue
		}
		if !touched {
			m.touch(&n.unit, ms, c)
			touched = true
		}
		m.setDelta(n, i, layout.Location{Off: kind})
	}
}

// sameHole says that u is a hole which reads, and is kept, as one of kind.
func (m *Map) sameHole(u *unit, kind uint16) bool {
	if u.hole == 0 {
		return false
	}
	is := uint16(u.hole - 1)
	return is == kind || !m.opts.Tombstones && is != layout.OffZero && kind != layout.OffZero
}

// cover makes the pages [from, to) one hole.
func (m *Map) cover(c ids.CommitNum, from, to PageNo, kind uint16) {
	for p := from; p < to; {
		m.growRoot(p)
		rs := &m.root[p/midPages]
		if p%midPages == 0 && to-p >= midPages {
			m.coverRoot(c, rs, kind)
			p += midPages
			continue
		}
		if rs.kid == nil && m.sameHole(&rs.unit, kind) {
			p += midPages - p%midPages
			continue
		}
		m.splitRoot(rs)
		ms := &rs.kid[p/leafPages%midLeaves]
		if p%leafPages == 0 && to-p >= leafPages {
			m.coverMid(c, ms, kind)
			p += leafPages
			continue
		}
		if ms.kid == nil && m.sameHole(&ms.unit, kind) {
			p += leafPages - p%leafPages
			continue
		}
		m.splitMid(ms)
		m.coverNode(c, ms, &ms.kid[p%leafPages], kind)
		p++
	}
}

func (m *Map) coverRoot(c ids.CommitNum, rs *rootSlot, kind uint16) {
	if rs.kid != nil {
		for i := range rs.kid {
			ms := &rs.kid[i]
			m.clearMid(ms)
			m.forget(&ms.unit, nil)
		}
		rs.kid = nil
		m.addStructure(-midBytes)
	} else if m.sameHole(&rs.unit, kind) {
		return
	}
	m.coverUnit(c, &rs.unit, nil, kind)
}

func (m *Map) coverMid(c ids.CommitNum, ms *midSlot, kind uint16) {
	if ms.kid == nil && m.sameHole(&ms.unit, kind) {
		return
	}
	m.clearMid(ms)
	m.coverUnit(c, &ms.unit, nil, kind)
}

// clearMid takes a slot's leaf away with all that is in it.
func (m *Map) clearMid(ms *midSlot) {
	if ms.kid == nil {
		return
	}
	for i := range ms.kid {
		n := &ms.kid[i]
		m.dropDeltas(n)
		m.dropBase(n, ms)
		m.forget(&n.unit, ms)
	}
	m.dropLeaf(ms)
	ms.hole = 0
}

func (m *Map) coverNode(c ids.CommitNum, ms *midSlot, n *node, kind uint16) {
	if n.deltas == 0 && m.sameHole(&n.unit, kind) {
		return
	}
	m.dropDeltas(n)
	m.dropBase(n, ms)
	m.coverUnit(c, &n.unit, ms, kind)
}

// coverUnit makes u a hole that the base lacks. What was to be flushed of it before is void.
func (m *Map) coverUnit(c ids.CommitNum, u *unit, ms *midSlot, kind uint16) {
	if u.flying {
		u.recovered = true
	} else {
		m.forget(u, ms)
	}
	m.touch(u, ms, c)
	u.hole, u.cover = 1+uint8(kind), true
}
