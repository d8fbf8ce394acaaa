package store

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// Header versions:
//
//	1  the first; nothing behind the region sums
//	2  a descriptor behind them
const headerVersion = 2

const (
	headerMagic = "vstorFRG"
	// maxExtents is how many pieces a fragment may lie in; a format constant.
	maxExtents = 8
	// maxRegions is how many region sums fit; a format constant.
	maxRegions = MaxPayload / layout.RegionSize

	headerExtents = 128
	headerSums    = headerExtents + maxExtents*16
	headerDesc    = headerSums + maxRegions*8
	headerUsed    = headerDesc + 2 + layout.DescMax
)

const _ = uint(layout.FragHeaderSize - headerUsed)

// Fragment states.
const (
	fragLive = 1
	fragDead = 2
)

// Header says what a fragment on the drive is, 4096 bytes, little endian but for the key:
//
//	byte   0  magic "vstorFRG"
//	       8  version u16
//	      10  state u8: 1 live, 2 dead (deleted, or given up before it was acknowledged)
//	      11  class u8
//	      12  length u32 = 4096
//	      16  checksum u64: XXH64 of the 4096 bytes with this field zero
//	      24  UUID of the ASD
//	      40  key, 20 bytes, big endian (layout.FragKey)
//	      60  number of extents u8, then three zeros
//	      64  epoch u64
//	      72  own offset on the drive u64
//	      80  incarnation that wrote it u64
//	      88  sequence of the put within that incarnation u64
//	      96  time of the put, ns since 1970, i64
//	     104  payload length u32
//	     108  number of regions u32
//	     112  checksum of the fragment u64: XXH64 of the region sums as they stand at 256
//	     120  random number of the Format u64
//	     128  8 extents: offset u64, length u32, zero u32; the first begins with this header
//	     256  256 region sums u64: XXH64 of each 64 KiB of payload
//	    2304  length of the descriptor u16, descriptor (layout.Descriptor; the store does not look into it)
//	          zeros up to 4096
//
// A dead header keeps who it was, without extents, sums and descriptor. The key comes before everything that
// depends on the put, so a dump of a damaged header still shows it.
type Header struct {
	UUID        [16]byte
	Key         layout.FragKey
	Epoch       ids.Epoch
	Class       layout.Class
	Dead        bool
	Self        int64
	Incarnation uint64
	Seq         uint64
	Time        int64
	Len         uint32
	Sum         uint64
	FormatNonce uint64
	Extents     []layout.Extent
	Sums        []uint64
	Desc        []byte // at most layout.DescMax bytes
}

// Encode writes the header into b and sets h.Sum. REQUIRES: len(b) >= 4096, at most 8 extents, 256
// sums and a descriptor of layout.DescMax.
func (h *Header) Encode(b []byte) {
	b = b[:layout.FragHeaderSize]
	clear(b)
	le := binary.LittleEndian
	copy(b, headerMagic)
	le.PutUint16(b[8:], headerVersion)
	b[10] = fragLive
	if h.Dead {
		b[10] = fragDead
	}
	b[11] = byte(h.Class)
	le.PutUint32(b[12:], layout.FragHeaderSize)
	copy(b[24:], h.UUID[:])
	h.Key.Append(b[40:40])
	b[60] = byte(len(h.Extents))
	le.PutUint64(b[64:], uint64(h.Epoch))
	le.PutUint64(b[72:], uint64(h.Self))
	le.PutUint64(b[80:], h.Incarnation)
	le.PutUint64(b[88:], h.Seq)
	le.PutUint64(b[96:], uint64(h.Time))
	le.PutUint32(b[104:], h.Len)
	le.PutUint32(b[108:], uint32(len(h.Sums)))
	le.PutUint64(b[120:], h.FormatNonce)
	for i, e := range h.Extents {
		le.PutUint64(b[headerExtents+i*16:], uint64(e.Off))
		le.PutUint32(b[headerExtents+i*16+8:], e.Len)
	}
	for i, s := range h.Sums {
		le.PutUint64(b[headerSums+i*8:], s)
	}
	le.PutUint16(b[headerDesc:], uint16(len(h.Desc)))
	copy(b[headerDesc+2:headerUsed], h.Desc)
	h.Sum = xxhash.Sum64(b[headerSums : headerSums+len(h.Sums)*8])
	le.PutUint64(b[112:], h.Sum)
	le.PutUint64(b[16:], xxhash.Sum64(b))
}

