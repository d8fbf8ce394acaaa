package blockcache

import (
	"vstor/blockcache/policy"
	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
)

// fetch is a block.Fetch under way: its blocks are taken from RAM, awaited, or read in runs.
type fetch struct {
	c       *Cache
	t       *Tenant
	f       *block.Fetch
	asked   bool       // not read ahead
	pages   []buf.Page // those of f.Dst, one by one
	swapped bool       // some are not those of f.Dst any more
	runs    *run       // planned, last first
	left    int        // runs and waits that have not ended
	err     errs.Kind
	via     block.Rung
	op      ring.Op
	next    *fetch // free list
}

// Fetch reads blocks that lie together in an object, as block.Fetch says. Pages in f.Dst may be exchanged for others,
// shared ones: they are read only. Where it fails, f.Dst still has Count whole pages for the caller to release.
func (c *Cache) Fetch(t *Tenant, f *block.Fetch) { c.fetch(t, f, true) }

// Prefetch is Fetch for blocks that no client has asked for yet: they fill the cache, and count neither as hits nor as
// used.
func (c *Cache) Prefetch(t *Tenant, f *block.Fetch) { c.fetch(t, f, false) }

func (c *Cache) fetch(t *Tenant, f *block.Fetch, asked bool) {
	if t.off {
		c.below.Fetch(f)
		return
	}
	x := c.takeFetch()
	x.t, x.f, x.asked, x.err, x.via = t, f, asked, errs.OK, block.FromBlockCache
	x.swapped, x.left = false, 1
	t.busy++
	if !asked {
		t.Stats.Ahead.Add(uint64(f.Count))
	}
	x.pages = x.pages[:0]
	for _, s := range f.Dst.Segs {
		for i := range s.Pages() {
			x.pages = append(x.pages, s.Page+buf.Page(i))
		}
	}
	x.plan()
	x.start()
	x.left--
	if x.left == 0 {
		// All of it was in RAM, and nobody is told inside the call.
		x.left = 1
		c.loop.Defer(&x.op, 0)
	}
}

func (c *Cache) takeFetch() *fetch {
	x := c.freeX
	if x == nil {
		x = &fetch{c: c}
		x.op.Done = x
		return x
	}
	c.freeX, x.next = x.next, nil
	return x
}

// RingDone is the deferred end of a fetch that needed nothing.
func (x *fetch) RingDone(*ring.Op, int32) { x.ended() }

// plan finds for each block who has it.
func (x *fetch) plan() {
	c, f := x.c, x.f
	var ramHits, ssdHits, merged uint64
	for i := 0; i < int(f.Count); {
		k, part := c.key(f.NS, f.SCO, f.Off+uint32(i))
		n := min(1<<c.shift-part, int(f.Count)-i)
		var e policy.Entry // of the SSD; nothing that plan does evicts one
		var parts uint64
		if c.tier != nil && c.tier.Usable() {
			if e = c.tier.Find(k); e != 0 {
				parts = c.tier.Mask(e)
			}
		}
		for ; n > 0; n, i, part = n-1, i+1, part+1 {
			if x.fromRAM(k, part, i) {
				ramHits++
				continue
			}
			if r, at := c.claimed(k, part, f.Sums[i]); r != nil {
				c.await(x, i, r, at)
				merged++
				continue
			}
			if parts&(1<<part) != 0 && x.fromSSD(e, part, i) {
				ssdHits++
			} else if parts&(1<<part) == 0 {
				x.extend(i, false, 0)
			}
		}
	}
	if x.asked {
		st := &x.t.Stats
		st.RAM.Hits.Add(ramHits)
		st.RAM.Misses.Add(uint64(f.Count) - ramHits)
		st.SSD.Hits.Add(ssdHits)
		st.Merged.Add(merged)
	}
}

// fromRAM takes block i from RAM.
func (x *fetch) fromRAM(k policy.Key, part, i int) bool {
	c := x.c
	e := c.pol.Find(k)
	if e == 0 || c.valid[e]&(1<<part) == 0 || !c.matches(e, part, x.f.Sums[i]) {
		return false
	}
	if x.asked {
		c.pol.Touch(x.t.ram, e, 1<<part)
	}
	x.take(i, c.slot(e, part).page)
	return true
}

// fromSSD takes block i from a region that is not on the drive yet, or plans to read it from the drive. The checksum
// that a waiting page was kept under is compared as in RAM.
func (x *fetch) fromSSD(e policy.Entry, part, i int) bool {
	c := x.c
	slot := c.tier.Slot(e, part)
	page, sum, waits := c.tier.Staged(slot)
	switch {
	case !waits:
		x.extend(i, true, slot)
	case sum != x.f.Sums[i]:
		c.Stats.Mismatches.Inc()
		x.extend(i, false, 0)
	default:
		x.take(i, page)
		c.tier.Policy().Touch(x.t.ssd, e, 1<<part)
		return true
	}
	return false
}

// take exchanges the page of block i for one that has its content; a page with too many references is copied.
func (x *fetch) take(i int, page buf.Page) {
	p := x.c.pool
	if p.Refs(page) >= buf.RefsMost {
		copy(p.Bytes(x.pages[i]), p.Bytes(page))
		return
	}
	p.Retain(page)
	p.Release(x.pages[i])
	x.pages[i] = page
	x.swapped = true
}

// ended notes the end of a part; the last one ends the fetch.
func (x *fetch) ended() {
	x.left--
	if x.left > 0 {
		return
	}
	c, f := x.c, x.f
	if x.swapped {
		f.Dst.Reset()
		for _, p := range x.pages {
			f.Dst.Add(buf.Seg{Page: p, Len: ids.BlockSize})
		}
	}
	f.Err, f.Via = x.err, x.via
	t := x.t
	t.busy--
	x.t, x.f = nil, nil
	x.next, c.freeX = c.freeX, x
	t.leave()
	f.Done.FetchDone(f)
}
