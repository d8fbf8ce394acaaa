package fragcache

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// headerVersion:
//
//	1  the first
const headerVersion = 1

const (
	headerMagic = "vstorFCF"
	headerSums  = 128
	// maxRegions is how many region sums fit; a format constant.
	maxRegions = 256
	// MaxPayload is the longest payload of a fragment: its region sums fit the header, as on an ASD.
	MaxPayload = maxRegions * layout.RegionSize
)

const _ = uint(blockSize - headerSums - 8*maxRegions)

// Place is where a fragment lies and when it came there. Generation is the segment's: it is written anew with each
// time that the segment is filled.
type Place struct {
	Segment    uint32
	Block      uint32 // of the header, from the segment's start
	Generation uint64
	Seq        uint64 // higher is younger; never the same twice
}

// Header says what a fragment in the cache is, 4096 bytes in front of its payload, little endian but for the key:
//
//	byte   0  magic "vstorFCF"
//	       8  version u16, then two zeros
//	      12  length u32 = 4096
//	      16  checksum u64: XXH64 of the 4096 bytes with this field zero
//	      24  UUID of the file
//	      40  key, 20 bytes, big endian (layout.FragKey)
//	      60  segment u32
//	      64  generation of the segment u64
//	      72  own block in the segment u32
//	      76  payload length u32, in bytes
//	      80  sequence u64
//	      88  checksum of the fragment u64 (layout.FragSum): what its manifest says
//	      96  number of regions u32, zeros up to 128
//	     128  region sums u64: XXH64 of each 64 KiB of payload
//	          zeros up to 4096
type Header struct {
	UUID  [16]byte
	Key   layout.FragKey
	Place Place
	Len   uint32
	Sum   uint64
	Sums  []uint64
}

// Encode writes the header into b and sets h.Sum. REQUIRES: len(b) >= 4096, at most 256 sums.
func (h *Header) Encode(b []byte) {
	b = b[:blockSize]
	clear(b)
	h.Sum = layout.FragSum(h.Sums)
	le := binary.LittleEndian
	copy(b, headerMagic)
	le.PutUint16(b[8:], headerVersion)
	le.PutUint32(b[12:], blockSize)
	copy(b[24:], h.UUID[:])
	h.Key.Append(b[40:40])
	le.PutUint32(b[60:], h.Place.Segment)
	le.PutUint64(b[64:], h.Place.Generation)
	le.PutUint32(b[72:], h.Place.Block)
	le.PutUint32(b[76:], h.Len)
	le.PutUint64(b[80:], h.Place.Seq)
	le.PutUint64(b[88:], h.Sum)
	le.PutUint32(b[96:], uint32(len(h.Sums)))
	for i, s := range h.Sums {
		le.PutUint64(b[headerSums+8*i:], s)
	}
	le.PutUint64(b[16:], xxhash.Sum64(b))
}

// Decode reads a header; the slice of h is used again. errs.Absent: these bytes are none; errs.Corrupt: they were
// one; errs.Version: a newer build wrote it.
func (h *Header) Decode(b []byte) error {
	if err := checkBlock(b, headerMagic, headerVersion); err != nil {
		return err
	}
	b = b[:blockSize]
	le := binary.LittleEndian
	h.UUID = [16]byte(b[24:])
	h.Key, _ = layout.ParseFragKey(b[40:])
	h.Place = Place{Segment: le.Uint32(b[60:]), Generation: le.Uint64(b[64:]), Block: le.Uint32(b[72:]),
		Seq: le.Uint64(b[80:])}
	h.Len, h.Sum = le.Uint32(b[76:]), le.Uint64(b[88:])
	n := int(le.Uint32(b[96:]))
	if h.Len == 0 || h.Len > MaxPayload || h.Len%blockSize != 0 || n != layout.Regions(int(h.Len)) ||
		h.Place.Seq == 0 || !zeros(b[100:headerSums]) || !zeros(b[headerSums+8*n:]) {
		return errs.New(errs.Corrupt, "fragcache: a fragment's header has fields that cannot be")
	}
	h.Sums = h.Sums[:0]
	for i := range n {
		h.Sums = append(h.Sums, le.Uint64(b[headerSums+8*i:]))
	}
	if h.Sum != layout.FragSum(h.Sums) {
		return errs.New(errs.Corrupt, "fragcache: fragment %v: region sums and checksum differ", h.Key)
	}
	return nil
}

// is reports whether h is the header of what an entry says.
func (h *Header) is(uuid [16]byte, key layout.FragKey, at Place, n uint32) bool {
	return h.UUID == uuid && h.Key == key && h.Place == at && h.Len == n
}

// regionsMatch verifies regions of the payload from number first on.
func (h *Header) regionsMatch(first int, p []byte) bool {
	for i := first; len(p) > 0; i++ {
		n := min(len(p), layout.RegionSize)
		if xxhash.Sum64(p[:n]) != h.Sums[i] {
			return false
		}
		p = p[n:]
	}
	return true
}

func (h *Header) String() string {
	return fmt.Sprintf("fragment %v len %d sum %016x segment %d.%x block %d seq %x uuid %x", h.Key, h.Len, h.Sum,
		h.Place.Segment, h.Place.Generation, h.Place.Block, h.Place.Seq, h.UUID)
}
