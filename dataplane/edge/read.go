package edge

import (
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
)

// startRead begins a read. An empty one ends with nothing.
func (x *io) startRead() {
	if x.r.Len == 0 {
		x.d.loop.Defer(&x.op, 0)
		return
	}
	x.at, x.n = x.first, x.count
	x.resolve()
}

// endClosed ends a request that needs more of a Disk that closes: not inside the call, which may go through lists
// that its end changes.
func (x *io) endClosed() {
	x.r.Err = errs.Closed
	x.d.loop.Defer(&x.op, 0)
}

// RingDone is the deferred end of a read that needed no drive, or of a request over no block at all, or of one that
// came too late, or the begin of a question.
func (x *io) RingDone(*ring.Op, int32) {
	switch {
	case x.count == 0:
		x.finish()
	case x.r.Err == errs.Closed && x.r.Op != block.Read:
		x.giveUp()
	case x.r.Op == block.Extents:
		x.scanNow()
	default:
		x.readDone()
	}
}

// again goes on after a wait for memory.
func (x *io) again() {
	if x.r.Op == block.Extents {
		x.scanNow()
		return
	}
	x.resolve()
}

// MapLoaded continues what lacked a page of the map.
func (x *io) MapLoaded(k errs.Kind) {
	switch {
	case x.r.Op == block.Extents:
		x.scanLoaded(k)
		return
	case x.r.Op == block.Cache:
		x.cacheWarmed(k)
		return
	case k == errs.OK:
		x.resolve()
		return
	case k == errs.Busy: // so many wait that one more was not taken: they need nobody's help to end
		x.d.loop.After(&x.timer, time.Millisecond)
		return
	}
	x.res.Reset() // what was found before the missing page was not retained yet
	x.r.Err = k
	x.readDone()
}

// resolve looks the range up and starts a read for every piece that needs one.
func (x *io) resolve() {
	x.res.Reset()
	x.moved = false
	if x.d.closing {
		x.endClosed()
		return
	}
	if !x.d.driver.Resolve(x.at, x.n, &x.res, x) {
		return
	}
	if !x.allocate() {
		// All pages are in replies on their way out or in reads under way: they come back by
		// themselves, and a millisecond is less than any of them takes to matter.
		x.d.Stats.PageWaits.Add(1)
		x.d.loop.After(&x.timer, time.Millisecond)
		return
	}
	x.left = 1 // the loop below
	x.under = false
	n := 0
	for i := range x.res.Pieces {
		p := &x.res.Pieces[i]
		switch p.Kind {
		case block.InRAM:
			x.under = x.d.leased != nil
			x.d.pool.Retain(p.Page)
		case block.Zeros:
			x.under = x.d.leased != nil
		case block.Logged, block.Asked:
			x.startPiece(x.reads[n], p)
			x.d.driver.ReadLogged(&x.reads[n].Fetch)
			n++
		case block.Stored:
			x.under = x.d.leased != nil
			if x.startPiece(x.reads[n], p) {
				x.d.fetch.Fetch(&x.reads[n].Fetch)
			}
			n++
		}
	}
	x.left--
	if x.left == 0 {
		x.d.loop.Defer(&x.op, 0)
	}
}

// allocate takes what the cache has, and pages for all that needs a drive; all or none.
func (x *io) allocate() bool {
	n := 0
	for i := range x.res.Pieces {
		p := &x.res.Pieces[i]
		if !fetched(p.Kind) {
			continue
		}
		if n == len(x.reads) {
			pr := &pieceRead{x: x}
			pr.Fetch.Dst, pr.Fetch.Done = &pr.dst, pr
			x.reads = append(x.reads, pr)
		}
		pr := x.reads[n]
		n++
		need := int(p.Count)
		if p.Kind == block.Stored && x.d.cache != nil {
			need -= x.d.cache.Get(p.NS, p.SCO, uint32(p.Off), x.sumsOf(p), &pr.have)
		}
		if !x.d.allocPages(&pr.dst, need) {
			for _, pr := range x.reads[:n] {
				pr.release(x.d.pool)
			}
			return false
		}
	}
	return true
}

// fetched reports whether a piece is read into pages of its own.
func fetched(k block.PieceKind) bool {
	return k == block.Logged || k == block.Stored || k == block.Asked
}

// allocPages takes pages for what is read. What the cache keeps is free memory put to use: it gives way.
func (d *Disk) allocPages(v *buf.Vec, n int) bool {
	return d.pool.AllocReserved(v, n) || d.cache != nil && d.cache.Shrink(n) > 0 && d.pool.AllocReserved(v, n)
}

func (x *io) sumsOf(p *block.Piece) []uint32 { return x.res.Sums[p.First : p.First+p.Count] }

