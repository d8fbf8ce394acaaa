package journal

import (
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
)

// Pos is a block of the journal's file, counted from the file's start.
type Pos uint32

// Entry is one change of one volume. The caller embeds it in a state of its own and pools that. All
// exported fields but Pos and Err are set by the caller and, like the pages of Data, stay as they are
// until JournalDone was called.
type Entry struct {
	Vol    ids.VolumeID
	Seq    ids.Seq
	Kind   Kind
	Addr   ids.BlockAddr
	Blocks uint32
	// Data is the payload of a Write: Blocks whole pages of the loop's pool in page-aligned segments. The
	// journal takes no reference and drops none.
	Data buf.Vec
	// Sums holds the checksum of each block of Data.
	Sums []uint32
	// Lost says that Data is not what Sums tells, since nobody has that any more: what is copied forward
	// is the knowledge that it is lost. Replay delivers all its blocks as Bad.
	Lost bool

	Pos Pos       // where the first block of payload lies, without payload the header; set before JournalDone
	Err errs.Kind // IO: the journal failed. Closed: it was closed, and the entry is not in it
	// Done learns of the end.
	Done EntryDone

	copied bool
	state  entryState
	next   *Entry
	syncs  syncList // that wait for this entry
}

// EntryDone is told of an Entry's end.
type EntryDone interface {
	// JournalDone is called exactly once per append, on the loop, never from inside a call to the
	// Journal. A volume's entries of Append that end with OK do in the order of their appends, and what
	// FailWaiting and FailAside end may overtake others. With Err OK the entry and all before it survive kill -9. It may
	// append the same Entry again.
	JournalDone(*Entry)
}

type entryState uint8

const (
	entryIdle entryState = iota
	entryQueued
	entryFlying
)

// payload is the number of payload blocks.
func (e *Entry) payload() uint32 {
	if e.Kind == Write {
		return e.Blocks
	}
	return 0
}

// headerBytes is what the entry takes in the header.
func (e *Entry) headerBytes() uint32 { return entryLength + e.payload()*sumLength }

func (e *Entry) bytes() int64 { return int64(e.headerBytes()) + int64(e.payload())*BlockSize }

// admit checks what the caller owes.
func (e *Entry) admit(pool *buf.Pool) {
	if e.state != entryIdle || e.Kind == 0 || e.Kind > kindLast || e.Done == nil {
		invariants.Assert(false, "journal: an entry of kind %d in state %d was appended", e.Kind, e.state)
	}
	n := e.payload()
	if e.Kind == Write && (n == 0 || n > MaxEntryBlocks || len(e.Sums) != int(n) ||
		e.Data.Len() != int(n)*BlockSize) {
		invariants.Assert(false, "journal: a write of %d blocks with %d bytes and %d checksums; at most %d blocks "+
			"would be right", n, e.Data.Len(), len(e.Sums), MaxEntryBlocks)
	}
	if invariants.Enabled && e.Kind == Write && !e.Lost {
		e.verify(pool)
	}
}

// verify checks the payload against its checksums before it goes to the drive.
func (e *Entry) verify(pool *buf.Pool) {
	i := 0
	for _, s := range e.Data.Segs {
		if s.Off != 0 || s.Len%BlockSize != 0 {
			invariants.Assert(false, "journal: payload is not page aligned")
		}
		for b := pool.SegBytes(s); len(b) > 0; b = b[BlockSize:] {
			if blockSum(b[:BlockSize]) != e.Sums[i] {
				invariants.Assert(false, "journal: block %d of a write at %d does not match its checksum", i, e.Addr)
			}
			i++
		}
	}
}

// entryList is a FIFO through the entries' own links: waiting in line allocates nothing.
type entryList struct {
	head, tail *Entry
	n          int
}

func (q *entryList) push(e *Entry) {
	e.next = nil
	if q.tail == nil {
		q.head = e
	} else {
		q.tail.next = e
	}
	q.tail = e
	q.n++
}

func (q *entryList) pop() *Entry {
	e := q.head
	if q.head = e.next; q.head == nil {
		q.tail = nil
	}
	e.next = nil
	q.n--
	return e
}

// has reports whether an entry of a volume is in the list.
func (q *entryList) has(vol ids.VolumeID) bool {
	for e := q.head; e != nil; e = e.next {
		if e.Vol == vol {
			return true
		}
	}
	return false
}

// take empties the list and returns it.
func (q *entryList) take() entryList {
	t := *q
	*q = entryList{}
	return t
}

// Append puts e in line. It leaves at the end of the pass, in one record with all that wait, or waits as
// little space is left (brake), or none; Stalled tells of the latter. A volume that pins more than half of the log
// lets all others pass; Aside tells of it. The line is as long as callers make it. Loop only.
func (j *Journal) Append(e *Entry) { j.enqueue(e, j.lineOf(e.Vol), false) }

// AppendCopy appends e again, under the sequence it has had all along, so that an older segment can go:
// see Moved. Copies overtake the line of Append and may use the reserve, so that copying forward goes on
// where all else waits. Loop only.
func (j *Journal) AppendCopy(e *Entry) { j.enqueue(e, &j.copies, true) }

func (j *Journal) enqueue(e *Entry, q *entryList, copied bool) {
	invariants.Assert(j.st >= attaching, "journal: an append before Attach")
	e.admit(j.loop.Pool())
	e.copied, e.state, e.Err = copied, entryQueued, errs.OK
	if j.closer != nil {
		q = &j.late
	}
	q.push(e)
	j.wake()
}
