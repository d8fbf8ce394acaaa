package pagemap

import (
	"math/bits"

	"vstor/dataplane/layout"
)

// gather adds to j the dirty units that pick wants, in address order from the cursor on and once around,
// as many as make a batch. Clean leaves are passed over 32 pages at a time.
func (m *Map) gather(j *job, pick func(*unit, *node) bool) {
	total := PageNo(len(m.root) * midPages)
	p := m.flush.cursor
	for walked := PageNo(0); walked < total && m.room(j); {
		if p >= total {
			p = 0
		}
		s, _ := m.find(p)
		step := PageNo(1)
		switch {
		case s.ms == nil:
			step = midPages - p%midPages
		case s.n == nil || s.ms.dirty == 0:
			step = leafPages - p%leafPages
		}
		if u := s.unit(); u.low != 0 && pick(u, s.n) {
			m.handOut(j, p, s)
		}
		p += step
		walked += step
	}
	m.flush.cursor = p
}

// gatherList adds the dirty units of the listed pages and returns the list's rest.
func (m *Map) gatherList(j *job, pages []PageNo) []PageNo {
	for len(pages) > 0 && m.room(j) {
		if s, ok := m.find(pages[0]); ok && s.unit().low != 0 {
			m.handOut(j, pages[0], s)
		}
		pages = pages[1:]
	}
	return pages
}

// room says that the job takes one more unit. A range counts as if a batch could be made of some: a
// mid's may have 32768 pages to read.
func (m *Map) room(j *job) bool {
	weight := len(j.pages)
	for _, r := range j.ranges {
		weight += int(r.to - r.from)
	}
	return weight < m.opts.PagesPerFlush
}

// handOut copies into j what the base lacks of the unit at page p.
func (m *Map) handOut(j *job, p PageNo, s spot) {
	u := s.unit()
	if u.flying || m.isBad(p, s) {
		return
	}
	u.flying = true
	m.commits.add(u.low, -1)
	switch {
	case s.n != nil:
		j.addPage(m, p, s.n)
	case s.ms != nil:
		j.addRange(p-p%leafPages, leafPages, uint16(u.hole-1))
	default:
		j.addRange(p-p%midPages, midPages, uint16(u.hole-1))
	}
}

// isBad says that the unit at p is, or holds, a page that could not be read.
func (m *Map) isBad(p PageNo, s spot) bool {
	for bad := range m.flush.bad {
		switch {
		case s.n != nil:
			if bad == p {
				return true
			}
		case s.ms != nil:
			if bad/leafPages == p/leafPages {
				return true
			}
		case bad/midPages == p/midPages:
			return true
		}
	}
	return false
}

func (j *job) addPage(m *Map, p PageNo, n *node) {
	jp := jobPage{no: p, bits: n.bits}
	switch {
	case n.cover:
		jp.cover = n.hole
	case n.hole != 0:
		jp.known = n.hole
	case n.base != 0:
		jp.base = m.bases.all[n.base-1].locs
	}
	if c := n.count(); c > 0 {
		at := len(j.locs)
		j.locs = append(j.locs, m.slabs.get(n.deltas)[:c]...)
		jp.locs = j.locs[at : at+c : at+c] // an append that moves j.locs leaves this copy whole
	}
	j.pages = append(j.pages, jp)
}

// addRange adds a slot's pages, joined to the range before where they go on.
func (j *job) addRange(from, n PageNo, kind uint16) {
	if l := len(j.ranges); l > 0 && j.ranges[l-1].to == from && j.ranges[l-1].kind == kind {
		j.ranges[l-1].to += n
		return
	}
	j.ranges = append(j.ranges, jobRange{from: from, to: from + n, kind: kind})
}

