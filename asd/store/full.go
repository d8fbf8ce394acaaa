package store

import (
	"errors"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// reserveOf is how many blocks a put of a class must leave free.
func (s *Store) reserveOf(c layout.Class) uint64 {
	r := uint64(s.opts.Reserve) >> blockShift
	switch c {
	case layout.ClassCleaning:
		return r / 2
	case layout.ClassRepair:
		return r / 8
	}
	return r
}

// allocate takes n blocks for a put of a class, in dst, or answers errs.Full. Space whose rest has ended is
// given back first if there is need.
func (s *Store) allocate(dst []run, n uint64, c layout.Class) ([]run, error) {
	if err := s.ballast.check(s); err != nil {
		return nil, err
	}
	rs, ok, free := s.tryAllocate(dst, n, c)
	if !ok && s.rest.due(s.opts.Now()) {
		// Only the committer gives space back: whoever reuses it before the index has forgotten
		// its rest would find it at rest, and later free, under a live fragment.
		if err := s.commits.do(&op{kind: opRelease}); err != nil {
			return nil, err
		}
		rs, ok, free = s.tryAllocate(dst, n, c)
	}
	if !ok {
		s.count.full.Add(1)
		return nil, errs.New(errs.Full, "store: ASD %d has %d bytes free of %d and keeps %d from this class; "+
			"%d do not fit", s.sb.ID, free<<blockShift, s.alloc.capacity<<blockShift,
			s.reserveOf(c)<<blockShift, n<<blockShift)
	}
	return rs, nil
}

func (s *Store) tryAllocate(dst []run, n uint64, c layout.Class) ([]run, bool, uint64) {
	s.alloc.Lock()
	defer s.alloc.Unlock()
	free := s.alloc.free
	if free < n+s.reserveOf(c) {
		return nil, false, free
	}
	rs, ok := s.alloc.alloc(dst, n)
	if ok {
		s.alloc.taken += n
	}
	return rs, ok, free
}

// giveBack ends a put that did not happen. aside: the drive refused a write there, so the space stays
// out of use until the store is reopened, or the next put would fail on the same spot.
func (s *Store) giveBack(rs []run, aside bool) {
	s.alloc.Lock()
	defer s.alloc.Unlock()
	n := runsLen(rs)
	s.alloc.taken -= n
	if aside {
		s.alloc.aside += n
		return
	}
	for _, r := range rs {
		s.alloc.add(r)
	}
}

// ballast watches the free space of the index's file system. When it runs short puts are refused; when
// it is nearly gone, because others write there too, a file kept for that moment is removed, so that
// the commits of deletes, some hundred bytes each, still find room.
type ballast struct {
	path    string
	present bool // the committer's, once started
	low     atomic.Bool
	unknown atomic.Bool // the file system does not tell
	blind   int         // batches until the next look; the committer's
}

// blindBatches batches, of at most a mebibyte or so, go by without a look where there is plenty of room.
const blindBatches = 15

const ballastName = "BALLAST"

// openBallast writes the file if it is missing and there is room. It is best effort.
func (s *Store) openBallast() {
	b := &s.ballast
	b.path = s.opts.FS.PathJoin(s.opts.Dir, ballastName)
	avail, ok := s.indexAvail()
	if !ok {
		return
	}
	b.low.Store(avail < s.opts.IndexReserve)
	if _, err := s.opts.FS.Stat(b.path); err == nil {
		b.present = true
		return
	}
	if s.opts.Ballast < 0 || avail < s.opts.IndexReserve+2*s.opts.Ballast {
		return
	}
	f, err := s.opts.FS.Create(b.path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return
	}
	// Written and not merely allocated: a file system that shares or compresses must not cheat.
	piece := make([]byte, 256<<10)
	x := random64()
	for i := range piece {
		x = x*6364136223846793005 + 1442695040888963407
		piece[i] = byte(x >> 56)
	}
	for n := int64(0); n < s.opts.Ballast && err == nil; n += int64(len(piece)) {
		_, err = f.Write(piece)
	}
	b.present = true
	if errors.Join(err, f.Sync(), f.Close()) != nil {
		b.drop(s)
	}
}

func (s *Store) indexAvail() (int64, bool) {
	if s.ballast.unknown.Load() {
		return 0, false
	}
	u, err := s.opts.FS.GetDiskUsage(s.opts.Dir)
	if err != nil {
		s.ballast.unknown.Store(true)
		return 0, false
	}
	return int64(min(u.AvailBytes, 1<<62)), true
}

// watch runs in the committer before each batch.
func (b *ballast) watch(s *Store) {
	if b.blind > 0 {
		b.blind--
		return
	}
	avail, ok := s.indexAvail()
	if !ok {
		return
	}
	if avail > 4*(s.opts.IndexReserve+s.opts.Ballast) {
		b.blind = blindBatches
	}
	b.low.Store(avail < s.opts.IndexReserve)
	if b.present && avail < max(s.opts.Ballast/2, 1<<20) {
		b.drop(s)
	}
}

func (b *ballast) drop(s *Store) {
	b.present = s.opts.FS.Remove(b.path) != nil
}

// check refuses a put while the index's file system is nearly full.
func (b *ballast) check(s *Store) error {
	if !b.low.Load() {
		return nil
	}
	if avail, ok := s.indexAvail(); ok && avail < s.opts.IndexReserve {
		s.count.full.Add(1)
		return errs.New(errs.Full, "store: the file system of ASD %d's index has %d bytes free; puts need %d",
			s.sb.ID, avail, s.opts.IndexReserve)
	}
	b.low.Store(false)
	return nil
}
