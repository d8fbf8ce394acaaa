package proto

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/wire"
)

// Put asks the ASD to keep a fragment; the reply, empty, says that it is durable.
//
//	byte   0  key, 20 bytes, big endian
//	      20  class u8, zero u8, number of regions u16
//	      24  epoch u64
//	      32  length of the descriptor u16, zeros to 40
//	      40  XXH64 of each 64 KiB region of the data u64
//	       .  descriptor
//	    data  the payload, a multiple of 4096 bytes
//
// The ASD checks the data against the regions' sums before it writes.
type Put struct {
	Key   layout.FragKey
	Class layout.Class
	Epoch ids.Epoch
	Sums  []uint64
	Desc  []byte
}

// Append appends the body of the message.
func (p *Put) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(p.Key.Append(b), byte(p.Class), 0)
	b = le.AppendUint64(le.AppendUint16(b, uint16(len(p.Sums))), uint64(p.Epoch))
	b = append(le.AppendUint16(b, uint16(len(p.Desc))), 0, 0, 0, 0, 0, 0)
	for _, s := range p.Sums {
		b = le.AppendUint64(b, s)
	}
	return append(b, p.Desc...)
}

// Decode reads it. p.Sums is used again; p.Desc is the body's own. data is the length of the frame's data.
// Errors: Corrupt, and Invalid for a fragment that cannot be.
func (p *Put) Decode(b []byte, data uint32) error {
	c := wire.NewCursor(b)
	p.Key, _ = layout.ParseFragKey(c.Bytes(layout.FragKeySize))
	p.Class = layout.Class(c.U8())
	c.U8()
	regions := int(c.U16())
	p.Epoch = ids.Epoch(c.U64())
	desc := int(c.U16())
	c.Bytes(6)
	if !c.OK() || regions > RegionsMax || desc > DescMax || c.Left() != regions*8+desc {
		return malformed(TPut, len(b))
	}
	p.Sums = p.Sums[:0]
	for range regions {
		p.Sums = append(p.Sums, c.U64())
	}
	p.Desc = c.Bytes(desc)
	if data == 0 || data%4096 != 0 || layout.Regions(int(data)) != regions {
		return errs.New(errs.Invalid, "put %v: %d bytes with the sums of %d regions; whole blocks with a sum for "+
			"each 64 KiB would be right", p.Key, data, regions)
	}
	return nil
}

// Delete removes fragments; the reply, empty, says that it is durable.
//
//	request   XXH64 of the data u64; data: keys, 20 bytes each, 1 to DeleteMax

// DecodeDelete appends the keys to dst.
func DecodeDelete(dst []layout.FragKey, body, data []byte) ([]layout.FragKey, error) {
	sum, err := DecodeSum(TDelete, body)
	switch {
	case err != nil:
		return dst, err
	case len(data) == 0 || len(data)%layout.FragKeySize != 0 || len(data) > DeleteMax*layout.FragKeySize:
		return dst, malformed(TDelete, len(data))
	case xxhash.Sum64(data) != sum:
		return dst, damaged(TDelete)
	}
	for ; len(data) > 0; data = data[layout.FragKeySize:] {
		k, _ := layout.ParseFragKey(data)
		dst = append(dst, k)
	}
	return dst, nil
}

// CheckData compares the data of a message with the sum that its body names.
func CheckData(t uint8, data []byte, sum uint64) error {
	if xxhash.Sum64(data) != sum {
		return damaged(t)
	}
	return nil
}

func damaged(t uint8) error {
	return errs.New(errs.Corrupt, "%s: the data does not match the checksum that came with it", TypeName(t))
}

// Fence raises the lowest epoch that may put to a namespace: request namespace u64, epoch u64; reply empty.
// Epoch asks for the highest epoch seen: request namespace u64, zero u64; reply namespace, epoch.

// AppendEpoch and DecodeEpoch are these bodies.
func AppendEpoch(b []byte, ns ids.NamespaceID, e ids.Epoch) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, uint64(ns)), uint64(e))
}

// DecodeEpoch reads one.
func DecodeEpoch(t uint8, b []byte) (ids.NamespaceID, ids.Epoch, error) {
	c := wire.NewCursor(b)
	ns, e := ids.NamespaceID(c.U64()), ids.Epoch(c.U64())
	if !c.Done() {
		return 0, 0, malformed(t, len(b))
	}
	return ns, e, nil
}

// Cancel names the request that nobody waits for any more: id u64.

// DecodeCancel reads it.
func DecodeCancel(b []byte) (id uint64, err error) {
	c := wire.NewCursor(b)
	if id = c.U64(); !c.Done() {
		return 0, malformed(TCancel, len(b))
	}
	return id, nil
}
