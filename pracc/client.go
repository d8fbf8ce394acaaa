package pracc

import (
	"context"
	"sync/atomic"
	"syscall"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
	"vstor/dataplane/ring"
)

// Client reads ranges of objects on one loop. See the package comment.
type Client struct {
	loop  *ring.Loop
	pool  *buf.Pool
	opt   Options
	stats Stats
	cache cache

	targets map[ids.ASDID]*target
	near    target                    // stands for Options.Cache
	asds    atomic.Pointer[[]*target] // the same, for EachASD
	outs    int                       // of them, out of the fast set
	group   group
	prober  ring.Timer
	rots    [rotSlots]rotSlot
	sub     buf.Vec // a list in the making
	zeros   buf.Vec

	// Fetches. Each is in at most one of: waiting, ended, parked, a lookup's lists; or only its parts know it.
	waiting fetchList // have blocks that no part reads yet
	ended   fetchList // FetchDone is due
	parked  fetchList // failed, and begin anew when unpark fires
	unpark  ring.Timer
	live    int // between Fetch and FetchDone

	parts   []part // all of them, but shadows
	free    *part
	flying  int
	rebuild rebuilds

	// Reads of ASDs: waited for and stuck, see rangeRead; and what is done about those that are late.
	reads      readList
	stuck      readList
	reading    int // all that are under way
	stuckReads int
	stuckPages int
	watched    int // stuck reads for which their ASDs may still have to leave the fast set
	freeReads  *rangeRead
	sweeper    ring.Timer
	sweepDue   int64
	sweptLate  bool
	walk       *rangeRead // sweep's next
	hedgeLeast int64      // the least age at which a read may be late

	pacing      pacing
	shadows     int
	shadowPages int
	freeShadows *part

	lookups                map[objKey]*lookup
	lookupHead, lookupTail *lookup // in line, through lookup.next
	nlookups, asking       int
	ctx                    context.Context
	cancel                 context.CancelFunc

	jobs jobs

	// wake ends fetches that ended inside Fetch or FetchDone. anchor is held by the loop from the first
	// Fetch on: when the loop stops it comes back canceled, and what waits for goroutines ends with it.
	wake, anchor ring.Op
	anchorToken  uint64
	anchored     bool
	closing      bool // no fetch and no rebuild begins any more
	stopped      bool // the loop has stopped: no goroutine's answer will come
	released     bool // the floor is back in the pool
	onClosed     func()
	grace        ring.Timer
	forced       bool         // the grace is over
	clock        func() int64 // of a test, instead of the loop's
}

// New makes a Client for a loop. It is called on the loop or before the loop runs, and takes
// Options.FloorBytes of its pool, from the reserve if need be.
func New(loop *ring.Loop, opt Options) (*Client, error) {
	opt.EnsureDefaults()
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	c := &Client{loop: loop, pool: loop.Pool(), opt: opt,
		targets: make(map[ids.ASDID]*target), lookups: make(map[objKey]*lookup)}
	c.cache.init(opt.CacheBytes)
	if err := c.rebuild.init(c); err != nil {
		return nil, err
	}
	c.parts = make([]part, opt.Ranges)
	for i := range c.parts {
		p := &c.parts[i]
		p.c = c
		p.next, c.free = c.free, p
	}
	c.pacing.init(c.opt.HedgePercent)
	c.hedgeLeast = max(coldNanos, int64(c.opt.HedgeAfter))
	c.sweeper.Fire, c.prober.Fire, c.grace.Fire = c.sweepTimer, c.probeAll, c.force
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.near.hedgeAfter = [sizeClasses]int64{nearLate, nearLate}
	c.unpark.Fire = c.unparkAll
	c.wake.Done = (*waker)(c)
	c.anchor.Done = (*anchor)(c)
	return c, nil
}

// now is the Client's time, which is the loop's.
func (c *Client) now() int64 {
	if c.clock != nil {
		return c.clock()
	}
	return c.loop.Now()
}

