package pracc

import (
	"time"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// A hedge is a second way to the bytes of a part, begun while its own read is under way: a shadow, which is a
// part of its own, with pages of its own, that the rebuilds serve like any other. The first that has all blocks
// verified wins.
//
//	part    own read ──────────────> caller's pages A
//	shadow  rebuild from k others ─> pages B
//
//	own read first    the shadow is dropped: its step ends, B returns
//	shadow first      A and B change places: B is the caller's now, and A the stuck read's, until it ends
//	own read fails    the part waits for the shadow; if that fails too, it is rebuilt in the usual way
//	shadow fails      B returns, the part goes on waiting for its own read
//
// The obvious way is to wait for the own read, or to copy B to A when the shadow wins. But A belongs to the kernel
// as long as the read is under way, which may be for ever: whatever is copied there may be overwritten by bytes
// that nobody has verified. It cannot be called off either: a drive that has begun does not let go. So A
// must never reach the caller, and changing pages costs nothing. It is safe because every page is in one hand at
// any time: A in the caller's Dst before, in the read's own list after; and only the end of the read gives it back.
//
// The price is pages, B for as long as A hangs: see mayStick. Beyond that bound a read is not hedged, and waits
// for its drive as it did before there were hedges; sweep tries again until one of the others has returned.

// pacing keeps hedges rare. Each costs hedgeCost out of two purses. The first earns Options.HedgePercent of that
// with each part read, so hedges stay under that part of all reads whatever happens. The second earns a fifth of a
// percent, and is paid back by those that win. By the first alone a healthy system would hedge all it may, as one of
// twenty reads is always later than the p95, and each hedge is k reads: measured, a fifth more CPU for nothing. With
// the second those that change nothing die out, and those that help go on.
type pacing struct {
	allowed, hope int
	percent       int
}

const (
	hedgeCost   = 1000
	hedgesSaved = 64 // as many can be saved up in either purse
	purseMost   = hedgesSaved * hedgeCost
	hopeEarned  = 2 // a fifth of a percent: of a drive that is busy, k times that is spent for nothing
)

func (p *pacing) init(percent int) {
	p.percent, p.hope = max(percent, 0), purseMost
}

func (p *pacing) earn() {
	p.allowed = min(p.allowed+p.percent*hedgeCost/100, purseMost)
	p.hope = min(p.hope+hopeEarned, purseMost)
}

func (p *pacing) affords() bool { return min(p.allowed, p.hope) >= hedgeCost }

func (p *pacing) pay() { p.allowed, p.hope = p.allowed-hedgeCost, p.hope-hedgeCost }

func (p *pacing) won() { p.hope = min(p.hope+hedgeCost, purseMost) }

// affords reports whether r may be hedged now.
func (c *Client) affords(r *rangeRead, free bool) bool {
	if free || c.pacing.affords() {
		return true
	}
	if c.pacing.percent > 0 {
		c.deny(r)
	}
	return false
}

func (c *Client) deny(r *rangeRead) {
	if !r.denied {
		r.denied = true
		c.stats.HedgeDenied.Inc()
	}
}

// hedged books a hedge for r, or that it is gone round.
func (c *Client) hedged(r *rangeRead, free bool) {
	r.hedged = true
	if free {
		c.stats.Around.Inc()
		return
	}
	c.pacing.pay()
	c.stats.Hedges.Inc()
}

// won counts a late read that was overtaken.
func (c *Client) won(paid bool) {
	c.stats.HedgeWins.Inc()
	if paid {
		c.pacing.won()
	}
}

// sweepEvery is the least time between two looks at the reads under way. One timer for all of them, which fires
// when the oldest might be late: a timer for each would cost more than the reads.
const sweepEvery = int64(time.Millisecond)

// sweepLate: a sweep that comes so much later than it should finds a loop that did not run itself. What has come
// in the meantime has not been looked at, so it judges in the next pass.
const sweepLate = int64(time.Millisecond)

func (c *Client) sweepAt(in int64) {
	c.sweepDue = c.loop.Now() + in
	c.loop.After(&c.sweeper, time.Duration(in))
}

// sweepTimer is the timer's.
func (c *Client) sweepTimer() {
	if c.loop.Now()-c.sweepDue > sweepLate && !c.sweptLate {
		c.sweptLate = true
		c.loop.After(&c.sweeper, time.Microsecond)
		return
	}
	c.sweptLate = false
	c.sweep()
	c.settle()
}

// sweep does something about reads that are late, and sees to the next sweep.
func (c *Client) sweep() {
	r, now := c.reads.head, c.now()
	switch {
	case r == nil && c.watched == 0 || c.closing:
		return
	case c.watched == 0 && now-r.since < c.hedgeLeast:
		c.sweepAt(max(r.since+c.hedgeLeast-now, sweepEvery))
		return
	}
	c.regroup(now)
	c.markOverdue(now)
	c.judge(now)
	for c.walk = c.reads.head; c.walk != nil && now-c.walk.since >= c.hedgeLeast; {
		r := c.walk
		c.walk = r.nextRead // moved on by whoever ends that one meanwhile
		c.lateRead(r, now)
	}
	c.walk = nil
	c.sweepAt(sweepEvery)
}

// markOverdue finds the ASDs of which reads are old, those included that were overtaken.
func (c *Client) markOverdue(now int64) {
	for _, t := range c.everyTarget() {
		t.overdue, t.drags = false, false
	}
	mark := func(r *rangeRead) {
		if r.judged || r.off {
			return
		}
		age, limit := now-r.since, c.slowAfter(r.class)
		r.t.overdue = r.t.overdue || age >= limit
		r.t.drags = r.t.drags || 2*age >= limit
	}
	for r := c.reads.head; r != nil && now-r.since >= c.hedgeLeast; r = r.nextRead {
		mark(r)
	}
	if c.watched == 0 {
		return
	}
	for r := c.stuck.head; r != nil; r = r.nextRead {
		if mark(r); !r.judged && (r.t.out || now-r.since >= int64(c.opt.ReadTimeout)) {
			r.judged = true
			c.watched--
		}
	}
}

// lateRead does what can be done about one read.
func (c *Client) lateRead(r *rangeRead, now int64) {
	age := now - r.since
	stuck := now-r.waited >= stuckFactor*int64(c.opt.SlowAfter)
	if r.drive != nil && age >= int64(c.opt.ReadTimeout) {
		if p, ok := r.owner.(*part); ok && c.mayStick(r.vec.Len()/buf.PageSize) {
			p.forsake(errs.Unreachable)
			return
		}
	}
	switch {
	case stuck:
		r.judged = r.judged || r.t.out
		r.owner.late(r, lateStuck)
	case r.t.out:
		r.judged = true
		r.owner.late(r, lateOut)
	case age >= r.t.hedgeAfter[r.class]:
		r.owner.late(r, lateSome)
	}
}

// stuckFactor: a read is stuck that is so many times older than Options.SlowAfter. By then its ASD has left the fast
// set, and it was gone round, unless so many are out of that set that too few are left in it; or it has not, as the
// others were no better when they were looked at; and hedges may be used up. None of that is a reason to wait for a
// process that was stopped, for as long as it is, when k others would answer. It is old enough for a busy machine, all
// of whose drives are slow, not to read everything k times over: and rebuilds are counted, and have bounded pages.
const stuckFactor = 25

// late implements readOwner: p's own read takes too long.
func (p *part) late(r *rangeRead, how lateness) {
	c, free := r.c, how != lateSome
	quick, all := c.others(p.ent, p.chunk, p.frag)
	enough := quick >= int(p.ent.k) || how == lateStuck && all >= int(p.ent.k)
	if p.shadow != nil || r.off || !enough || !c.affords(r, free) {
		return
	}
	if r.t.out && r.remote != nil && quick >= int(p.ent.k) {
		// The pages come back at once, and are rebuilt in place.
		c.hedged(r, free)
		r.callOff()
		return
	}
	if !c.startShadow(p) {
		c.deny(r)
		return
	}
	p.shadow.paid = !free
	c.hedged(r, free)
	if how == lateStuck {
		r.waited = c.now() // should that fail, it is not tried again in a circle
	}
}

// others counts the other fragments of a chunk that can be read, and of those the ones in the fast set.
func (c *Client) others(e *entry, chunk, frag int) (quick, all int) {
	for other := range int(e.n) {
		if other == frag {
			continue
		}
		if ref := e.frag(chunk, other); ref.state == refASD && c.reachable(ref.asd) {
			all++
			if !c.isOut(ref.asd) {
				quick++
			}
		}
	}
	return quick, all
}

// startShadow begins a second way to p's bytes; false if there are no pages for it.
func (c *Client) startShadow(p *part) bool {
	n := int(p.n)
	if !c.mayStick(n) || c.pool.Free() < n {
		return false
	}
	h := c.freeShadows
	if h != nil {
		c.freeShadows, h.next = h.next, nil
	} else {
		h = &part{c: c}
	}
	h.dst.Reset()
	c.pool.AllocReserved(&h.dst, n)
	c.shadows++
	c.shadowPages += n
	h.begin(p.ent, p.chunk, p.frag, p.off, p.n)
	h.of, h.isShadow, p.shadow = p, true, h
	h.ownSums = append(h.ownSums[:0], p.sums...) // the caller's may be used again when the part is done
	h.sums = h.ownSums
	h.lost(errs.Unreachable)
	c.rebuild.push(h)
	return true
}

// shadowOver is the end of a shadow, one way or another.
func (c *Client) shadowOver(h *part, kind errs.Kind) {
	p := h.of
	c.shadows--
	c.shadowPages -= int(h.n)
	if p != nil {
		p.shadow = nil
	}
	switch {
	case p == nil: // dropped
		c.pool.ReleaseVec(&h.dst)
	case kind == errs.OK:
		c.won(h.paid)
		p.f.exchange(&c.sub, p.first, &h.dst)
		h.dst.Reset()
		if p.rr != nil {
			if !p.rr.cached {
				p.rr.t.beaten()
			}
			p.rr.abandon()
			p.rr = nil
		} else {
			c.pool.ReleaseVec(&p.dst)
		}
		c.partOver(p, errs.OK)
	default:
		c.pool.ReleaseVec(&h.dst)
		switch {
		case p.rr != nil:
		case c.closing:
			c.partOver(p, errs.Closed)
		default:
			c.rebuild.push(p)
		}
	}
	h.of, h.ent, h.sums = nil, nil, nil
	h.next, c.freeShadows = c.freeShadows, h
}

// drop ends p's shadow, which nobody needs any more.
func (p *part) drop() {
	h := p.shadow
	if h == nil {
		return
	}
	p.shadow, h.of = nil, nil
	if h.step != nil {
		h.step.read()
	} else {
		p.c.rebuild.unline(h)
	}
}

// unwanted reports whether p is a shadow that was dropped.
func (p *part) unwanted() bool { return p.isShadow && p.of == nil }

// forsake ends p although its own read is under way and nothing takes its place. The fetch has failed with that: in
// place of p's pages its Dst has zeros, which belong to nobody. REQUIRES: mayStick, or the Client is closing.
func (p *part) forsake(kind errs.Kind) {
	c := p.c
	p.drop()
	c.zeros.Reset()
	c.pool.AddZeros(&c.zeros, int(p.n)*ids.BlockSize)
	p.f.exchange(&c.sub, p.first, &c.zeros)
	p.f.spoiled = true
	p.rr.abandon()
	p.rr = nil
	c.partOver(p, kind)
}

// exchange puts v in the place of the pages of Dst from block first on.
func (f *Fetch) exchange(tmp *buf.Vec, first uint32, v *buf.Vec) {
	at, n, all := first*ids.BlockSize, uint32(v.Len()), uint32(f.Dst.Len())
	tmp.Reset()
	subVec(tmp, &f.Dst, 0, at)
	for _, s := range v.Segs {
		tmp.Add(s)
	}
	subVec(tmp, &f.Dst, at+n, all-at-n)
	f.Dst.Segs = append(f.Dst.Segs[:0], tmp.Segs...)
	f.seek()
}
