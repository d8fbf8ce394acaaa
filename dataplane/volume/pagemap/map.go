package pagemap

import (
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
	"vstor/dataplane/layout"
)

// Map is a vDisk's table of locations. It belongs to one loop, which alone may call it; no call blocks.
// Callbacks run on the loop and never inside the call that was given them.
type Map struct {
	db   *DB
	opts Options

	root  []rootSlot
	fresh bool // nothing was stored of it when it was opened
	slabs slabs
	bases bases
	live  live

	commits    commits
	ckpt       Checkpoint // in the database, maybe not durable yet
	durable    ids.CommitNum
	size       ids.BlockAddr
	lastSeq    ids.Seq
	dirtyUnits int
	deltas     int   // of all pages
	structure  int64 // bytes of nodes and slots
	settled    int64 // what this map added to Budget.dirty

	loads   loads
	flush   flusher
	syncing syncer
	pins    []PageNo // what ApplyMoves asked for: not to be evicted
	reclaim PageNo   // where the next look for leaves without use begins

	rooms     []func() // WhenRoom
	squeezing bool     // others make room
	flying    int      // goroutines that will post
	closed    func()

	stats Stats
}

// Stats count since Open, in pages and bytes of records, and say what is held now.
type Stats struct {
	PagesLoaded  uint64 // by Load
	BytesLoaded  uint64
	PagesFlushed uint64 // merged and written, or deleted
	Batches      uint64
	BytesRead    uint64 // of base pages, to merge and to count
	BytesWritten uint64 // of keys and records in batches
	Sweeps       uint64 // begun to move the checkpoint
	Evicted      uint64 // bases

	Deltas      int
	DeltaBytes  int64 // slots in use
	SlabBytes   int64 // slabs that hold them
	BaseBytes   int64
	NodeBytes   int64
	DirtyUnits  int
	SCOs        int
	RedoCommits int // commits after the checkpoint
}

// Open loads what is kept of the map: checkpoint, SCOs and their counts, no page. The caller replays the
// commits after the returned checkpoint's, in order, with AddSCO, ApplyTrim, Apply or ApplyMoves, and
// Commit. Blocks: not on a loop; the Map then belongs to the loop of o.Poster.
func (d *DB) Open(o Options) (*Map, Checkpoint, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, Checkpoint{}, err
	}
	m := &Map{db: d, opts: o}
	m.slabs.budget = o.Budget
	m.live.init(o.NS)
	m.loads.byPage = make(map[PageNo]*load)
	m.flush.init()
	// A map that was open before may have left batches that only this process remembers.
	if err := d.Sync(); err != nil {
		return nil, Checkpoint{}, err
	}
	found, err := m.readRecords()
	if err != nil {
		return nil, Checkpoint{}, errs.Wrap(errs.Of(err), err, "opening map %d", o.ID)
	}
	m.fresh = !found
	m.size = max(o.Size, m.ckpt.Size)
	m.ckpt.Size = m.size
	m.durable, m.lastSeq = m.ckpt.Commit, m.ckpt.Seq
	m.commits.first, m.commits.ended = m.ckpt.Commit+1, m.ckpt.Commit
	if m.size > 0 {
		m.growRoot(PageOf(m.size - 1))
	}
	for num := range m.live.all {
		m.live.died(num)
	}
	m.releaseDead(m.live.eligible(m.durable))
	m.settle()
	m.opts.Budget.add(m)
	return m, m.ckpt, nil
}

// Fresh says that the database had nothing of the map when it was opened.
func (m *Map) Fresh() bool { return m.fresh }

// Durable is the commit up to which everything is in the database, durably.
func (m *Map) Durable() ids.CommitNum { return m.durable }

