package pagemap

import (
	"cmp"
	"slices"

	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
	"vstor/dataplane/layout"
)

// live counts the blocks that a map holds in each SCO of its own namespace. A SCO's Live is
//
//	base   blocks of the base pages that lie in it: exact, and moved in one batch with the pages
//	delta  deltas that lie in it
//
// The sum is never too low: a block is in a delta, or in a base page that no delta hides. It is too high
// by the blocks of base pages that deltas hide, and exact once those pages are flushed. To count exactly
// at once, each Apply would have to know the old location, which means to read every page that is written.
type live struct {
	ns    uint16
	all   map[ids.SCONum]*sco
	last  *sco         // the one counted last
	added []ids.SCONum // since the last Commit
	dead  []ids.SCONum
	empty []ids.SCONum // durably dead, for TakeEmpty
}

type sco struct {
	SCO
	base, delta uint32
	state       scoState
}

type scoState uint8

const (
	scoLive     scoState = iota
	scoDead              // Live is 0 and it is in live.dead
	scoReleased          // it is in live.empty, or was taken
)

func (l *live) init(ns uint16) {
	l.ns = ns
	l.all = make(map[ids.SCONum]*sco)
}

func (l *live) find(n ids.SCONum) *sco {
	if l.last != nil && l.last.Num == n {
		return l.last
	}
	s := l.all[n]
	if s != nil {
		l.last = s
	}
	return s
}

// countDelta counts a delta's location in or out.
func (m *Map) countDelta(loc layout.Location, by int32) {
	if loc.SCO == 0 || loc.NS != m.live.ns {
		return
	}
	s := m.live.find(loc.SCO)
	if s == nil || by < 0 && s.delta == 0 {
		invariants.Assert(false, "map %d: delta %+d in SCO %d, which AddSCO did not announce or which has none",
			m.opts.ID, by, loc.SCO)
	}
	s.delta += uint32(by)
	if s.delta == 0 && s.base == 0 {
		m.live.died(loc.SCO)
	}
}

// countBases adds what a batch changed in the base pages.
func (m *Map) countBases(diff map[ids.SCONum]int32) {
	for n, by := range diff {
		s := m.live.find(n)
		invariants.Assert(s != nil, "map %d has a base page in SCO %d, which it does not know", m.opts.ID, n)
		invariants.Assert(int64(s.base)+int64(by) >= 0, "map %d has %d blocks in SCO %d, %d change",
			m.opts.ID, s.base, n, by)
		s.base += uint32(by)
		if s.delta == 0 && s.base == 0 {
			m.live.died(n)
		}
	}
}

// died queues a SCO if it is dead now.
func (l *live) died(n ids.SCONum) {
	s := l.all[n]
	if s.state == scoLive && s.base == 0 && s.delta == 0 {
		s.state = scoDead
		l.dead = append(l.dead, n)
	}
}

// eligible lists the dead SCOs of commits up to c. A later one is redo log still: the trims in it, and
// the order of commits, are needed by a replay.
func (l *live) eligible(c ids.CommitNum) []ids.SCONum {
	var out []ids.SCONum
	keep := l.dead[:0]
	for _, n := range l.dead {
		s := l.all[n]
		if s == nil || s.state != scoDead {
			continue
		}
		if s.base+s.delta > 0 { // it came to life again: its first blocks came after AddSCO's Commit
			s.state = scoLive
			continue
		}
		keep = append(keep, n)
		if s.Commit <= c {
			out = append(out, n)
		}
	}
	l.dead = keep
	return out
}

// releaseDead makes SCOs ready for TakeEmpty: the batch that emptied them is durable.
func (m *Map) releaseDead(nums []ids.SCONum) {
	for _, n := range nums {
		if s := m.live.all[n]; s != nil && s.state == scoDead {
			s.state = scoReleased
			m.live.empty = append(m.live.empty, n)
		}
	}
	m.live.dead = slices.DeleteFunc(m.live.dead, func(n ids.SCONum) bool {
		s := m.live.all[n]
		return s == nil || s.state != scoDead
	})
}

// AddSCO announces a SCO before the first Apply with it. Announcing it again, as a replay does, changes
// nothing. It is stored with the next batch.
func (m *Map) AddSCO(s SCO) {
	invariants.Assert(s.Num != 0, "AddSCO of SCO 0, which is no SCO")
	if old := m.live.all[s.Num]; old != nil {
		invariants.Assert(old.SCO == s, "SCO %d announced as %+v, was %+v", s.Num, s, old.SCO)
		return
	}
	m.live.all[s.Num] = &sco{SCO: s}
	m.live.added = append(m.live.added, s.Num)
	m.addReg(reg{sco: s})
}

// RemoveSCO forgets a SCO whose object is deleted. REQUIRES: TakeEmpty gave it.
func (m *Map) RemoveSCO(n ids.SCONum) {
	s := m.live.all[n]
	if s == nil {
		return
	}
	invariants.Assert(s.state == scoReleased, "SCO %d removed with %d live blocks", n, s.base+s.delta)
	delete(m.live.all, n)
	m.live.last = nil
	m.addReg(reg{sco: s.SCO, gone: true})
}

// TakeEmpty appends to dst the SCOs that no block lies in any more, durably: their objects may be
// deleted, then RemoveSCO. Each is given once per Open.
func (m *Map) TakeEmpty(dst []ids.SCONum) []ids.SCONum {
	dst = append(dst, m.live.empty...)
	m.live.empty = m.live.empty[:0]
	return dst
}

// Live is the number of blocks in the SCO: an upper bound that becomes exact as pages are flushed.
// False if the map does not know the SCO.
func (m *Map) Live(n ids.SCONum) (int, bool) {
	s := m.live.all[n]
	if s == nil {
		return 0, false
	}
	return int(s.base) + int(s.delta), true
}

// EachSCO calls f with every SCO and its Live, in no order, until f returns false. f must not call m.
func (m *Map) EachSCO(f func(s SCO, live int) bool) {
	for _, s := range m.live.all {
		if !f(s.SCO, int(s.base)+int(s.delta)) {
			return
		}
	}
}

// Victim is a SCO worth cleaning.
type Victim struct {
	SCO
	Live int
}

// Victims appends to dst at most n SCOs that hold garbage, those with the least live part first; of
// equals the oldest. SCOs after the checkpoint are left out, which could not be deleted yet, and those
// that skip says true of. Takes time in the number of SCOs.
func (m *Map) Victims(dst []Victim, n int, skip func(ids.SCONum) bool) []Victim {
	start := len(dst)
	better := func(a, b Victim) int {
		return cmp.Or(cmp.Compare(uint64(a.Live)*uint64(b.Blocks), uint64(b.Live)*uint64(a.Blocks)),
			cmp.Compare(a.Commit, b.Commit), cmp.Compare(a.Num, b.Num))
	}
	for _, s := range m.live.all {
		v := Victim{SCO: s.SCO, Live: int(s.base) + int(s.delta)}
		if v.Live == 0 || v.Live >= int(v.Blocks) || v.Commit > m.ckpt.Commit {
			continue
		}
		top := dst[start:]
		if len(top) == n && (n == 0 || better(v, top[n-1]) >= 0) || skip(v.Num) {
			continue
		}
		at, _ := slices.BinarySearchFunc(top, v, better)
		dst = slices.Insert(dst, start+at, v)
		dst = dst[:min(len(dst), start+n)]
	}
	return dst
}
