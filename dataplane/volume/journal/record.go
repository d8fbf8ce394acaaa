package journal

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

const (
	recordMagic  = 0x4352_4a72_6f74_7376 // "vstorJRC"
	headerLength = 112
	entryLength  = 32
	sumLength    = 4
)

// MaxEntryBlocks is the most blocks a Write entry may hold; larger writes are several entries, each with
// a sequence number of its own. A format constant. It is small so that a record fits into the smallest
// segment; a large write loses nothing by it, because its entries share records (24 of them fill one).
const MaxEntryBlocks = 32

// headerBlocks is the most payload blocks a header can name: 24 full entries and what remains.
const (
	fullEntry    = entryLength + MaxEntryBlocks*sumLength
	headerRoom   = BlockSize - headerLength
	headerBlocks = headerRoom/fullEntry*MaxEntryBlocks + (headerRoom%fullEntry-entryLength)/sumLength
)

// Kind is what an Entry does. The numbers are in journals: append only.
type Kind uint8

const (
	Write    Kind = 1 // Blocks blocks of payload at Addr
	Trim     Kind = 2 // Blocks blocks at Addr read as zeros and are free
	Zero     Kind = 3 // Blocks blocks at Addr read as zeros
	Snapshot Kind = 4 // Addr is the volume's
	Rollback Kind = 5 // Addr is the volume's
	Resize   Kind = 6 // Addr is the new size in blocks
	Bypass   Kind = 7 // commit of a write whose payload went past the journal

	kindLast = Bypass
)