// startPiece readies the fetch of what the cache did not have; false if it had all.
func (x *io) startPiece(pr *pieceRead, p *block.Piece) bool {
	had := uint32(pr.have.Len() / ids.BlockSize)
	pr.Via = block.FromNothing
	if had == p.Count {
		return false
	}
	pr.Kind, pr.Addr = p.Kind, x.at+ids.BlockAddr(p.First+had)
	pr.NS, pr.SCO, pr.Count = p.NS, p.SCO, p.Count-had
	pr.Off = uint32(p.Off) + had
	if p.Kind == block.Logged {
		pr.Off = p.Pos
	}
	pr.Sums = x.sumsOf(p)[had:]
	pr.Err = errs.OK
	x.left++
	return true
}

// FetchDone notes the end of one piece.
func (pr *pieceRead) FetchDone(*block.Fetch) {
	x := pr.x
	if pr.Err != errs.OK {
		x.r.Err = pr.Err
		x.moved = x.moved || pr.Kind != block.Asked
	}
	x.left--
	if x.left == 0 {
		x.readDone()
	}
}

// readDone assembles the reply, or climbs the ladder again. What a location named may have been cleaned
// away, or the journal's space reused, between the look-up and the read: then the range is looked up
// anew, and only what fails again is an error. What the driver was asked for it has tried itself, for as long as it
// may.
func (x *io) readDone() {
	if x.r.Err != errs.OK && x.tries < retriesMax && x.moved {
		x.tries++
		x.d.Stats.Retries.Add(1)
		x.dropPieces()
		x.r.Err = errs.OK
		if x.d.leased != nil && !x.d.closing {
			x.d.leased.Distrust(x.at, x.n)
		}
		x.resolve()
		return
	}
	if x.rmw && x.d.closing && x.r.Err == errs.OK {
		x.r.Err = errs.Closed // what was read is not merged any more
	}
	if x.r.Err != errs.OK {
		x.dropPieces()
	}
	if x.rmw {
		x.edgeRead()
		return
	}
	if x.r.Err == errs.OK {
		if x.under {
			x.d.leaveLater(x)
			return
		}
		x.assemble()
	}
	x.finish()
}

// dropPieces gives back everything that resolve took.
func (x *io) dropPieces() {
	n := 0
	for i := range x.res.Pieces {
		switch p := &x.res.Pieces[i]; p.Kind {
		case block.InRAM:
			x.d.pool.Release(p.Page)
		case block.Logged, block.Stored, block.Asked:
			x.reads[n].release(x.d.pool)
			n++
		}
	}
	x.res.Reset()
}

// assemble lists the pieces' pages, in order, in the request's Data, cut to the bytes asked for.
func (x *io) assemble() {
	out, skip, left := &x.r.Data, int(x.r.Off&ids.BlockMask), int(x.r.Len)
	out.Reset()
	x.d.Stats.ReadBytes.Add(uint64(x.r.Len))
	n := 0
	for i := range x.res.Pieces {
		p := &x.res.Pieces[i]
		take := min(int(p.Count)*ids.BlockSize-skip, left)
		switch p.Kind {
		case block.Zeros:
			x.d.pool.AddZeros(out, take)
			x.gave(block.FromNothing, take)
		case block.InRAM:
			x.gave(block.FromOverlay, take)
			out.Add(buf.Seg{Page: p.Page, Off: uint32(skip), Len: uint32(take)})
		default:
			x.takePiece(x.reads[n], skip, take)
			n++
		}
		skip = 0
		left -= take
	}
	x.res.Reset()
}

// takePiece lists take bytes of a piece, from skip bytes into it on: of the blocks that the cache had, then of those
// that were fetched.
func (x *io) takePiece(pr *pieceRead, skip, take int) {
	if had := min(pr.have.Len()-skip, take); pr.have.Len() > 0 {
		x.gave(block.FromBlockCache, had)
		addCut(&x.r.Data, &pr.have, skip, had)
		skip, take = 0, take-had
	}
	if take > 0 {
		x.gave(pr.Via, take)
		addCut(&x.r.Data, &pr.dst, skip, take)
	}
	pr.have.Reset()
	pr.dst.Reset()
}

// addCut appends take bytes of src, from skip bytes into its first page on. Every page of src is
// touched, so references pass over one to one.
func addCut(out, src *buf.Vec, skip, take int) {
	for _, s := range src.Segs {
		n := min(int(s.Len)-skip, take)
		out.Add(buf.Seg{Page: s.Page, Off: s.Off + uint32(skip), Len: uint32(n)})
		take -= n
		skip = 0
	}
}