// Decode reads a header; the slices of h are used again. errs.Absent: these bytes are no header;
// errs.Corrupt: they were one; errs.Version: a newer build wrote it.
func (h *Header) Decode(b []byte) error {
	if len(b) < layout.FragHeaderSize || string(b[:8]) != headerMagic {
		return errs.New(errs.Absent, "store: no fragment header")
	}
	b = b[:layout.FragHeaderSize]
	le := binary.LittleEndian
	if le.Uint64(b[16:]) != sumWithout(b, 16) {
		return errs.New(errs.Corrupt, "store: a fragment header fails its checksum")
	}
	if v := le.Uint16(b[8:]); v != headerVersion && v != 1 {
		return errs.New(errs.Version, "store: a fragment has format version %d; this build reads 1 to %d",
			v, headerVersion)
	}
	next, nsums, ndesc := int(b[60]), int(le.Uint32(b[108:])), 0
	if le.Uint16(b[8:]) > 1 {
		ndesc = int(le.Uint16(b[headerDesc:]))
	}
	h.Len = le.Uint32(b[104:])
	ok := le.Uint32(b[12:]) == layout.FragHeaderSize && next <= maxExtents && h.Len <= MaxPayload &&
		h.Len%blockSize == 0 && nsums == layout.Regions(int(h.Len)) && ndesc <= layout.DescMax &&
		(b[10] == fragLive || b[10] == fragDead) && b[11] <= byte(layout.ClassRepair)
	if !ok {
		return errs.New(errs.Corrupt, "store: a fragment header has fields that cannot be")
	}
	h.Dead, h.Class = b[10] == fragDead, layout.Class(b[11])
	h.UUID = [16]byte(b[24:40])
	h.Key, _ = layout.ParseFragKey(b[40:])
	h.Epoch = ids.Epoch(le.Uint64(b[64:]))
	h.Self = int64(le.Uint64(b[72:]))
	h.Incarnation, h.Seq = le.Uint64(b[80:]), le.Uint64(b[88:])
	h.Time = int64(le.Uint64(b[96:]))
	h.Sum, h.FormatNonce = le.Uint64(b[112:]), le.Uint64(b[120:])
	h.Extents, h.Sums = h.Extents[:0], h.Sums[:0]
	for i := range next {
		e := b[headerExtents+i*16:]
		h.Extents = append(h.Extents, layout.Extent{Off: int64(le.Uint64(e)), Len: le.Uint32(e[8:])})
	}
	for i := range nsums {
		h.Sums = append(h.Sums, le.Uint64(b[headerSums+i*8:]))
	}
	h.Desc = append(h.Desc[:0], b[headerDesc+2:headerDesc+2+ndesc]...)
	rest := b[headerDesc+2+ndesc:]
	if ndesc == 0 {
		rest = b[headerDesc:] // in version 1 the length is of these zeros
	}
	if !allZero(b[61:64]) || !allZero(b[headerExtents+next*16:headerSums]) ||
		!allZero(b[headerSums+nsums*8:headerDesc]) || !allZero(rest) {
		return errs.New(errs.Corrupt, "store: a fragment header has bytes set that mean nothing")
	}
	return h.checkShape(b)
}

// checkShape is what remains to be checked once the fields are read: the extents hold exactly header
// and payload, in ascending order, and the fragment's checksum is that of its sums.
func (h *Header) checkShape(b []byte) error {
	if h.Sum != xxhash.Sum64(b[headerSums:headerSums+len(h.Sums)*8]) {
		return errs.New(errs.Corrupt, "store: fragment %v: region sums and checksum differ", h.Key)
	}
	var total, end int64
	for i, e := range h.Extents {
		bad := e.Off < dataStart || e.Off >= 1<<blockNumberBits<<blockShift || e.Off < end ||
			e.Off%blockSize != 0 || e.Len == 0 || e.Len%blockSize != 0 || (i == 0 && e.Off != h.Self) ||
			!allZero(b[headerExtents+i*16+12:headerExtents+i*16+16])
		if bad {
			return errs.New(errs.Corrupt, "store: fragment %v: extent %d cannot be", h.Key, i)
		}
		total += int64(e.Len)
		end = e.Off + int64(e.Len)
	}
	want := int64(layout.FragHeaderSize) + int64(h.Len)
	if h.Dead {
		want = 0
	}
	if total != want || (h.Dead && h.Len+uint32(len(h.Desc)) != 0) || (!h.Dead && h.Len == 0) {
		return errs.New(errs.Corrupt, "store: fragment %v: extents of %d bytes for %d bytes of payload",
			h.Key, total, h.Len)
	}
	return nil
}

func (h *Header) String() string {
	state := "live"
	if h.Dead {
		state = "dead"
	}
	return fmt.Sprintf("fragment %v %s class %d epoch %d len %d sum %016x uuid %x at %d extents %v "+
		"put %d.%d time %d format %016x", h.Key, state, h.Class, h.Epoch, h.Len, h.Sum, h.UUID, h.Self,
		h.Extents, h.Incarnation, h.Seq, h.Time, h.FormatNonce)
}
