package edge

import (
	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/sum"
)

// start begins an admitted mutation: nothing that overlaps it is in its way any more.
func (x *io) start() {
	if x.d.closing {
		x.endClosed()
		return
	}
	switch {
	case !x.rmw:
		x.apply()
	case x.d.leased == nil:
		x.readEdge()
	case x.d.leased.Own(x):
		x.owns = true
		x.readEdge()
	}
}

// Owned goes on with a partial write that nobody else is in the way of (block.Owner).
func (x *io) Owned(k errs.Kind) {
	if k != errs.OK {
		x.r.Err = k
		x.giveUp()
		return
	}
	x.owns = true
	x.readEdge()
}

// apply hands the request's whole blocks to the driver.
func (x *io) apply() {
	switch x.r.Op {
	case block.WriteZeroes:
		x.applyZeroes()
		return
	case block.Trim:
		x.mut[0].Addr, x.mut[0].Count = x.first, uint64(x.count)
		x.mutate(&x.mut[0], block.Discard)
		return
	}
	m := &x.mut[0]
	m.Addr, m.Count = x.first, uint64(x.count)
	m.Data, x.r.Data = x.r.Data, m.Data
	x.sums = sumPages(x.sums[:0], x.d.pool, &m.Data)
	m.Sums = x.sums
	x.d.Stats.WriteBytes.Add(uint64(x.r.Len))
	x.mutate(m, block.Put)
}

// sumPages appends the checksum of every page of v.
func sumPages(sums []uint32, pool *buf.Pool, v *buf.Vec) []uint32 {
	var batch sum.Batch
	var out [sum.BatchSize]uint32
	for _, s := range v.Segs {
		for b := pool.SegBytes(s); len(b) > 0; b = b[ids.BlockSize:] {
			if batch.Add(b) {
				sums = append(sums, batch.Sums(&out)...)
			}
		}
	}
	return append(sums, batch.Sums(&out)...)
}

func (x *io) mutate(m *block.Mutation, op block.MutationOp) {
	m.Op, m.Err, m.Done = op, errs.OK, x
	x.left++
	x.d.driver.Mutate(m)
}

// MutationDone counts the parts; after the last one a FUA request is synced, then all is done.
func (x *io) MutationDone(m *block.Mutation) {
	if m.Err != errs.OK {
		x.r.Err = m.Err
	}
	x.left--
	if x.left > 0 {
		return
	}
	if x.r.Flags&block.FUA != 0 && !x.synced && x.r.Err == errs.OK && x.r.Op != block.Flush {
		if !x.d.closing {
			x.synced = true
			x.mutate(&x.mut[0], block.Sync)
			return
		}
		x.r.Err = errs.Closed // it is written, which was not all that was asked
	}
	x.end()
}

// end finishes a mutation and lets those go that waited for it.
func (x *io) end() {
	if x.r.Op == block.Flush {
		x.finish()
		return
	}
	d := x.d
	if x.owns {
		x.owns = false
		d.leased.Disown()
	}
	d.order.leave(x)
	x.finish()
	d.order.admitWaiting()
}

// startTrim discards the whole blocks inside the range; partial blocks at its edges are left alone.
func (x *io) startTrim() {
	from := ids.Blocks(x.r.Off)
	to := (x.r.Off + int64(x.r.Len)) >> ids.BlockShift
	x.first, x.count = ids.BlockAddr(from), int(max(to-from, 0))
	if x.count == 0 {
		x.d.loop.Defer(&x.op, 0)
		return
	}
	x.admit(false)
}

// putEdge writes a merged page as block addr.
func (x *io) putEdge(m *block.Mutation, addr ids.BlockAddr, page buf.Page) {
	m.Addr, m.Count = addr, 1
	m.Data.Reset()
	m.Data.Add(buf.Seg{Page: page, Len: ids.BlockSize})
	at := len(x.sums)
	x.sums = sumPages(x.sums, x.d.pool, &m.Data)
	m.Sums = x.sums[at:]
	x.mutate(m, block.Put)
}
