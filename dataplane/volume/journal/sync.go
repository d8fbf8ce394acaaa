package journal

import (
	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
	"vstor/dataplane/ring"
)

// Sync is a request to make entries survive power loss. The caller embeds and pools it.
type Sync struct {
	// Entry, if set, is an appended entry that must be covered, too, although it has not ended yet (FUA).
	Entry *Entry
	Err   errs.Kind // as in Entry
	// Done learns of the end.
	Done SyncDone

	force bool // an fdatasync must be made, whatever is known to be durable: a root was written
	next  *Sync
}

// SyncDone is told of a Sync's end.
type SyncDone interface {
	// JournalSynced is called exactly once, on the loop, never from inside a call to the Journal.
	JournalSynced(*Sync)
}

type syncList struct{ head, tail *Sync }

func (q *syncList) push(s *Sync) {
	s.next = nil
	if q.tail == nil {
		q.head = s
	} else {
		q.tail.next = s
	}
	q.tail = s
}

func (q *syncList) pop() *Sync {
	s := q.head
	if q.head = s.next; q.head == nil {
		q.tail = nil
	}
	s.next = nil
	return s
}

func (q *syncList) take() syncList {
	t := *q
	*q = syncList{}
	return t
}

// Sync ends s after an fdatasync that began after every entry which had ended before this call, and
// after s.Entry. At most one fdatasync is in flight and one waits, shared by all. None more is needed if
// nothing has ended since the last one began, or if the options say so. Entries that wait for space do
// not hold it up. Loop only.
func (j *Journal) Sync(s *Sync) {
	invariants.Assert(j.st >= attaching && s.Done != nil, "journal: a sync before Attach or without Done")
	s.Err, s.force = errs.OK, false
	if e := s.Entry; e != nil && e.state != entryIdle {
		e.syncs.push(s)
		return
	}
	j.syncs.habit.synced(j.next, j.told != j.loop.Now())
	j.syncs.add(s)
}

// syncer shares fdatasyncs. Who asks while one is in flight takes part in it if nothing has ended since it began, else
// it began too early for him: then all wait together for the next.
type syncer struct {
	j       *Journal
	op      ring.Op
	waiting syncList
	flying  syncList
	busy    bool
	covers  uint64 // records the one in flight makes durable
	habit   habit
	early   ring.Timer
}

func (y *syncer) init(j *Journal) {
	y.j = j
	y.op.Done = y
	y.habit = habit{since: j.next, min: habitsMin}
	y.early.Fire = y.startEarly
}

func (y *syncer) add(s *Sync) {
	if y.busy && y.covers == y.j.ended && !s.force {
		y.flying.push(s)
		return
	}
	y.waiting.push(s)
	y.j.wake()
}

// start begins the next fdatasync if somebody waits and none is in flight. At a pass end, so that all who
// asked in the pass share it.
func (y *syncer) start() {
	j := y.j
	for !y.busy && y.waiting.head != nil {
		if y.needed() {
			y.begin()
			return
		}
		if j.opt.NoSyncNeeded {
			j.durable = j.ended
		}
		for list := y.waiting.take(); list.head != nil; {
			y.finish(list.pop(), errs.OK)
		}
	}
	if !y.busy && y.expected() {
		j.loop.After(&y.early, 0)
	}
}

func (y *syncer) begin() {
	y.busy = true
	y.flying = y.waiting.take()
	y.covers = y.j.ended
	y.j.counts.Syncs++
	y.j.file.Datasync(y.j.loop, &y.op)
}

// expected reports whether a sync is most likely to be asked for next. Where it was not asked for after all, the mark
// that the keeper writes behind the record is none to begin one more for: it has no entries, and nobody waits for it.
func (y *syncer) expected() bool {
	j := y.j
	return y.habit.expects(j.next) && j.ended+1 == j.next && j.first() == nil && j.durable < j.timer.data &&
		j.st == running && j.failed == nil
}

// startEarly begins what is expected, in the pass after the one in which the last record was told to have ended: its
// writer's answer leaves before, and need not wait until the kernel has found a thread for the fdatasync.
func (y *syncer) startEarly() {
	if !y.busy && y.expected() {
		y.begin()
	}
}

// needed is false where no fdatasync could add anything.
func (y *syncer) needed() bool {
	if y.j.opt.NoSyncNeeded {
		return false
	}
	if y.j.durable < y.j.ended {
		return true
	}
	for s := y.waiting.head; s != nil; s = s.next {
		if s.force {
			return true
		}
	}
	return false
}

// RingDone takes the end of an fdatasync.
func (y *syncer) RingDone(_ *ring.Op, res int32) {
	j := y.j
	y.busy = false
	kind := errs.OK
	if res < 0 {
		j.fail(errs.New(errs.IO, "journal: fdatasync ended with %s", outcome(res)))
	}
	if j.failed != nil {
		kind = errs.IO
	} else {
		j.durable = max(j.durable, y.covers)
	}
	for list := y.flying.take(); list.head != nil; {
		y.finish(list.pop(), kind)
	}
	j.wake()
}

func (y *syncer) failWaiting(kind errs.Kind) {
	for list := y.waiting.take(); list.head != nil; {
		y.finish(list.pop(), kind)
	}
}

func (y *syncer) finish(s *Sync, kind errs.Kind) {
	s.Err = kind
	s.Done.JournalSynced(s)
}
