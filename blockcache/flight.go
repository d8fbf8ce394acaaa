package blockcache

import "vstor/blockcache/policy"

// flight knows which blocks are being read, so that a second reader of one waits for the first.
type flight struct {
	heads  [flightHeads]*claim
	free   *claim
	waits  *wait // free ones
	claims int
}

const flightHeads = 1024 // a power of two

// claim says that a run reads parts of a cache block.
type claim struct {
	key   policy.Key
	parts uint64
	r     *run
	at    int    // index in the run of part 0; negative if the run begins later
	chain *claim // hash chain, or the free list
	next  *claim // of the run
}

// wait is blocks that a fetch gets from another's run.
type wait struct {
	x     *fetch
	first int // index in the fetch
	at    int // index in the run
	n     int
	next  *wait
}

func (f *flight) head(k policy.Key) **claim { return &f.heads[k.Hash()&(flightHeads-1)] }

// claim enters a run for what it reads.
func (c *Cache) claim(r *run) {
	f := &c.flight
	for n := 0; n < int(r.Count); {
		k, part := c.key(r.NS, r.SCO, r.Off+uint32(n))
		run := min(1<<c.shift-part, int(r.Count)-n)
		cl := f.free
		if cl == nil {
			cl = &claim{}
		} else {
			f.free = cl.chain
		}
		at := f.head(k)
		*cl = claim{key: k, parts: partsMask(part, run), r: r, at: n - part, chain: *at, next: r.claims}
		*at = cl
		r.claims = cl
		f.claims++
		n += run
	}
}

// unclaim takes a run's claims back.
func (c *Cache) unclaim(r *run) {
	f := &c.flight
	for r.claims != nil {
		cl := r.claims
		r.claims = cl.next
		at := f.head(cl.key)
		for *at != cl {
			at = &(*at).chain
		}
		*at = cl.chain
		*cl = claim{chain: f.free}
		f.free = cl
		f.claims--
	}
}

// claimed finds the run that reads a block with this checksum, and where in the run it is; nil if none does.
func (c *Cache) claimed(k policy.Key, part int, sum uint32) (*run, int) {
	for cl := *c.flight.head(k); cl != nil; cl = cl.chain {
		if cl.key == k && cl.parts&(1<<part) != 0 && cl.r.Sums[cl.at+part] == sum {
			return cl.r, cl.at + part
		}
	}
	return nil, 0
}

// await makes a fetch wait for one block of a run.
func (c *Cache) await(x *fetch, i int, r *run, at int) {
	if w := r.waits; w != nil && w.x == x && w.first+w.n == i && w.at+w.n == at {
		w.n++
		return
	}
	w := c.flight.waits
	if w == nil {
		w = &wait{}
	} else {
		c.flight.waits = w.next
	}
	*w = wait{x: x, first: i, at: at, n: 1, next: r.waits}
	r.waits = w
	x.left++
}
