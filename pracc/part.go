package pracc

import (
	"math/bits"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/sum"
)

// partBlocks is the longest part: 1 MiB, one read of the drive.
const partBlocks = 256

// part is a piece of a fetch that lies in one fragment; or the shadow of one, see hedge.go.
type part struct {
	c     *Client
	rr    *rangeRead // its own read, while that is under way
	f     *Fetch     // nil for a shadow
	ent   *entry
	sums  []uint32 // of its blocks
	chunk int
	frag  int
	off   uint32 // bytes into the fragment
	first uint32 // block of the fetch it begins with
	n     uint32 // blocks
	dst   buf.Vec
	next  *part // in a free list or in line for a rebuild

	bad     badSet
	kind    errs.Kind // why its own read did not do
	suspect uint64    // fragments of the chunk that turned out to be rotten in this part
	waited  bool      // stood in line for its rebuild step
	around  bool      // its own read was left out, as the ASD is not in the fast set
	step    *rebuild  // under way for it

	shadow   *part // the second way to its bytes
	isShadow bool
	paid     bool     // of a shadow: it is a hedge
	of       *part    // of a shadow: whose; nil once it is not needed any more
	ownSums  []uint32 // of a shadow
}

// badSet marks the blocks of a part that still have to be rebuilt.
type badSet [partBlocks / 64]uint64

func (b *badSet) set(i uint32) { b[i/64] |= 1 << (i % 64) }

// setFirst marks blocks 0 to n-1.
func (b *badSet) setFirst(n uint32) {
	for i := range b {
		left := int(n) - 64*i
		switch {
		case left >= 64:
			b[i] = ^uint64(0)
		case left > 0:
			b[i] = 1<<left - 1
		default:
			b[i] = 0
		}
	}
}

func (b *badSet) count() int {
	n := 0
	for _, w := range b {
		n += bits.OnesCount64(w)
	}
	return n
}

// begin makes p a piece of a fragment of which nothing has happened yet.
func (p *part) begin(e *entry, chunk, frag int, off, n uint32) {
	p.ent, p.chunk, p.frag, p.off, p.n = e, chunk, frag, off, n
	p.bad, p.kind, p.suspect, p.waited, p.around = badSet{}, errs.OK, 0, false, false
}

// startPart cuts the next part off f and starts to read it. REQUIRES: a free part.
func (c *Client) startPart(f *Fetch) {
	p := c.free
	c.free, p.next = p.next, nil
	e := f.ent
	chunk, frag, off := e.geo.Place((int64(f.Off) + int64(f.cursor)) << ids.BlockShift)
	n := min(f.Blocks-f.cursor, uint32((e.geo.FragLen-off)>>ids.BlockShift), partBlocks)
	if e.k == 1 {
		frag = c.replica(e, chunk)
	}
	p.f, p.first = f, f.cursor
	p.begin(e, chunk, frag, uint32(off), n)
	p.sums = f.Sums[p.first : p.first+n]
	f.cut(&p.dst, n<<ids.BlockShift)
	f.cursor += n
	f.flying++
	c.flying++
	c.pacing.earn()
	if !c.readCached(p) {
		c.readPart(p)
	}
}

// readPart reads p from the ASD that holds its fragment, or puts it in line for a rebuild.
func (c *Client) readPart(p *part) {
	kind, ref := errs.Unreachable, p.ent.frag(p.chunk, p.frag)
	if ref.state == refASD && c.isOut(ref.asd) {
		c.wanted(ref.asd, p.ent, p.chunk, p.frag, p.off)
		quick, _ := c.others(p.ent, p.chunk, p.frag)
		p.around = quick >= int(p.ent.k)
	}
	if p.around {
		c.stats.Around.Inc()
	} else if kind = p.readOwn(); kind == errs.OK {
		return
	}
	p.lost(kind)
	c.rebuild.push(p)
}

// readOwn reads p's own fragment. With OK readDone follows.
func (p *part) readOwn() (kind errs.Kind) {
	c, ref := p.c, p.ent.frag(p.chunk, p.frag)
	switch ref.state {
	case refASD:
		p.bad = badSet{}
		p.rr, kind = c.read(p, ref.asd, p.ent.fragKey(p.chunk, p.frag), p.off, p.n<<ids.BlockShift, &p.dst)
		if kind != errs.OK {
			c.faulty(p.ent, p.chunk, p.frag, kind)
		}
		return kind
	case refForeign:
		return errs.Unreachable
	}
	return errs.Absent
}

// cut makes dst the next n bytes of f.Dst.
func (f *Fetch) cut(dst *buf.Vec, n uint32) {
	dst.Reset()
	for n > 0 {
		s := f.Dst.Segs[f.seg]
		run := min(s.Len-f.segOff, n)
		dst.Add(buf.Seg{Page: s.Page + buf.Page(f.segOff/buf.PageSize), Len: run})
		n -= run
		if f.segOff += run; f.segOff == s.Len {
			f.seg, f.segOff = f.seg+1, 0
		}
	}
}

