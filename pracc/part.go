package pracc

import (
	"math/bits"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// partBlocks is the longest part: 1 MiB, one read of the drive.
const partBlocks = 256

// part is a piece of a fetch that lies in one fragment.
type part struct {
	rr    rangeRead
	f     *Fetch
	chunk int
	frag  int
	off   uint32 // bytes into the fragment
	first uint32 // block of the fetch it begins with
	n     uint32 // blocks
	dst   buf.Vec
	next  *part // in the free list or in line for a rebuild

	bad     badSet
	kind    errs.Kind // why its own read did not do
	suspect uint64    // fragments of the chunk that turned out to be rotten in this part
	waited  bool      // stood in line for its rebuild step
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

// startPart cuts the next part off f and starts to read it. REQUIRES: a free part.
func (c *Client) startPart(f *Fetch) {
	p := c.free
	c.free, p.next = p.next, nil
	chunk, frag, off := f.ent.geo.Place((int64(f.Off) + int64(f.cursor)) << ids.BlockShift)
	p.f, p.chunk, p.frag, p.off = f, chunk, frag, uint32(off)
	p.first = f.cursor
	p.n = min(f.Blocks-f.cursor, uint32((f.ent.geo.FragLen-off)>>ids.BlockShift), partBlocks)
	p.bad, p.kind, p.suspect, p.waited = badSet{}, errs.OK, 0, false
	f.cut(&p.dst, p.n<<ids.BlockShift)
	f.cursor += p.n
	f.flying++
	c.flying++

	kind := errs.Absent
	switch ref := f.ent.frag(chunk, frag); ref.state {
	case refASD:
		kind = p.rr.start(ref.asd, f.ent.fragKey(chunk, frag), p.off, p.n<<ids.BlockShift, &p.dst)
		if kind == errs.OK {
			return
		}
		c.faulty(f.ent, chunk, frag, kind)
	case refForeign:
		kind = errs.Unreachable
	}
	p.lost(kind)
	c.rebuild.push(p)
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

// lost marks all of p's blocks for rebuilding.
func (p *part) lost(kind errs.Kind) {
	p.kind = kind
	p.bad.setFirst(p.n)
}

// readDone implements readOwner: p's own read ended.
func (p *part) readDone(r *rangeRead) {
	c, f := r.c, p.f
	switch {
	case c.closing && r.kind != errs.OK:
		c.partOver(p, errs.Closed)
		return
	case r.kind != errs.OK:
		p.lost(r.kind)
	case c.verify(p):
		f.Via = max(f.Via, r.via)
		c.partOver(p, errs.OK)
		return
	default:
		p.kind = errs.Corrupt
		n := uint64(p.bad.count())
		c.stats.Corrupt.Add(n)
		r.t.stats.Corrupt.Add(n)
	}
	c.faulty(f.ent, p.chunk, p.frag, p.kind)
	if c.closing {
		c.partOver(p, errs.Closed)
		return
	}
	c.rebuild.push(p)
}

// verify checks every block of p and marks those that do not match; true if all do.
func (c *Client) verify(p *part) bool {
	i, good := uint32(0), true
	for _, s := range p.dst.Segs {
		for b := c.pool.SegBytes(s); len(b) > 0; b = b[ids.BlockSize:] {
			if !matches(b[:ids.BlockSize], p.f.Sums[p.first+i]) {
				p.bad.set(i)
				good = false
			}
			i++
		}
	}
	return good
}

// matches reports whether a block has the checksum that its location says.
func matches(block []byte, sum uint32) bool { return uint32(xxhash.Sum64(block)) == sum }

// partOver gives p back; its pages are the caller's and stay where they are.
func (c *Client) partOver(p *part, kind errs.Kind) {
	f := p.f
	f.Err = worse(f.Err, kind)
	f.flying--
	c.flying--
	p.f = nil
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
