package store

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// Superblock versions: 1 is the first.
const sbVersion = 1

const (
	sbMagic = "vstorASD"
	sbUsed  = 136 // bytes that carry fields; the rest is zeros
)

// State says how the drive was left.
type State uint32

const (
	StateClean State = 1 // Close ended
	StateDirty State = 2 // open, or killed
)

// Superblock says what a drive is. Two copies, at 0 and at 1 MiB, each 4096 bytes, little endian:
//
//	byte   0  magic "vstorASD"
//	       8  version u32
//	      12  length u32 = 4096
//	      16  checksum u64: XXH64 of the 4096 bytes with this field zero
//	      24  sequence u64: the higher of two valid copies counts
//	      32  UUID of the ASD
//	      48  UUID of the deployment
//	      64  ASD id u32
//	      68  state u32: 1 clean, 2 dirty
//	      72  size of the drive in bytes u64
//	      80  first byte of the extents u64
//	      88  incarnation u64
//	      96  random number of this incarnation u64
//	     104  random number of the Format u64
//	     112  commits u64: batches the index had committed when this was written
//	     120  time of Format, ns since 1970, i64
//	     128  own offset u64
//	     136  zeros up to 4096
//
// Magic, version, length and checksum keep their places in every version, so rot in the version is not
// taken for a newer one.
type Superblock struct {
	Version     uint32
	Sequence    uint64
	UUID        [16]byte
	Deployment  [16]byte
	ID          ids.ASDID
	State       State
	Size        int64
	Start       int64
	Incarnation uint64
	Nonce       uint64
	FormatNonce uint64
	Commits     uint64
	Created     int64
	Self        int64
}

// Encode writes the superblock into b. REQUIRES: len(b) >= 4096.
func (s *Superblock) Encode(b []byte) {
	b = b[:blockSize]
	clear(b)
	le := binary.LittleEndian
	copy(b, sbMagic)
	le.PutUint32(b[8:], sbVersion)
	le.PutUint32(b[12:], blockSize)
	le.PutUint64(b[24:], s.Sequence)
	copy(b[32:], s.UUID[:])
	copy(b[48:], s.Deployment[:])
	le.PutUint32(b[64:], uint32(s.ID))
	le.PutUint32(b[68:], uint32(s.State))
	le.PutUint64(b[72:], uint64(s.Size))
	le.PutUint64(b[80:], uint64(s.Start))
	le.PutUint64(b[88:], s.Incarnation)
	le.PutUint64(b[96:], s.Nonce)
	le.PutUint64(b[104:], s.FormatNonce)
	le.PutUint64(b[112:], s.Commits)
	le.PutUint64(b[120:], uint64(s.Created))
	le.PutUint64(b[128:], uint64(s.Self))
	le.PutUint64(b[16:], xxhash.Sum64(b))
}

// DecodeSuperblock reads one copy. errs.Absent: these bytes are no superblock; errs.Corrupt: they were
// one; errs.Version: a newer build wrote it.
func DecodeSuperblock(b []byte) (Superblock, error) {
	if len(b) < blockSize || string(b[:8]) != sbMagic {
		return Superblock{}, errs.New(errs.Absent, "store: no superblock")
	}
	b = b[:blockSize]
	le := binary.LittleEndian
	if sum := le.Uint64(b[16:]); sum != sumWithout(b, 16) {
		return Superblock{}, errs.New(errs.Corrupt, "store: a superblock fails its checksum")
	}
	if v := le.Uint32(b[8:]); v != sbVersion {
		return Superblock{}, errs.New(errs.Version,
			"store: the drive has format version %d; this build reads %d", v, sbVersion)
	}
	s := Superblock{
		Version:     sbVersion,
		Sequence:    le.Uint64(b[24:]),
		UUID:        [16]byte(b[32:48]),
		Deployment:  [16]byte(b[48:64]),
		ID:          ids.ASDID(le.Uint32(b[64:])),
		State:       State(le.Uint32(b[68:])),
		Size:        int64(le.Uint64(b[72:])),
		Start:       int64(le.Uint64(b[80:])),
		Incarnation: le.Uint64(b[88:]),
		Nonce:       le.Uint64(b[96:]),
		FormatNonce: le.Uint64(b[104:]),
		Commits:     le.Uint64(b[112:]),
		Created:     int64(le.Uint64(b[120:])),
		Self:        int64(le.Uint64(b[128:])),
	}
	bad := le.Uint32(b[12:]) != blockSize || !allZero(b[sbUsed:]) || s.Size < MinSize ||
		s.Start != dataStart || (s.State != StateClean && s.State != StateDirty)
	if bad {
		return Superblock{}, errs.New(errs.Corrupt, "store: a superblock has fields that cannot be")
	}
	return s, nil
}

