package store

import (
	"sync"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// deletedMax is how many deletes are remembered for those who watch; who looks more seldom hears that it
// missed some.
const deletedMax = 4096

// deleted remembers the keys of what was deleted last, for those who told others where it lay.
//
// The order of a delete is what they rest on:
//
//	withdraw: Locate and Extents find it no more ─► log: DeletedSince names it ─► its rest begins
//
// Whoever asks Extents and DeletedSince and finds a fragment in the one and not in the other knows that its rest has
// not begun; and what DeletedSince has named before is found by no later Extents.
type deleted struct {
	sync.Mutex
	ring   []ramKey // nil: nobody watches
	n      uint64   // deletes since Open
	notify func()
}

// WatchDeletes has deletes remembered for DeletedSince from here on, and notify called after each batch of them. It
// is called by the committer and must not block. Before the store is used; one watcher.
func (s *Store) WatchDeletes(notify func()) {
	d := &s.deleted
	d.Lock()
	defer d.Unlock()
	d.ring, d.notify = make([]ramKey, deletedMax), notify
}

// DeletedSince appends to dst, as far as it has room, the keys of what was deleted after the first `at` deletes
// since Open, oldest first; next is where to go on. lost: some are not remembered any more; then next is the number
// of all deletes and dst is as it was. more: there are others behind next. It never waits for IO, and allocates
// nothing: a loop may call it.
func (s *Store) DeletedSince(at uint64, dst []layout.FragKey) (keys []layout.FragKey, next uint64, more, lost bool) {
	d := &s.deleted
	d.Lock()
	defer d.Unlock()
	if d.n-at > uint64(len(d.ring)) {
		return dst, d.n, false, true
	}
	for ; at < d.n && len(dst) < cap(dst); at++ {
		dst = append(dst, d.ring[at%uint64(len(d.ring))].unpack())
	}
	return dst, at, at < d.n, false
}

// Deleted is how many fragments were deleted since Open.
func (s *Store) Deleted() uint64 {
	s.deleted.Lock()
	defer s.deleted.Unlock()
	return s.deleted.n
}

// add names a delete, and gives its number.
func (d *deleted) add(k ramKey) uint64 {
	d.Lock()
	defer d.Unlock()
	if len(d.ring) > 0 {
		d.ring[d.n%uint64(len(d.ring))] = k
	}
	d.n++
	return d.n
}

// EndRest lets the space of the first n deletes since Open be used again now, although its quarantine has not ended:
// nobody has a lease any more that could name it. n only grows. It never waits for IO: a loop may call it.
func (s *Store) EndRest(n uint64) { s.rest.ended.Store(max(n, s.rest.ended.Load())) }

// tell lets the watcher look.
func (d *deleted) tell() {
	d.Lock()
	notify := d.notify
	d.Unlock()
	if notify != nil {
		notify()
	}
}

// Extents appends to dst where all of a fragment's payload lies on the drive, in order, and pins nothing: the bytes
// stay what they are until Quarantine after DeletedSince names the fragment, and no longer. It never waits for IO,
// and allocates nothing if dst has room, as Locate.
func (s *Store) Extents(key layout.FragKey, dst []layout.Extent) ([]layout.Extent, errs.Kind) {
	if s.closed.Load() {
		return dst, errs.Closed
	}
	k := packKey(key)
	sh := &s.shards[k.shard()]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, ok := sh.frags[k]
	if !ok {
		return dst, errs.Absent
	}
	n := uint32(e.payload() << blockShift)
	if !e.multi() {
		return append(dst, layout.Extent{Off: int64(e.start()+1) << blockShift, Len: n}), errs.OK
	}
	return appendExtents(dst, sh.multi[k], 0, n), errs.OK
}

// New reports whether nobody had the store open before: Format makes incarnation 1, and each Open another.
func (s *Store) New() bool { return s.sb.Incarnation == 2 }

// Quarantine is how long deleted space rests.
func (s *Store) Quarantine() time.Duration { return s.opts.Quarantine }
