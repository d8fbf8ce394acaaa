package sco

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// Kind says how a SCO's entries reach the map: Write unconditionally, Cleaning only where the block still
// lies at the old location.
type Kind uint16

const (
	Write Kind = iota
	Cleaning
)

const (
	version       = 1
	entrySize     = 20
	moveEntrySize = entrySize + layout.LocationSize
	holeSize      = 32
	// MaxBlocks is the largest object a location's 16-bit offset can point into.
	MaxBlocks = 1 << 16
)

var magic = [4]byte{'V', 'S', 'C', 'O'}

// Header is what a SCO says of itself.
type Header struct {
	Kind           Kind
	Volume         ids.VolumeID
	SCO            ids.SCONum
	Epoch          ids.Epoch
	SeqLo, SeqHi   ids.Seq
	Entries, Holes uint32
	IndexSum       uint64
}

// Entry is one data block.
type Entry struct {
	Addr ids.BlockAddr
	Seq  ids.Seq
	Sum  uint32
	Old  layout.Location // cleaning SCOs only
}

// Hole is a trimmed or zeroed range. Entries of the same SCO win over its holes.
type Hole struct {
	Addr  ids.BlockAddr
	Count uint64
	Seq   ids.Seq
	Kind  uint8
}

func (k Kind) entrySize() int {
	if k == Cleaning {
		return moveEntrySize
	}
	return entrySize
}

// IndexLen is the length of the index in bytes, without padding.
func IndexLen(k Kind, entries, holes int) int { return entries*k.entrySize() + holes*holeSize }

// DataStart is the block at which data begins.
func DataStart(k Kind, entries, holes int) int {
	return 1 + int(ids.Blocks(int64(IndexLen(k, entries, holes))))
}

// Size is the whole object's size in bytes.
func Size(k Kind, entries, holes int) int64 {
	return int64(DataStart(k, entries, holes)+entries) * ids.BlockSize
}

// Capacity is the number of entries that fit an object of size bytes beside holes holes.
func Capacity(k Kind, size int64, holes int) int {
	limit := min(size/ids.BlockSize, MaxBlocks) * ids.BlockSize
	n := int((limit - int64(1+holes*holeSize/ids.BlockSize)*ids.BlockSize) / int64(ids.BlockSize+k.entrySize()))
	for n > 0 && Size(k, n, holes) > limit {
		n--
	}
	for n >= 0 && Size(k, n+1, holes) <= limit {
		n++
	}
	return max(n, 0)
}

// DataStart is the block at which the data of this SCO begins.
func (h *Header) DataStart() int { return DataStart(h.Kind, int(h.Entries), int(h.Holes)) }

// IndexLen is the length of this SCO's index in bytes.
func (h *Header) IndexLen() int { return IndexLen(h.Kind, int(h.Entries), int(h.Holes)) }

// Head builds the header and the index, padded to whole blocks: the first DataStart blocks of the
// object. h.Entries, h.Holes and h.IndexSum are filled in.
// REQUIRES: entries and holes are sorted by address.
func Head(h *Header, entries []Entry, holes []Hole) []byte {
	h.Entries, h.Holes = uint32(len(entries)), uint32(len(holes))
	out := make([]byte, h.DataStart()*ids.BlockSize)
	p := out[ids.BlockSize:]
	le := binary.LittleEndian
	for i := range entries {
		e := &entries[i]
		le.PutUint64(p, uint64(e.Addr))
		le.PutUint64(p[8:], uint64(e.Seq))
		le.PutUint32(p[16:], e.Sum)
		if h.Kind == Cleaning {
			e.Old.Append(p[entrySize:entrySize])
		}
		p = p[h.Kind.entrySize():]
	}
	for i := range holes {
		le.PutUint64(p, uint64(holes[i].Addr))
		le.PutUint64(p[8:], holes[i].Count)
		le.PutUint64(p[16:], uint64(holes[i].Seq))
		p[24] = holes[i].Kind
		p = p[holeSize:]
	}
	h.IndexSum = xxhash.Sum64(out[ids.BlockSize : ids.BlockSize+h.IndexLen()])
	h.put(out[:ids.BlockSize])
	return out
}

