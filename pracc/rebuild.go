package pracc

import (
	"math/bits"
	"slices"

	"vstor/dataplane/block"
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

	srcs   []source // other fragments of the chunk, best first
	tried  int      // started, or found unfit
	need   int      // how many must have been read
	good   int
	flying int
	last   int       // good at the last decoding
	worst  errs.Kind // why sources failed

	job decode
}

// source is one fragment that a rebuild may read.
type source struct {
	rb   *rebuild
	rr   rangeRead
	frag uint8
	good bool
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
	e := p.f.ent
	if len(rb.srcs) < int(e.k) {
		c.stats.RebuildFailed.Inc()
		c.partOver(rs.pop(), toCaller(worse(p.kind, rb.worst)))
		return true
	}
	if !rs.takeScratch(c, rb) {
		c.waits(p)
		return false
	}
	rs.pop()
	rs.free, rb.next = rb.next, nil
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

// read starts sources until enough are read or under way, and decodes when none is under way.
func (rb *rebuild) read() {
	p, e := rb.p, rb.p.f.ent
	for rb.good+rb.flying < rb.need && rb.tried < len(rb.srcs) && !rb.c.closing {
		s := &rb.srcs[rb.tried]
		rb.tried++
		ref := e.frag(p.chunk, int(s.frag))
		off := p.off + rb.lo<<ids.BlockShift
		kind := s.rr.start(ref.asd, e.fragKey(p.chunk, int(s.frag)), off, rb.n<<ids.BlockShift, &s.vec)
		if kind == errs.OK {
			rb.flying++
			continue
		}
		rb.worst = worse(rb.worst, kind)
		rb.c.faulty(e, p.chunk, int(s.frag), kind)
	}
	switch {
	case rb.flying > 0:
	case rb.c.closing:
		rb.over(errs.Closed)
	case rb.good < int(e.k):
		rb.over(worse(p.kind, rb.worst))
	case rb.good == rb.last: // no new source, and what there is does not match
		rb.over(rb.mismatch())
	default:
		rb.decode()
	}
}

// readDone implements readOwner: a source ended.
func (s *source) readDone(r *rangeRead) {
	rb := s.rb
	rb.flying--
	if r.kind == errs.OK {
		s.good = true
		rb.good++
	} else {
		rb.worst = worse(rb.worst, r.kind)
		rb.c.faulty(rb.p.f.ent, rb.p.chunk, int(s.frag), r.kind)
	}
	rb.read()
}

// decode computes the wanted blocks from the sources that were read: here if that is quick, else in a
// worker. The first time there are just k of them; if the result does not match, all others are read and
// it is done again with every combination.
func (rb *rebuild) decode() {
	c, p := rb.c, rb.p
	j := &rb.job
	j.pool, j.dst, j.dstOff = c.pool, &p.dst, rb.lo<<ids.BlockShift
	j.sums = p.f.Sums[p.first+rb.lo : p.first+rb.lo+rb.n]
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
	codec, err := c.opt.Codecs.Codec(int(p.f.ent.k), int(p.f.ent.n)-int(p.f.ent.k))
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
	c.jobs.start(c, rb)
}

// decoded goes on after the job.
func (rb *rebuild) decoded() {
	c, p, j := rb.c, rb.p, &rb.job
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
	case c.closing:
		rb.over(errs.Closed)
	case rb.tried < len(rb.srcs):
		rb.need = len(rb.srcs)
		rb.read()
	default:
		// Every source that could be read was used. A block that is in none of their combinations may still
		// be in one with a source that did not answer.
		rb.over(rb.mismatch())
	}
}

// mismatch is the failure of a step whose sources were read and do not give what matches. If one did not
// answer, the part's own fragment among them, it might have been the one that would.
func (rb *rebuild) mismatch() errs.Kind { return worse(errs.Corrupt, worse(rb.p.kind, rb.worst)) }

// accuse reports the fragments in set, whose bytes contradict a result that matches.
func (rb *rebuild) accuse(set uint64) {
	e, p := rb.p.f.ent, rb.p
	for ; set != 0; set &= set - 1 {
		frag := bits.TrailingZeros64(set)
		rb.c.stats.Corrupt.Inc()
		rb.c.targetOf(e.frag(p.chunk, frag).asd).stats.Corrupt.Inc()
		rb.c.faulty(e, p.chunk, frag, errs.Corrupt)
	}
}

// over ends the step: its pages and its slot go back, and the part goes on or ends. No source is under way.
func (rb *rebuild) over(kind errs.Kind) {
	c, p, rs := rb.c, rb.p, &rb.c.rebuild
	rb.p = nil
	if rb.pages > 0 {
		c.pool.ReleaseVec(&rb.scratch)
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
		p.f.Via = max(p.f.Via, block.FromRebuild)
		c.partOver(p, errs.OK)
	case kind == errs.OK && !c.closing:
		c.stats.Rebuilds.Inc()
		rs.push(p) // behind the others: a long part does not hold them up
	case c.closing:
		c.partOver(p, errs.Closed)
	default:
		c.stats.RebuildFailed.Inc()
		c.partOver(p, toCaller(kind))
	}
}
