package journal

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/errs"
)

// Places in the file, in bytes; format constants, never change. The copies of the root lie far apart, so
// that no torn stripe or flash page takes both.
const (
	RootA     = 0
	RootB     = 512 << 10
	DataStart = 1 << 20 // segment 0
)

// BlockSize is the unit of the file, in bytes; a format constant.
const BlockSize = 4096

// Versions of the format.
//
//	1  the first
const version = 1

const (
	rootMagic  = 0x5452_4a72_6f74_7376 // "vstorJRT"
	rootLength = 128
)

// Root says where the log begins and who may have written which part of it.
//
// Two copies, at RootA and RootB, one block each; alike but while an update is under way. The first 24
// bytes keep their meaning in all versions. Little endian.
//
//	byte   0  magic         u64   "vstorJRT"
//	       8  checksum      u64   XXH64 of bytes [16, length)
//	      16  version       u16
//	      18  flags         u16   bit 0: closed cleanly
//	      20  length        u32   128
//	      24  uuid          16 bytes
//	      40  sequence      u64   of this root; the higher copy counts
//	      48  incarnation   u64   one more with each attach
//	      56  first         u64   number of the first record of this incarnation
//	      64  tail record   u64   the first record to replay: the first of its segment
//	      72  tail segment  u32
//	      76  tail lap      u32
//	      80  durable       u64   all records up to this one were synced when the root was written
//	      88  file size     u64   bytes
//	      96  segment size  u32   bytes
//	     100  segments      u32
//	     104  boot id       16 bytes, of the machine when this incarnation began; zeros: unknown
//	     120  chain         u64   checksum of the header of record first-1; 0: there is none
type Root struct {
	Clean       bool
	UUID        [16]byte
	Sequence    uint64
	Incarnation uint64
	First       uint64
	TailRecord  uint64
	TailSegment uint32
	TailLap     uint32
	Durable     uint64
	FileSize    int64
	SegmentSize uint32
	Segments    uint32
	BootID      [16]byte
	Chain       uint64
}

// Encode fills the block b.
// REQUIRES: len(b) == BlockSize.
func (r *Root) Encode(b []byte) {
	clear(b[:BlockSize])
	le := binary.LittleEndian
	le.PutUint64(b, rootMagic)
	le.PutUint16(b[16:], version)
	if r.Clean {
		le.PutUint16(b[18:], 1)
	}
	le.PutUint32(b[20:], rootLength)
	copy(b[24:], r.UUID[:])
	le.PutUint64(b[40:], r.Sequence)
	le.PutUint64(b[48:], r.Incarnation)
	le.PutUint64(b[56:], r.First)
	le.PutUint64(b[64:], r.TailRecord)
	le.PutUint32(b[72:], r.TailSegment)
	le.PutUint32(b[76:], r.TailLap)
	le.PutUint64(b[80:], r.Durable)
	le.PutUint64(b[88:], uint64(r.FileSize))
	le.PutUint32(b[96:], r.SegmentSize)
	le.PutUint32(b[100:], r.Segments)
	copy(b[104:], r.BootID[:])
	le.PutUint64(b[120:], r.Chain)
	le.PutUint64(b[8:], xxhash.Sum64(b[16:rootLength]))
}

// DecodeRoot reads a copy of the root. The error is of kind Corrupt, or Version if a newer program
// wrote it.
func DecodeRoot(b []byte) (Root, error) {
	if err := checkPrefix(b, rootMagic, rootLength); err != nil {
		return Root{}, err
	}
	le := binary.LittleEndian
	r := Root{
		Clean:       le.Uint16(b[18:])&1 != 0,
		Sequence:    le.Uint64(b[40:]),
		Incarnation: le.Uint64(b[48:]),
		First:       le.Uint64(b[56:]),
		TailRecord:  le.Uint64(b[64:]),
		TailSegment: le.Uint32(b[72:]),
		TailLap:     le.Uint32(b[76:]),
		Durable:     le.Uint64(b[80:]),
		FileSize:    int64(le.Uint64(b[88:])),
		SegmentSize: le.Uint32(b[96:]),
		Segments:    le.Uint32(b[100:]),
		Chain:       le.Uint64(b[120:]),
	}
	copy(r.UUID[:], b[24:])
	copy(r.BootID[:], b[104:])
	if err := r.check(le.Uint32(b[20:])); err != nil {
		return Root{}, err
	}
	return r, nil
}

// check refuses what no writer of ours writes, so that nobody computes with it.
func (r *Root) check(length uint32) error {
	size := int64(r.SegmentSize)
	switch {
	case length != rootLength:
		return errs.New(errs.Corrupt, "journal: root of %d bytes; version 1 has %d", length, rootLength)
	case size < SegmentSizeMin || size > SegmentSizeMax || size%BlockSize != 0:
		return errs.New(errs.Corrupt, "journal: root names segments of %d bytes", r.SegmentSize)
	case r.Segments < segmentsMin || r.Segments > segmentsMax:
		return errs.New(errs.Corrupt, "journal: root names %d segments", r.Segments)
	case r.FileSize < DataStart+size*int64(r.Segments):
		return errs.New(errs.Corrupt, "journal: root names %d segments of %d bytes in a file of %d bytes",
			r.Segments, r.SegmentSize, r.FileSize)
	case r.TailSegment >= r.Segments:
		return errs.New(errs.Corrupt, "journal: root names tail segment %d of %d", r.TailSegment, r.Segments)
	case r.TailRecord == 0 || r.First == 0 || r.Incarnation == 0 || r.TailLap == 0:
		return errs.New(errs.Corrupt, "journal: root without a tail, a lap or an incarnation")
	}
	return nil
}

// checkPrefix checks what all blocks of the journal begin with: magic, checksum, version, length.
func checkPrefix(b []byte, magic uint64, least int) error {
	le := binary.LittleEndian
	if len(b) < BlockSize {
		return errs.New(errs.Corrupt, "journal: %d bytes; a block has %d", len(b), BlockSize)
	}
	if le.Uint64(b) != magic {
		return errs.New(errs.Corrupt, "journal: magic %#x; %#x would be right", le.Uint64(b), magic)
	}
	n := int(le.Uint32(b[20:]))
	if n < least || n > BlockSize {
		return errs.New(errs.Corrupt, "journal: length %d; %d to %d would be right", n, least, BlockSize)
	}
	if sum := xxhash.Sum64(b[16:n]); sum != le.Uint64(b[8:]) {
		return errs.New(errs.Corrupt, "journal: checksum %#x; %#x would be right", le.Uint64(b[8:]), sum)
	}
	switch v := le.Uint16(b[16:]); {
	case v > version:
		return errs.New(errs.Version, "journal: format version %d; this program knows up to %d", v, version)
	case v == 0:
		return errs.New(errs.Corrupt, "journal: format version 0")
	}
	return nil
}

func (r Root) String() string {
	return fmt.Sprintf("root %d uuid %x incarnation %d from record %d, tail record %d in segment %d lap %d, "+
		"durable %d, %d segments of %d bytes, clean %v", r.Sequence, r.UUID, r.Incarnation, r.First,
		r.TailRecord, r.TailSegment, r.TailLap, r.Durable, r.Segments, r.SegmentSize, r.Clean)
}
