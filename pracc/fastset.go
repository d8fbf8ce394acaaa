package pracc

import (
	"slices"
	"time"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// The fast set are the ASDs that are read from. One that lags behind the others, or fails, leaves it: its
// fragments are rebuilt from others at once, and only probes find out whether it is well again.
//
//	          a read older than slowAfter, a median beyond the others' p95,
//	          or failures or lost races in a row; most others being better off
//	in ───────────────────────────────────────────────────────────────────> out
//	 ^                                                                       │ probe: 4 KiB of what was wanted last,
//	 └────────────────── probesGood of them in a row in good time ───────────┘ one at a time, 10 ms to 1 s apart
//
// Slow is what is slow beside the others. When a busy machine makes all of them slow nobody leaves, and hedges are
// all there is. The set says who is asked first and never who may be asked at all: with fewer than k others in it
// a fragment's own ASD is read as if nothing were wrong.
const (
	slowFactor = 4
	failsMax   = 8
	lossesMax  = 4
	probesGood = 3
	probeLeast = int64(10 * time.Millisecond)
	probeMost  = int64(time.Second)
	// flapNanos: one that leaves so soon after it came back is probed more slowly.
	flapNanos = int64(5 * time.Second)
	// regroupEvery is how often the others' latency is looked at.
	regroupEvery = int64(10 * time.Millisecond)
	// coldNanos is what stands for the p95 of ASDs that were not read often enough to have one.
	coldNanos = int64(10 * time.Millisecond)
)

// group is what ASDs of the fast set do in the middle.
type group struct {
	at   int64 // when it was computed
	p95  [sizeClasses]int64
	list []int64
}

// regroup finds the median of the p95s. Of two it is the lower: beside one other a slow one must not make itself
// the measure.
func (c *Client) regroup(now int64) {
	if g := &c.group; g.at == 0 || now-g.at >= regroupEvery {
		g.at = now
		for class := range sizeClasses {
			g.list = g.list[:0]
			for _, t := range c.everyTarget() {
				if p := t.lat[class].p95; p > 0 && !t.out {
					g.list = append(g.list, p)
				}
			}
			if n := len(g.list); n > 0 {
				slices.Sort(g.list)
				g.p95[class] = g.list[(n-1)/2]
			}
		}
		for _, t := range c.everyTarget() {
			c.setHedgeAfter(t)
		}
		c.hedgeLeast = c.leastHedge()
	}
}

func (c *Client) everyTarget() []*target {
	if l := c.asds.Load(); l != nil {
		return *l
	}
	return nil
}

// setHedgeAfter: its own p95, unless that is far beyond the others'.
func (c *Client) setHedgeAfter(t *target) {
	for class := range sizeClasses {
		d, g := t.lat[class].p95, c.group.p95[class]
		switch {
		case d == 0 && g == 0:
			d = coldNanos
		case d == 0:
			d = g
		case g > 0:
			d = min(d, slowFactor*g)
		}
		t.hedgeAfter[class] = max(d, int64(c.opt.HedgeAfter))
	}
	c.hedgeLeast = min(c.hedgeLeast, t.hedgeAfter[sizeSmall], t.hedgeAfter[sizeLarge])
}

func (c *Client) leastHedge() int64 {
	least := int64(time.Hour)
	if c.opt.Cache != nil { // it may be all that was ever read
		least = nearLate
	}
	for _, t := range c.everyTarget() {
		least = min(least, t.hedgeAfter[sizeSmall], t.hedgeAfter[sizeLarge])
	}
	return least
}

// slowAfter is the age at which a read makes its ASD leave.
func (c *Client) slowAfter(class sizeClass) int64 {
	g := c.group.p95[class]
	if g == 0 {
		g = coldNanos
	}
	return max(slowFactor*g, int64(c.opt.SlowAfter))
}

// inTime is how long a read of one that is well may take: a probe, or the half of its reads.
func (c *Client) inTime(class sizeClass) int64 {
	return max(slowFactor*c.group.p95[class], 2*int64(c.opt.HedgeAfter))
}

// judge lets those leave whose reads are overdue. REQUIRES: overdue and drags are those of now.
func (c *Client) judge(now int64) {
	for _, t := range c.everyTarget() {
		if t.overdue && !t.out && c.mostOthers(t, func(o *target) bool { return !o.drags }) {
			c.leave(t, now)
		}
	}
}

// judgeMedian lets one leave that answers in less than slowAfter, but half of the time later than the others
// nearly ever do: no read of it is old enough to be noticed, and hedges would do for one of twenty.
func (c *Client) judgeMedian(t *target, class sizeClass) {
	if t.out || c.group.p95[class] == 0 || t.lat[class].p50 <= c.inTime(class) {
		return
	}
	if c.mostOthers(t, func(o *target) bool { return o.lat[class].p50 <= c.inTime(class) }) {
		c.leave(t, c.now())
	}
}

// judgeFails lets one leave that only fails.
func (c *Client) judgeFails(t *target) {
	if !t.out && c.mostOthers(t, func(o *target) bool { return o.fails < failsMax/2 }) {
		c.leave(t, c.now())
	}
}

// beaten counts a read of t that was overtaken by others. With little to do all of its reads may be, and none gets
// old. It must have been silent for long, too: some lose a few races by chance.
func (t *target) beaten() {
	c := t.probe.c
	now, limit := c.now(), c.slowAfter(sizeSmall)
	t.losses = min(t.losses, lossesMax-1) + 1
	if t.losses == lossesMax && !t.out && now-t.heard >= limit &&
		c.mostOthers(t, func(o *target) bool { return now-o.heard < limit || o.flying == 0 }) {
		c.leave(t, now)
	}
}

// mostOthers reports whether f is true of at least half of the others in the fast set, and there are any.
func (c *Client) mostOthers(t *target, f func(*target) bool) bool {
	n, good := 0, 0
	for _, o := range c.everyTarget() {
		if o == t || o.out {
			continue
		}
		n++
		if f(o) {
			good++
		}
	}
	return n > 0 && 2*good >= n
}

func (c *Client) leave(t *target, now int64) {
	t.out = true
	c.outs++
	t.stats.Left.Inc()
	t.stats.Fast.Set(0)
	p := &t.probe
	if p.good, p.wait = 0, probeLeast; t.back != 0 && now-t.back < flapNanos {
		p.wait = min(2*p.paced, probeMost)
	}
	p.paced = p.wait
	p.at = now + p.wait
}

// rejoin: what was known of its latency is of the time when it was ill.
func (c *Client) rejoin(t *target, now int64) {
	t.out, t.back, t.fails, t.losses, t.troubled = false, now, 0, 0, 0
	c.outs--
	t.stats.Fast.Set(1)
	t.lat = [sizeClasses]latency{}
	c.setHedgeAfter(t)
	t.probe.ent = nil
}

// probe finds out whether an ASD that is out of the fast set is well again: one small read at a time, of what
// somebody wanted of it last.
type probe struct {
	c *Client
	t *target

	ent         *entry // nil: nobody wanted anything
	chunk, frag int
	off         uint32
	r           *rangeRead // under way
	page        buf.Vec
	good        uint8
	at          int64 // when the next may begin
	wait        int64 // from a bad one to the next
	paced       int64 // with what wait it left
}

// wanted notes what would have been read of an ASD that is out.
func (c *Client) wanted(id ids.ASDID, e *entry, chunk, frag int, off uint32) {
	p := &c.targets[id].probe
	p.ent, p.chunk, p.frag, p.off = e, chunk, frag, off
	if p.r == nil && !c.prober.Armed() {
		c.loop.After(&c.prober, time.Duration(max(p.at-c.now(), 0)))
	}
}

// probeAll is the timer's: it starts every probe that is due.
func (c *Client) probeAll() {
	now, next := c.now(), int64(-1)
	for _, t := range c.everyTarget() {
		p := &t.probe
		if !t.out || p.r != nil || p.ent == nil {
			continue
		}
		if now >= p.at {
			p.start(now)
		}
		if p.r == nil && p.ent != nil && (next < 0 || p.at < next) {
			next = p.at
		}
	}
	if next >= 0 {
		c.loop.After(&c.prober, time.Duration(max(next-now, 0)))
	}
}

func (p *probe) start(now int64) {
	c := p.c
	if c.closing || !c.pool.AllocReserved(&p.page, 1) {
		p.next(now, false)
		return
	}
	c.stats.Probes.Inc()
	var kind errs.Kind
	p.r, kind = c.read(p, p.t.id, p.ent.fragKey(p.chunk, p.frag), p.off, ids.BlockSize, &p.page)
	if kind != errs.OK {
		c.pool.ReleaseVec(&p.page)
		p.ended(kind, now, 0)
		return
	}
	p.r.setAlone()
}

// readDone implements readOwner.
func (p *probe) readDone(r *rangeRead) {
	c, now := p.c, p.c.now()
	p.r = nil
	c.pool.ReleaseVec(&p.page)
	p.ended(r.kind, now, now-r.since)
	if !c.closing && p.t.out && p.ent != nil {
		c.loop.After(&c.prober, time.Duration(max(p.at-now, 0))) // early for others, which does no harm
	}
}

// late implements readOwner; sweep does not look at probes.
func (p *probe) late(*rangeRead, lateness) {}

func (p *probe) ended(kind errs.Kind, now, ns int64) {
	c := p.c
	switch kind {
	case errs.Closed:
		return
	case errs.Absent, errs.Corrupt, errs.Invalid:
		c.faulty(p.ent, p.chunk, p.frag, kind)
		p.ent = nil // an answer, but not the drive's; another fragment tells
		p.next(now, true)
		return
	case errs.OK:
	default:
		c.faulty(p.ent, p.chunk, p.frag, kind)
		p.next(now, false)
		return
	}
	if ns > c.inTime(sizeSmall) {
		p.next(now, true) // it lives, so it need not be waited for long
		return
	}
	if p.good++; p.good >= probesGood {
		c.rejoin(p.t, now)
		return
	}
	p.at, p.wait = now, max(p.paced, probeLeast)
}

// next sets the time of the next probe after one that was not good; alive if there was an answer at all.
func (p *probe) next(now int64, alive bool) {
	p.good = 0
	if alive {
		p.wait = max(p.paced, probeLeast)
	}
	p.at = now + p.wait
	p.wait = min(2*p.wait, probeMost)
}