// Lookup returns the location of addr; false if its page is not in RAM: Load it. Allocates nothing.
func (m *Map) Lookup(addr ids.BlockAddr) (layout.Location, bool) {
	r := int(addr >> PageShift / midPages)
	if r >= len(m.root) {
		return layout.Location{}, true
	}
	p := PageNo(addr >> PageShift)
	rs := &m.root[r]
	if rs.kid == nil {
		return holeOf(&rs.unit)
	}
	ms := &rs.kid[p/leafPages%midLeaves]
	if ms.kid == nil {
		return holeOf(&ms.unit)
	}
	n := &ms.kid[p%leafPages]
	i := uint8(addr)
	if n.has(i) {
		return m.slabs.get(n.deltas)[n.rank(i)], true
	}
	if n.base != 0 {
		b := &m.bases.all[n.base-1]
		b.ref = true
		return b.locs[i], true
	}
	return holeOf(&n.unit)
}

func holeOf(u *unit) (layout.Location, bool) {
	if u.hole == 0 {
		return layout.Location{}, false
	}
	return layout.Location{Off: uint16(u.hole - 1)}, true
}

// LookupRange sets dst[:n] to the locations of the blocks from addr on and returns n: len(dst), or less
// where the page of addr+n is not in RAM. Allocates nothing.
func (m *Map) LookupRange(addr ids.BlockAddr, dst []layout.Location) int {
	done := 0
	for done < len(dst) {
		at := addr + ids.BlockAddr(done)
		first := uint8(at)
		part := dst[done:min(len(dst), done+PageBlocks-int(first))]
		n := m.lookupInPage(PageOf(at), first, part)
		done += n
		if n < len(part) {
			break
		}
	}
	return done
}

// lookupInPage is LookupRange within a page.
func (m *Map) lookupInPage(p PageNo, first uint8, dst []layout.Location) int {
	s, ok := m.find(p)
	if !ok {
		clear(dst)
		return len(dst)
	}
	u := s.unit()
	known := u.hole != 0
	if known {
		fill(dst, uint16(u.hole-1))
	}
	if s.n == nil || s.n.deltas == 0 && s.n.base == 0 {
		if known {
			return len(dst)
		}
		return 0
	}
	n := s.n
	if n.base != 0 {
		b := &m.bases.all[n.base-1]
		b.ref = true
		copy(dst, b.locs[first:])
		known = true
	}
	if n.deltas == 0 {
		return len(dst)
	}
	d := m.slabs.get(n.deltas)[n.rank(first):]
	for j := range dst {
		if n.has(first + uint8(j)) {
			dst[j] = d[0]
			d = d[1:]
		} else if !known {
			return j
		}
	}
	return len(dst)
}

// HoleRun says that all blocks of page p are holes of one kind, and how many pages from p on are so by what
// is known of them together. False: they are not, or that is not in RAM. Allocates nothing.
func (m *Map) HoleRun(p PageNo) (kind uint16, pages int, ok bool) {
	s, ok := m.find(p)
	switch {
	case !ok:
		return layout.OffUnmapped, int(midPages - p%midPages), true
	case s.unit().hole == 0 || s.n != nil && s.n.deltas != 0:
		return 0, 0, false
	case s.ms == nil:
		pages = int(midPages - p%midPages)
	case s.n == nil:
		pages = int(leafPages - p%leafPages)
	default:
		pages = 1
	}
	return uint16(s.unit().hole - 1), pages, true
}

// Size is the vDisk's size in blocks.
func (m *Map) Size() ids.BlockAddr { return m.size }

// SetSize tells the vDisk's new size in blocks. What lies beyond a smaller one is the caller's to trim,
// in the same commit.
func (m *Map) SetSize(size ids.BlockAddr) {
	invariants.Assert(size <= SizeMax, "vDisk of %d blocks: at most %d", size, SizeMax)
	m.size = size
	if size > 0 {
		m.growRoot(PageOf(size - 1))
	}
}

// Checkpoint returns how far the base pages are, and up to which commit that is durable: a restart
// replays what is after the durable one.
func (m *Map) Checkpoint() (applied Checkpoint, durable ids.CommitNum) { return m.ckpt, m.durable }

// Applied is the last commit applied whole, and the last write sequence in it.
func (m *Map) Applied() (ids.CommitNum, ids.Seq) { return m.commits.ended, m.lastSeq }

