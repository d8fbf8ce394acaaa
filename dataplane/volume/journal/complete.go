package journal

import (
	"syscall"

	"vstor/dataplane/errs"
	"vstor/dataplane/ring"
)

// RingDone takes the end of a record's write. Ends are told in the order of the records: one that
// overtook another waits for it, because replay would stop at the hole before it.
func (r *record) RingDone(_ *ring.Op, res int32) {
	j := r.j
	r.flying = false
	if res != int32(r.bytes) {
		r.failed = true
		j.fail(errs.New(errs.IO, "journal: the write of record %d ended with %s", r.number, outcome(res)))
	}
	for j.ended+1 < j.next {
		head := j.records[(j.ended+1)%uint64(len(j.records))]
		if head.flying {
			break
		}
		j.finish(head)
	}
	j.wake()
}

// outcome words the result of an Op.
func outcome(res int32) string {
	if res < 0 {
		return syscall.Errno(-res).Error()
	}
	return "a short count"
}

// finish tells the entries of a record. After a failure it tells all of them that they failed, the ones
// whose own write went well, too: a log with a hole before them does not replay them.
func (j *Journal) finish(r *record) {
	kind := errs.OK
	if j.failed != nil {
		kind = errs.IO
	}
	j.ended, j.told = r.number, j.loop.Now()
	if kind == errs.OK {
		if j.opt.NoSyncNeeded {
			j.durable = j.ended
		}
		j.timer.completed(r)
	}
	for list := r.entries.take(); list.head != nil; {
		j.end(list.pop(), kind)
	}
	j.trim()
}

// end tells one entry, after the syncs that wait for it were lined up or failed.
func (j *Journal) end(e *Entry, kind errs.Kind) {
	e.state, e.Err = entryIdle, kind
	waiters := e.syncs
	e.syncs = syncList{}
	for waiters.head != nil {
		s := waiters.pop()
		if kind == errs.OK {
			j.syncs.waiting.push(s)
			continue
		}
		j.syncs.finish(s, kind)
	}
	e.Done.JournalDone(e)
}

// fail is the end of acknowledgements, for good: what waits and what comes later ends with IO at the end
// of a pass, what is under way when its write has ended.
//
// Going on would be wrong even if the next write went well: after a failed write there is a hole that
// replay stops at, after a failed fdatasync nobody knows what the drive has dropped, and the next
// fdatasync would not tell.
func (j *Journal) fail(err error) {
	if j.failed == nil {
		j.failed = err
		j.stalled = 0
		j.timer.stop()
	}
	j.wake()
}

// endQueued ends everything that waits in a line, in order.
func (j *Journal) endQueued(kind errs.Kind) {
	for _, q := range [...]*entryList{&j.copies, &j.queue, &j.aside.entryList} {
		for list := q.take(); list.head != nil; {
			j.end(list.pop(), kind)
		}
	}
}

// refuseLate ends what was appended after Close.
func (j *Journal) refuseLate() {
	for list := j.late.take(); list.head != nil; {
		j.end(list.pop(), errs.Closed)
	}
}