func (s Superblock) String() string {
	return fmt.Sprintf("ASD %d uuid %x deployment %x state %d size %d start %d incarnation %d/%016x "+
		"format %016x commits %d sequence %d created %d at %d", s.ID, s.UUID, s.Deployment, s.State,
		s.Size, s.Start, s.Incarnation, s.Nonce, s.FormatNonce, s.Commits, s.Sequence, s.Created, s.Self)
}

// ReadSuperblock reads both copies and returns the newer valid one. whole is false if the other copy
// is damaged, missing or older.
func ReadSuperblock(f dio.File) (sb Superblock, whole bool, err error) {
	b, err := newAligned(blockSize)
	if err != nil {
		return sb, false, err
	}
	defer freeAligned(b)
	var copies [2]Superblock
	var fails [2]error
	for i, off := range [2]int64{sbOffset0, sbOffset1} {
		if err := f.ReadAt(b, off); err != nil {
			fails[i] = errs.Wrap(errs.IO, err, "store: cannot read the superblock at %d", off)
			continue
		}
		copies[i], fails[i] = DecodeSuperblock(b)
		if fails[i] == nil && copies[i].Self != off {
			fails[i] = errs.New(errs.Corrupt, "store: the superblock at %d was written for %d",
				off, copies[i].Self)
		}
	}
	return pickSuperblock(copies, fails)
}

func pickSuperblock(c [2]Superblock, fails [2]error) (Superblock, bool, error) {
	for _, err := range fails {
		if errs.Of(err) == errs.Version {
			return Superblock{}, false, err
		}
	}
	switch {
	case fails[0] == nil && fails[1] == nil:
		if c[0].UUID != c[1].UUID || c[0].FormatNonce != c[1].FormatNonce {
			return Superblock{}, false, errs.New(errs.Corrupt,
				"store: the two superblocks name two drives, %x and %x", c[0].UUID, c[1].UUID)
		}
		same := c[0].Sequence == c[1].Sequence
		if c[1].Sequence > c[0].Sequence {
			return c[1], same, nil
		}
		return c[0], same, nil
	case fails[0] == nil:
		return c[0], false, nil
	case fails[1] == nil:
		return c[1], false, nil
	case errs.Of(fails[0]) == errs.Absent && errs.Of(fails[1]) == errs.Absent:
		return Superblock{}, false, errs.New(errs.Absent,
			"store: the drive holds no superblock; it has to be formatted first")
	case errs.Of(fails[0]) == errs.Absent:
		return Superblock{}, false, errs.Wrap(errs.Of(fails[1]), fails[1],
			"store: neither superblock can be used")
	}
	return Superblock{}, false, errs.Wrap(errs.Of(fails[0]), fails[0],
		"store: neither superblock can be used")
}

// writeSuperblock writes both copies with the next sequence number, each durable before the other is
// touched.
func writeSuperblock(f dio.File, sb *Superblock) error {
	b, err := newAligned(blockSize)
	if err != nil {
		return err
	}
	defer freeAligned(b)
	sb.Sequence++
	for _, off := range [2]int64{sbOffset0, sbOffset1} {
		sb.Self = off
		sb.Encode(b)
		if err := f.WriteAt(b, off); err != nil {
			return errs.Wrap(errs.IO, err, "store: cannot write the superblock at %d", off)
		}
		if err := f.Sync(); err != nil {
			return errs.Wrap(errs.IO, err, "store: cannot sync the superblock at %d", off)
		}
	}
	return nil
}

// sumWithout is XXH64 of b with the eight bytes at off taken as zeros; b is not changed, others may
// read it.
func sumWithout(b []byte, off int) uint64 {
	var zero [8]byte
	var d xxhash.Digest
	d.Reset()
	d.Write(b[:off])
	d.Write(zero[:])
	d.Write(b[off+8:])
	return d.Sum64()
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
