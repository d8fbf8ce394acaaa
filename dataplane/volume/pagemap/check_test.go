package pagemap

import (
	"slices"
	"testing"

	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// recount is what a walk over the tree finds.
type recount struct {
	t         testing.TB
	m         *Map
	units     map[ids.CommitNum]uint32
	delta     map[ids.SCONum]uint32
	dirty     int
	deltas    int
	held      int
	structure int64
}

// check recounts all that a Map counts incrementally.
func (m *Map) check(t testing.TB) {
	t.Helper()
	r := recount{t: t, m: m, units: map[ids.CommitNum]uint32{}, delta: map[ids.SCONum]uint32{},
		structure: int64(len(m.root)) * rootSlotBytes}
	for i := range m.root {
		rs := &m.root[i]
		r.unit(&rs.unit)
		if rs.kid == nil {
			continue
		}
		if rs.low != 0 || rs.hole != 0 {
			t.Fatalf("root slot with kid knows: %+v", rs.unit)
		}
		r.structure += midBytes
		for k := range rs.kid {
			r.mid(&rs.kid[k], PageNo(i*midPages+k*leafPages))
		}
	}
	if r.dirty != m.dirtyUnits || r.deltas != m.deltas || r.held != m.bases.held || r.structure != m.structure {
		t.Fatalf("counted %d dirty %d deltas %d bases %d bytes; found %d %d %d %d",
			m.dirtyUnits, m.deltas, m.bases.held, m.structure, r.dirty, r.deltas, r.held, r.structure)
	}
	for i, c := range m.commits.list {
		if n := r.units[m.commits.first+ids.CommitNum(i)]; n != c.units {
			t.Fatalf("commit %d counts %d units, has %d", m.commits.first+ids.CommitNum(i), c.units, n)
		}
	}
	for n, s := range m.live.all {
		if s.delta != r.delta[n] {
			t.Fatalf("SCO %d counts %d deltas, has %d", n, s.delta, r.delta[n])
		}
	}
	m.checkBudget(t)
}

func (r *recount) unit(u *unit) {
	if u.low == 0 {
		if u.next != 0 || u.flying || u.cover || u.recovered {
			r.t.Fatalf("clean unit with flags: %+v", *u)
		}
		return
	}
	r.dirty++
	if !u.flying {
		r.units[u.low]++
	}
	if u.next != 0 {
		r.units[u.next]++
		if !u.flying {
			r.t.Fatalf("next without flight: %+v", *u)
		}
	}
	if u.cover && u.hole == 0 {
		r.t.Fatalf("cover without hole: %+v", *u)
	}
}

func (r *recount) mid(ms *midSlot, first PageNo) {
	r.unit(&ms.unit)
	if ms.kid == nil {
		return
	}
	if ms.low != 0 || ms.hole != 0 {
		r.t.Fatalf("mid slot with kid knows: %+v", ms.unit)
	}
	r.structure += leafBytes
	var dirty, cached uint8
	for k := range ms.kid {
		n := &ms.kid[k]
		r.node(n, first+PageNo(k))
		if n.low != 0 {
			dirty++
		}
		if n.base != 0 {
			cached++
		}
	}
	if dirty != ms.dirty || cached != ms.cached {
		r.t.Fatalf("leaf counts %d dirty %d cached, has %d and %d", ms.dirty, ms.cached, dirty, cached)
	}
}

func (r *recount) node(n *node, p PageNo) {
	r.unit(&n.unit)
	if n.base != 0 {
		r.held++
		if n.hole != 0 || r.m.bases.all[n.base-1].page != p {
			r.t.Fatalf("base of page %d: hole %d, page %d", p, n.hole, r.m.bases.all[n.base-1].page)
		}
	}
	c := n.count()
	r.deltas += c
	if c > 0 && n.low == 0 || (c == 0) != (n.deltas == 0) {
		r.t.Fatalf("%d deltas in slot %d of unit %+v", c, n.deltas, n.unit)
	}
	if c == 0 {
		return
	}
	for _, l := range r.m.slabs.get(n.deltas)[:c] {
		if l.SCO != 0 && l.NS == r.m.opts.NS {
			r.delta[l.SCO]++
		}
	}
}

// checkBudget holds the sums against the memory. REQUIRES: the budget is this map's alone.
func (m *Map) checkBudget(t testing.TB) {
	t.Helper()
	slabsHeld, used := int64(len(m.slabs.spare)), int64(0)
	for _, s := range m.slabs.all {
		if s.mem != nil {
			slabsHeld++
			used += int64(s.inUse) * int64(s.size) * layout.LocationSize
		}
	}
	b := m.opts.Budget
	if used != m.slabs.used || b.used.Load() != slabsHeld*slabBytes+m.structure+m.bases.bytes() ||
		b.clean.Load() != m.bases.bytes() || b.dirty.Load() != m.settled {
		t.Fatalf("budget used %d clean %d dirty %d; slabs %d (in use %d, counted %d), structure %d, bases %d",
			b.used.Load(), b.clean.Load(), b.dirty.Load(), slabsHeld*slabBytes, used, m.slabs.used,
			m.structure, m.bases.bytes())
	}
}

// fakeLoop is the loop of the tests: what the map spawns and posts waits in lists, and runs when told.
type fakeLoop struct {
	tasks []func()
	posts []func()
}

func (l *fakeLoop) PostFunc(f func()) { l.posts = append(l.posts, f) }
func (l *fakeLoop) spawn(f func())    { l.tasks = append(l.tasks, f) }
func (l *fakeLoop) task(i int) {
	f := l.tasks[i]
	l.tasks = slices.Delete(l.tasks, i, i+1) // and nothing holds f's job, which is as large as it ever was
	f()
}

func (l *fakeLoop) post() {
	f := l.posts[0]
	l.posts[0] = nil // as above
	l.posts = l.posts[1:]
	f()
}

// settle runs all that is under way, and what that begins.
func (l *fakeLoop) settle() {
	for len(l.tasks)+len(l.posts) > 0 {
		for len(l.posts) > 0 {
			l.post()
		}
		if len(l.tasks) > 0 {
			l.task(0)
		}
	}
}
