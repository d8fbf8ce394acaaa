package pracc

import (
	"math/bits"
	"slices"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// rebuilds are the steps under way and the parts in line for one.
type rebuilds struct {
	head, tail *part
	free       *rebuild
	going      int
	pages      int     // of scratch, held by steps
	pagesMax   int     // Options.ScratchBytes
	floor      buf.Vec // pages kept back, for the one step that finds the pool empty
}

func (rs *rebuilds) init(c *Client) error {
	rs.pagesMax = int(c.opt.ScratchBytes / buf.PageSize)
	if !c.pool.AllocReserved(&rs.floor, c.opt.MaxFragments) {
		return errs.New(errs.Full, "pracc: the loop's pool has %d pages free; %d are needed to begin with",
			c.pool.Free(), c.opt.MaxFragments)
	}
	for range c.opt.Rebuilds {
		rs.free = &rebuild{c: c, next: rs.free}
	}
	return nil
}

// push puts p in line for its next step.
func (rs *rebuilds) push(p *part) {
	p.next = nil
	if rs.head == nil {
		rs.head = p
	} else {
		rs.tail.next = p
	}
	rs.tail = p
}

func (rs *rebuilds) pop() *part {
	p := rs.head
	rs.head, p.next = p.next, nil
	return p
}

// unline ends a shadow that stands in line and is not needed any more.
func (rs *rebuilds) unline(h *part) {
	at := &rs.head
	var before *part
	for *at != h {
		before = *at
		at = &before.next
	}
	if *at = h.next; h.next == nil {
		rs.tail = before
	}
	h.next = nil
	h.c.partOver(h, errs.Closed)
}

// shut ends the parts in line.
func (rs *rebuilds) shut(c *Client) {
	for rs.head != nil {
		c.partOver(rs.pop(), errs.Closed)
	}
}

// rebuild is one step: up to 64 blocks of one part, from the same range of other fragments.
type rebuild struct {
	c    *Client
	p    *part
	next *rebuild

	lo, n   uint32 // blocks of the part
	want    uint64 // those to rebuild: bit i is block lo+i
	scratch buf.Vec
	pages   int // of scratch; 0 if it is the floor

	srcs     []source // other fragments of the chunk, best first
	tried    int      // started, or found unfit
	need     int      // how many must have been read
	good     int
	flying   int
	late     int       // of those: others were started in their place
	last     int       // good at the last decoding
	worst    errs.Kind // why sources failed
	decoding bool      // a worker has the job
	ending   bool      // over, with result, but for sources that it may not let go of
	result   errs.Kind

	job decode
}

// source is one fragment that a rebuild may read. While it is read it must not move: the read knows it by
// its address.
type source struct {
	rb   *rebuild
	rr   *rangeRead // under way
	frag uint8
	good bool
	slow bool   // its ASD is out of the fast set
	tard bool   // it counts in rebuild.late
	paid bool   // its being late has cost a hedge
	rank uint64 // smaller is better
	vec  buf.Vec
}

// startNext begins the next step in line; false if there is none or it has to wait.
func (rs *rebuilds) startNext(c *Client) bool {
	p := rs.head
	if p == nil || rs.free == nil {
		if p != nil {
			c.waits(p)
		}
		return false
	}
	rb := rs.free
	rb.plan(p)
	e := p.ent
	if len(rb.srcs) < int(e.k) {
		c.stats.RebuildFailed.Inc()
		rs.pop()
		c.unbuilt(p, worse(p.kind, rb.worst))
		return true
	}
	if !rs.takeScratch(c, rb) {
		c.waits(p)
		return false
	}
	rs.pop()
	rs.free, rb.next = rb.next, nil
	p.step = rb
	rs.going++
	c.stats.RebuildsGoing.Set(int64(rs.going))
	rb.share()
	rb.need = int(e.k)
	rb.read()
	return true
}

func (c *Client) waits(p *part) {
	if !p.waited {
		p.waited = true
		c.stats.Waited.Inc()
	}
}

// read starts sources until enough are read or under way, and goes on when there are enough, or no more.
func (rb *rebuild) read() {
	p, e := rb.p, rb.p.ent
	if rb.decoding || rb.ending {
		return
	}
	for rb.good+rb.flying-rb.late < rb.need && rb.tried < len(rb.srcs) && !rb.c.closing && !p.unwanted() {
		s := &rb.srcs[rb.tried]
		rb.tried++
		ref := e.frag(p.chunk, int(s.frag))
		off := p.off + rb.lo<<ids.BlockShift
		var kind errs.Kind
		s.rr, kind = rb.c.read(s, ref.asd, e.fragKey(p.chunk, int(s.frag)), off, rb.n<<ids.BlockShift, &s.vec)
		if kind == errs.OK {
			rb.flying++
			continue
		}
		rb.worst = worse(rb.worst, kind)
		rb.c.faulty(e, p.chunk, int(s.frag), kind)
	}
	switch {
	case rb.c.closing && rb.flying > 0 && !p.unwanted() && !rb.c.forced: // they are called off
	case rb.c.closing || p.unwanted():
		rb.over(errs.Closed)
	case rb.good >= int(e.k) && rb.good > rb.last && (rb.last == 0 || rb.flying == rb.late):
		rb.decode()
	case rb.flying > 0:
	case rb.good < int(e.k):
		rb.over(worse(p.kind, rb.worst))
	default: // no new source, and what there is does not match
		rb.over(rb.mismatch())
	}
}

// readDone implements readOwner: a source ended.
func (s *source) readDone(r *rangeRead) {
	rb := s.rb
	s.rr = nil
	rb.flying--
	if s.tard {
		s.tard = false
		rb.late--
	}
	switch {
	case rb.ending:
		rb.over(rb.result)
		return
	case r.kind == errs.OK:
		s.good = true
		rb.good++
	default:
		rb.worst = worse(rb.worst, r.kind)
		rb.c.faulty(rb.p.ent, rb.p.chunk, int(s.frag), r.kind)
	}
	rb.read()
}

// late implements readOwner: another source is read in this one's place, whichever comes first.
func (s *source) late(r *rangeRead, how lateness) {
	rb, c, free := s.rb, s.rb.c, how != lateSome
	switch {
	case rb.ending:
		rb.over(rb.result)
	case rb.p.unwanted():
		rb.read()
	case s.tard || rb.decoding || rb.tried == len(rb.srcs):
	case how != lateStuck && rb.srcs[rb.tried].slow || !c.affords(r, free):
	default:
		c.hedged(r, free)
		s.tard, s.paid = true, !free
		rb.late++
		rb.read()
	}
}

// decode computes the wanted blocks from the sources that were read: here if that is quick, else in a
// worker. The first time there are just k of them; if the result does not match, all others are read and
// it is done again with every combination.
func (rb *rebuild) decode() {
	c, p := rb.c, rb.p
	j := &rb.job
	j.pool, j.dst, j.dstOff = c.pool, &p.dst, rb.lo<<ids.BlockShift
	j.sums = p.sums[rb.lo : rb.lo+rb.n]
	j.target, j.want, j.triesMax = p.frag, rb.want, 1
	if rb.last > 0 {
		j.triesMax = c.opt.Combinations
	}
	rb.last = rb.good
	j.reset()
	for i := range rb.srcs {
		if s := &rb.srcs[i]; s.good {
			j.add(int(s.frag), &s.vec)
		}
	}
	codec, err := c.opt.Codecs.Codec(int(p.ent.k), int(p.ent.n)-int(p.ent.k))
	if err != nil { // a policy that the manifest's Validate lets pass has a codec
		rb.over(errs.Invalid)
		return
	}
	j.codec = codec
	if j.inline() {
		j.run()
		rb.decoded()
		return
	}
	rb.decoding = true
	c.jobs.start(c, rb)
}

// decoded goes on after the job.
func (rb *rebuild) decoded() {
	c, p, j := rb.c, rb.p, &rb.job
	rb.decoding = false
	fixed := uint64(bits.OnesCount64(j.fixed))
	c.stats.RebuiltBlocks.Add(fixed)
	for i := uint32(0); i < rb.n; i++ {
		if j.fixed&(1<<i) != 0 {
			at := rb.lo + i
			p.bad[at/64] &^= 1 << (at % 64)
		}
	}
	rb.want &^= j.fixed
	rb.accuse(j.rotten &^ p.suspect)
	p.suspect |= j.rotten
	switch {
	case rb.want == 0:
		rb.over(errs.OK)
	default:
		// All that there is is read and used. A block that is in none of their combinations may still be in one
		// with a source that did not answer.
		rb.need = len(rb.srcs)
		rb.read()
	}
}

// mismatch is the failure of a step whose sources were read and do not give what matches. If one did not
// answer, the part's own fragment among them, it might have been the one that would.
func (rb *rebuild) mismatch() errs.Kind { return worse(errs.Corrupt, worse(rb.p.kind, rb.worst)) }

// accuse reports the fragments in set, whose bytes contradict a result that matches.
func (rb *rebuild) accuse(set uint64) {
	e, p := rb.p.ent, rb.p
	for ; set != 0; set &= set - 1 {
		frag := bits.TrailingZeros64(set)
		rb.c.stats.Corrupt.Inc()
		rb.c.targetOf(e.frag(p.chunk, frag).asd).stats.Corrupt.Inc()
		rb.c.faulty(e, p.chunk, frag, errs.Corrupt)
	}
}

// over ends the step: its pages and its slot go back, and the part goes on or ends. Sources that are still under
// way are let go of with their pages. If that is not allowed now, the step ends when they have, or sweep comes by.
func (rb *rebuild) over(kind errs.Kind) {
	c, p, rs := rb.c, rb.p, &rb.c.rebuild
	if !rb.letGo() {
		rb.ending, rb.result = true, kind
		return
	}
	rb.p, p.step, rb.ending, rb.decoding = nil, nil, false, false
	if rb.pages > 0 {
		for i := range rb.srcs {
			c.pool.ReleaseVec(&rb.srcs[i].vec)
		}
		rs.pages -= rb.pages
	}
	rb.scratch.Reset()
	rb.job.reset()
	rs.going--
	rb.next, rs.free = rs.free, rb
	c.stats.ScratchPages.Set(int64(rs.pages))
	c.stats.RebuildsGoing.Set(int64(rs.going))
	switch {
	case kind == errs.OK && slices.Max(p.bad[:]) == 0:
		c.stats.Rebuilds.Inc()
		p.rebuilt()
		c.partOver(p, errs.OK)
	case c.closing || p.unwanted():
		c.partOver(p, errs.Closed)
	case kind == errs.OK:
		c.stats.Rebuilds.Inc()
		rs.push(p) // behind the others: a long part does not hold them up
	default:
		c.stats.RebuildFailed.Inc()
		c.unbuilt(p, kind)
	}
}

// giveUp ends the step although its reads do not: the Client is closing. A worker that has it ends it itself.
func (rb *rebuild) giveUp() {
	if !rb.decoding {
		rb.over(errs.Closed)
	}
}

// letGo abandons the sources that are still under way; false if they must be waited for.
func (rb *rebuild) letGo() bool {
	c := rb.c
	each := int(rb.n)
	if rb.flying == 0 {
		return true
	}
	if !c.mayStick(rb.flying*each) && !c.forced || rb.pages == 0 && !c.rebuild.refloor(c, rb) {
		return false
	}
	for i := range rb.srcs {
		s := &rb.srcs[i]
		if s.rr != nil {
			if s.tard && !rb.p.unwanted() {
				c.won(s.paid)
			}
			s.rr.abandon()
			s.rr, s.tard = nil, false
			s.vec.Reset()
		}
	}
	rb.flying, rb.late = 0, 0
	return true
}

// refloor puts other pages in the place of those that rb's reads keep of the floor; false if the pool has none.
func (rs *rebuilds) refloor(c *Client, rb *rebuild) bool {
	if !c.pool.AllocReserved(&rb.scratch, rb.flying) {
		return false
	}
	rs.floor.Reset()
	subVec(&rs.floor, &rb.scratch, uint32(len(rb.srcs))*buf.PageSize, uint32(rb.scratch.Len()))
	for i := range rb.srcs {
		if s := &rb.srcs[i]; s.rr == nil {
			for _, seg := range s.vec.Segs {
				rs.floor.Add(seg)
			}
		}
	}
	return true
}