// Fetch starts f. FetchDone follows, never from inside this call.
func (c *Client) Fetch(f *Fetch) {
	n := int(f.Blocks)
	if n == 0 || len(f.Sums) != n || f.Dst.Len() != n*ids.BlockSize || f.Done == nil {
		invariants.Fail("pracc: fetch of %d blocks with %d checksums into %d bytes of pages",
			n, len(f.Sums), f.Dst.Len())
	}
	if invariants.Enabled {
		for _, s := range f.Dst.Segs {
			invariants.Assert(s.Off == 0 && s.Len%ids.BlockSize == 0, "pracc: fetch into part of a page")
		}
	}
	f.fetchState = fetchState{since: c.now()}
	f.Err, f.Via = errs.OK, block.FromNothing
	c.live++
	c.stats.Fetches.Inc()
	if !c.anchored && !c.closing {
		c.anchored = true
		c.anchorToken = c.loop.Hold(&c.anchor)
	}
	e := c.cache.get(objKey{f.NS, f.SCO})
	switch {
	case c.closing:
		f.Err = errs.Closed
		c.ended.push(f)
	case e == nil:
		c.miss(f)
	default:
		c.stats.Hits.Inc()
		c.admit(f, e)
		c.advance()
	}
	c.endLater()
}

// admit lets a fetch whose manifest is known stand in line for parts, from its first block.
func (c *Client) admit(f *Fetch, e *entry) {
	f.ent = e
	f.cursor, f.seg, f.segOff = 0, 0, 0
	switch {
	case e.answer != errs.OK:
		f.Err = e.answer
	case uint64(f.Off)+uint64(f.Blocks) > uint64(e.blocks):
		f.Err = errs.Invalid
	default:
		f.queued = true
		c.waiting.push(f)
		return
	}
	c.ended.push(f)
}

// advance starts whatever can start: rebuilds first, as their fetches are the oldest.
func (c *Client) advance() {
	for {
		for c.rebuild.startNext(c) {
		}
		if c.waiting.head == nil || c.free == nil {
			break
		}
		c.issue(c.waiting.head)
	}
	c.stats.RangesFlying.Set(int64(c.flying))
}

// issue hands blocks of the first fetch in line to parts.
func (c *Client) issue(f *Fetch) {
	for f.cursor < f.Blocks && f.Err == errs.OK {
		if c.free == nil {
			return
		}
		c.startPart(f)
	}
	c.waiting.pop()
	f.queued = false
	if f.flying == 0 {
		c.over(f)
	}
}

// refreshesMax is how often a fetch that fails may begin anew with a manifest that has changed. Once does
// in practice; repairs that follow each other closely may overtake a fetch on a slow drive twice. If the
// manifest is the same as before the fetch ends at once.
const refreshesMax = 3

// over is where a fetch comes when none of its parts is under way and none will be.
func (c *Client) over(f *Fetch) {
	switch {
	case f.Err == errs.OK:
		c.stats.Blocks.Add(uint64(f.Blocks))
		c.stats.Bytes.Add(uint64(f.Blocks) * ids.BlockSize)
	case c.closing:
		f.Err = errs.Closed
	case f.spoiled: // it has not all its pages any more
		f.Err = toCaller(f.Err)
	case f.refreshed > 0 && c.park(f):
		return
	case f.refreshed < refreshesMax:
		f.refreshed++
		c.refresh(f)
		return
	}
	c.ended.push(f)
}

// settle is the end of everything that happens to the Client from outside Fetch: it starts what
// became possible and tells the callers of what ended. What they start in turn ends in a later round, so
// that one who asks again and again for what fails at once cannot keep the loop here.
func (c *Client) settle() {
	c.advance()
	l := c.ended.take()
	for f := l.pop(); f != nil; f = l.pop() {
		c.live--
		if f.Err != errs.OK {
			c.stats.Failed.Inc()
		}
		f.ent = nil
		f.Done.FetchDone(f)
	}
	c.endLater()
	c.finishClose()
}

// endLater sees to it that settle comes by if anything ended.
func (c *Client) endLater() {
	if c.ended.head != nil && c.wake.Idle() {
		c.loop.Defer(&c.wake, 0)
	}
}

// waker is Client as the Completer of wake.
type waker Client

func (w *waker) RingDone(*ring.Op, int32) { (*Client)(w).settle() }

// anchor is Client as the Completer of anchor: the loop stops, or the Client's own Close took it back.
type anchor Client

