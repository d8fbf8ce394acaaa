package pracc

import (
	"slices"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// objKey names an object.
type objKey struct {
	ns  ids.NamespaceID
	sco ids.SCONum
}

// fragRef is where a fragment lies, slots resolved: 8 bytes.
type fragRef struct {
	asd     ids.ASDID
	version uint8
	state   refState
}

type refState uint8

const (
	refMissing refState = iota // was not written, or its slot has no target
	refASD
	refForeign // lies in another backend: not for a range read
)

// entry is what is kept of a manifest: about 400 bytes for 64 MiB at (8,2). It never changes; an amended
// manifest makes a new one. A fetch under way keeps the entry it began with, evicted or not.
type entry struct {
	key     objKey
	put     ids.PutID
	version uint32    // of the manifest
	answer  errs.Kind // what fetches get at once if not OK
	k, n    uint8     // data fragments, all fragments of a chunk
	heat    uint8     // the cache's: hits not yet held against it
	asked   int64     // the loop's time when the manifest was last asked for because of a missing fragment
	blocks  uint32    // length of the object
	geo     layout.Geometry
	frags   []fragRef // chunk by chunk
	prev    *entry    // the cache's ring, see cache
	next    *entry
}

// entryOverhead is what an entry takes apart from its frags: itself, and its share of the table.
const entryOverhead = 176 + 64

// bytes is what the entry costs in memory.
func (e *entry) bytes() int64 { return entryOverhead + 8*int64(len(e.frags)) }

// resolve makes the entry of a manifest. A manifest that makes no sense gives an entry that answers
// Corrupt, one of a form that cannot be read in parts Unsupported.
func resolve(m *layout.Manifest, fragmentsMax int) *entry {
	e := &entry{
		key:     objKey{m.Namespace, m.SCO},
		put:     m.Put,
		version: m.Version,
		k:       m.Policy.K,
		n:       uint8(m.Policy.N()),
	}
	if m.Validate() != nil {
		e.answer = errs.Corrupt
		return e
	}
	if m.Compression != layout.CompressionNone || m.Encryption != layout.EncryptionNone || m.Head != 0 ||
		m.Policy.N() > fragmentsMax {
		e.answer = errs.Unsupported
		return e
	}
	e.geo = m.Geometry()
	e.blocks = uint32(ids.Blocks(e.geo.Size))
	n := m.Policy.N()
	e.frags = make([]fragRef, e.geo.Chunks*n)
	for i := range e.frags {
		chunk, frag := i/n, i%n
		ref := &e.frags[i]
		ref.version = m.Frag(chunk, frag).Version
		t := m.Target(chunk, frag)
		switch {
		case !m.Present(chunk, frag) || t.Kind == layout.TargetNone:
			ref.state = refMissing
		case t.Kind == layout.TargetASD:
			ref.state, ref.asd = refASD, t.ASD
		default:
			ref.state = refForeign
		}
	}
	return e
}

// frag is the place of a fragment.
func (e *entry) frag(chunk, frag int) fragRef { return e.frags[chunk*int(e.n)+frag] }

// fragKey is its name.
func (e *entry) fragKey(chunk, frag int) layout.FragKey {
	return layout.FragKey{Namespace: e.key.ns, SCO: e.key.sco, Put: e.put,
		Chunk: uint16(chunk), Frag: uint8(frag), Version: e.frag(chunk, frag).version}
}

// same reports whether reads through o would do just what they do through e.
func (e *entry) same(o *entry) bool {
	return e.put == o.put && e.geo == o.geo && e.n == o.n && e.answer == o.answer &&
		slices.Equal(e.frags, o.frags)
}
