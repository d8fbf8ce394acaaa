package edge

import (
	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// Blocks are read ahead of a client that reads in order, and when it says that it will read a range: they come into
// the cache, and the client finds them there. It is all guesswork, so it takes what nobody else wants: pages above the
// pool's reserve, a bounded number of reads at a time, and what fails is left to the read that follows.

const (
	// aheadsMax is how many ranges are read ahead at a time, for each vDisk; more are dropped.
	aheadsMax = 4
	// aheadBlocks is the longest of them: 2 MiB.
	aheadBlocks = 2 << 20 >> ids.BlockShift
	// aheadRequest is the longest request, in blocks, that is taken for a sign: who asks for 256 KiB at a time reads
	// ahead himself.
	aheadRequest = 256 << 10 >> ids.BlockShift
	// warmBlocks is how much of a range that is to be read soon is brought into the cache: 8 MiB.
	warmBlocks = 8 << 20 >> ids.BlockShift
)

// aheads are the ranges of a Disk that are being read ahead.
type aheads struct {
	free   *ahead
	flying int
	closed func()
}

// ahead is one of them. It is used again, with its memory.
type ahead struct {
	d     *Disk
	next  *ahead
	addr  ids.BlockAddr
	n     int
	more  int // blocks behind them that follow
	res   block.Resolution
	reads []*aheadRead
	left  int // parts that have not ended
}

type aheadRead struct {
	block.Fetch
	a   *ahead
	dst buf.Vec
}

// noticed looks whether a read is part of a stream, and reads ahead of it.
func (d *Disk) noticed(x *io) {
	if d.cache == nil || x.count > aheadRequest {
		return
	}
	if from, n := d.cache.Ahead(x.first, x.count); n > 0 {
		d.readAhead(from, n, 0)
	}
}

// readAhead brings n blocks from addr on into the cache, then more behind them.
func (d *Disk) readAhead(addr ids.BlockAddr, n, more int) {
	if d.cache == nil || d.closing || d.aheads.flying == aheadsMax {
		return
	}
	end := ids.BlockAddr(ids.Blocks(d.driver.Size()))
	if addr >= end {
		return
	}
	a := d.aheads.free
	if a == nil {
		a = &ahead{d: d}
	} else {
		d.aheads.free = a.next
	}
	d.aheads.flying++
	a.addr, a.more = addr, more
	a.n = min(n, aheadBlocks, int(end-addr))
	a.resolve()
}

func (a *ahead) resolve() {
	a.res.Reset()
	a.left = 1
	if !a.d.closing && a.d.driver.Resolve(a.addr, a.n, &a.res, a) {
		a.fetch()
	} else if !a.d.closing {
		return // MapLoaded follows
	}
	a.done()
}

// MapLoaded goes on once the map tells where the blocks lie. It is asked for one page after the other.
func (a *ahead) MapLoaded(k errs.Kind) {
	if k != errs.OK {
		a.more = 0
		a.left = 1
		a.done()
		return
	}
	a.resolve()
}

// fetch reads what lies in objects. The rest is in RAM, or in the journal for a while.
func (a *ahead) fetch() {
	d, used := a.d, 0
	for i := range a.res.Pieces {
		p := &a.res.Pieces[i]
		if p.Kind != block.Stored {
			continue
		}
		if used == len(a.reads) {
			r := &aheadRead{a: a}
			r.Fetch.Dst, r.Fetch.Done = &r.dst, r
			a.reads = append(a.reads, r)
		}
		r := a.reads[used]
		if !d.pool.Alloc(&r.dst, int(p.Count)) {
			a.more = 0
			return
		}
		used++
		r.Kind, r.Addr = p.Kind, a.addr+ids.BlockAddr(p.First)
		r.NS, r.SCO, r.Off, r.Count = p.NS, p.SCO, uint32(p.Off), p.Count
		r.Sums = a.res.Sums[p.First : p.First+p.Count]
		r.Err = errs.OK
		a.left++
		d.cache.Prefetch(&r.Fetch)
	}
}

// FetchDone gives the pages back: the cache has its own references.
func (r *aheadRead) FetchDone(*block.Fetch) {
	r.a.d.pool.ReleaseVec(&r.dst)
	r.a.done()
}

// done counts the parts; after the last one what follows is read, or the place is free.
func (a *ahead) done() {
	d := a.d
	if a.left--; a.left > 0 {
		return
	}
	d.aheads.flying--
	a.next, d.aheads.free = d.aheads.free, a
	if a.more > 0 && !d.closing {
		n := min(a.more, aheadBlocks)
		d.readAhead(a.addr+ids.BlockAddr(a.n), n, a.more-n)
	}
	d.aheads.finish()
}

func (s *aheads) finish() {
	if s.flying == 0 && s.closed != nil {
		f := s.closed
		s.closed = nil
		f()
	}
}

// Close ends what the Disk does by itself, and then calls done, if it is not nil, on the loop. What is being read ahead
// may hang with its drive: who must not wait for that gives no done. No request comes any more. One that is still under
// way, as with a drive that hangs while the process is to end, asks driver and fetcher for nothing more, and ends with
// Closed if it needed to.
func (d *Disk) Close(done func()) {
	d.closing = true
	d.aheads.closed = done
	d.aheads.finish()
}
