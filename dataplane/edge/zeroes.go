package edge

import (
	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// Zeros of whole blocks are one record of the journal and one range of the map, however many. The blocks at
// the ends that are covered in part are read, zeroed in part and written, unless they read as zeros already:
// then they are zeroed whole, which changes no byte of them.

// startZeroes begins a WriteZeroes. One that must be fast is refused if it has no whole block. With one it is
// faster than the write that it stands for: both do the same for the ends, and the write has its payload on
// top. Without, both are the same work, and the protocol wants that called not fast. It must be said before
// anything is done, so that what the ends hold, which might save their writes, is not looked at.
func (x *io) startZeroes() {
	r := x.r
	x.span(r.Off, int64(r.Len))
	whole := ids.Blocks(r.Off) < (r.Off+int64(r.Len))>>ids.BlockShift
	if r.Flags&block.FastZero != 0 && !whole && r.Len > 0 {
		r.Err, x.count = errs.Unsupported, 0
	}
	x.admit(x.unaligned())
}

// mergeZeros zeroes what the request covers of its partial blocks, in copies: the pages that were read
// may be in the overlay or in replies. Those that were zeros stay.
func (x *io) mergeZeros() {
	pool := x.d.pool
	for i := range x.olds {
		if x.old[i] == buf.Zero {
			continue
		}
		var v buf.Vec
		if !pool.AllocReserved(&v, 1) {
			x.r.Err = errs.Busy
			x.dropEdges()
			x.end()
			return
		}
		own := v.Segs[0].Page
		copy(pool.Bytes(own), pool.Bytes(x.old[i]))
		pool.Release(x.old[i])
		x.old[i] = own
	}
	n := 0
	if x.headPartial() {
		from, to := int(x.r.Off&ids.BlockMask), ids.BlockSize
		if x.count == 1 && x.tail() != 0 {
			to = x.tail()
		}
		x.clearOld(n, from, to)
		n++
	}
	if x.tailPartial() {
		x.clearOld(n, 0, x.tail())
	}
	x.applyZeroes()
}

func (x *io) clearOld(i, from, to int) {
	if x.old[i] != buf.Zero {
		clear(x.d.pool.Bytes(x.old[i])[from:to])
	}
}

// applyZeroes writes the partial blocks at the ends, whose zeros were merged in, and makes a hole, or
// allocated zeros, of what lies between.
func (x *io) applyZeroes() {
	op := block.Discard
	if x.r.Flags&block.NoHole != 0 {
		op = block.ZeroFill
	}
	from, to := x.first, x.first+ids.BlockAddr(x.count)
	x.sums = x.sums[:0]
	x.left = 1
	if x.headPartial() && x.old[0] != buf.Zero {
		x.putEdge(&x.mut[0], from, x.old[0])
		from++
	}
	if x.tailPartial() && x.old[x.olds-1] != buf.Zero {
		to--
		x.putEdge(&x.mut[2], to, x.old[x.olds-1])
	}
	if from < to {
		x.mut[1].Addr, x.mut[1].Count = from, uint64(to-from)
		x.mutate(&x.mut[1], op)
	}
	x.left--
	if x.left == 0 {
		x.end()
	}
}
