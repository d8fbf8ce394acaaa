package pagemap

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// Every value in the database is a record: a frame that says what it is, and a body. Constants never change.
//
//	byte   0      4         8        9      10    12      16      24      32
//	       magic  checksum  version  shape  zero  length  map id  number  body      little endian
//	       u32    u32       u8       u8     u16   u32     u64     u64
//
// checksum is the low half of XXH64 of bytes 8 to length. length counts the frame too. shape belongs to
// the kind of record. number is the page, the SCO or the group of SCOs; 0 where there is but one.
//
//	database    "VMDB"  map id 0, number 0; empty body
//	checkpoint  "VMCK"  commit u64 | sequence u64 | size in blocks u64
//	SCO         "VMSC"  commit u64 | first sequence u64 | last sequence u64 | blocks u32
//	counts      "VMLV"  256 x u32: blocks of the base pages that lie in SCO number*256 + i
//	page        "VMPG"  see Page
const (
	frameSize = 32
	version   = 1

	magicDB         = 0x42444d56
	magicCheckpoint = 0x4b434d56
	magicSCO        = 0x43534d56
	magicCounts     = 0x564c4d56
	magicPage       = 0x47504d56
)

// Keys are map id u64 | table u8 | number u64, big endian: a map is one range of keys, and within it
// what Open reads (checkpoint, SCOs, counts) lies before the pages, in one short scan.
const (
	keySize = 17

	tableDB         = 0x00 // of map id 0, which is no map
	tableCheckpoint = 0x10
	tableSCO        = 0x20
	tableCounts     = 0x30
	tablePage       = 0x40
	tableEnd        = 0x41
)

func appendKey(b []byte, id MapID, table byte, number uint64) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(id))
	b = append(b, table)
	return binary.BigEndian.AppendUint64(b, number)
}

func key(id MapID, table byte, number uint64) []byte {
	return appendKey(make([]byte, 0, keySize), id, table, number)
}

// keyNumber is the number in a key of this package.
func keyNumber(k []byte) uint64 { return binary.BigEndian.Uint64(k[9:]) }

// appendFrame appends a frame with room for checksum and length, which seal fills in.
func appendFrame(b []byte, magic uint32, shape byte, id MapID, number uint64) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, magic)
	b = append(b, 0, 0, 0, 0, version, shape, 0, 0, 0, 0, 0, 0)
	b = le.AppendUint64(b, uint64(id))
	return le.AppendUint64(b, number)
}

// seal ends the record that is all of b.
func seal(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[12:], uint32(len(b)))
	binary.LittleEndian.PutUint32(b[4:], uint32(xxhash.Sum64(b[8:])))
	return b
}

// frame is a record that passed its checksum.
type frame struct {
	magic  uint32
	shape  byte
	id     MapID
	number uint64
	body   []byte // of the record's bytes
}

func parseFrame(b []byte) (frame, error) {
	le := binary.LittleEndian
	if len(b) < frameSize {
		return frame{}, errs.New(errs.Corrupt, "map record of %d bytes: a frame alone has %d", len(b), frameSize)
	}
	if n := le.Uint32(b[12:]); n != uint32(len(b)) {
		return frame{}, errs.New(errs.Corrupt, "map record says %d bytes and has %d", n, len(b))
	}
	if want, got := le.Uint32(b[4:]), uint32(xxhash.Sum64(b[8:])); want != got {
		return frame{}, errs.New(errs.Corrupt, "map record has checksum %08x, its bytes give %08x", want, got)
	}
	if b[8] != version {
		return frame{}, errs.New(errs.Version, "map record of version %d: this build knows %d", b[8], version)
	}
	if b[10] != 0 || b[11] != 0 {
		return frame{}, errs.New(errs.Corrupt, "map record has bits set that version %d leaves zero", version)
	}
	return frame{magic: le.Uint32(b), shape: b[9], id: MapID(le.Uint64(b[16:])),
		number: le.Uint64(b[24:]), body: b[frameSize:]}, nil
}

