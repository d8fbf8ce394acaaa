package pagemap

import (
	"math/bits"

	"github.com/cockroachdb/pebble/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
	"vstor/dataplane/layout"
	"vstor/dataplane/lsm"
)

// job is one batch of write back. The loop fills it with copies, a goroutine runs it, the loop takes the
// outcome; it is owned by one of them at a time. One per map is under way at most, so what the last one
// wrote is what the next one reads.
type job struct {
	id         MapID
	ns         uint16
	tombstones bool
	keep       bool // keep the merged pages, there is room for them

	pages  []jobPage
	locs   []layout.Location // deltas of all pages
	ranges []jobRange
	regs   []reg
	ckpt   Checkpoint
	commit ids.CommitNum // last one applied whole
	stored *stored

	// outcome
	err     error
	corrupt bool // err is about page bad
	asked   bool // somebody waits for it: it may use what room is left
	bad     PageNo
	diff    map[ids.SCONum]int32 // blocks that base pages won and lost
	read    uint64               // bytes
	written uint64

	old, page Page
	buf       []byte
}

// jobPage is a page to merge: cover over base, deltas over both.
type jobPage struct {
	no    PageNo
	cover uint8 // 1 + kind; 0: none
	known uint8 // 1 + kind if the base page is known to be one hole
	bits  [4]uint64
	locs  []layout.Location // of job.locs
	base  *Locations        // the cached copy, read only; nil: read it
	new   *Locations        // outcome, if keep
}

// jobRange is pages to drop.
type jobRange struct {
	from, to PageNo
	kind     uint16
}

// reg is a SCO to remember or to forget.
type reg struct {
	sco  SCO
	gone bool
}

// stored are the counts as they are in the database, 4 bytes per SCO. They belong to the job under way.
type stored struct {
	groups map[uint32]*[groupSCOs]uint32
	inUse  map[uint32]int // SCOs remembered per group
}

func (s *stored) group(g uint32) *[groupSCOs]uint32 {
	c := s.groups[g]
	if c == nil {
		c = new([groupSCOs]uint32)
		s.groups[g] = c
	}
	return c
}

func (j *job) reset() {
	clear(j.pages)
	clear(j.diff)
	*j = job{pages: j.pages[:0], locs: j.locs[:0], ranges: j.ranges[:0], diff: j.diff, buf: j.buf[:0]}
	if j.diff == nil {
		j.diff = make(map[ids.SCONum]int32)
	}
}

// run builds the batch and applies it. In a goroutine. On an error nothing has changed.
func (j *job) run(d *DB) {
	room := d.guard.Room
	if j.asked {
		room = d.guard.LastRoom
	}
	if j.err = room(); j.err != nil {
		return
	}
	b := d.p.NewBatch()
	defer b.Close()
	it, err := d.p.NewIter(&pebble.IterOptions{
		LowerBound: key(j.id, tablePage, 0), UpperBound: key(j.id, tableEnd, 0)})
	if err != nil {
		j.err = errs.Wrap(errs.IO, err, "map %d", j.id)
		return
	}
	j.err = d.parsed(j.build(b, it))
	if err := it.Close(); err != nil && j.err == nil {
		j.err = lsm.ReadError(err, "map %d", j.id)
	}
	if j.err != nil {
		return
	}
	j.written = uint64(b.Len())
	j.storeCounts(b)
	if err := b.Commit(pebble.NoSync); err != nil {
		j.unstoreCounts()
		j.err = errs.Wrap(errs.IO, err, "map %d", j.id)
	}
}

