package pagemap

import (
	"testing"

	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// check recounts all that a Map counts incrementally.
func (m *Map) check(t testing.TB) {
	t.Helper()
	units := map[ids.CommitNum]uint32{}
	delta := map[ids.SCONum]uint32{}
	dirty, deltas, held := 0, 0, 0
	structure := int64(len(m.root)) * rootSlotBytes
	unit := func(u *unit) {
		if u.low == 0 {
			if u.next != 0 || u.flying || u.cover || u.recovered {
				t.Fatalf("clean unit with flags: %+v", *u)
			}
			return
		}
		dirty++
		if !u.flying {
			units[u.low]++
		}
		if u.next != 0 {
			units[u.next]++
			if !u.flying {
				t.Fatalf("next without flight: %+v", *u)
			}
		}
		if u.cover && u.hole == 0 {
			t.Fatalf("cover without hole: %+v", *u)
		}
	}
	for r := range m.root {
		rs := &m.root[r]
		unit(&rs.unit)
		if rs.kid == nil {
			continue
		}
		if rs.low != 0 || rs.hole != 0 {
			t.Fatalf("root slot with kid knows: %+v", rs.unit)
		}
		structure += midBytes
		for i := range rs.kid {
			ms := &rs.kid[i]
			unit(&ms.unit)
			if ms.kid == nil {
				continue
			}
			if ms.low != 0 || ms.hole != 0 {
				t.Fatalf("mid slot with kid knows: %+v", ms.unit)
			}
			structure += leafBytes
			var nd, nc uint8
			for k := range ms.kid {
				n := &ms.kid[k]
				unit(&n.unit)
				if n.low != 0 {
					nd++
				}
				if n.base != 0 {
					nc++
					held++
					want := PageNo(r*midPages + i*leafPages + k)
					if n.hole != 0 || m.bases.all[n.base-1].page != want {
						t.Fatalf("base of page %d: hole %d, page %d", want, n.hole, m.bases.all[n.base-1].page)
					}
				}
				c := n.count()
				deltas += c
				if c > 0 && n.low == 0 || (c == 0) != (n.deltas == 0) {
					t.Fatalf("%d deltas in slot %d of unit %+v", c, n.deltas, n.unit)
				}
				if c > 0 {
					for _, l := range m.slabs.get(n.deltas)[:c] {
						if l.SCO != 0 && l.NS == m.opts.NS {
							delta[l.SCO]++
						}
					}
				}
			}
			if nd != ms.dirty || nc != ms.cached {
				t.Fatalf("leaf counts %d dirty %d cached, has %d and %d", ms.dirty, ms.cached, nd, nc)
			}
		}
	}
	if dirty != m.dirtyUnits || deltas != m.deltas || held != m.bases.held || structure != m.structure {
		t.Fatalf("counted %d dirty %d deltas %d bases %d bytes; found %d %d %d %d",
			m.dirtyUnits, m.deltas, m.bases.held, m.structure, dirty, deltas, held, structure)
	}
	for i, c := range m.commits.list {
		if n := units[m.commits.first+ids.CommitNum(i)]; n != c.units {
			t.Fatalf("commit %d counts %d units, has %d", m.commits.first+ids.CommitNum(i), c.units, n)
		}
	}
	for n, s := range m.live.all {
		if s.delta != delta[n] {
			t.Fatalf("SCO %d counts %d deltas, has %d", n, s.delta, delta[n])
		}
	}
	m.checkBudget(t)
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
	l.tasks = append(l.tasks[:i:i], l.tasks[i+1:]...)
	f()
}

func (l *fakeLoop) post() {
	f := l.posts[0]
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
