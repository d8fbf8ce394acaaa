package fragcache

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// footerVersion:
//
//	1  the first
const footerVersion = 1

const (
	footerMagic = "vstorFCT"
	footerTail  = 128
	footerEntry = 40
)

// Listed is a fragment as a footer has it.
type Listed struct {
	Key   layout.FragKey
	Block uint32 // of the header, from the segment's start
	Len   uint32 // of the payload, in bytes
	Seq   uint64
}

// Footer lists what is alive in a segment when it is sealed. It ends where the segment ends, and is read from there:
// its last 128 bytes say how long it is. Whole blocks, little endian but for the keys:
//
//	byte   0  entries, 40 bytes each, by block: key 20 (big endian), block u32, payload length u32, sequence u64,
//	          zero u32; then zeros
//	  n-128   magic "vstorFCT"
//	  n-120   version u16, then two zeros
//	  n-116   length of the footer u32 = n
//	  n-112   checksum u64: XXH64 of the n bytes with this field zero
//	  n-104   UUID of the file
//	   n-88   segment u32
//	   n-84   number of entries u32
//	   n-80   generation of the segment u64
//	          zeros
type Footer struct {
	UUID       [16]byte
	Segment    uint32
	Generation uint64
	List       []Listed
}

// footerBytes is the length of a footer that lists n fragments.
func footerBytes(n int) int64 {
	return (int64(n)*footerEntry + footerTail + blockSize - 1) >> blockShift << blockShift
}

// Encode writes the footer into b. REQUIRES: len(b) is footerBytes of the list.
func (f *Footer) Encode(b []byte) {
	clear(b)
	le := binary.LittleEndian
	for i, e := range f.List {
		p := b[i*footerEntry:]
		e.Key.Append(p[:0])
		le.PutUint32(p[20:], e.Block)
		le.PutUint32(p[24:], e.Len)
		le.PutUint64(p[28:], e.Seq)
	}
	t := b[len(b)-footerTail:]
	copy(t, footerMagic)
	le.PutUint16(t[8:], footerVersion)
	le.PutUint32(t[12:], uint32(len(b)))
	copy(t[24:], f.UUID[:])
	le.PutUint32(t[40:], f.Segment)
	le.PutUint32(t[44:], uint32(len(f.List)))
	le.PutUint64(t[48:], f.Generation)
	le.PutUint64(t[16:], xxhash.Sum64(b))
}

// footerLen is how long the footer is whose last bytes are at the end of b; false if there is none.
func footerLen(b []byte) (int64, bool) {
	if len(b) < footerTail {
		return 0, false
	}
	t := b[len(b)-footerTail:]
	n := int64(binary.LittleEndian.Uint32(t[12:]))
	return n, string(t[:8]) == footerMagic && n >= blockSize && n%blockSize == 0
}

// DecodeFooter reads a footer that is all of b, of a segment of that many blocks. errs.Absent: there is none;
// errs.Corrupt: there was one; errs.Version: a newer build wrote it.
func DecodeFooter(b []byte, blocks uint32) (f Footer, err error) {
	n, ok := footerLen(b)
	if !ok || n != int64(len(b)) {
		return f, errs.New(errs.Absent, "fragcache: no footer")
	}
	le := binary.LittleEndian
	at := len(b) - footerTail
	t := b[at:]
	if le.Uint64(t[16:]) != footerSum(b, at+16) {
		return f, errs.New(errs.Corrupt, "fragcache: a footer fails its checksum")
	}
	if v := le.Uint16(t[8:]); v != footerVersion {
		return f, errs.New(errs.Version, "fragcache: a footer has version %d; this build reads %d", v, footerVersion)
	}
	f.UUID, f.Segment, f.Generation = [16]byte(t[24:]), le.Uint32(t[40:]), le.Uint64(t[48:])
	count := int(le.Uint32(t[44:]))
	if count > at/footerEntry || footerBytes(count) != n || t[10]|t[11] != 0 || !zeros(t[56:]) ||
		!zeros(b[count*footerEntry:at]) {
		return f, errs.New(errs.Corrupt, "fragcache: a footer has fields that cannot be")
	}
	end := uint32(0) // first block behind the fragment before
	limit := int64(blocks) - n>>blockShift
	for i := range count {
		p := b[i*footerEntry : (i+1)*footerEntry]
		e := Listed{Block: le.Uint32(p[20:]), Len: le.Uint32(p[24:]), Seq: le.Uint64(p[28:])}
		e.Key, _ = layout.ParseFragKey(p)
		if e.Block < end || e.Len == 0 || e.Len%blockSize != 0 || e.Len > MaxPayload || e.Seq == 0 || !zeros(p[36:]) ||
			int64(e.Block)+1+int64(e.Len>>blockShift) > limit {
			return f, errs.New(errs.Corrupt, "fragcache: a footer lists a fragment that cannot be")
		}
		end = e.Block + 1 + e.Len>>blockShift
		f.List = append(f.List, e)
	}
	return f, nil
}

func footerSum(b []byte, at int) uint64 {
	var d xxhash.Digest
	d.Reset()
	d.Write(b[:at])
	var none [8]byte
	d.Write(none[:])
	d.Write(b[at+8:])
	return d.Sum64()
}
