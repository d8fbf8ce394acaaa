package bench

import (
	"context"
	"slices"
	"syscall"

	"vstor/dataplane/buf"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
)

// logIOs are writes as they come to one drive from anything that answers once they are in a log there and stores them
// 4+2 behind it; see closedLoop. There is nothing of vstor in it but the loop: no checksum, no code, no map. What is
// more than this a log with erasure coding can have by writing fewer bytes, or on another drive for its log.
//
//	lane ──> waits ──> record: a header and all that waits, to the log ──> answered
//	                   logRecords at a time         └──> owed: half as much again, in pieces, one at a time
//
// Where too much is owed, records wait: what was measured could go on for ever.
type logIOs struct {
	closedLoop
	loop    *ring.Loop
	fd      int
	block   int   // bytes of an IO
	size    int64 // of the log, from the file's start on; pieces go behind it
	head    int64 // where the next record goes
	waiting []int // lanes
	free    []*logRecord
	hook    ring.Hook
	owed    int64 // bytes that were answered and have to be stored
	piece   logPiece
}

const (
	logRecords   = 3 // as the journal's
	logRecordMax = 1 << 20
	logPieceSize = 1 << 20
	logRoom      = 64 << 20
)

// logRecord is a record under way, or free.
type logRecord struct {
	of    *logIOs
	op    ring.Op
	vec   buf.Vec
	lanes []int
	size  int
}

// logPiece is the one bulk write at a time.
type logPiece struct {
	of    *logIOs
	op    ring.Op
	pages buf.Vec
	at    int64 // behind the log
	busy  bool
	idle  chan struct{} // closed at its end, when somebody waits for that
}

// runLog does them, on the raw file: the first half is the log.
func (in *inside) runLog(ctx context.Context, p *Part) (result, error) {
	fd, err := openDirect(p.File)
	if err != nil {
		return result{}, err
	}
	defer syscall.Close(fd)
	w := &logIOs{loop: in.vdisk.Loop(), fd: fd, block: p.Block, size: p.Bytes / 2}
	w.loop.Call(func() { err = w.hold(p) })
	defer w.loop.Call(w.drop)
	if err != nil {
		return result{}, err
	}
	w.start = func(lane int) {
		w.waiting = append(w.waiting, lane)
		w.loop.AtPassEnd(&w.hook)
	}
	w.hook = ring.Hook{Run: w.write, Stage: ring.StageDevice}
	r, err := w.run(ctx, w.loop, p)
	w.settle()
	return r, err
}

// hold takes all pages. What it took is there after an error too.
func (w *logIOs) hold(p *Part) error {
	for range logRecords {
		r := &logRecord{of: w}
		r.op.Done = r
		w.free = append(w.free, r)
	}
	w.piece.of, w.piece.op.Done = w, &w.piece
	if err := w.holdPages(w.loop.Pool(), p.Depth, p.Block); err != nil {
		return err
	}
	return takePages(w.loop.Pool(), &w.piece.pages, logPieceSize)
}

func (w *logIOs) drop() {
	w.dropPages(w.loop.Pool())
	w.loop.Pool().ReleaseVec(&w.piece.pages)
}

// settle waits for the end of the piece under way, whose pages are to be given back.
func (w *logIOs) settle() {
	idle := make(chan struct{})
	w.loop.Call(func() {
		if w.piece.idle = idle; !w.piece.busy {
			close(idle)
		}
	})
	<-idle
}

// write begins records of what waits.
func (w *logIOs) write() {
	for len(w.waiting) > 0 && len(w.free) > 0 && w.owed < logRoom {
		r := w.free[len(w.free)-1]
		w.free = w.free[:len(w.free)-1]
		n := min(len(w.waiting), max(1, logRecordMax/w.block))
		r.lanes = append(r.lanes[:0], w.waiting[:n]...)
		w.waiting = slices.Delete(w.waiting, 0, n)
		r.vec.Reset()
		w.loop.Pool().AddZeros(&r.vec, ids.BlockSize)
		for _, lane := range r.lanes {
			r.vec.AppendRange(&w.pages[lane], 0, w.block)
		}
		r.size = ids.BlockSize + n*w.block
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
	w.owed += int64(len(r.lanes)*w.block) * 3 / 2
	err := ioFailure(res, r.size)
	for _, lane := range r.lanes {
		w.ended(lane, err)
	}
	w.store()
	w.loop.AtPassEnd(&w.hook) // what found no record free
}

// store begins the next piece, if one is owed and the job goes on.
func (w *logIOs) store() {
	p := &w.piece
	if p.busy || w.owed < logPieceSize || w.live == 0 {
		return
	}
	if w.size+p.at+logPieceSize > 2*w.size {
		p.at = 0
	}
	p.busy = true
	w.loop.WriteV(&p.op, w.fd, &p.pages, w.size+p.at)
	p.at += logPieceSize
}

// RingDone goes on.
func (p *logPiece) RingDone(_ *ring.Op, res int32) {
	w := p.of
	p.busy = false
	w.owed -= logPieceSize
	if err := ioFailure(res, logPieceSize); err != nil && w.err == nil {
		w.err = err
	}
	w.store()
	w.loop.AtPassEnd(&w.hook) // what waited for room
	if p.idle != nil && !p.busy {
		close(p.idle)
	}
}
