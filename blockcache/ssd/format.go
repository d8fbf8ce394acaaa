package ssd

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// Versions of superblock and headers: 1 is the first.
const formatVersion = 1

const (
	superMagic  = "vstorBCS"
	headerMagic = "vstorBCR"

	pageSize   = buf.PageSize
	superUsed  = 72 // bytes that carry fields; the rest is zeros
	headerUsed = 48
	recordsAt  = 64
	recordSize = 28

	// RecordsMax is how many blocks one header page names. A format constant: never changes.
	RecordsMax = (pageSize - recordsAt) / recordSize
)

const _ = uint(RecordsMax - 144)

// Superblock says what the file is. It is written once, when the file is made; losing it means an empty cache, so
// there is no second copy. 4096 bytes, little endian:
//
//	byte   0  magic "vstorBCS"
//	       8  version u32
//	      12  length u32 = 4096
//	      16  checksum u64: XXH64 of the 4096 bytes with this field zero
//	      24  incarnation u64, random: a region that carries another one is from an earlier life of the file
//	      32  UUID of the deployment
//	      48  size of the file in bytes u64
//	      56  region size in bytes u32
//	      60  regions u32
//	      64  cache block size in bytes u32
//	      68  zeros u32
//	      72  zeros up to 4096
//
// Magic, version, length and checksum keep their places in every version, in headers too.
type Superblock struct {
	Incarnation uint64
	UUID        [16]byte
	Size        int64
	RegionBytes uint32
	Regions     uint32
	BlockBytes  uint32
}

// Encode writes the superblock into b. REQUIRES: len(b) >= 4096.
func (s *Superblock) Encode(b []byte) {
	b = begin(b, superMagic)
	le := binary.LittleEndian
	le.PutUint64(b[24:], s.Incarnation)
	copy(b[32:], s.UUID[:])
	le.PutUint64(b[48:], uint64(s.Size))
	le.PutUint32(b[56:], s.RegionBytes)
	le.PutUint32(b[60:], s.Regions)
	le.PutUint32(b[64:], s.BlockBytes)
	seal(b)
}

// DecodeSuperblock reads a superblock. errs.Absent: these bytes are none; errs.Corrupt: they were one;
// errs.Version: another build wrote it.
func DecodeSuperblock(b []byte) (Superblock, error) {
	b, err := check(b, superMagic)
	if err != nil {
		return Superblock{}, err
	}
	le := binary.LittleEndian
	s := Superblock{
		Incarnation: le.Uint64(b[24:]),
		UUID:        [16]byte(b[32:48]),
		Size:        int64(le.Uint64(b[48:])),
		RegionBytes: le.Uint32(b[56:]),
		Regions:     le.Uint32(b[60:]),
		BlockBytes:  le.Uint32(b[64:]),
	}
	if !zeros(b[68:]) || s.RegionBytes%pageSize != 0 || s.BlockBytes%pageSize != 0 || s.BlockBytes == 0 ||
		s.Regions == 0 || s.Size < pageSize || s.Size-pageSize < int64(s.Regions)*int64(s.RegionBytes) {
		return Superblock{}, errs.New(errs.Corrupt, "blockcache: a superblock has fields that cannot be")
	}
	return s, nil
}

// Header is one header page of a region: it names the blocks Page*144 .. Page*144+Count-1 of the region. Each page
// is checked by itself, so a region of which some pages are torn still gives the others. 4096 bytes, little endian:
//
//	byte   0  magic "vstorBCR"
//	       8  version u32
//	      12  length u32 = 4096
//	      16  checksum u64: XXH64 of the 4096 bytes with this field zero
//	      24  incarnation u64, the superblock's
//	      32  sequence u64: counts the regions written, from 1
//	      40  region u32
//	      44  page u16
//	      46  records u16
//	      48  zeros up to 64
//	      64  144 records of 28 bytes, the unused ones zeros
//
//	record 0  namespace u64
//	       8  owner u64: the vDisk that is charged for the block
//	      16  SCO u32, not 0
//	      20  offset u16: in blocks from the object's start
//	      22  zeros u16
//	      24  checksum u32 of the block
type Header struct {
	Incarnation uint64
	Sequence    uint64
	Region      uint32
	Page        uint16
	Count       uint16
	Records     [RecordsMax]Record
}

