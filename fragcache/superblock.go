package fragcache

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

const (
	blockSize  = ids.BlockSize
	blockShift = ids.BlockShift
)

// Format constants.
const (
	superA    = 0
	superB    = 32 << 10
	dataStart = 64 << 10
)

// superVersion:
//
//	1  the first
const superVersion = 1

const superMagic = "vstorFCS"

// Superblock says what the file is, 4096 bytes, little endian:
//
//	byte   0  magic "vstorFCS"
//	       8  version u16, then two zeros
//	      12  length u32 = 4096
//	      16  checksum u64: XXH64 of the 4096 bytes with this field zero
//	      24  UUID of the file: random, new with each format, in every header and footer
//	      40  UUID of the deployment
//	      56  incarnation u64: counts the opens; it is the upper half of all numbers that the process gives
//	      64  size of the file u64
//	      72  length of a segment u64
//	      80  number of segments u32
//	          zeros up to 4096
//
// Two copies; an open writes the one that its incarnation says, so that the other is whole whenever this is torn.
type Superblock struct {
	UUID        [16]byte
	Deployment  [16]byte
	Incarnation uint64
	Size        int64
	Segment     int64
	Segments    uint32
}

// Encode writes the superblock into b. REQUIRES: len(b) >= 4096.
func (s *Superblock) Encode(b []byte) {
	b = b[:blockSize]
	clear(b)
	le := binary.LittleEndian
	copy(b, superMagic)
	le.PutUint16(b[8:], superVersion)
	le.PutUint32(b[12:], blockSize)
	copy(b[24:], s.UUID[:])
	copy(b[40:], s.Deployment[:])
	le.PutUint64(b[56:], s.Incarnation)
	le.PutUint64(b[64:], uint64(s.Size))
	le.PutUint64(b[72:], uint64(s.Segment))
	le.PutUint32(b[80:], s.Segments)
	le.PutUint64(b[16:], xxhash.Sum64(b))
}

// DecodeSuperblock reads a superblock. errs.Absent: there is none; errs.Corrupt: there was one; errs.Version: a newer
// build wrote it.
func DecodeSuperblock(b []byte) (s Superblock, err error) {
	if err := checkBlock(b, superMagic, superVersion); err != nil {
		return s, err
	}
	b = b[:blockSize]
	le := binary.LittleEndian
	s.UUID, s.Deployment = [16]byte(b[24:]), [16]byte(b[40:])
	s.Incarnation = le.Uint64(b[56:])
	s.Size, s.Segment, s.Segments = int64(le.Uint64(b[64:])), int64(le.Uint64(b[72:])), le.Uint32(b[80:])
	ok := s.Size > dataStart && s.Segment >= 3*blockSize && s.Segment%blockSize == 0 && s.Segment <= segmentMax &&
		s.Segments >= segmentsMin && int64(s.Segments) <= (s.Size-dataStart)/s.Segment && zeros(b[84:])
	if !ok {
		return s, errs.New(errs.Corrupt, "fragcache: a superblock has fields that cannot be")
	}
	return s, nil
}

// segmentMax is the longest segment: places in it are counted in blocks, in 32 bits, with room to add.
const segmentMax = 1 << 40

// checkBlock checks what all our blocks have in common: magic, version, length, checksum.
func checkBlock(b []byte, magic string, version uint16) error {
	if len(b) < blockSize || string(b[:8]) != magic {
		return errs.New(errs.Absent, "fragcache: no %s", magic)
	}
	b = b[:blockSize]
	le := binary.LittleEndian
	if le.Uint64(b[16:]) != sumWithout(b) {
		return errs.New(errs.Corrupt, "fragcache: a %s fails its checksum", magic)
	}
	if v := le.Uint16(b[8:]); v != version {
		return errs.New(errs.Version, "fragcache: a %s has version %d; this build reads %d", magic, v, version)
	}
	if le.Uint32(b[12:]) != blockSize || b[10]|b[11] != 0 {
		return errs.New(errs.Corrupt, "fragcache: a %s has fields that cannot be", magic)
	}
	return nil
}

// sumWithout is the XXH64 of b with bytes 16 to 23 taken for zeros.
func sumWithout(b []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	d.Write(b[:16])
	var none [8]byte
	d.Write(none[:])
	d.Write(b[24:])
	return d.Sum64()
}

func zeros(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// readSuper finds the newer of the two superblocks that are whole. errs.Absent: there is none.
func readSuper(f dio.File, block []byte) (best Superblock, err error) {
	err = errs.New(errs.Absent, "fragcache: the file has no superblock")
	for _, at := range []int64{superA, superB} {
		if rerr := f.ReadAt(block, at); rerr != nil {
			return best, errs.Wrap(errs.IO, rerr, "fragcache: cannot read a superblock")
		}
		s, serr := DecodeSuperblock(block)
		if serr == nil && s.Size == f.Size() && (err != nil || s.Incarnation > best.Incarnation) {
			best, err = s, nil
		}
	}
	return best, err
}

// writeSuper makes s durable, in its place or in both.
func writeSuper(f dio.File, s *Superblock, block []byte, both bool) error {
	s.Encode(block)
	for i, at := range []int64{superA, superB} {
		if !both && s.Incarnation%2 != uint64(i) {
			continue
		}
		if err := f.WriteAt(block, at); err != nil {
			return errs.Wrap(errs.Of(err), err, "fragcache: cannot write a superblock")
		}
	}
	if err := f.Sync(); err != nil {
		return errs.Wrap(errs.Of(err), err, "fragcache: cannot sync a superblock")
	}
	return nil
}
