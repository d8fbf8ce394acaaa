package journal

import (
	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ring"
)

// record is a slot for one record under way.
type record struct {
	j       *Journal
	op      ring.Op
	page    buf.Seg // the header
	vec     buf.Vec // header and payload, for the start of the op only
	entries entryList
	number  uint64
	bytes   uint32
	durable uint64 // the mark its header carries
	flying  bool
	failed  bool
}

// blockSum is the checksum of a block.
func blockSum(b []byte) uint32 { return uint32(xxhash.Sum64(b)) }

// passEnd runs at the end of each pass in which something was asked for or ended: what waits leaves
// together.
func (j *Journal) passEnd() {
	j.refuseLate()
	switch {
	case j.st == closed:
		j.syncs.failWaiting(errs.Closed)
		return
	case j.failed != nil:
		j.syncs.failWaiting(errs.IO)
		if j.ended+1 == j.next { // else those under way come first
			j.endQueued(errs.IO)
		}
	case j.st == attaching:
		// Only the root writer's syncs may pass: they make the incarnation.
		j.syncs.start()
	default:
		for j.next-1-j.ended < uint64(len(j.records)) && j.writeRecord() {
		}
		if j.st == closing && j.ended+1 == j.next {
			j.endQueued(errs.Closed) // they found no space
		}
		j.syncs.start()
	}
	j.finishClose()
}

// writeRecord starts one record of what waits. False if nothing does, or there is no space, or the line is held.
func (j *Journal) writeRecord() bool {
	first, held := j.copies.head, j.held()
	if first == nil && !held {
		j.rejoin()
		first = j.first()
	}
	switch {
	case first == nil && !j.timer.wanted:
		return false
	case first == nil && !j.segs.place(2, false): // as if it had payload: the last blocks are not for marks
		j.timer.wanted = false // space is worth more than the mark
		return false
	case first != nil && !j.segs.place(1+first.payload(), first.copied):
		if held {
			j.trim()
		} else {
			j.stall()
		}
		return false
	}
	r := j.records[j.next%uint64(len(j.records))]
	h := Header{UUID: j.root.UUID, Incarnation: j.root.Incarnation, Number: j.next, Prev: j.lastSum,
		Lap: j.segs.state[j.segs.head].lap, Position: j.headPos(), Length: headerLength,
		TailSegment: j.root.TailSegment, TailRecord: j.root.TailRecord, Durable: j.durable, Complete: j.ended}
	r.vec.Reset()
	r.vec.Segs = append(r.vec.Segs, r.page)
	page := j.loop.Pool().Bytes(r.page.Page)
	r.gather(&j.copies, &h, page)
	copied := h.Blocks
	if !held && j.segs.admits(false) {
		r.gather(&j.queue, &h, page)
		if j.queue.head == nil {
			r.gather(&j.aside.entryList, &h, page)
		}
	}
	h.put(page)
	r.number, r.durable, r.bytes = j.next, h.Durable, (1+h.Blocks)*BlockSize
	r.flying, r.failed = true, false
	j.lastSum = h.Sum
	j.slow(h.Blocks - copied)
	j.segs.wrote(j.next, 1+h.Blocks)
	j.next++
	j.timer.carried(h.Durable)
	j.count(&h)
	j.file.WriteV(j.loop, &r.op, &r.vec, int64(h.Position)*BlockSize)
	return true
}

func (j *Journal) count(h *Header) {
	j.counts.Records++
	j.counts.Entries += uint64(h.Entries)
	j.counts.Blocks += uint64(h.Blocks)
	j.counts.Bytes += uint64(1+h.Blocks) * BlockSize
	if h.Entries == 0 {
		j.counts.Marks++
		j.syncs.habit.since++ // no client's
	}
}

// headPos is where in the file the head is, in blocks.
func (j *Journal) headPos() uint32 { return j.segPos(j.segs.head) + j.segs.headOff }

// segPos is the first block of a segment.
func (j *Journal) segPos(seg int) uint32 { return DataStart/BlockSize + uint32(seg)*j.segs.blocks }

// gather moves entries from q into the record as long as header, record and segment have room.
func (r *record) gather(q *entryList, h *Header, page []byte) {
	j := r.j
	room := min(max(j.segs.room(true, q == &j.copies), 1)-1, uint32(j.opt.RecordBlocks))
	if q == &j.aside.entryList {
		room = min(room, h.Blocks+j.asideMost())
	}
	for e := q.head; e != nil; e = q.head {
		n := e.payload()
		if h.Length+e.headerBytes() > BlockSize || h.Blocks+n > room {
			return
		}
		q.pop()
		h.Length = uint32(putEntry(page, int(h.Length), e))
		h.Entries++
		e.Pos = Pos(h.Position)
		if n > 0 {
			e.Pos += Pos(1 + h.Blocks)
			for _, s := range e.Data.Segs {
				r.vec.Add(s)
			}
		}
		h.Blocks += n
		e.state = entryFlying
		r.entries.push(e)
		if e.copied {
			j.counts.Copied++
		} else {
			j.stalled = 0
		}
		if q == &j.aside.entryList {
			j.aside.since = max(j.loop.Now(), 1)
		}
		pins := e.bytes()
		if h.Entries == 1 {
			pins += BlockSize // the header; else one block at a time would pin half of what it does
		}
		j.segs.note(e.Vol, e.Seq, pins)
	}
}

// stall notes since when the line stands. What the drive still calls used is freed now.
func (j *Journal) stall() {
	if j.stalled == 0 && j.first() != nil {
		j.stalled = max(j.loop.Now(), 1)
		j.counts.Stalls++
	}
	j.trim()
}