func (j *job) build(b *pebble.Batch, it *pebble.Iterator) error {
	for i := range j.ranges {
		if err := j.dropRange(b, it, &j.ranges[i]); err != nil {
			return err
		}
	}
	for i := range j.pages {
		if err := j.mergePage(b, it, &j.pages[i]); err != nil {
			return err
		}
	}
	for _, r := range j.regs {
		k := key(j.id, tableSCO, uint64(r.sco.Num))
		var err error
		if r.gone {
			err = b.Delete(k, nil)
		} else {
			err = b.Set(k, r.sco.append(j.buf[:0], j.id), nil)
		}
		if err != nil {
			return errs.Wrap(errs.IO, err, "map %d, SCO %d", j.id, r.sco.Num)
		}
	}
	if err := b.Set(key(j.id, tableCheckpoint, 0), j.ckpt.append(j.buf[:0], j.id), nil); err != nil {
		return errs.Wrap(errs.IO, err, "map %d, checkpoint", j.id)
	}
	return nil
}

// parse decodes a base page that was read into j.old, and names it if it is corrupt.
func (j *job) parse(v []byte, no PageNo) error {
	j.read += uint64(len(v))
	if err := parsePageOf(v, j.id, no, &j.old); err != nil {
		j.corrupt, j.bad = true, no
		return errs.Wrap(errs.Of(err), err, "map %d page %d", j.id, no)
	}
	return nil
}

// unreadable is the error of a base page that the database cannot read: one rotten table must not hold up the
// pages in others.
func (j *job) unreadable(err error, no PageNo) error {
	err = lsm.ReadError(err, "map %d page %d", j.id, no)
	if errs.Of(err) == errs.Corrupt {
		j.corrupt, j.bad = true, no
	}
	return err
}

// count adds by to the SCO of a base page's location.
func (j *job) count(loc layout.Location, by int32) {
	if loc.SCO != 0 && loc.NS == j.ns {
		j.diff[loc.SCO] += by
	}
}

// kept says that a page of nothing but holes of kind has a record.
func (j *job) kept(kind uint16) bool {
	return kind == layout.OffZero || kind == layout.OffTrimmed && j.tombstones
}

// pointDeletes is how many pages of a range are deleted one by one before it takes a range tombstone. A
// range tombstone is cheap to write and dear to have: each iterator sorts all those of a memtable anew.
const pointDeletes = 64

// dropRange reads the pages of a range, since what lies in them leaves the counts, and deletes them.
func (j *job) dropRange(b *pebble.Batch, it *pebble.Iterator, r *jobRange) error {
	from, to := key(j.id, tablePage, uint64(r.from)), key(j.id, tablePage, uint64(r.to))
	found := 0
	for ok := it.SeekGE(from); ok; ok = it.Next() {
		no := PageNo(keyNumber(it.Key()))
		if no >= r.to {
			break
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return j.unreadable(err, no)
		}
		if err := j.parse(v, no); err != nil {
			return err
		}
		for i := range j.old.Locs {
			j.count(j.old.Locs[i], -1)
		}
		if found++; found <= pointDeletes {
			if err := b.Delete(it.Key(), nil); err != nil {
				return errs.Wrap(errs.IO, err, "map %d page %d", j.id, no)
			}
		}
	}
	if err := it.Error(); err != nil {
		return j.unreadable(err, r.from)
	}
	if found > pointDeletes {
		if err := b.DeleteRange(from, to, nil); err != nil {
			return errs.Wrap(errs.IO, err, "map %d pages %d to %d", j.id, r.from, r.to)
		}
	}
	if !j.kept(r.kind) {
		return nil
	}
	// 52 bytes per page, 52 MiB per tebibyte: a record for a range of pages would be smaller, and would
	// have to be split by each later write into it.
	fill(j.page.Locs[:], r.kind)
	for no := r.from; no < r.to; no++ {
		if err := j.set(b, no, &j.page.Locs); err != nil {
			return err
		}
	}
	return nil
}

