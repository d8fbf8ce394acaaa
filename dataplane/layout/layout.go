// Package layout is pure arithmetic and records: how an object is cut into chunks and fragments, what
// names a fragment and a block, which policies there are, where fragments go, and the manifest that
// remembers it. No IO, no clocks, no goroutines: bytes in, structs out.
package layout

import (
	"cmp"
	"encoding/binary"
	"fmt"

	"vstor/dataplane/ids"
)

// FragKey names a fragment for ever: a put attempt never reuses a put id and a repaired fragment takes
// a new version, so one key never has two contents.
//
//	byte   0        8     12    16      18     19       20
//	       namespace SCO   put   chunk   frag   version       big endian: byte order is key order
type FragKey struct {
	Namespace ids.NamespaceID
	SCO       ids.SCONum
	Put       ids.PutID
	Chunk     uint16
	Frag      uint8
	Version   uint8
}

// FragKeySize is the encoded size of a FragKey in bytes.
const FragKeySize = 20

// Append appends the encoded key.
func (k FragKey) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(k.Namespace))
	b = binary.BigEndian.AppendUint32(b, uint32(k.SCO))
	b = binary.BigEndian.AppendUint32(b, uint32(k.Put))
	b = binary.BigEndian.AppendUint16(b, k.Chunk)
	return append(b, k.Frag, k.Version)
}

// ParseFragKey decodes the first FragKeySize bytes of b; false if there are fewer.
func ParseFragKey(b []byte) (FragKey, bool) {
	if len(b) < FragKeySize {
		return FragKey{}, false
	}
	return FragKey{
		Namespace: ids.NamespaceID(binary.BigEndian.Uint64(b)),
		SCO:       ids.SCONum(binary.BigEndian.Uint32(b[8:])),
		Put:       ids.PutID(binary.BigEndian.Uint32(b[12:])),
		Chunk:     binary.BigEndian.Uint16(b[16:]),
		Frag:      b[18],
		Version:   b[19],
	}, true
}

// Compare orders keys as their encodings.
func (k FragKey) Compare(o FragKey) int {
	return cmp.Or(cmp.Compare(k.Namespace, o.Namespace), cmp.Compare(k.SCO, o.SCO), cmp.Compare(k.Put, o.Put),
		cmp.Compare(k.Chunk, o.Chunk), cmp.Compare(k.Frag, o.Frag), cmp.Compare(k.Version, o.Version))
}

func (k FragKey) String() string {
	return fmt.Sprintf("%d/%d/%d/%d/%d.%d", k.Namespace, k.SCO, k.Put, k.Chunk, k.Frag, k.Version)
}

// RegionSize is the unit of a fragment's checksums at rest, in bytes; a format constant. The last
// region of a fragment may be shorter. It is also the piece in which coding works: k+m pieces of
// 64 KiB stay in L2 while they are gathered, coded and hashed.
const RegionSize = 64 << 10

// FragHeaderSize is the headroom in front of a fragment's payload, in memory and on the drive.
const FragHeaderSize = 4096

// Regions is the number of regions of a payload of n bytes.
func Regions(n int) int { return (n + RegionSize - 1) / RegionSize }

// Class says whom a put serves; a drive that fills up refuses client puts first, then cleaning, then
// repair.
type Class uint8

const (
	ClassClient Class = iota
	ClassCleaning
	ClassRepair
)

// FragPut asks an ASD to keep a fragment.
type FragPut struct {
	Key   FragKey
	Epoch ids.Epoch
	Class Class
	// Buf is FragHeaderSize bytes of headroom, which the store fills in, and the payload, a multiple
	// of 4096 bytes. It is page aligned, lies outside the Go heap, and belongs to the callee until
	// Put returns.
	Buf []byte
	// Sums holds XXH64 of each region of the payload.
	Sums []uint64
	// Desc is kept in the fragment's header and given back by Describe: what is needed to make the
	// object's manifest again. At most DescMax bytes, may be empty; the caller's.
	Desc []byte
}

// Extent is a run of bytes on a drive.
type Extent struct {
	Off int64
	Len uint32
}

// Location says where one block lies and what it must hash to. The zero Location is an unmapped block.
//
//	byte   0     4      6           8        12
//	       SCO   off    namespace   checksum        little endian
type Location struct {
	SCO ids.SCONum
	Off uint16 // in blocks of uncompressed bytes from the object's start
	NS  uint16 // index into the table of namespaces of the vDisk's clone family
	Sum uint32 // low half of XXH64 of the plaintext block
}

// LocationSize is the encoded size of a Location in bytes.
const LocationSize = 12

// Locations with SCO 0 name no SCO: Off says what kind of hole the block is.
const (
	OffUnmapped = 0
	OffZero     = 1 // allocated zeros
	OffTrimmed  = 2
	// OffAsk is in answers to those who keep them, and in no map: where the block lies is not for keeping.
	OffAsk = 0xffff
)

// Hole reports whether the block reads as zeros and lies in no SCO.
func (l Location) Hole() bool { return l.SCO == 0 }

// Append appends the encoded location.
func (l Location) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(l.SCO))
	b = binary.LittleEndian.AppendUint16(b, l.Off)
	b = binary.LittleEndian.AppendUint16(b, l.NS)
	return binary.LittleEndian.AppendUint32(b, l.Sum)
}

// ParseLocation decodes LocationSize bytes. REQUIRES: len(b) >= LocationSize.
func ParseLocation(b []byte) Location {
	return Location{
		SCO: ids.SCONum(binary.LittleEndian.Uint32(b)),
		Off: binary.LittleEndian.Uint16(b[4:]),
		NS:  binary.LittleEndian.Uint16(b[6:]),
		Sum: binary.LittleEndian.Uint32(b[8:]),
	}
}

// Policy (k,m,c,x): k data and m parity fragments per chunk, good enough once c are written, at most x
// of a chunk on one node.
type Policy struct {
	K, M, C, X uint8
}

// N is the number of fragments of a chunk.
func (p Policy) N() int { return int(p.K) + int(p.M) }

func (p Policy) String() string { return fmt.Sprintf("(%d,%d,%d,%d)", p.K, p.M, p.C, p.X) }

// Geometry is how an object of Size bytes is cut: Chunks equal chunks of ChunkLen bytes, each of k data
// fragments of FragLen bytes and m parity fragments. Data fragment i of a chunk is its contiguous
// slice i. What lies beyond Size is zeros.
type Geometry struct {
	Size     int64
	Chunks   int
	ChunkLen int64
	FragLen  int64
	K        int
}

// Cut computes the geometry: ceil(S / min(k*F, S)) chunks, rounded up to k*4 KiB each.
// REQUIRES: size > 0, k > 0, maxFrag > 0.
func Cut(size int64, k int, maxFrag int64) Geometry {
	per := min(int64(k)*maxFrag, size)
	n := (size + per - 1) / per
	unit := int64(k) * ids.BlockSize
	chunk := ((size+n-1)/n + unit - 1) / unit * unit
	return Geometry{Size: size, Chunks: int(n), ChunkLen: chunk, FragLen: chunk / int64(k), K: k}
}

// Place is where byte off of the object lies: data fragment frag of chunk, fragOff bytes into it.
func (g Geometry) Place(off int64) (chunk, frag int, fragOff int64) {
	chunk = int(off / g.ChunkLen)
	in := off % g.ChunkLen
	return chunk, int(in / g.FragLen), in % g.FragLen
}

// Slot is the place in the object's list of ASDs of fragment frag of a chunk: the list is rotated by
// one with each chunk, so that parity and data load all drives alike.
func Slot(chunk, frag, n int) int { return (chunk + frag) % n }