func (h *Header) put(b []byte) {
	le := binary.LittleEndian
	copy(b, magic[:])
	le.PutUint16(b[4:], version)
	le.PutUint16(b[6:], uint16(h.Kind))
	le.PutUint32(b[8:], ids.BlockSize)
	le.PutUint32(b[12:], h.Entries)
	le.PutUint64(b[24:], uint64(h.Volume))
	le.PutUint32(b[32:], uint32(h.SCO))
	le.PutUint32(b[36:], h.Holes)
	le.PutUint64(b[40:], uint64(h.Epoch))
	le.PutUint64(b[48:], uint64(h.SeqLo))
	le.PutUint64(b[56:], uint64(h.SeqHi))
	le.PutUint64(b[64:], h.IndexSum)
	le.PutUint64(b[16:], xxhash.Sum64(b[:ids.BlockSize]))
}

// ParseHeader decodes and verifies the header block.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < ids.BlockSize || [4]byte(b[:4]) != magic {
		return Header{}, errs.New(errs.Corrupt, "this is not a SCO: it does not begin with %q", magic[:])
	}
	le := binary.LittleEndian
	if v := le.Uint16(b[4:]); v != version {
		return Header{}, errs.New(errs.Version, "SCO format version %d, this build reads %d", v, version)
	}
	var block [ids.BlockSize]byte
	copy(block[:], b)
	clear(block[16:24])
	if xxhash.Sum64(block[:]) != le.Uint64(b[16:]) {
		return Header{}, errs.New(errs.Corrupt, "SCO header fails its checksum")
	}
	h := Header{
		Kind: Kind(le.Uint16(b[6:])), Entries: le.Uint32(b[12:]), Holes: le.Uint32(b[36:]),
		Volume: ids.VolumeID(le.Uint64(b[24:])), SCO: ids.SCONum(le.Uint32(b[32:])),
		Epoch: ids.Epoch(le.Uint64(b[40:])),
		SeqLo: ids.Seq(le.Uint64(b[48:])), SeqHi: ids.Seq(le.Uint64(b[56:])),
		IndexSum: le.Uint64(b[64:]),
	}
	if h.Kind > Cleaning || le.Uint32(b[8:]) != ids.BlockSize || h.Entries > MaxBlocks || h.Holes > MaxBlocks {
		return Header{}, errs.New(errs.Corrupt, "SCO header holds impossible numbers")
	}
	return h, nil
}

// CheckIndex verifies the index, IndexLen bytes that follow the header block.
func (h *Header) CheckIndex(b []byte) error {
	if len(b) < h.IndexLen() {
		return errs.New(errs.Corrupt, "SCO index is cut short: %d bytes of %d", len(b), h.IndexLen())
	}
	if xxhash.Sum64(b[:h.IndexLen()]) != h.IndexSum {
		return errs.New(errs.Corrupt, "index of SCO %d of vDisk %d fails its checksum", h.SCO, h.Volume)
	}
	return nil
}

// ParseIndex decodes and verifies the index, IndexLen bytes that follow the header block. It calls
// entry for each data block with its offset in the object, in blocks, then hole for each hole.
func (h *Header) ParseIndex(b []byte, entry func(off uint16, e Entry), hole func(Hole)) error {
	if err := h.CheckIndex(b); err != nil {
		return err
	}
	if h.DataStart()+int(h.Entries) > MaxBlocks {
		return errs.New(errs.Corrupt, "SCO %d of vDisk %d is larger than a location can address", h.SCO, h.Volume)
	}
	le := binary.LittleEndian
	off := h.DataStart()
	for range h.Entries {
		e := Entry{Addr: ids.BlockAddr(le.Uint64(b)), Seq: ids.Seq(le.Uint64(b[8:])), Sum: le.Uint32(b[16:])}
		if h.Kind == Cleaning {
			e.Old = layout.ParseLocation(b[entrySize:])
		}
		entry(uint16(off), e)
		off++
		b = b[h.Kind.entrySize():]
	}
	for range h.Holes {
		hole(Hole{Addr: ids.BlockAddr(le.Uint64(b)), Count: le.Uint64(b[8:]), Seq: ids.Seq(le.Uint64(b[16:])), Kind: b[24]})
		b = b[holeSize:]
	}
	return nil
}