// Record names a block.
type Record struct {
	NS    ids.NamespaceID
	Owner ids.VolumeID
	SCO   ids.SCONum
	Off   uint16
	Sum   uint32
}

// begin clears a page and writes what all pages begin with.
func begin(b []byte, magic string) []byte {
	b = b[:pageSize]
	clear(b)
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[8:], formatVersion)
	binary.LittleEndian.PutUint32(b[12:], pageSize)
	return b
}

func seal(b []byte) { binary.LittleEndian.PutUint64(b[16:], sumWithout(b)) }

// putRecord writes record i into a header page that was begun; sealHeader ends it.
func putRecord(b []byte, i int, r Record) {
	b = b[recordsAt+i*recordSize:]
	le := binary.LittleEndian
	le.PutUint64(b, uint64(r.NS))
	le.PutUint64(b[8:], uint64(r.Owner))
	le.PutUint32(b[16:], uint32(r.SCO))
	le.PutUint16(b[20:], r.Off)
	le.PutUint32(b[24:], r.Sum)
}

// sealHeader writes the fields before the records.
func sealHeader(b []byte, incarnation, seq uint64, region, page, count int) {
	le := binary.LittleEndian
	le.PutUint64(b[24:], incarnation)
	le.PutUint64(b[32:], seq)
	le.PutUint32(b[40:], uint32(region))
	le.PutUint16(b[44:], uint16(page))
	le.PutUint16(b[46:], uint16(count))
	le.PutUint64(b[16:], 0)
	seal(b)
}

// Encode writes the header into b. REQUIRES: len(b) >= 4096, Count <= RecordsMax.
func (h *Header) Encode(b []byte) {
	b = begin(b, headerMagic)
	for i, r := range h.Records[:h.Count] {
		putRecord(b, i, r)
	}
	sealHeader(b, h.Incarnation, h.Sequence, int(h.Region), int(h.Page), int(h.Count))
}

// Decode reads a header page; errors are those of DecodeSuperblock.
func (h *Header) Decode(b []byte) error {
	b, err := check(b, headerMagic)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	*h = Header{Incarnation: le.Uint64(b[24:]), Sequence: le.Uint64(b[32:]), Region: le.Uint32(b[40:]),
		Page: le.Uint16(b[44:]), Count: le.Uint16(b[46:])}
	if h.Count > RecordsMax || h.Sequence == 0 || !zeros(b[headerUsed:recordsAt]) ||
		!zeros(b[recordsAt+int(h.Count)*recordSize:]) {
		return errs.New(errs.Corrupt, "blockcache: a region's header has fields that cannot be")
	}
	for i := range h.Records[:h.Count] {
		r := b[recordsAt+i*recordSize:]
		h.Records[i] = Record{NS: ids.NamespaceID(le.Uint64(r)), Owner: ids.VolumeID(le.Uint64(r[8:])),
			SCO: ids.SCONum(le.Uint32(r[16:])), Off: le.Uint16(r[20:]), Sum: le.Uint32(r[24:])}
		if h.Records[i].SCO == 0 || le.Uint16(r[22:]) != 0 {
			return errs.New(errs.Corrupt, "blockcache: record %d of a region's header cannot be", i)
		}
	}
	return nil
}

// check verifies what all pages begin with, and cuts b to the page.
func check(b []byte, magic string) ([]byte, error) {
	if len(b) < pageSize || string(b[:8]) != magic {
		return nil, errs.New(errs.Absent, "blockcache: no %s", magic)
	}
	b = b[:pageSize]
	le := binary.LittleEndian
	if le.Uint64(b[16:]) != sumWithout(b) {
		return nil, errs.New(errs.Corrupt, "blockcache: a %s fails its checksum", magic)
	}
	if v := le.Uint32(b[8:]); v != formatVersion {
		return nil, errs.New(errs.Version, "blockcache: format version %d; this build reads %d", v, formatVersion)
	}
	if le.Uint32(b[12:]) != pageSize {
		return nil, errs.New(errs.Corrupt, "blockcache: a %s of %d bytes", magic, le.Uint32(b[12:]))
	}
	return b, nil
}

// sumWithout is XXH64 of a page with the checksum's place taken as zeros.
func sumWithout(b []byte) uint64 {
	var zero [8]byte
	var d xxhash.Digest
	d.Reset()
	d.Write(b[:16])
	d.Write(zero[:])
	d.Write(b[24:])
	return d.Sum64()
}

func zeros(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
