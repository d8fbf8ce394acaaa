package layout

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
)

// A manifest, little endian. The checksum covers every byte but its own four, so it stands in the head where
// a reader looks first. Lengths that follow from others (targets from k+m, fragments from the
// geometry) are not stored: they cannot disagree.
//
//	byte   0       4         6      7       8        12         16
//	       "VMAN"  version   kind   zero    length   checksum   namespace
//	byte   24      28        32             40       48         56          64
//	       SCO     put       epoch          commit   seq first  seq last    size
//	byte   72      80          84         88      89      90     92
//	       plain   max frag    k m c x    compr.  encr.   zeros  manifest version
//	byte   96      100       104
//	       key     head      k+m targets of 16 bytes, then chunks*(k+m) fragments of 10:
//
//	byte   0         1       2
//	       version   state   sum
//
// 64 MiB at (8,2) with fragments of 4 MiB: 104 + 10*16 + 20*10 = 464 bytes.
const (
	manifestMagic   = 'V' | 'M'<<8 | 'A'<<16 | 'N'<<24
	manifestVersion = 1
	manifestHead    = 104
	fragRecordSize  = 10

	// ManifestMax is the largest manifest in bytes; a longer one is refused before anything is read.
	ManifestMax = 1 << 20
	chunksMax   = 1 << 16 // a chunk's number is a u16
)

// EncodedSize is the number of bytes that Append adds.
func (m *Manifest) EncodedSize() int {
	return manifestHead + len(m.Targets)*TargetSize + len(m.Frags)*fragRecordSize
}

// Append appends the encoded manifest. REQUIRES: Validate returns nil.
func (m *Manifest) Append(b []byte) []byte {
	if invariants.Enabled {
		err := m.Validate()
		invariants.Assert(err == nil, "layout: encoding a bad manifest: %v", err)
	}
	le := binary.LittleEndian
	at := len(b)
	b = le.AppendUint32(b, manifestMagic)
	b = le.AppendUint16(b, manifestVersion)
	b = append(b, byte(m.Kind), 0)
	b = le.AppendUint32(b, uint32(m.EncodedSize()))
	b = le.AppendUint32(b, 0) // checksum, below
	b = le.AppendUint64(b, uint64(m.Namespace))
	b = le.AppendUint32(b, uint32(m.SCO))
	b = le.AppendUint32(b, uint32(m.Put))
	b = le.AppendUint64(b, uint64(m.Epoch))
	b = le.AppendUint64(b, uint64(m.Commit))
	b = le.AppendUint64(b, uint64(m.SeqFirst))
	b = le.AppendUint64(b, uint64(m.SeqLast))
	b = le.AppendUint64(b, uint64(m.Size))
	b = le.AppendUint64(b, uint64(m.Plain))
	b = le.AppendUint32(b, m.MaxFrag)
	b = append(b, m.Policy.K, m.Policy.M, m.Policy.C, m.Policy.X, m.Compression, m.Encryption, 0, 0)
	b = le.AppendUint32(b, m.Version)
	b = le.AppendUint32(b, m.Key)
	b = le.AppendUint32(b, m.Head)
	for _, t := range m.Targets {
		b = t.append(b)
	}
	for i := range m.Frags {
		f := &m.Frags[i]
		b = append(b, f.Version, byte(f.State))
		b = le.AppendUint64(b, f.Sum)
	}
	le.PutUint32(b[at+12:], manifestSum(b[at:]))
	return b
}

// manifestSum is the low half of XXH64 over b without its bytes 12 to 15.
func manifestSum(b []byte) uint32 {
	var d xxhash.Digest
	d.Reset()
	d.Write(b[:12])
	d.Write(b[16:])
	return uint32(d.Sum64())
}

