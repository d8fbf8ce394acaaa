package pracc

import "vstor/dataplane/ids"

// Preference says which of several ASDs that would do is read: replicas, where a policy has k=1, and the sources of
// rebuilds.
type Preference uint8

const (
	// PreferQuick is the one that is expected to answer first.
	PreferQuick Preference = iota
	// PreferLocal is a drive that this process reads itself, if there is one; among equals the quickest.
	PreferLocal
	// PreferNear is the one that Options.Distance says is nearest; among equals the quickest.
	PreferNear
)

// rank orders fragments of a chunk, the smallest first: those known to be rotten last, then ASDs out of the fast
// set, then those in trouble, then by distance, then by how long a read is expected to take behind those under way.
// Among equals the fragments next to from come first, so that readers of different fragments do not all fall
// upon the same k.
//
//	63 rotten   62 out   61 trouble   60..53 distance   52..8 expected, ns   7..0 place
func (c *Client) rank(e *entry, chunk, frag, from int, now int64) uint64 {
	n, ref := int(e.n), e.frag(chunk, frag)
	r := uint64((frag-from+n)%n) | uint64(c.distance(ref.asd))<<53
	each, ahead := int64(1<<latLow), uint64(1) // what nothing is known of is thought quick, so that something will be
	if t := c.targets[ref.asd]; t != nil {
		each, ahead = max(each, t.lat[sizeSmall].guess(now)), uint64(t.flying+1)
		if t.out {
			r |= 1 << 62
		}
		if now < t.troubled {
			r |= 1 << 61
		}
	}
	r |= min(uint64(each)*ahead, 1<<45-1) << 8
	if c.rotten(e.fragKey(chunk, frag), now) {
		r |= 1 << 63
	}
	return r
}

func (c *Client) distance(id ids.ASDID) uint8 {
	switch c.opt.Prefer {
	case PreferLocal:
		if c.opt.Drives == nil || c.opt.Drives(id) == nil {
			return 1
		}
	case PreferNear:
		return c.opt.Distance(id)
	}
	return 0
}

// replica chooses which fragment of a chunk is read where each holds all of it.
func (c *Client) replica(e *entry, chunk int) int {
	best, least, now := 0, ^uint64(0), c.now()
	for frag := range int(e.n) {
		ref := e.frag(chunk, frag)
		if ref.state != refASD || !c.reachable(ref.asd) {
			continue
		}
		r := c.rank(e, chunk, frag, 0, now)
		if c.isOut(ref.asd) {
			c.wanted(ref.asd, e, chunk, frag, 0)
		}
		if r < least {
			best, least = frag, r
		}
	}
	return best
}