var kindNames = [...]string{"none", "write", "trim", "zero", "snapshot", "rollback", "resize", "bypass"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Flags of an entry.
const (
	flagCopied = 1 << iota
	flagLost
)

// Header is the first block of a record; the payload blocks of its Write entries follow in order.
//
// The first 24 bytes keep their meaning in all versions. Little endian; what lies behind length is zeros.
//
//	byte   0  magic         u64   "vstorJRC"
//	       8  checksum      u64   XXH64 of bytes [16, length)
//	      16  version       u16
//	      18  flags         u16   zero
//	      20  length        u32   bytes in use, with the entries
//	      24  uuid          16 bytes, of the journal
//	      40  incarnation   u64
//	      48  number        u64   one more with each record, over all lives
//	      56  prev          u64   checksum of record number-1; 0 if there was none at hand
//	      64  lap           u32   how often the log came round
//	      68  position      u32   of this block in the file, in blocks
//	      72  tail segment  u32   tail as durable in the root when this was written
//	      76  blocks        u32   of payload
//	      80  tail record   u64
//	      88  durable       u64   all records up to this one were synced when this was written
//	      96  complete      u64   all records up to this one had ended when this was written
//	     104  entries       u32
//	     108  reserved      u32   zero
//	     112  entries, 32 bytes and 4 per block of payload:
//
//	byte   0  volume        u64
//	       8  sequence      u64
//	      16  address       u64   in blocks
//	      24  blocks        u32
//	      28  kind          u8
//	      29  flags         u8    bit 0: copied forward; bit 1: lost, a write whose payload is not what the
//	                              checksums say
//	      30  checksums     u16   = blocks for a write, else 0
//	      32  checksum      u32 each: low half of XXH64 of the block
type Header struct {
	Sum         uint64
	Length      uint32
	UUID        [16]byte
	Incarnation uint64
	Number      uint64
	Prev        uint64
	Lap         uint32
	Position    uint32
	TailSegment uint32
	Blocks      uint32
	TailRecord  uint64
	Durable     uint64
	Complete    uint64
	Entries     uint32
}

// put fills in the fixed part of b, whose entries end at h.Length, and sets h.Sum.
func (h *Header) put(b []byte) {
	clear(b[h.Length:BlockSize])
	le := binary.LittleEndian
	le.PutUint64(b, recordMagic)
	le.PutUint16(b[16:], version)
	le.PutUint16(b[18:], 0)
	le.PutUint32(b[20:], h.Length)
	copy(b[24:], h.UUID[:])
	le.PutUint64(b[40:], h.Incarnation)
	le.PutUint64(b[48:], h.Number)
	le.PutUint64(b[56:], h.Prev)
	le.PutUint32(b[64:], h.Lap)
	le.PutUint32(b[68:], h.Position)
	le.PutUint32(b[72:], h.TailSegment)
	le.PutUint32(b[76:], h.Blocks)
	le.PutUint64(b[80:], h.TailRecord)
	le.PutUint64(b[88:], h.Durable)
	le.PutUint64(b[96:], h.Complete)
	le.PutUint32(b[104:], h.Entries)
	le.PutUint32(b[108:], 0)
	h.Sum = xxhash.Sum64(b[16:h.Length])
	le.PutUint64(b[8:], h.Sum)
}

// putEntry writes e at byte at of b and returns the byte behind it. Only writes carry checksums.
func putEntry(b []byte, at int, e *Entry) int {
	le := binary.LittleEndian
	p := b[at : at+entryLength]
	le.PutUint64(p, uint64(e.Vol))
	le.PutUint64(p[8:], uint64(e.Seq))
	le.PutUint64(p[16:], uint64(e.Addr))
	le.PutUint32(p[24:], e.Blocks)
	p[28] = byte(e.Kind)
	p[29] = 0
	if e.copied {
		p[29] |= flagCopied
	}
	if e.Lost {
		p[29] |= flagLost
	}
	n := int(e.payload())
	le.PutUint16(p[30:], uint16(n))
	at += entryLength
	for _, s := range e.Sums[:n] {
		le.PutUint32(b[at:], s)
		at += sumLength
	}
	return at
}

// isHeader is a cheap look at whether b may be a header at all.
func isHeader(b []byte) bool { return binary.LittleEndian.Uint64(b) == recordMagic }

// DecodeHeader reads the header of a record and checks that its entries are well formed, so that an
// Entries walk over the same block cannot fail. Errors are of kind Corrupt, or Version.
func DecodeHeader(b []byte) (Header, error) {
	if err := checkPrefix(b, recordMagic, headerLength); err != nil {
		return Header{}, err
	}
	le := binary.LittleEndian
	h := Header{
		Sum:         le.Uint64(b[8:]),
		Length:      le.Uint32(b[20:]),
		Incarnation: le.Uint64(b[40:]),
		Number:      le.Uint64(b[48:]),
		Prev:        le.Uint64(b[56:]),
		Lap:         le.Uint32(b[64:]),
		Position:    le.Uint32(b[68:]),
		TailSegment: le.Uint32(b[72:]),
		Blocks:      le.Uint32(b[76:]),
		TailRecord:  le.Uint64(b[80:]),
		Durable:     le.Uint64(b[88:]),
		Complete:    le.Uint64(b[96:]),
		Entries:     le.Uint32(b[104:]),
	}
	copy(h.UUID[:], b[24:])
	if err := h.check(b); err != nil {
		return Header{}, err
	}
	return h, nil
}

func (h *Header) check(b []byte) error {
	at, blocks := uint32(headerLength), uint32(0)
	for i := range h.Entries {
		if at+entryLength > h.Length {
			return errs.New(errs.Corrupt, "journal: record %d ends within entry %d", h.Number, i)
		}
		e := parseEntry(b[at:])
		want := uint32(0)
		if e.Kind == Write {
			want = e.Blocks
		}
		sums := uint32(binary.LittleEndian.Uint16(b[at+30:]))
		flags := b[at+29]
		if flags > flagCopied|flagLost || e.Lost && e.Kind != Write {
			return errs.New(errs.Corrupt, "journal: record %d entry %d is a %s with flags %#x", h.Number, i, e.Kind, flags)
		}
		if e.Kind == 0 || e.Kind > kindLast || sums != want || sums > MaxEntryBlocks {
			return errs.New(errs.Corrupt, "journal: record %d entry %d is a %s of %d blocks with %d checksums",
				h.Number, i, e.Kind, e.Blocks, sums)
		}
		blocks += sums
		at += entryLength + sums*sumLength
	}
	if at != h.Length || blocks != h.Blocks {
		return errs.New(errs.Corrupt, "journal: record %d has entries up to byte %d with %d blocks, its "+
			"header says %d with %d", h.Number, at, blocks, h.Length, h.Blocks)
	}
	return nil
}

// EntryHeader is an entry as its record names it.
type EntryHeader struct {
	Vol    ids.VolumeID
	Seq    ids.Seq
	Addr   ids.BlockAddr
	Blocks uint32
	Kind   Kind
	Copied bool   // forward, from an older record
	Lost   bool   // the payload is not what the checksums say
	sums   []byte // 4 bytes per block of payload
}

func parseEntry(p []byte) EntryHeader {
	le := binary.LittleEndian
	return EntryHeader{
		Vol:    ids.VolumeID(le.Uint64(p)),
		Seq:    ids.Seq(le.Uint64(p[8:])),
		Addr:   ids.BlockAddr(le.Uint64(p[16:])),
		Blocks: le.Uint32(p[24:]),
		Kind:   Kind(p[28]),
		Copied: p[29]&flagCopied != 0,
		Lost:   p[29]&flagLost != 0,
	}
}

// Payload is the number of payload blocks.
func (e *EntryHeader) Payload() int { return len(e.sums) / sumLength }

// Sum is the checksum of payload block i.
func (e *EntryHeader) Sum(i int) uint32 { return binary.LittleEndian.Uint32(e.sums[i*sumLength:]) }

// Walk goes over the entries of a record: `for w := h.Walk(b); w.Next(&e); {}`.
type Walk struct {
	b    []byte
	at   int
	left uint32
}

// Walk begins a walk over the header block b that h was decoded from.
func (h *Header) Walk(b []byte) Walk { return Walk{b: b, at: headerLength, left: h.Entries} }

// Next sets e to the next entry; false behind the last. e borrows the block.
func (w *Walk) Next(e *EntryHeader) bool {
	if w.left == 0 {
		return false
	}
	w.left--
	*e = parseEntry(w.b[w.at:])
	n := int(binary.LittleEndian.Uint16(w.b[w.at+30:])) * sumLength
	w.at += entryLength
	e.sums = w.b[w.at : w.at+n]
	w.at += n
	return true
}