// ParseManifest decodes one manifest that fills b. Errors: Corrupt, and Version for a format from
// another release.
func ParseManifest(b []byte) (*Manifest, error) {
	le := binary.LittleEndian
	if err := checkManifestHead(b); err != nil {
		return nil, err
	}
	m := &Manifest{
		Kind:        ObjectKind(b[6]),
		Namespace:   ids.NamespaceID(le.Uint64(b[16:])),
		SCO:         ids.SCONum(le.Uint32(b[24:])),
		Put:         ids.PutID(le.Uint32(b[28:])),
		Epoch:       ids.Epoch(le.Uint64(b[32:])),
		Commit:      ids.CommitNum(le.Uint64(b[40:])),
		SeqFirst:    ids.Seq(le.Uint64(b[48:])),
		SeqLast:     ids.Seq(le.Uint64(b[56:])),
		Size:        int64(le.Uint64(b[64:])),
		Plain:       int64(le.Uint64(b[72:])),
		MaxFrag:     le.Uint32(b[80:]),
		Policy:      Policy{K: b[84], M: b[85], C: b[86], X: b[87]},
		Compression: b[88],
		Encryption:  b[89],
		Version:     le.Uint32(b[92:]),
		Key:         le.Uint32(b[96:]),
		Head:        le.Uint32(b[100:]),
	}
	nt, nf, err := m.counts()
	if err != nil {
		return nil, err
	}
	if want := manifestHead + nt*TargetSize + nf*fragRecordSize; want != len(b) {
		return nil, errs.New(errs.Corrupt, "manifest of %d bytes; its geometry needs %d", len(b), want)
	}
	m.Targets = make([]Target, nt)
	rest := b[manifestHead:]
	for i := range m.Targets {
		var ok bool
		if m.Targets[i], ok = parseTarget(rest); !ok {
			return nil, errs.New(errs.Corrupt, "manifest: target %d is no target", i)
		}
		rest = rest[TargetSize:]
	}
	m.Frags = make([]Frag, nf)
	for i := range m.Frags {
		m.Frags[i] = Frag{Version: rest[0], State: FragState(rest[1]), Sum: le.Uint64(rest[2:])}
		rest = rest[fragRecordSize:]
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return m, nil
}

func checkManifestHead(b []byte) error {
	le := binary.LittleEndian
	switch {
	case len(b) < manifestHead || len(b) > ManifestMax:
		return errs.New(errs.Corrupt, "manifest of %d bytes; it has between %d and %d", len(b), manifestHead, ManifestMax)
	case le.Uint32(b) != manifestMagic:
		return errs.New(errs.Corrupt, "manifest starts with %#x; its magic is %#x", le.Uint32(b), uint32(manifestMagic))
	case le.Uint16(b[4:]) != manifestVersion:
		return errs.New(errs.Version, "manifest has version %d; this program reads %d", le.Uint16(b[4:]), manifestVersion)
	case int(le.Uint32(b[8:])) != len(b):
		return errs.New(errs.Corrupt, "manifest says %d bytes and has %d", le.Uint32(b[8:]), len(b))
	case le.Uint32(b[12:]) != manifestSum(b):
		return errs.New(errs.Corrupt, "manifest fails its checksum")
	case b[7]|b[90]|b[91] != 0:
		return errs.New(errs.Corrupt, "manifest has reserved bytes that are not zero")
	}
	return nil
}

// counts says how many targets and fragments the manifest has, from fields that may be garbage.
func (m *Manifest) counts() (targets, frags int, err error) {
	if err := m.Policy.Validate(); err != nil {
		return 0, 0, errs.Wrap(errs.Corrupt, err, "manifest")
	}
	if m.Size <= 0 || m.Size > 1<<40 ||
		m.MaxFrag < FragmentMin || m.MaxFrag > FragmentMax || m.MaxFrag%ids.BlockSize != 0 {
		return 0, 0, errs.New(errs.Corrupt, "manifest of an object of %d bytes in fragments of %d", m.Size, m.MaxFrag)
	}
	g := m.Geometry()
	if g.Chunks > chunksMax || g.Chunks*m.Policy.N()*fragRecordSize > ManifestMax {
		return 0, 0, errs.New(errs.Corrupt, "manifest with %d chunks of %d fragments", g.Chunks, m.Policy.N())
	}
	return m.Policy.N(), g.Chunks * m.Policy.N(), nil
}

// Validate checks what decoding relies on: identity, geometry, targets, states.
func (m *Manifest) Validate() error {
	nt, nf, err := m.checkFields()
	if err != nil {
		return err
	}
	if len(m.Targets) != nt || len(m.Frags) != nf {
		return errs.New(errs.Corrupt, "manifest has %d targets and %d fragments; its geometry needs %d and %d",
			len(m.Targets), len(m.Frags), nt, nf)
	}
	n := m.Policy.N()
	for i, f := range m.Frags {
		if f.State > FragPresent {
			return errs.New(errs.Corrupt, "manifest: fragment %d has state %d", i, f.State)
		}
		if f.State == FragPresent && m.Target(i/n, i%n).Kind == TargetNone {
			return errs.New(errs.Corrupt, "manifest: fragment %d is present, but nowhere", i)
		}
	}
	return nil
}

// checkFields checks all but targets and fragments, and says how many of those there must be.
func (m *Manifest) checkFields() (targets, frags int, err error) {
	targets, frags, err = m.counts()
	switch {
	case err != nil:
	case m.Kind < KindWrite || m.Kind > KindOther:
		err = errs.New(errs.Corrupt, "manifest of unknown kind %d", m.Kind)
	case m.SCO == 0 || m.Put == 0:
		err = errs.New(errs.Corrupt, "manifest of SCO %d, put %d; both count from 1", m.SCO, m.Put)
	case m.SeqFirst > m.SeqLast:
		err = errs.New(errs.Corrupt, "manifest: sequences %d to %d", m.SeqFirst, m.SeqLast)
	case m.Plain <= 0 || int64(m.Head) > m.Size:
		err = errs.New(errs.Corrupt, "manifest: %d bytes plain, head of %d bytes", m.Plain, m.Head)
	}
	return targets, frags, err
}
