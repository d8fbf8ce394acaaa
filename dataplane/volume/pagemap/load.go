package pagemap

import (
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
	"vstor/dataplane/layout"
	"vstor/dataplane/lsm"
)

// basesKept is how many cached base pages a map keeps, even when the budget is overdrawn, while it loads more:
// who needs several has them one after the other, and the first must be there when the last came.
const basesKept = 32

// basesKept is what evict leaves alone.
func (m *Map) basesKept() int {
	if len(m.loads.byPage) > 0 {
		return basesKept + len(m.pins)
	}
	return len(m.pins)
}

// loadsTogether bounds the pages that one goroutine loads before it posts: few under a light load, so
// that none waits for another; more when many wait.
const loadsTogether = 16

// bases are clean copies of base pages: what a restart would read. They are evicted by CLOCK, never
// written.
type bases struct {
	all  []base
	free []uint32
	hand int
	held int
}

type base struct {
	locs *Locations // nil: this place is free
	page PageNo
	ref  bool // used since the hand passed
}

const baseBytes = PageBlocks * layout.LocationSize

func (b *bases) bytes() int64 { return int64(b.held) * baseBytes }

// addBase keeps locs as the base of page p and returns its index.
func (m *Map) addBase(p PageNo, locs *Locations) uint32 {
	b := &m.bases
	var i uint32
	if n := len(b.free); n > 0 {
		i = b.free[n-1]
		b.free = b.free[:n-1]
	} else {
		i = uint32(len(b.all))
		b.all = append(b.all, base{})
	}
	b.all[i] = base{locs: locs, page: p, ref: true}
	b.held++
	m.opts.Budget.used.Add(baseBytes)
	m.opts.Budget.clean.Add(baseBytes)
	return i
}

func (m *Map) freeBase(i uint32) {
	m.bases.all[i] = base{}
	m.bases.free = append(m.bases.free, i)
	m.bases.held--
	m.opts.Budget.used.Add(-baseBytes)
	m.opts.Budget.clean.Add(-baseBytes)
}

// evict makes room: cached pages go while the budget is overdrawn, and leaves that hold nothing go
// while write back is pressed, a few per call.
func (m *Map) evict() {
	b := &m.bases
	if m.opts.Budget.over() {
		m.slabs.dropSpare()
	}
	for m.opts.Budget.over() && b.held > m.basesKept() {
		if b.hand >= len(b.all) {
			b.hand = 0
		}
		e := &b.all[b.hand]
		b.hand++
		if e.locs == nil {
			continue
		}
		if e.ref || slices.Contains(m.pins, e.page) {
			e.ref = false
			continue
		}
		s, _ := m.find(e.page)
		invariants.Assert(s.n != nil, "cached page %d of map %d has no node", e.page, m.opts.ID)
		m.dropBase(s.n, s.ms)
		m.stats.Evicted++
	}
	if m.opts.Budget.pressed() {
		m.reclaimLeaves()
		m.settle()
	}
}

// reclaimLeaves drops leaves without changes and cached pages: they are a cache of holes, or were left
// behind by write back. A bounded stretch per call, all of the tree in turn.
func (m *Map) reclaimLeaves() {
	for range 64 {
		s, ok := m.find(m.reclaim)
		switch {
		case !ok:
			m.reclaim = 0
			return
		case s.ms == nil:
			m.reclaim += midPages
		default:
			if s.ms.kid != nil && s.ms.dirty == 0 && s.ms.cached == 0 && !m.pinnedLeaf(m.reclaim) {
				m.dropLeaf(s.ms)
			}
			m.reclaim += leafPages
		}
	}
}

func (m *Map) pinnedLeaf(p PageNo) bool {
	return slices.ContainsFunc(m.pins, func(pin PageNo) bool { return pin/leafPages == p/leafPages })
}

// loads are the pages on their way into RAM.
type loads struct {
	byPage  map[PageNo]*load
	queue   []*load // not begun
	running int     // goroutines
}

type load struct {
	page    PageNo
	waiters []func(error)
	begun   bool
	stale   bool // a batch changed the page while it was read: read it again
	locs    *Locations
	hole    uint8 // 1 + kind if all of the page is one hole
	absent  absentRun
	err     error
	bytes   int
}

// Load brings a page into RAM and calls done on the loop: nil, and a Lookup from within done finds the
// page; Corrupt if what is stored fails its checksum or its identity, Busy if LoadsMax pages wait, IO,
// or Closed. Loads of one page are merged.
func (m *Map) Load(p PageNo, done func(error)) {
	if ld := m.loads.byPage[p]; ld != nil {
		ld.waiters = append(ld.waiters, done)
		return
	}
	if m.flush.closing || m.Resident(p) || len(m.loads.queue) >= m.opts.LoadsMax {
		m.answerLoad(p, done)
		return
	}
	ld := &load{page: p, waiters: []func(error){done}}
	m.loads.byPage[p] = ld
	m.loads.queue = append(m.loads.queue, ld)
	m.startLoads()
}