// openFrame parses b and demands that it is what was asked for: a value that answers to a wrong key is
// as bad as one with flipped bits.
func openFrame(b []byte, magic uint32, id MapID, number uint64) (frame, error) {
	f, err := parseFrame(b)
	if err != nil {
		return frame{}, err
	}
	if f.magic != magic || f.id != id || f.number != number {
		return frame{}, errs.New(errs.Corrupt, "map record is %s of map %d number %d, wanted %s of map %d number %d",
			magicName(f.magic), f.id, f.number, magicName(magic), id, number)
	}
	return f, nil
}

func magicName(m uint32) string {
	switch m {
	case magicDB:
		return "database"
	case magicCheckpoint:
		return "checkpoint"
	case magicSCO:
		return "SCO"
	case magicCounts:
		return "counts"
	case magicPage:
		return "page"
	}
	return fmt.Sprintf("magic %08x", m)
}

// Checkpoint says how far the base pages of a map are: whatever a commit up to Commit did is in them,
// or is undone by a later commit.
type Checkpoint struct {
	Commit ids.CommitNum
	Seq    ids.Seq       // last write sequence in those commits
	Size   ids.BlockAddr // of the vDisk, in blocks
}

func (c Checkpoint) append(b []byte, id MapID) []byte {
	start := len(b)
	b = appendFrame(b, magicCheckpoint, 0, id, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(c.Commit))
	b = binary.LittleEndian.AppendUint64(b, uint64(c.Seq))
	b = binary.LittleEndian.AppendUint64(b, uint64(c.Size))
	seal(b[start:])
	return b
}

func (f frame) checkpoint() (Checkpoint, error) {
	if len(f.body) != 24 || f.shape != 0 {
		return Checkpoint{}, errs.New(errs.Corrupt, "map checkpoint of %d bytes: must be 24", len(f.body))
	}
	le := binary.LittleEndian
	return Checkpoint{Commit: ids.CommitNum(le.Uint64(f.body)), Seq: ids.Seq(le.Uint64(f.body[8:])),
		Size: ids.BlockAddr(le.Uint64(f.body[16:]))}, nil
}

// SCO is what a map remembers of a SCO beside its counts.
type SCO struct {
	Num    ids.SCONum
	Commit ids.CommitNum
	Blocks uint32 // data blocks in it
	First  ids.Seq
	Last   ids.Seq // write sequences First to Last are in it
}

func (s SCO) append(b []byte, id MapID) []byte {
	start := len(b)
	b = appendFrame(b, magicSCO, 0, id, uint64(s.Num))
	b = binary.LittleEndian.AppendUint64(b, uint64(s.Commit))
	b = binary.LittleEndian.AppendUint64(b, uint64(s.First))
	b = binary.LittleEndian.AppendUint64(b, uint64(s.Last))
	b = binary.LittleEndian.AppendUint32(b, s.Blocks)
	seal(b[start:])
	return b
}

func (f frame) sco() (SCO, error) {
	if len(f.body) != 28 || f.shape != 0 || f.number == 0 || f.number > 1<<32-1 {
		return SCO{}, errs.New(errs.Corrupt, "SCO record of number %d with %d bytes: must be a SCO number and 28",
			f.number, len(f.body))
	}
	le := binary.LittleEndian
	return SCO{Num: ids.SCONum(f.number), Commit: ids.CommitNum(le.Uint64(f.body)),
		First: ids.Seq(le.Uint64(f.body[8:])), Last: ids.Seq(le.Uint64(f.body[16:])),
		Blocks: le.Uint32(f.body[24:])}, nil
}

// groupSCOs is how many SCOs share a record of counts; a format constant. Random writes change the
// counts of nearly every SCO in nearly every batch: 4 bytes each instead of a record each.
const groupSCOs = 256

func appendCounts(b []byte, id MapID, group uint32, counts *[groupSCOs]uint32) []byte {
	start := len(b)
	b = appendFrame(b, magicCounts, 0, id, uint64(group))
	for _, n := range counts {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	seal(b[start:])
	return b
}

func (f frame) counts(dst *[groupSCOs]uint32) error {
	if len(f.body) != 4*groupSCOs || f.shape != 0 || f.number >= 1<<24 {
		return errs.New(errs.Corrupt, "record of counts %d with %d bytes: must have %d",
			f.number, len(f.body), 4*groupSCOs)
	}
	for i := range dst {
		dst[i] = binary.LittleEndian.Uint32(f.body[4*i:])
	}
	return nil
}
