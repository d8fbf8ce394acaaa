package proto

import (
	"vstor/dataplane/block"
	"vstor/dataplane/ids"
	"vstor/dataplane/wire"
)

// Range is blocks of a vDisk: the body of Read, Trim, Zero, Warm, Locations and Extents.
//
//	byte   0  first block u64
//	       8  blocks      u64, at least 1
//
// Trim makes a hole of it, Zero allocated zeros; Warm brings the map of it into the router's memory. Those and
// Write are answered by an Ack.
type Range struct {
	Addr  ids.BlockAddr
	Count uint64
}

// addrMax is beyond every block of a vDisk.
const addrMax = 1 << 52

// Append appends the body of the message.
func (r *Range) Append(b []byte) []byte {
	return le.AppendUint64(le.AppendUint64(b, uint64(r.Addr)), r.Count)
}

// Decode reads it; no more than most blocks are well-formed.
func (r *Range) Decode(t uint8, b []byte, most uint64) error {
	c := wire.NewCursor(b)
	addr, count := c.U64(), c.U64()
	if !c.Done() || count == 0 || addr >= addrMax || count > min(most, addrMax-addr) {
		return malformed(t, len(b))
	}
	r.Addr, r.Count = ids.BlockAddr(addr), count
	return nil
}

// Write carries whole blocks as its data.
//
//	byte   0  first block u64
//	       8  blocks      u32, 1 to BlocksMax; zero u32
//	      16  low half of XXH64 of each block u32
//
// The router checks the data against the sums when it arrives, and they stay with it for ever.
type Write struct {
	Addr  ids.BlockAddr
	Count uint32
	Sums  []uint32
}

const writeHead = 16

// Append appends the body of the message.
func (w *Write) Append(b []byte) []byte {
	b = le.AppendUint64(b, uint64(w.Addr))
	b = append(le.AppendUint32(b, w.Count), 0, 0, 0, 0)
	return appendSums(b, w.Sums)
}

// Decode reads it; w.Sums is used again. data is the length of the frame's data.
func (w *Write) Decode(b []byte, data uint32) error {
	c := wire.NewCursor(b)
	addr := c.U64()
	w.Count = c.U32()
	c.U32()
	if w.Count == 0 || w.Count > BlocksMax || addr >= addrMax || data != w.Count*ids.BlockSize ||
		c.Left() != int(4*w.Count) {
		return malformed(TWrite, len(b))
	}
	w.Addr = ids.BlockAddr(addr)
	w.Sums = takeSums(w.Sums[:0], &c)
	return nil
}

func appendSums(b []byte, sums []uint32) []byte {
	for _, s := range sums {
		b = le.AppendUint32(b, s)
	}
	return b
}

func takeSums(dst []uint32, c *wire.Cursor) []uint32 {
	for c.Left() >= 4 {
		dst = append(dst, c.U32())
	}
	return dst
}

// The answer to a Read has the blocks as its data.
//
//	byte   0  sequence u64
//	       8  low half of XXH64 of each block u32

// AppendRead appends the body of that answer.
func AppendRead(b []byte, seq ids.Seq, sums []uint32) []byte {
	return appendSums(le.AppendUint64(b, uint64(seq)), sums)
}

// DecodeRead appends the sums to dst; count is how many blocks were asked for.
func DecodeRead(dst []uint32, b []byte, count uint32) (ids.Seq, []uint32, error) {
	c := wire.NewCursor(b)
	seq := c.U64()
	if !c.OK() || c.Left() != int(4*count) {
		return 0, dst, malformed(TRead|wire.Reply, len(b))
	}
	return ids.Seq(seq), takeSums(dst, &c), nil
}

// AppendAck appends the body of an Ack: the sequence, u64. It answers Write, Trim, Zero, Flush (which has no body),
// Warm, Manifest, Stats, Rot and Close (no body).
func AppendAck(b []byte, seq ids.Seq) []byte { return le.AppendUint64(b, uint64(seq)) }

// DecodeAck reads it.
func DecodeAck(t uint8, b []byte) (ids.Seq, error) {
	c := wire.NewCursor(b)
	seq := c.U64()
	if !c.Done() {
		return 0, malformed(t|wire.Reply, len(b))
	}
	return ids.Seq(seq), nil
}

// The answer to Extents covers the range from its first block on, and may end before the range does.
//
//	byte   0  sequence u64
//	       8  extents, 8 bytes each: length in bytes u32, state u32 (block.ExtentState)

// AppendExtents appends the body of that answer.
func AppendExtents(b []byte, seq ids.Seq, es []block.Extent) []byte {
	b = le.AppendUint64(b, uint64(seq))
	for _, e := range es {
		b = le.AppendUint32(le.AppendUint32(b, e.Len), uint32(e.State))
	}
	return b
}

// DecodeExtents appends them to dst; they cover at least one and at most count blocks.
func DecodeExtents(dst []block.Extent, b []byte, count uint64) (ids.Seq, []block.Extent, error) {
	c := wire.NewCursor(b)
	seq, sum := c.U64(), uint64(0)
	n := c.Left() / 8
	if !c.OK() || n == 0 || n > ExtentsMax || c.Left() != 8*n {
		return 0, dst, malformed(TExtents|wire.Reply, len(b))
	}
	for range n {
		e := block.Extent{Len: c.U32(), State: block.ExtentState(c.U32())}
		if e.Len == 0 || e.Len%ids.BlockSize != 0 {
			return 0, dst, malformed(TExtents|wire.Reply, len(b))
		}
		sum += uint64(e.Len) / ids.BlockSize
		dst = append(dst, e)
	}
	if sum > count {
		return 0, dst, malformed(TExtents|wire.Reply, len(b))
	}
	return ids.Seq(seq), dst, nil
}
