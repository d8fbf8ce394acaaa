package edge

import (
	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// A partial write covers its first block, its last, or both only in part. It reads what is there of
// them (one after the other: two at most), merges, and goes on as a write of whole blocks.

// tail is how many bytes of its last block the request covers, 0 for all of them.
func (x *io) tail() int { return int((x.r.Off + int64(x.r.Len)) & ids.BlockMask) }

// headPartial reports whether the first block is covered in part; tailPartial whether the last one is
// and is another block than the first.
func (x *io) headPartial() bool {
	return x.r.Off&ids.BlockMask != 0 || (x.count == 1 && x.tail() != 0)
}

func (x *io) tailPartial() bool { return x.count > 1 && x.tail() != 0 }

// readEdge reads the next partial block, or merges when all are there.
func (x *io) readEdge() {
	x.n = 1
	switch {
	case x.olds == 0 && x.headPartial():
		x.at = x.first
	case x.tailPartial() && (x.olds == 0 || (x.olds == 1 && x.headPartial())):
		x.at = x.first + ids.BlockAddr(x.count-1)
	default:
		x.merge()
		return
	}
	x.resolve()
}

// edgeRead takes the page of a partial block that was read, or gives up.
func (x *io) edgeRead() {
	if x.r.Err != errs.OK {
		x.giveUp()
		return
	}
	page := buf.Zero
	switch p := &x.res.Pieces[0]; p.Kind {
	case block.InRAM:
		page = p.Page
	case block.Logged, block.Stored, block.Asked:
		page = x.reads[0].page()
	}
	x.res.Reset()
	x.tries = 0
	x.old[x.olds] = page
	x.olds++
	x.readEdge()
}

// page takes over the one page of a piece of one block.
func (pr *pieceRead) page() buf.Page {
	v := &pr.dst
	if len(pr.have.Segs) > 0 {
		v = &pr.have
	}
	page := v.Segs[0].Page
	v.Reset()
	return page
}

// giveUp ends a mutation before it changed anything.
func (x *io) giveUp() {
	x.dropEdges()
	x.d.pool.ReleaseVec(&x.r.Data)
	x.end()
}

func (x *io) dropEdges() {
	for _, page := range x.old[:x.olds] {
		x.d.pool.Release(page)
	}
	x.olds = 0
}

// merge joins old and new bytes of the partial blocks and starts the write of whole blocks.
func (x *io) merge() {
	if x.r.Op == block.WriteZeroes {
		x.mergeZeros()
		return
	}
	pool := x.d.pool
	n := 0
	if x.headPartial() {
		page, old := pool.Bytes(x.r.Data.PageAt(0)), pool.Bytes(x.old[0])
		copy(page[:x.r.Off&ids.BlockMask], old)
		if x.count == 1 && x.tail() != 0 {
			copy(page[x.tail():], old[x.tail():])
		}
		n++
	}
	if x.tailPartial() {
		page := pool.Bytes(x.r.Data.PageAt((x.count - 1) * ids.BlockSize))
		copy(page[x.tail():], pool.Bytes(x.old[n])[x.tail():])
	}
	x.dropEdges()
	x.apply()
}