func (a *anchor) RingDone(_ *ring.Op, res int32) {
	c := (*Client)(a)
	if res != -int32(syscall.ECANCELED) {
		return
	}
	c.shut()
	c.stopped = true
	// Workers use pages of the pool and can post no more. What they do is bounded and needs no IO.
	c.jobs.wg.Wait()
	c.jobs.drain(c)
	c.settle()
}

// closeGrace is how long Close waits for reads of drives that do not return.
const closeGrace = time.Second

// Close calls off what is under way, ends what waits with Closed, and calls done (which may be nil) on the loop
// once nothing of the loop is used any more and no goroutine of the Client is left. Never inside Close. But a
// read that its drive does not end within a second is not waited for: its pages and its pin stay with it, and return
// when it ends, before the loop has stopped. A loop that is stopped instead does the same, apart from waiting for
// lookups, whose answers nobody hears. On the loop, or after it has ended, where done is called at once.
func (c *Client) Close(done func()) {
	c.shut()
	if c.stopped || !c.loop.OnLoop() {
		invariants.Assert(c.live == 0, "pracc: closed off its loop with %d fetches under way", c.live)
		c.release()
		if done != nil {
			done()
		}
		return
	}
	c.loop.After(&c.grace, closeGrace)
	c.onClosed = done
	if c.wake.Idle() {
		c.loop.Defer(&c.wake, 0)
	}
}

// shut stops everything from beginning.
func (c *Client) shut() {
	if c.closing {
		return
	}
	c.closing = true
	c.cancel()
	for f := c.waiting.pop(); f != nil; f = c.waiting.pop() {
		f.queued = false
		f.Err = errs.Closed
		if f.flying == 0 {
			c.ended.push(f)
		}
	}
	for f := c.parked.pop(); f != nil; f = c.parked.pop() {
		f.Err = errs.Closed
		c.ended.push(f)
	}
	c.loop.StopTimer(&c.unpark)
	c.loop.StopTimer(&c.sweeper)
	c.loop.StopTimer(&c.prober)
	c.callOffAll()
	for key, q := range c.lookups {
		for f := q.waiting.pop(); f != nil; f = q.waiting.pop() {
			c.answered(f, nil, errs.Closed)
		}
		for f := q.late.pop(); f != nil; f = q.late.pop() {
			c.answered(f, nil, errs.Closed)
		}
		if !q.running {
			delete(c.lookups, key)
			c.nlookups--
		}
	}
	c.lookupHead, c.lookupTail = nil, nil
	c.rebuild.shut(c)
	c.endLater()
}

// callOffAll asks all reads to end. Their ends come later.
func (c *Client) callOffAll() {
	for r := c.reads.head; r != nil; r = r.nextRead {
		r.callOff()
	}
	for r := c.stuck.head; r != nil; r = r.nextRead {
		r.callOff()
	}
	for _, t := range c.everyTarget() {
		if r := t.probe.r; r != nil {
			r.callOff()
		}
	}
}

// force is the timer's: a drive that does not return does not hold up Close.
func (c *Client) force() {
	c.forced = true
	for c.walk = c.reads.head; c.walk != nil; {
		r := c.walk
		c.walk = r.nextRead
		switch o := r.owner.(type) {
		case *part:
			o.forsake(errs.Closed)
		case *source:
			o.rb.giveUp()
		}
	}
	for _, t := range c.everyTarget() {
		if p := &t.probe; p.r != nil {
			p.r.abandon()
			p.r = nil
			p.page.Reset()
		}
	}
	c.settle()
}

// finishClose completes a Close or a stop once all is quiet.
func (c *Client) finishClose() {
	busy := c.live > 0 || c.flying > 0 || c.shadows > 0 || c.reading > 0 && !c.forced || c.asking > 0 && !c.stopped
	if !c.closing || busy {
		return
	}
	c.loop.StopTimer(&c.grace)
	if c.anchored && !c.stopped && !c.loop.Unhold(&c.anchor, c.anchorToken) {
		return // the loop is stopping and brings it back itself
	}
	c.anchored = false
	c.release()
	if done := c.onClosed; done != nil {
		c.onClosed = nil
		done()
	}
}

// release gives the floor back, once.
func (c *Client) release() {
	if !c.released {
		c.released = true
		c.pool.ReleaseVec(&c.rebuild.floor)
	}
}