// seek finds the place in Dst that cursor stands for.
func (f *Fetch) seek() {
	f.seg, f.segOff = 0, f.cursor<<ids.BlockShift
	for f.seg < len(f.Dst.Segs) && f.segOff >= f.Dst.Segs[f.seg].Len {
		f.segOff -= f.Dst.Segs[f.seg].Len
		f.seg++
	}
}

// lost marks all of p's blocks for rebuilding.
func (p *part) lost(kind errs.Kind) {
	p.kind = kind
	p.bad.setFirst(p.n)
}

// readDone implements readOwner: p's own read ended.
func (p *part) readDone(r *rangeRead) {
	c := r.c
	p.rr = nil
	switch {
	case r.cached:
		c.cachedDone(p, r)
		return
	case c.closing && r.kind != errs.OK:
		p.drop()
		c.partOver(p, errs.Closed)
		return
	case r.kind != errs.OK:
		p.lost(r.kind)
	case c.verify(p):
		p.f.Via = max(p.f.Via, r.via)
		c.passed(p, r)
		p.drop()
		c.partOver(p, errs.OK)
		return
	default:
		p.kind = errs.Corrupt
		n := uint64(p.bad.count())
		c.stats.Corrupt.Add(n)
		r.t.stats.Corrupt.Add(n)
	}
	c.faulty(p.ent, p.chunk, p.frag, p.kind)
	switch {
	case c.closing:
		p.drop()
		c.partOver(p, errs.Closed)
	case p.shadow != nil: // its end goes on with p
	default:
		c.rebuild.push(p)
	}
}

// verify checks every block of p and marks those that do not match; true if all do.
func (c *Client) verify(p *part) bool {
	var batch sum.Batch
	i, good := uint32(0), true
	for _, s := range p.dst.Segs {
		for b := c.pool.SegBytes(s); len(b) > 0; b = b[ids.BlockSize:] {
			if batch.Add(b) {
				good = p.compare(&batch, i) && good
				i += sum.BatchSize
			}
		}
	}
	return p.compare(&batch, i) && good
}

// compare marks those of a batch that do not match; its first is p's block i.
func (p *part) compare(batch *sum.Batch, i uint32) bool {
	var out [sum.BatchSize]uint32
	good := true
	for k, got := range batch.Sums(&out) {
		if at := i + uint32(k); got != p.sums[at] {
			p.bad.set(at)
			good = false
		}
	}
	return good
}

// matches reports whether a block has the checksum that its location says.
func matches(block []byte, sum uint32) bool { return uint32(xxhash.Sum64(block)) == sum }

// unbuilt is where a part comes whose rebuild has failed. If its own read was left out for another ASD's
// sake it is done now: slow is better than not at all.
func (c *Client) unbuilt(p *part, kind errs.Kind) {
	if p.around && !c.closing {
		p.around = false
		own := p.readOwn()
		if own == errs.OK {
			return
		}
		kind = worse(kind, own)
	}
	c.partOver(p, toCaller(kind))
}

// rebuilt notes that blocks came from other fragments. Of a shadow that was dropped nobody wants to know.
func (p *part) rebuilt() {
	if p.isShadow {
		p = p.of
	}
	if p != nil {
		p.f.Via = max(p.f.Via, block.FromRebuild)
	}
}

// partOver gives p back; its pages are the caller's and stay where they are.
func (c *Client) partOver(p *part, kind errs.Kind) {
	if p.isShadow {
		c.shadowOver(p, kind)
		return
	}
	f := p.f
	f.Err = worse(f.Err, kind)
	f.flying--
	c.flying--
	p.f, p.ent, p.sums = nil, nil, nil
	p.next, c.free = c.free, p
	if f.flying == 0 && !f.queued {
		c.over(f)
	}
}

// worse is the kind that says more about a failure: what cannot be known now before what is known to
// be lost, as asking again may help; then rotten bytes before missing ones.
func worse(a, b errs.Kind) errs.Kind {
	rank := func(k errs.Kind) int {
		switch k {
		case errs.OK:
			return 0
		case errs.Closed:
			return 4
		case errs.Corrupt:
			return 2
		case errs.IO, errs.Absent, errs.Invalid:
			return 1
		default:
			return 3 // Unreachable, Busy, Canceled
		}
	}
	if rank(b) > rank(a) {
		return b
	}
	return a
}

// toCaller is the kind of a failed part: Absent is kept for objects, so a caller does not take lost
// fragments for an object that was deleted.
func toCaller(k errs.Kind) errs.Kind {
	switch k {
	case errs.Corrupt, errs.Closed:
		return k
	case errs.Absent, errs.IO, errs.Invalid:
		return errs.IO
	}
	return errs.Unreachable
}