// answerLoad ends a Load that reads nothing.
func (m *Map) answerLoad(p PageNo, done func(error)) {
	var err error
	switch {
	case m.flush.closing:
		err = errs.New(errs.Closed, "map %d is closed", m.opts.ID)
	case !m.Resident(p):
		err = errs.New(errs.Busy, "map %d: %d pages wait to be loaded: try again later", m.opts.ID, m.opts.LoadsMax)
	}
	m.spawn(func() func() {
		return func() {
			if err == nil && !m.flush.closing && !m.Resident(p) {
				m.Load(p, done) // evicted on the way
				return
			}
			done(err)
		}
	})
}

// Prefetch brings a page into RAM that may be wanted soon. Nobody is told, and nothing is done while many
// others wait for theirs.
func (m *Map) Prefetch(p PageNo) {
	if !m.flush.closing && !m.Resident(p) && len(m.loads.queue) < m.opts.LoadsMax/4 {
		m.Load(p, func(error) {})
	}
}

// CacheShare is how many pages one user may bring into RAM ahead of need: a quarter of the budget's. More
// would push out what others use, and in the end what it brought first.
func (m *Map) CacheShare() int { return max(basesKept, int(m.opts.Budget.limit/4/baseBytes)) }

// Resident says that no Lookup in page p can miss.
func (m *Map) Resident(p PageNo) bool {
	s, ok := m.find(p)
	if !ok || s.unit().hole != 0 {
		return true
	}
	return s.n != nil && (s.n.base != 0 || s.n.count() == PageBlocks)
}

func (m *Map) startLoads() {
	l := &m.loads
	for l.running < m.opts.Loaders && len(l.queue) > 0 {
		free := m.opts.Loaders - l.running
		n := min((len(l.queue)+free-1)/free, loadsTogether)
		batch := append([]*load(nil), l.queue[:n]...)
		l.queue = l.queue[:copy(l.queue, l.queue[n:])]
		for _, ld := range batch {
			ld.begun = true
			ld.absent.batches = m.stats.Batches
		}
		l.running++
		m.spawn(func() func() {
			var page Page
			for _, ld := range batch {
				ld.read(m.db, m.opts.ID, &page)
			}
			return func() { m.loaded(batch) }
		})
	}
}

// read fills in what the database says of the page. In a goroutine.
func (ld *load) read(d *DB, id MapID, page *Page) {
	ld.locs, ld.hole, ld.err, ld.bytes, ld.absent.until = nil, 0, nil, 0, 0
	v, closer, err := d.p.Get(key(id, tablePage, uint64(ld.page)))
	if errors.Is(err, pebble.ErrNotFound) {
		ld.hole = 1 + layout.OffUnmapped
		ld.absent.read(d, id, ld.page)
		return
	}
	if err != nil {
		ld.err = lsm.ReadError(err, "map %d page %d", id, ld.page)
		return
	}
	ld.bytes = len(v)
	ld.err = d.parsed(parsePageOf(v, id, ld.page, page))
	_ = closer.Close() // releases a block; cannot fail
	if ld.err != nil {
		return
	}
	if kind, ok := wholeHole(&page.Locs); ok {
		ld.hole = 1 + uint8(kind)
		return
	}
	ld.locs = new(Locations)
	*ld.locs = page.Locs
}

func (m *Map) loaded(batch []*load) {
	m.loads.running--
	for _, ld := range batch {
		if m.flush.closing {
			break
		}
		m.stats.PagesLoaded++
		m.stats.BytesLoaded += uint64(ld.bytes)
		if ld.stale {
			ld.stale, ld.begun = false, false
			m.loads.queue = append(m.loads.queue, ld)
			continue
		}
		delete(m.loads.byPage, ld.page)
		if ld.err == nil {
			m.install(ld)
		}
		for _, done := range ld.waiters {
			done(ld.err)
		}
	}
	if !m.flush.closing {
		m.startLoads()
		m.maintain()
	}
}

// install keeps what was read, unless what is known by now makes it old.
func (m *Map) install(ld *load) {
	if s, ok := m.find(ld.page); !ok || s.unit().hole != 0 || s.n != nil && s.n.base != 0 {
		return
	}
	ms, n := m.node(ld.page)
	if ld.hole != 0 {
		n.hole = ld.hole
		m.installAbsent(ld.page, &ld.absent)
		return
	}
	n.base = 1 + m.addBase(ld.page, ld.locs)
	ms.cached++
}

// staleLoads marks the loads under way of pages [from, to): the base pages have changed.
func (m *Map) staleLoads(from, to PageNo) {
	if len(m.loads.byPage) == 0 {
		return
	}
	if to-from == 1 {
		if ld := m.loads.byPage[from]; ld != nil && ld.begun {
			ld.stale = true
		}
		return
	}
	for p, ld := range m.loads.byPage {
		if p >= from && p < to && ld.begun {
			ld.stale = true
		}
	}
}