// base reads the base page into j.old; false if there is no record of it.
func (j *job) base(it *pebble.Iterator, p *jobPage) (bool, error) {
	switch {
	case p.base != nil:
		j.old.Locs = *p.base
		return true, nil
	case p.known != 0:
		fill(j.old.Locs[:], uint16(p.known-1))
		return true, nil
	}
	k := key(j.id, tablePage, uint64(p.no))
	if it.SeekGE(k) && PageNo(keyNumber(it.Key())) == p.no {
		v, err := it.ValueAndErr()
		if err != nil {
			return false, j.unreadable(err, p.no)
		}
		return true, j.parse(v, p.no)
	}
	if err := it.Error(); err != nil {
		return false, j.unreadable(err, p.no)
	}
	fill(j.old.Locs[:], layout.OffUnmapped)
	return false, nil
}

func (j *job) mergePage(b *pebble.Batch, it *pebble.Iterator, p *jobPage) error {
	stored, err := j.base(it, p)
	if err != nil {
		return err
	}
	locs := &j.page.Locs
	if p.cover != 0 {
		fill(locs[:], uint16(p.cover-1))
	} else {
		*locs = j.old.Locs
	}
	p.each(func(i int, loc layout.Location) { locs[i] = loc })
	for i := range locs {
		if locs[i] != j.old.Locs[i] {
			j.count(j.old.Locs[i], -1)
			j.count(locs[i], 1)
		}
	}
	if kind, whole := wholeHole(locs); whole && !j.kept(kind) {
		if !stored {
			return nil
		}
		if err := b.Delete(key(j.id, tablePage, uint64(p.no)), nil); err != nil {
			return errs.Wrap(errs.IO, err, "map %d page %d", j.id, p.no)
		}
		return nil
	}
	if j.keep && p.base == nil {
		p.new = new(Locations)
		*p.new = *locs
	}
	return j.set(b, p.no, locs)
}

func (j *job) set(b *pebble.Batch, no PageNo, locs *Locations) error {
	if locs != &j.page.Locs {
		j.page.Locs = *locs
	}
	j.page.Map, j.page.No, j.page.Commit = j.id, no, j.commit
	j.buf = j.page.Append(j.buf[:0])
	if err := b.Set(key(j.id, tablePage, uint64(no)), j.buf, nil); err != nil {
		return errs.Wrap(errs.IO, err, "map %d page %d", j.id, no)
	}
	return nil
}

// each calls f with the page's deltas in order.
func (p *jobPage) each(f func(i int, loc layout.Location)) {
	at := 0
	for w, set := range p.bits {
		for ; set != 0; set &= set - 1 {
			f(w*64+bits.TrailingZeros64(set), p.locs[at])
			at++
		}
	}
}

// storeCounts moves the counts and adds their records to the batch. A group goes with its last SCO.
func (j *job) storeCounts(b *pebble.Batch) {
	touched := make(map[uint32]bool)
	j.addCounts(1)
	for n := range j.diff {
		touched[uint32(n)/groupSCOs] = true
	}
	for _, r := range j.regs {
		touched[uint32(r.sco.Num)/groupSCOs] = true
	}
	for g := range touched {
		k := key(j.id, tableCounts, uint64(g))
		var err error
		if j.stored.inUse[g] == 0 {
			delete(j.stored.groups, g)
			delete(j.stored.inUse, g)
			err = b.Delete(k, nil)
		} else {
			err = b.Set(k, appendCounts(j.buf[:0], j.id, g, j.stored.group(g)), nil)
		}
		invariants.Assert(err == nil, "batch of map %d takes no more: %v", j.id, err)
	}
	j.written = uint64(b.Len())
}

func (j *job) unstoreCounts() { j.addCounts(-1) }

func (j *job) addCounts(sign int32) {
	for n, by := range j.diff {
		c := &j.stored.group(uint32(n) / groupSCOs)[n%groupSCOs]
		v := int64(*c) + int64(by*sign)
		invariants.Assert(v >= 0, "map %d stores %d blocks in SCO %d, %d change", j.id, *c, n, by*sign)
		*c = uint32(v)
	}
	for _, r := range j.regs {
		by := int(sign)
		if r.gone {
			by = -by
		}
		j.stored.inUse[uint32(r.sco.Num)/groupSCOs] += by
	}
}
