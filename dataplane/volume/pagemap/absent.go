package pagemap

import (
	"github.com/cockroachdb/pebble/v2"

	"vstor/dataplane/layout"
)

// A vDisk that was opened knows of no page whether there is one. Most are not there: a disk of 64 TiB with a
// gigabyte in it has 64 million pages without a record, and who asks what is allocated would load them one by
// one. So the load of a page that is absent also looks where the next one is that is there, and what lies
// between is known in one step: by leaves and mids where they have no nodes.
type absentRun struct {
	until   PageNo // pages behind the one that was loaded, up to here, have no record; 0: not known
	batches uint64 // Stats.Batches when the load began
}

// absentSteps bounds what one load takes in on the loop, about 50 us; what is beyond it is asked again.
const absentSteps = 4096

// read finds the next record behind page p. In a goroutine.
func (a *absentRun) read(d *DB, id MapID, p PageNo) {
	it, err := d.p.NewIter(&pebble.IterOptions{
		LowerBound: key(id, tablePage, uint64(p)+1), UpperBound: key(id, tableEnd, 0)})
	if err != nil {
		return
	}
	until := PageOf(SizeMax-1) + 1
	if it.First() {
		until = PageNo(keyNumber(it.Key()))
	}
	if it.Close() == nil { // else there may be one that it did not find
		a.until = until
	}
}

// installAbsent takes in that the pages (p, a.until) have no record. It may have become wrong: a page was
// written since. If that batch has ended, the count says so. If it is under way, its pages are dirty, which
// are left alone here: they have nodes, or their slot is a known hole.
func (m *Map) installAbsent(p PageNo, a *absentRun) {
	if a.batches != m.stats.Batches {
		return
	}
	const hole = 1 + layout.OffUnmapped
	p++
	for steps := 0; p < a.until && steps < absentSteps; steps++ {
		s, ok := m.find(p)
		u, pages := (*unit)(nil), PageNo(1)
		switch {
		case !ok:
			return
		case s.ms == nil:
			u, pages = s.unit(), midPages
		case s.n == nil:
			u, pages = s.unit(), leafPages
		case s.n.base == 0 && s.n.deltas == 0:
			u = s.unit()
		}
		if u != nil && u.hole == 0 && u.low == 0 && p%pages == 0 && a.until-p >= pages {
			u.hole = hole
		}
		p += pages - p%pages
	}
}
