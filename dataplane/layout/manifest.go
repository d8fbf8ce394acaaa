package layout

import (
	"fmt"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/ids"
)

// ObjectKind says what an object holds.
type ObjectKind uint8

const (
	KindWrite    ObjectKind = 1 // SCO of client writes: commits in seal order
	KindCleaning ObjectKind = 2 // SCO of blocks moved by cleaning
	KindOther    ObjectKind = 3 // map checkpoints and the like: no sequence of their own
)

func (k ObjectKind) String() string {
	switch k {
	case KindWrite:
		return "write"
	case KindCleaning:
		return "cleaning"
	case KindOther:
		return "other"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// FragState says whether a fragment lies at its target.
type FragState uint8

const (
	FragMissing FragState = 0
	FragPresent FragState = 1
)

// Frag is what the manifest knows of one fragment.
type Frag struct {
	Version uint8
	State   FragState
	// Sum is FragSum of the fragment's region sums. A missing fragment has it as well: it was coded,
	// only not written, and whoever rebuilds it checks the result against it.
	Sum uint64
}

// Manifest is the record of an object: what it is, how it was cut, where each fragment lies. The
// methods do not change it except where they say so; it may be read by many goroutines.
type Manifest struct {
	Namespace ids.NamespaceID
	SCO       ids.SCONum
	Put       ids.PutID
	Epoch     ids.Epoch
	Commit    ids.CommitNum
	Kind      ObjectKind
	SeqFirst  ids.Seq // range of write sequences inside, both ends included
	SeqLast   ids.Seq
	Size      int64 // bytes as cut into fragments, after the transforms
	Plain     int64 // bytes before the transforms; equal to Size without any

	MaxFrag     uint32 // bytes
	Policy      Policy
	Compression uint8
	Encryption  uint8
	Key         uint32 // encryption key's number; 0 without encryption
	Head        uint32 // bytes of frame index and tags at the object's start; 0 without transforms

	// Version counts the amendments; every one is a compare-and-swap on it.
	Version uint32
	// Targets holds the ASD of each of the k+m slots; Frags every chunk's k+m fragments, chunk by
	// chunk. Slot says which slot a fragment lies in.
	Targets []Target
	Frags   []Frag
}

// FragSum is the checksum of a fragment in its manifest: XXH64 over its region sums, each as eight
// little-endian bytes.
func FragSum(sums []uint64) uint64 {
	var d xxhash.Digest
	d.Reset()
	var b [512]byte
	n := 0
	for _, s := range sums {
		putUint64(b[n:], s)
		if n += 8; n == len(b) {
			d.Write(b[:n])
			n = 0
		}
	}
	d.Write(b[:n])
	return d.Sum64()
}

func putUint64(b []byte, v uint64) {
	_ = b[7]
	b[0], b[1], b[2], b[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
	b[4], b[5], b[6], b[7] = byte(v>>32), byte(v>>40), byte(v>>48), byte(v>>56)
}

// Geometry is how the object was cut.
func (m *Manifest) Geometry() Geometry { return Cut(m.Size, int(m.Policy.K), int64(m.MaxFrag)) }

// Frag is the record of fragment frag of a chunk.
func (m *Manifest) Frag(chunk, frag int) *Frag { return &m.Frags[chunk*m.Policy.N()+frag] }

// FragKey is the name under which the fragment lies at its target.
func (m *Manifest) FragKey(chunk, frag int) FragKey {
	return m.FragKeyVersion(chunk, frag, m.Frag(chunk, frag).Version)
}

// FragKeyVersion is FragKey for another version of the fragment.
func (m *Manifest) FragKeyVersion(chunk, frag int, version uint8) FragKey {
	return FragKey{Namespace: m.Namespace, SCO: m.SCO, Put: m.Put,
		Chunk: uint16(chunk), Frag: uint8(frag), Version: version}
}

// Target is where the fragment lies, or where it belongs if it is missing.
func (m *Manifest) Target(chunk, frag int) Target { return m.Targets[Slot(chunk, frag, m.Policy.N())] }

// Present reports whether the fragment lies at its target.
func (m *Manifest) Present(chunk, frag int) bool { return m.Frag(chunk, frag).State == FragPresent }

// PresentIn counts the present fragments of a chunk.
func (m *Manifest) PresentIn(chunk int) int {
	n := 0
	for f := range m.Policy.N() {
		if m.Present(chunk, f) {
			n++
		}
	}
	return n
}

// ChunkFrag names a fragment within an object.
type ChunkFrag struct {
	Chunk, Frag int
}

// Missing lists the fragments that are not at their targets, in order; nil if the object is whole.
func (m *Manifest) Missing() []ChunkFrag {
	var out []ChunkFrag
	n := m.Policy.N()
	for i := range m.Frags {
		if m.Frags[i].State != FragPresent {
			out = append(out, ChunkFrag{i / n, i % n})
		}
	}
	return out
}

// Whole reports whether no fragment is missing.
func (m *Manifest) Whole() bool {
	for i := range m.Frags {
		if m.Frags[i].State != FragPresent {
			return false
		}
	}
	return true
}

// Clone is a copy that shares nothing.
func (m *Manifest) Clone() *Manifest {
	c := *m
	c.Targets = append([]Target(nil), m.Targets...)
	c.Frags = append([]Frag(nil), m.Frags...)
	return &c
}
