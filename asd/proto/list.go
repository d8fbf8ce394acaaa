package proto

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/wire"
)

// List asks for fragments behind a key, in key order.
//
//	request   namespace u64, 0 for all; key, 20 bytes, the zero key begins; limit u32
//	reply     XXH64 of the data u64; data: entries of 56 bytes
//
//	byte   0  key, 20 bytes, big endian
//	      20  length of the payload u32
//	      24  XXH64 of its region sums u64
//	      32  epoch u64
//	      40  time of the put, ns since 1970, i64
//	      48  class u8, zeros to 56
//
// Fewer entries than min(limit, ListMax) are the end.
type List struct {
	Namespace ids.NamespaceID
	After     layout.FragKey
	Limit     uint32
}

// Append appends the body of the request.
func (l *List) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(l.Namespace))
	return binary.LittleEndian.AppendUint32(l.After.Append(b), l.Limit)
}

// Decode reads it.
func (l *List) Decode(b []byte) error {
	c := wire.NewCursor(b)
	l.Namespace = ids.NamespaceID(c.U64())
	l.After, _ = layout.ParseFragKey(c.Bytes(layout.FragKeySize))
	if l.Limit = c.U32(); !c.Done() {
		return malformed(TList, len(b))
	}
	return nil
}

// Fragment is an entry of a list.
type Fragment layout.FragInfo

// FragmentSize is the encoded size in bytes.
const FragmentSize = 56

// Append appends the encoded entry.
func (f *Fragment) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(f.Key.Append(b), f.Len)
	b = le.AppendUint64(le.AppendUint64(b, f.Sum), uint64(f.Epoch))
	b = le.AppendUint64(b, uint64(f.Time))
	return append(b, byte(f.Class), 0, 0, 0, 0, 0, 0, 0)
}

// DecodeList appends the entries of a reply to dst.
func DecodeList(dst []Fragment, body, data []byte) ([]Fragment, error) {
	sum, err := DecodeSum(TList, body)
	switch {
	case err != nil:
		return dst, err
	case len(data)%FragmentSize != 0:
		return dst, malformed(TList|wire.Reply, len(data))
	case xxhash.Sum64(data) != sum:
		return dst, damaged(TList | wire.Reply)
	}
	for c := wire.NewCursor(data); c.Left() > 0; {
		var f Fragment
		f.Key, _ = layout.ParseFragKey(c.Bytes(layout.FragKeySize))
		f.Len, f.Sum = c.U32(), c.U64()
		f.Epoch, f.Time = ids.Epoch(c.U64()), int64(c.U64())
		f.Class = layout.Class(c.U8())
		c.Bytes(7)
		dst = append(dst, f)
	}
	return dst, nil
}
