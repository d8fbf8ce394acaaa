package remote

import (
	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
)

// mutation is a change from Mutate to its end: one call, or several where it is too large for one.
type mutation struct {
	r          *Remote
	m          *block.Mutation
	left       int
	err        errs.Kind
	later      ring.Op
	prev, next *mutation // those under way; or free
}

func (r *Remote) newMutation(m *block.Mutation) *mutation {
	x := r.freeMuts
	if x == nil {
		x = &mutation{r: r}
		x.later.Done = x
	} else {
		r.freeMuts = x.next
	}
	x.m, x.left, x.err, x.prev, x.next = m, 0, errs.OK, nil, nil
	return x
}

// Mutate starts a change; see block.Mutation. Changes are sent in the order of the calls.
func (r *Remote) Mutate(m *block.Mutation) {
	m.Err = errs.OK
	x := r.newMutation(m)
	if k := r.over(); k != errs.OK {
		r.pool.ReleaseVec(&m.Data)
		x.err = k
		r.loop.Defer(&x.later, 0)
		return
	}
	if m.Op == block.Sync {
		x.left = 1
		c := r.newCall(proto.TFlush, 0, 0)
		c.mut = x
		r.enqueue(c)
		return
	}
	r.enter(x)
	if m.Op == block.Put {
		r.put(x)
		return
	}
	t := proto.TTrim
	if m.Op == block.ZeroFill {
		t = proto.TZero
	}
	x.left = 1
	c := r.newCall(t, m.Addr, m.Count)
	c.mut = x
	c.body = (&proto.Range{Addr: c.addr, Count: c.count}).Append(c.body)
	r.enqueue(c)
}

// RingDone is the deferred end of a change that was not taken.
func (x *mutation) RingDone(*ring.Op, int32) { x.end() }

// put sends a change of content, in parts of a megabyte.
func (r *Remote) put(x *mutation) {
	m := x.m
	n := int(m.Count)
	x.left = (n + proto.BlocksMax - 1) / proto.BlocksMax
	for from := 0; from < n; from += proto.BlocksMax {
		take := min(n-from, proto.BlocksMax)
		c := r.newCall(proto.TWrite, m.Addr+ids.BlockAddr(from), uint64(take))
		c.mut = x
		c.size = int64(take) * ids.BlockSize
		slicePages(&c.Data, &m.Data, from, take)
		w := proto.Write{Addr: c.addr, Count: uint32(take), Sums: m.Sums[from : from+take]}
		c.body = w.Append(c.body)
		r.enqueue(c)
	}
	m.Data.Reset()
}

// slicePages appends take whole pages of src, from page from on, to dst. References pass over.
func slicePages(dst, src *buf.Vec, from, take int) {
	for _, s := range src.Segs {
		n := s.Pages()
		if from >= n {
			from -= n
			continue
		}
		k := min(n-from, take)
		dst.Add(buf.Seg{Page: s.Page + buf.Page(from), Len: uint32(k * buf.PageSize)})
		take -= k
		from = 0
		if take == 0 {
			return
		}
	}
}

// enter begins the time in which nothing of the change's range is kept.
func (r *Remote) enter(x *mutation) {
	x.next = r.muts
	if x.next != nil {
		x.next.prev = x
	}
	r.muts = x
	r.invalidate(x.m.Addr, x.m.Count)
}

func (r *Remote) leave(x *mutation) {
	if x.prev == nil {
		r.muts = x.next
	} else {
		x.prev.next = x.next
	}
	if x.next != nil {
		x.next.prev = x.prev
	}
	x.prev, x.next = nil, nil
	r.invalidate(x.m.Addr, x.m.Count)
}

// invalidate drops a range, and has no look-up that is under way bring it back.
func (r *Remote) invalidate(addr ids.BlockAddr, count uint64) {
	r.opt.Cache.drop(r.life, addr, count)
	for _, c := range r.lookups {
		if c.overlaps(addr, count) {
			c.spoil(addr, count)
		}
	}
}

// changed ends a part of a change, or a flush.
func (r *Remote) changed(c *call, k errs.Kind) {
	x := c.mut
	r.pool.ReleaseVec(&c.Data)
	r.putCall(c)
	if k != errs.OK {
		x.err = k
	}
	if x.left--; x.left > 0 {
		return
	}
	if x.m.Op != block.Sync {
		r.leave(x)
	}
	x.end()
}

func (x *mutation) end() {
	m, r := x.m, x.r
	m.Err = x.err
	x.m = nil
	x.next, r.freeMuts = r.freeMuts, x
	m.Done.MutationDone(m)
}