// eachFlying calls f with the units that j carries and that nothing newer has replaced.
func (m *Map) eachFlying(j *job, f func(s spot, jp *jobPage)) {
	for i := range j.pages {
		if s, ok := m.find(j.pages[i].no); ok && s.n != nil && s.n.flying {
			f(s, &j.pages[i])
		}
	}
	for _, r := range j.ranges {
		for p := r.from; p < r.to; {
			s, _ := m.find(p)
			if s.unit().flying {
				f(s, nil)
			}
			switch {
			case s.ms == nil:
				p += midPages
			case s.n == nil:
				p += leafPages
			default:
				p++
			}
		}
	}
}

// restore takes back a job that failed: its units are as dirty as before.
func (m *Map) restore(j *job) {
	m.eachFlying(j, func(s spot, _ *jobPage) {
		u := s.unit()
		u.flying, u.recovered = false, false
		if u.next != 0 {
			m.commits.add(u.next, -1)
			u.next = 0
		}
		m.commits.add(u.low, 1)
	})
	m.flush.regs = append(j.regs, m.flush.regs...)
	if j.corrupt {
		m.flush.bad[j.bad] = j.err
	}
}

// complete takes in a job that is in the database.
func (m *Map) complete(j *job) {
	m.countBases(j.diff)
	m.eachFlying(j, func(s spot, jp *jobPage) {
		if s.unit().recovered {
			m.stillDirty(s.unit())
			return
		}
		if jp != nil {
			m.merge(s, jp, j.keep)
		}
		s.unit().cover = false
		if s.unit().next != 0 && (s.n == nil || s.n.deltas != 0) {
			m.stillDirty(s.unit())
			return
		}
		var ms *midSlot
		if s.n != nil {
			ms = s.ms
		}
		m.forget(s.unit(), ms)
	})
	for i := range j.pages {
		m.staleLoads(j.pages[i].no, j.pages[i].no+1)
	}
	for _, r := range j.ranges {
		m.staleLoads(r.from, r.to)
	}
	m.ckpt = j.ckpt
	m.commits.drop(j.ckpt.Commit)
	m.flush.regsDone += uint64(len(j.regs))
	m.flush.unsynced++
	m.stats.Batches++
	m.stats.PagesFlushed += uint64(len(j.pages))
	m.stats.BytesRead += j.read
	m.stats.BytesWritten += j.written
	m.settle()
	if m.flush.unsynced >= syncBatches {
		m.autoSync()
	}
}

// stillDirty ends a flight after which changes of since then are left.
func (m *Map) stillDirty(u *unit) {
	u.flying, u.recovered = false, false
	u.low, u.next = u.next, 0
}

// merge makes the node say of its base what the batch made of it, and drops the deltas that are in it.
func (m *Map) merge(s spot, jp *jobPage, keep bool) {
	n := s.n
	if len(jp.locs) > 0 {
		switch {
		case n.base != 0:
			locs := m.bases.all[n.base-1].locs
			jp.each(func(i int, loc layout.Location) { locs[i] = loc })
		case keep && jp.new != nil:
			n.base = 1 + m.addBase(jp.no, jp.new)
			s.ms.cached++
			n.hole = 0
		default:
			n.hole = 0
		}
	}
	if n.deltas == 0 {
		return
	}
	// A delta equal to what was flushed is in the base now, whenever it was set: locations are unique.
	d := m.slabs.get(n.deltas)
	var left [4]uint64
	kept, at, from := 0, 0, 0
	for w, set := range n.bits {
		for ; set != 0; set &= set - 1 {
			bit := set & -set
			loc := d[at]
			at++
			had := jp.bits[w]&bit != 0
			if had {
				k := from + bits.OnesCount64(jp.bits[w]&(bit-1))
				if jp.locs[k] == loc {
					m.countDelta(loc, -1)
					continue
				}
			}
			d[kept] = loc
			kept++
			left[w] |= bit
		}
		from += bits.OnesCount64(jp.bits[w])
	}
	m.deltas -= at - kept
	n.bits = left
	n.deltas = m.slabs.shrink(n.deltas, kept)
}
