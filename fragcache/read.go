package fragcache

import (
	"sync/atomic"

	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
	"vstor/dataplane/stat"
)

// Reader is the Cache for one loop, shaped as PRACC asks for it. Its methods are called on that loop alone, never
// block, and allocate nothing. It needs no end.
type Reader struct {
	c *Cache

	hits, hitBytes, misses, bypassed, sampled stat.Counter
	// What the minder judges by: short reads, since the length of long ones says more than the device does.
	located, ended, failed stat.Counter // at the cache: begun, over, of them those that did no good
	here, there            latency      // at the cache, at ASDs

	sample atomic.Bool // the minder wants to know how fast ASDs are: one read goes to them

	heat [heatSlots]heat
}

// latency is a sum of read times.
type latency struct{ n, nanos stat.Counter }

func (l *latency) add(nanos int64) {
	l.n.Inc()
	l.nanos.Add(uint64(max(nanos, 0)))
}

// judgedMax is the longest read whose time counts, in bytes.
const judgedMax = 64 << 10

// heatSlots is how many fragments a Reader counts reads of. Two that share a place push each other out.
const heatSlots = 1024

type heat struct {
	hash   uint64
	window uint32
	n      uint32
}

// NewReader makes a Reader for a loop.
func (c *Cache) NewReader() *Reader {
	r := &Reader{c: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readers = append(c.readers, r)
	return r
}

// File is what the extents of Locate lie on.
func (r *Reader) File() dio.File { return r.c.file }

// Locate appends to dst where bytes [off, off+n) of the fragment's payload lie on File: one extent. With OK comes a
// pin, which keeps them there until Unpin. Absent: not here; Busy: the cache is bypassed, or this read should be an
// ASD's; Invalid: beyond the fragment. What is read is not verified.
func (r *Reader) Locate(key layout.FragKey, off, n uint32, dst []layout.Extent) ([]layout.Extent, uint64, errs.Kind) {
	c := r.c
	if c.bypassed.Load() || c.closed.Load() {
		r.bypassed.Inc()
		return dst, 0, errs.Busy
	}
	if r.sample.Load() && r.sample.CompareAndSwap(true, false) {
		r.sampled.Inc()
		return dst, 0, errs.Busy
	}
	t := c.tenantOf(key.Namespace)
	if t != nil && t.off.Load() {
		return dst, 0, errs.Absent
	}
	at, blocks, ok := c.pin(packKey(key))
	if !ok {
		r.misses.Inc()
		if t != nil {
			t.misses.Add(1)
		}
		return dst, 0, errs.Absent
	}
	if n == 0 || uint64(off)+uint64(n) > uint64(blocks)<<blockShift {
		c.unpin(at.Segment)
		return dst, 0, errs.Invalid
	}
	r.located.Inc()
	r.hits.Inc()
	r.hitBytes.Add(uint64(n))
	if t != nil {
		t.hits.Add(1)
		t.hitBytes.Add(uint64(n))
	}
	return append(dst, layout.Extent{Off: c.at(at.Segment, at.Block+1) + int64(off), Len: n}), uint64(at.Segment), errs.OK
}

// Unpin gives back what Locate pinned; true: a pin keeps what it names.
func (r *Reader) Unpin(pin uint64) bool {
	r.ended.Inc()
	r.c.unpin(uint32(pin))
	return true
}

// pin finds a fragment, marks it as read, and keeps its segment from being written until unpin. The generation of
// the place is left out.
func (c *Cache) pin(k ramKey) (at Place, blocks uint32, ok bool) {
	p := c.index.part(k)
	p.mu.Lock()
	defer p.mu.Unlock()
	slot := p.slots[k]
	if slot == 0 {
		return at, 0, false
	}
	e := &c.index.slab[slot]
	if e.read.Load() == 0 {
		e.read.Store(1)
	}
	c.segs[e.seg].pins.Add(1)
	return Place{Segment: e.seg, Block: e.block, Seq: e.seq}, e.blocks, true
}

// unpin ends a pin. A segment that waits for it is freed when the writer comes by.
func (c *Cache) unpin(seg uint32) { c.segs[seg].pins.Add(-1) }

// Served says how the read of a range went that Locate gave out and Unpin ended: OK, Corrupt (its blocks do not
// match) or IO (the file did not give them). What is not OK is dropped, and fetched anew.
func (r *Reader) Served(key layout.FragKey, n uint32, nanos int64, kind errs.Kind) {
	switch kind {
	case errs.OK:
		if n <= judgedMax {
			r.here.add(nanos)
		}
	case errs.Corrupt: // one is a flipped bit, many are a file that is no good
		r.failed.Inc()
		r.c.rotten(key)
	default:
		r.failed.Inc()
		r.c.count.readErrors.Add(1)
		r.c.lose(key)
	}
}

// Passed says that a range was read from an ASD in that time, and matched. A fragment that is read so again and
// again is asked for.
func (r *Reader) Passed(key layout.FragKey, n uint32, nanos int64) {
	if n <= judgedMax {
		r.there.add(nanos)
	}
	c := r.c
	if !c.opt.OnRead || c.bypassed.Load() {
		return
	}
	hash, window := packKey(key).hash(), c.window.Load()
	h := &r.heat[hash%heatSlots]
	if h.hash != hash || h.window != window {
		*h = heat{hash: hash, window: window}
	}
	if h.n++; h.n != uint32(c.opt.ReadsWanted) {
		return
	}
	if t := c.tenantOf(key.Namespace); t == nil || !t.off.Load() {
		c.want(key)
	}
}

// rotten drops a fragment whose bytes do not match, and asks for it anew. Any goroutine, a loop too.
func (c *Cache) rotten(key layout.FragKey) {
	c.count.corrupt.Add(1)
	c.lose(key)
}

func (c *Cache) lose(key layout.FragKey) {
	if c.index.kill(packKey(key)) {
		c.kick()
		c.want(key)
	}
}
