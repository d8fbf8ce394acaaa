package pracc

import (
	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// Cache holds whole fragments nearer than their ASDs: a Drive that is asked before them, about whatever the manifest
// names, present or not. Any kind but OK sends the read on to the ASD. What it holds proves nothing about the ASD's
// fragment, nor the other way round: neither is reported as rotten for the other. It is called on the Client's loop.
type Cache interface {
	Drive
	// Served says how the read of n bytes went that Locate gave out, once its pin is back, and how long it took: OK,
	// Corrupt (some block does not match) or IO.
	Served(key layout.FragKey, n uint32, nanos int64, kind errs.Kind)
	// Passed says that n bytes of a fragment were read from its ASD instead, matched, and how long that took.
	Passed(key layout.FragKey, n uint32, nanos int64)
}

// nearLate is how long a read of the Cache may take before it is hedged, as one of an ASD is. The Cache minds its own
// speed and says that it has nothing while it is slow.
const nearLate = int64(20e6)

// readCached begins to read p from the Cache, if it is there.
func (c *Client) readCached(p *part) bool {
	if c.opt.Cache == nil {
		return false
	}
	r, n := c.getRead(), p.n<<ids.BlockShift
	exts, pin, kind := c.opt.Cache.Locate(p.ent.fragKey(p.chunk, p.frag), p.off, n, r.exts[:0])
	if kind == errs.OK {
		if r.exts = exts; !joinExtents(&r.exts, n) {
			c.opt.Cache.Unpin(pin)
			kind = errs.Corrupt
		}
	}
	if kind != errs.OK {
		c.putRead(r)
		return false
	}
	r.cached, r.t, r.via = true, &c.near, block.FromFragmentCache
	r.owner, r.class, r.since, r.kind = p, classOf(n), c.now(), errs.OK
	r.key = p.ent.fragKey(p.chunk, p.frag)
	r.vec.Segs = append(r.vec.Segs[:0], p.dst.Segs...)
	p.rr = r
	r.launch()
	r.judged = true // it says nothing about an ASD
	r.startDrive(c.opt.Cache, pin)
	return true
}

// cachedDone is readDone for a part that was read from the Cache. If that did not do, its ASD is read as if there were
// none; a hedge that is under way goes on.
func (c *Client) cachedDone(p *part, r *rangeRead) {
	kind := r.kind
	if kind == errs.OK && !c.verify(p) {
		kind = errs.Corrupt
	}
	if kind == errs.Closed || c.closing && kind != errs.OK {
		p.drop()
		c.partOver(p, errs.Closed)
		return
	}
	c.opt.Cache.Served(p.ent.fragKey(p.chunk, p.frag), r.voff, c.now()-r.since, kind)
	if kind == errs.OK {
		c.stats.Cached.Inc()
		p.f.Via = max(p.f.Via, r.via)
		p.drop()
		c.partOver(p, errs.OK)
		return
	}
	c.stats.CacheFailed.Inc()
	if p.shadow != nil {
		p.lost(kind)
		p.around = true // the ASD was not asked yet: it is if the shadow fails
		return
	}
	p.bad = badSet{}
	c.readPart(p)
}

// passed tells the Cache of a part that its ASD has served.
func (c *Client) passed(p *part, r *rangeRead) {
	if c.opt.Cache != nil {
		c.opt.Cache.Passed(p.ent.fragKey(p.chunk, p.frag), r.voff, c.now()-r.since)
	}
}