// Stats returns counts.
func (m *Map) Stats() Stats {
	s := m.stats
	s.Deltas, s.DirtyUnits, s.SCOs = m.deltas, m.dirtyUnits, len(m.live.all)
	s.DeltaBytes = m.slabs.used
	s.SlabBytes = int64(len(m.slabs.all)-len(m.slabs.gone)+len(m.slabs.spare)) * slabBytes
	s.BaseBytes = m.bases.bytes()
	s.NodeBytes = m.structure
	s.RedoCommits = int(m.commits.ended - m.ckpt.Commit)
	return s
}

// Full says that the budget is overdrawn, nothing is left to evict, and write back is at work to make room:
// apply no further commit until WhenRoom calls. If it is not, what is too much are cached pages of other maps:
// they are asked to let go, and deltas may come.
func (m *Map) Full() bool {
	b := m.opts.Budget
	return b.over() && b.pressed() && m.bases.held <= m.basesKept()
}

// WhenRoom calls f once the map is not Full, from within a later operation.
func (m *Map) WhenRoom(f func()) {
	m.rooms = append(m.rooms, f)
	m.spawn(func() func() { return m.maintain })
}

// addStructure counts bytes of nodes and slots.
func (m *Map) addStructure(n int64) {
	m.structure += n
	m.opts.Budget.used.Add(n)
}

// settle tells the budget what this map holds.
func (m *Map) settle() {
	if d := m.structure + m.slabs.used; d != m.settled {
		m.opts.Budget.dirty.Add(d - m.settled)
		m.settled = d
	}
}

// maintain ends each operation: room is made, then write back is considered.
func (m *Map) maintain() {
	m.settle()
	m.evict()
	m.pump()
	if m.opts.Budget.over() {
		m.squeeze()
	}
	for len(m.rooms) > 0 && !m.Full() {
		rooms := m.rooms
		m.rooms = nil
		for _, f := range rooms {
			f()
		}
	}
}

// spawn runs work beside the loop and what it returns on the loop.
func (m *Map) spawn(work func() func()) {
	m.flying++
	post := m.opts.Poster.PostFunc
	m.opts.Spawn(func() {
		then := work()
		post(func() { m.landed(then) })
	})
}

func (m *Map) landed(then func()) {
	m.flying--
	then()
	if m.closed != nil && m.flying == 0 {
		done := m.closed
		m.closed = nil
		m.release()
		done()
	}
}

// Close ends the map: no call may follow. What waits is told Closed; done runs once nothing is under
// way. Deltas that were not flushed are gone, as in a crash: FlushAll comes first where that matters.
func (m *Map) Close(done func()) {
	invariants.Assert(!m.flush.closing, "map %d closed twice", m.opts.ID)
	m.flush.closing = true
	m.closed = done
	err := errs.New(errs.Closed, "map %d is closed", m.opts.ID)
	fail := m.takeWaiters()
	m.spawn(func() func() {
		return func() {
			for _, f := range fail {
				f(err)
			}
		}
	})
}

// takeWaiters takes all callbacks that wait for the map.
func (m *Map) takeWaiters() []func(error) {
	var all []func(error)
	for _, ld := range m.loads.byPage {
		all = append(all, ld.waiters...)
		ld.waiters = nil
	}
	m.loads.queue = nil
	for _, w := range m.flush.waits {
		all = append(all, w.done)
	}
	m.flush.waits = nil
	all = append(all, m.syncing.next...)
	m.syncing.next = nil
	for _, f := range m.rooms {
		all = append(all, func(error) { f() })
	}
	m.rooms = nil
	return all
}

// release gives the map's memory back to the budget.
func (m *Map) release() {
	b := m.opts.Budget
	b.remove(m)
	slabBytesHeld := int64(len(m.slabs.all)-len(m.slabs.gone)+len(m.slabs.spare)) * slabBytes
	b.used.Add(-m.structure - slabBytesHeld - m.bases.bytes())
	b.clean.Add(-m.bases.bytes())
	b.dirty.Add(-m.settled)
	m.root, m.slabs, m.bases = nil, slabs{}, bases{}
}
