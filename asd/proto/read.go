package proto

import (
	"encoding/binary"

	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
	"vstor/dataplane/wire"
)

// Range is bytes [Off, Off+Len) of a fragment's payload, in whole blocks for ReadRanges and Locate.
//
//	byte   0  key, 20 bytes, big endian (layout.FragKey)
//	      20  offset u32
//	      24  length u32
type Range struct {
	Key      layout.FragKey
	Off, Len uint32
}

// RangeSize is the encoded size in bytes.
const RangeSize = layout.FragKeySize + 8

// Append appends the encoded range.
func (r *Range) Append(b []byte) []byte {
	le := binary.LittleEndian
	return le.AppendUint32(le.AppendUint32(r.Key.Append(b), r.Off), r.Len)
}

func (r *Range) decode(c *wire.Cursor) {
	key := c.Bytes(layout.FragKeySize)
	r.Key, _ = layout.ParseFragKey(key)
	r.Off, r.Len = c.U32(), c.U32()
}

// ReadRanges asks for several ranges in one message.
//
//	request   ranges, 28 bytes each, 1 to RangesMax; together at most ReadMax bytes
//	reply     an errs.Kind u8 for each range; data: the bytes of those that are OK, in order
//
// The reply's own Kind is OK if the request was understood.

// AppendReadRanges appends the body of a request.
func AppendReadRanges(b []byte, rs []Range) []byte {
	for i := range rs {
		b = rs[i].Append(b)
	}
	return b
}

// DecodeReadRanges appends the ranges of a request to dst. Errors: Corrupt if it does not parse, Invalid
// if it asks for what the protocol does not allow; then the connection goes on.
func DecodeReadRanges(dst []Range, b []byte) ([]Range, error) {
	n := len(b) / RangeSize
	if n == 0 || n*RangeSize != len(b) {
		return dst, malformed(TReadRanges, len(b))
	}
	if n > RangesMax {
		return dst, errs.New(errs.Invalid, "read-ranges: %d ranges; at most %d go into one message", n, RangesMax)
	}
	c, sum := wire.NewCursor(b), uint64(0)
	for range n {
		var r Range
		r.decode(&c)
		if r.Len == 0 || r.Len%4096 != 0 || r.Off%4096 != 0 {
			return dst, errs.New(errs.Invalid, "read-ranges: %d bytes at %d of %v; both must be multiples of 4096",
				r.Len, r.Off, r.Key)
		}
		sum += uint64(r.Len)
		dst = append(dst, r)
	}
	if sum > ReadMax {
		return dst, errs.New(errs.Invalid, "read-ranges: %d bytes; at most %d go into one message", sum, ReadMax)
	}
	return dst, nil
}

// Get asks for verified bytes of one fragment, any alignment, at most ReadMax.
//
//	request   a range
//	reply     XXH64 of the data u64; data

// DecodeRange reads the body of a Get, a Locate or, with no length, a Verify or Describe.
func DecodeRange(t uint8, b []byte) (Range, error) {
	c := wire.NewCursor(b)
	var r Range
	r.decode(&c)
	if !c.Done() {
		return r, malformed(t, len(b))
	}
	return r, nil
}

// AppendSum and DecodeSum are the body of a reply that names the XXH64 of its data: Get, List, Describe.
func AppendSum(b []byte, sum uint64) []byte { return binary.LittleEndian.AppendUint64(b, sum) }

// DecodeSum reads it.
func DecodeSum(t uint8, b []byte) (uint64, error) {
	c := wire.NewCursor(b)
	sum := c.U64()
	if !c.Done() {
		return 0, malformed(t|wire.Reply, len(b))
	}
	return sum, nil
}

// Locate asks where a range lies on the drive.
//
//	request   a range
//	reply     extents, 12 bytes each: offset on the drive u64, length u32
//
// What was located stays as it is for as long as the ASD quarantines deleted space.

// AppendExtents appends the body of a reply.
func AppendExtents(b []byte, es []layout.Extent) []byte {
	for _, e := range es {
		b = binary.LittleEndian.AppendUint64(b, uint64(e.Off))
		b = binary.LittleEndian.AppendUint32(b, e.Len)
	}
	return b
}

// DecodeExtents appends the extents of a reply to dst.
func DecodeExtents(dst []layout.Extent, b []byte) ([]layout.Extent, error) {
	if len(b)%12 != 0 {
		return dst, malformed(TLocate|wire.Reply, len(b))
	}
	for c := wire.NewCursor(b); c.Left() > 0; {
		off := c.U64()
		if off > 1<<62 {
			return dst, malformed(TLocate|wire.Reply, len(b))
		}
		dst = append(dst, layout.Extent{Off: int64(off), Len: c.U32()})
	}
	return dst, nil
}

// Verify reads a fragment on the ASD from end to end: request a range of length 0, reply empty. Describe is
// the same with the fragment's descriptor as the reply's data, and its XXH64 as the body.
