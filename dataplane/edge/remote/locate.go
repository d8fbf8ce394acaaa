package remote

import (
	"vstor/dataplane/block"
	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// Locations are looked up by groups of as many blocks as one answer has, because a read missed one: the read itself
// goes to the router at once, which is one way there and back; to wait for the location and then read would be two.
// For somebody who reads on they are looked up before he comes, see front.

// group is a run of blocks that are looked up together.
type group uint32

const groupBlocks = proto.BlocksMax

func groupOf(addr ids.BlockAddr) group { return group(addr / groupBlocks) }

const (
	// lookupsMax bounds the look-ups under way.
	lookupsMax = 32
	// recentMax is of how many groups it is known when they were looked up.
	recentMax = 256
)

// recent is when a group was looked up last.
type recent struct {
	life uint32
	g    group
	at   int64
}

// Holds reads the clock and reports whether the lease runs; what was kept under one that does not is forgotten.
func (r *Remote) Holds() bool { return r.until != 0 && r.runsAt(r.opt.Clock()) }

func (r *Remote) runsAt(now int64) bool {
	if now < r.until {
		return true
	}
	r.Stats.LeaseLost.Inc()
	r.forget()
	return false
}

// forget drops all that was kept, and the lease.
func (r *Remote) forget() {
	r.until = 0
	r.life = r.opt.Cache.newLife()
	r.spaces = r.spaces[:0]
}

// Resolve says where blocks lie as far as that is known under the lease; the rest is Asked. It never waits. Whether
// the lease runs it judges by the time of the pass: a clock that is read anew for each request is a system call, and
// proves nothing, for what counts is that the lease still runs when the reply leaves.
func (r *Remote) Resolve(addr ids.BlockAddr, n int, res *block.Resolution, _ block.Loaded) bool {
	if r.until == 0 || !r.runsAt(r.opt.PassClock()) {
		for range n {
			res.Add(block.Piece{Kind: block.Asked}, 0)
		}
		r.Stats.Asked.Add(uint64(n))
		return true
	}
	cache := r.opt.Cache
	page, no, asked, zeros := -1, ^uint32(0), 0, 0
	var first, last ids.BlockAddr
	for i := range n {
		a := addr + ids.BlockAddr(i)
		if p := uint32(a >> pageShift); p != no {
			no, page = p, cache.find(r.life, p)
			if page >= 0 {
				cache.heat(page)
			}
		}
		loc, ok := cache.get(page, a)
		switch {
		case !ok:
			if asked == 0 {
				first = a
			}
			last = a
			asked++
			res.Add(block.Piece{Kind: block.Asked}, 0)
		case loc.Hole():
			zeros++
			res.Add(block.Piece{Kind: block.Zeros}, 0)
		default:
			res.Add(block.Piece{Kind: block.Stored, NS: r.spaces[loc.NS], SCO: loc.SCO, Off: loc.Off}, loc.Sum)
		}
	}
	r.Stats.Asked.Add(uint64(asked))
	r.Stats.Zeros.Add(uint64(zeros))
	r.Stats.Located.Add(uint64(n - asked - zeros))
	if asked > 0 {
		first := groupOf(first)
		r.lookupAll(first, r.front.missed(first, groupOf(last))+1)
	} else if from, end := r.front.passed(groupOf(addr + ids.BlockAddr(n-1))); from < end {
		r.lookAhead(from, end)
	}
	return true
}

// Distrust drops what led a read to nothing.
func (r *Remote) Distrust(addr ids.BlockAddr, n int) { r.invalidate(addr, uint64(n)) }

// lookupAll asks for the locations of the groups [from, end).
func (r *Remote) lookupAll(from, end group) {
	for g := from; g < end && len(r.lookups) < lookupsMax; g++ {
		r.lookup(g)
	}
}

// lookAhead does so for those of which nothing is known.
func (r *Remote) lookAhead(from, end group) {
	for g := from; g < end; g++ {
		if !r.opt.Cache.knows(r.life, uint32(g)*(groupBlocks>>pageShift)) {
			r.lookupAll(g, g+1)
		}
	}
}

// lookup asks for the locations of a group, unless that was done just now.
func (r *Remote) lookup(g group) {
	addr, size := ids.BlockAddr(g)*groupBlocks, ids.BlockAddr(r.size>>ids.BlockShift)
	rec, now := &r.recent[g%recentMax], r.loop.Now()
	if addr >= size || rec.life == r.life && rec.g == g && now-rec.at < int64(r.opt.LookAgain) {
		return
	}
	for _, c := range r.lookups {
		if groupOf(c.addr) == g {
			return
		}
	}
	*rec = recent{r.life, g, now}
	c := r.newCall(proto.TLocations, addr, uint64(min(size-addr, groupBlocks)))
	c.life, c.floor = r.life, r.acked
	c.body = (&proto.Range{Addr: c.addr, Count: c.count}).Append(c.body)
	for x := r.muts; x != nil; x = x.next {
		if c.overlaps(x.m.Addr, x.m.Count) {
			c.spoil(x.m.Addr, x.m.Count)
		}
	}
	r.lookups = append(r.lookups, c)
	r.Stats.Lookups.Inc()
	r.enqueue(c)
}

// located keeps what a look-up found, but for what changed meanwhile.
func (r *Remote) located(c *call, body []byte) error {
	if err := r.locs.Decode(body, c.count); err != nil {
		return err
	}
	r.unsend(c)
	keep := c.life == r.life && r.locs.Seq >= c.floor && r.until != 0
	object := proto.Object{}
	for i, loc := range r.locs.Blocks {
		a := c.addr + ids.BlockAddr(i)
		if !keep || loc.SCO == 0 && loc.Off == layout.OffAsk || c.spoiled && a >= c.lo && a < c.hi {
			continue
		}
		if !loc.Hole() {
			o := proto.Object{NS: r.locs.Spaces[loc.NS], SCO: loc.SCO}
			if loc.NS = r.space(o.NS); o != object {
				object = o
				r.fetchAhead(o)
			}
		}
		r.opt.Cache.put(r.opt.Cache.make(r.life, uint32(a>>pageShift)), a, loc)
	}
	r.dropAhead(c)
	r.sendNext()
	return nil
}

// space is the index of a namespace among those of this life.
func (r *Remote) space(ns ids.NamespaceID) uint16 {
	for i, x := range r.spaces {
		if x == ns {
			return uint16(i)
		}
	}
	r.spaces = append(r.spaces, ns)
	return uint16(len(r.spaces) - 1)
}

// dropAhead ends a call that nobody waits for. It is in no list but that of its kind.
func (r *Remote) dropAhead(c *call) {
	list := &r.lookups
	if c.Type == proto.TManifest {
		list = &r.fetching
	}
	for i, x := range *list {
		if x == c {
			last := len(*list) - 1
			(*list)[i] = (*list)[last]
			(*list)[last] = nil
			*list = (*list)[:last]
			break
		}
	}
	r.pool.ReleaseVec(&c.data)
	r.putCall(c)
}

// Size is the vDisk's size in bytes.
func (r *Remote) Size() int64 { return r.size }

// over is why nothing is taken any more; OK while it is.
func (r *Remote) over() errs.Kind {
	switch {
	case r.fenced != nil:
		return errs.IO
	case r.closing || r.stopped:
		return errs.Closed
	}
	return errs.OK
}
