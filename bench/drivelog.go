package bench

import (
	"slices"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
)

// driveLog writes to one drive as anything has to that answers once a write is in a log there and stores it 4+2 behind
// that. There is nothing of vstor in it but the loop: no checksum, no code, no map. What is more than this a log with
// erasure coding can have by writing fewer bytes, or on another drive for its log. All on the loop.
//
//	add ──> waits ──> record: a header and all that waits, to the log ──> ended
//	                  logRecords at a time         └──> owed: half as much again, in pieces
//
// One piece at a time is written, as a record stands behind them all, and more where that does not keep up. Where too
// much is owed, records wait: what was measured could go on for ever.
type driveLog struct {
	loop    *ring.Loop
	fd      int
	size    int64 // of the log, from the file's start on, in bytes; pieces go behind it, into as much again
	head    int64 // where the next record goes
	waiting []*logEntry
	free    []*logRecord
	hook    ring.Hook
	owed    int64 // bytes that were answered and have to be stored
	pieces  [logPieces]logPiece
	content buf.Vec       // of all pieces
	at      int64         // where the next piece goes, behind the log
	busy    int           // pieces under way
	idle    chan struct{} // not nil: nothing is added any more, what is owed stays so, and it is closed at busy 0
	err     error         // of a piece; entries fail from then on
}

const (
	logRecords   = 3 // as the journal's
	logRecordMax = 1 << 20
	logPieces    = 8
	logPieceSize = 1 << 20
	logRoom      = 64 << 20
	logLeast     = 4 * maxBlock // bytes that a file must have
)

// logEntry is a write, its maker's: whole blocks at data, which are read until ended is called.
type logEntry struct {
	data  *buf.Vec
	size  int // bytes
	ended func(error)
}

// logRecord is a record under way, or free.
type logRecord struct {
	of      *driveLog
	op      ring.Op
	vec     buf.Vec
	entries []*logEntry
	size    int
}

// logPiece is a bulk write under way, or free.
type logPiece struct {
	of   *driveLog
	op   ring.Op
	vec  buf.Vec // content, which the op consumes
	busy bool
}

// open takes the pages of pieces. bytes are those of the file, from its start on, that it may write over. Errors:
// Invalid for too few, Full without pages.
func (w *driveLog) open(loop *ring.Loop, fd int, bytes int64) error {
	if bytes < logLeast {
		return errs.New(errs.Invalid, "a log in %d bytes of a file: it needs at least %d", bytes, logLeast)
	}
	w.loop, w.fd, w.size = loop, fd, bytes/2/ids.BlockSize*ids.BlockSize
	w.hook = ring.Hook{Run: w.write, Stage: ring.StageDevice}
	for range logRecords {
		r := &logRecord{of: w}
		r.op.Done = r
		w.free = append(w.free, r)
	}
	for i := range w.pieces {
		p := &w.pieces[i]
		p.of, p.op.Done = w, p
	}
	return takePages(loop.Pool(), &w.content, logPieceSize)
}

// close waits for the end of the pieces under way and gives the pages back. Nothing that was added may be under way.
// Not on the loop.
func (w *driveLog) close() {
	idle := make(chan struct{})
	w.loop.Call(func() {
		if w.idle = idle; w.busy == 0 {
			close(idle)
		}
	})
	<-idle
	w.loop.Call(func() { w.loop.Pool().ReleaseVec(&w.content) })
}

// add writes an entry, with those that are added in the same pass.
func (w *driveLog) add(e *logEntry) {
	w.waiting = append(w.waiting, e)
	w.loop.AtPassEnd(&w.hook)
}

// write begins records of what waits.
func (w *driveLog) write() {
	for len(w.waiting) > 0 && len(w.free) > 0 && w.owed < logRoom {
		r := w.free[len(w.free)-1]
		w.free = w.free[:len(w.free)-1]
		r.vec.Reset()
		w.loop.Pool().AddZeros(&r.vec, ids.BlockSize)
		r.size = ids.BlockSize
		n := 0
		for n < len(w.waiting) && (n == 0 || r.size+w.waiting[n].size <= logRecordMax+ids.BlockSize) {
			r.vec.AppendRange(w.waiting[n].data, 0, w.waiting[n].size)
			r.size += w.waiting[n].size
			n++
		}
		r.entries = append(r.entries[:0], w.waiting[:n]...)
		w.waiting = slices.Delete(w.waiting, 0, n)
		if w.head+int64(r.size) > w.size {
			w.head = 0
		}
		w.loop.WriteV(&r.op, w.fd, &r.vec, w.head)
		w.head += int64(r.size)
	}
}

// RingDone answers those whose bytes the record had.
func (r *logRecord) RingDone(_ *ring.Op, res int32) {
	w := r.of
	w.free = append(w.free, r)
	w.owed += int64(r.size-ids.BlockSize) * 3 / 2
	err := ioFailure(res, r.size)
	if err == nil {
		err = w.err
	}
	for _, e := range r.entries {
		e.ended(err)
	}
	w.store()
	w.loop.AtPassEnd(&w.hook) // what found no record free
}

// store begins as many pieces as are to be under way for what is owed.
func (w *driveLog) store() {
	for i := range w.pieces {
		want := int(1 + w.owed*logPieces/logRoom)
		if p := &w.pieces[i]; !p.busy && w.idle == nil && w.busy < want && w.owed >= int64(w.busy+1)*logPieceSize {
			p.write()
		}
	}
}

func (p *logPiece) write() {
	w := p.of
	if w.size+w.at+logPieceSize > 2*w.size {
		w.at = 0
	}
	p.vec.Reset()
	p.vec.AppendRange(&w.content, 0, logPieceSize)
	p.busy = true
	w.busy++
	w.loop.WriteV(&p.op, w.fd, &p.vec, w.size+w.at)
	w.at += logPieceSize
}

// RingDone goes on.
func (p *logPiece) RingDone(_ *ring.Op, res int32) {
	w := p.of
	p.busy = false
	w.busy--
	w.owed -= logPieceSize
	if err := ioFailure(res, logPieceSize); err != nil {
		w.err = err
	}
	w.store()
	w.loop.AtPassEnd(&w.hook) // what waited for room
	if w.idle != nil && w.busy == 0 {
		close(w.idle)
	}
}
