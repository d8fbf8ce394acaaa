package layout

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// A Descriptor is what a fragment says of its object beyond its own key: all of the manifest but the commit
// number, which is not known while fragments are written, and the places, which a scan finds. It lies in
// the fragment's header on the drive, so that manifests can be made again from the ASDs alone.
//
// It also holds checksums of the chunk's other fragments, for a manifest wants those of fragments that are
// nowhere, too. More than descSumsMax do not fit: then a fragment has those from its own number on, around
// the end, and any k fragments together know all but in the oddest cases.
//
//	byte   0       4         6      8          12          16         24     28
//	       "VDSC"  version   length checksum   kind zeros  namespace  SCO    put
//	byte   32      40         48         56     64      72         76
//	       epoch   seq first  seq last   size   plain   max frag   k m c x
//	byte   80      81      82      84    88     92      94     95     96
//	       compr.  encr.   chunk   key   head   zeros   first  count  count sums u64     little endian
//
// The checksum is the low half of XXH64 of all bytes but its own four.
type Descriptor struct {
	// Object is a manifest without Commit, Version, Targets and Frags.
	Object Manifest
	Chunk  uint16
	First  uint8 // number of the fragment to which Sums[0] belongs; fragment (First+i)%n has Sums[i]
	Sums   []uint64
}

const (
	descMagic   = 'V' | 'D'<<8 | 'S'<<16 | 'C'<<24
	descVersion = 1
	descHead    = 96
	descSumsMax = 48

	// DescMax is the longest descriptor that a fragment can carry, in bytes.
	DescMax = 512
)

const _ = uint(DescMax - descHead - descSumsMax*8)

// AppendDescriptor appends what fragment frag of a chunk says of the object m. The chunk's sums in m are
// known. It allocates nothing if b has room for DescMax.
func (m *Manifest) AppendDescriptor(b []byte, chunk, frag int) []byte {
	le := binary.LittleEndian
	n := m.Policy.N()
	count, first := n, 0
	if n > descSumsMax {
		count, first = descSumsMax, frag
	}
	at := len(b)
	b = le.AppendUint32(b, descMagic)
	b = le.AppendUint16(b, descVersion)
	b = le.AppendUint16(b, uint16(descHead+count*8))
	b = le.AppendUint32(b, 0) // checksum, below
	b = append(b, byte(m.Kind), 0, 0, 0)
	b = le.AppendUint64(b, uint64(m.Namespace))
	b = le.AppendUint32(b, uint32(m.SCO))
	b = le.AppendUint32(b, uint32(m.Put))
	b = le.AppendUint64(b, uint64(m.Epoch))
	b = le.AppendUint64(b, uint64(m.SeqFirst))
	b = le.AppendUint64(b, uint64(m.SeqLast))
	b = le.AppendUint64(b, uint64(m.Size))
	b = le.AppendUint64(b, uint64(m.Plain))
	b = le.AppendUint32(b, m.MaxFrag)
	b = append(b, m.Policy.K, m.Policy.M, m.Policy.C, m.Policy.X, m.Compression, m.Encryption)
	b = le.AppendUint16(b, uint16(chunk))
	b = le.AppendUint32(b, m.Key)
	b = le.AppendUint32(b, m.Head)
	b = append(b, 0, 0, byte(first), byte(count))
	for i := range count {
		b = le.AppendUint64(b, m.Frag(chunk, (first+i)%n).Sum)
	}
	le.PutUint32(b[at+8:], descSum(b[at:]))
	return b
}

func descSum(b []byte) uint32 {
	var d xxhash.Digest
	d.Reset()
	d.Write(b[:8])
	d.Write(b[12:])
	return uint32(d.Sum64())
}

// ParseDescriptor decodes a descriptor that fills b. Errors: Absent if b is empty, Corrupt, Version.
func ParseDescriptor(b []byte) (*Descriptor, error) {
	le := binary.LittleEndian
	switch {
	case len(b) == 0:
		return nil, errs.New(errs.Absent, "the fragment has no descriptor: an older version wrote it")
	case len(b) < descHead || len(b) > DescMax || le.Uint32(b) != descMagic:
		return nil, errs.New(errs.Corrupt, "descriptor of %d bytes is none", len(b))
	case le.Uint32(b[8:]) != descSum(b):
		return nil, errs.New(errs.Corrupt, "descriptor fails its checksum")
	case le.Uint16(b[4:]) != descVersion:
		return nil, errs.New(errs.Version, "descriptor has version %d; this program reads %d", le.Uint16(b[4:]), descVersion)
	case int(le.Uint16(b[6:])) != len(b) || len(b) != descHead+int(b[95])*8 || b[13]|b[14]|b[15]|b[92]|b[93] != 0:
		return nil, errs.New(errs.Corrupt, "descriptor of %d bytes has fields that cannot be", len(b))
	}
	d := &Descriptor{Object: Manifest{
		Kind:        ObjectKind(b[12]),
		Namespace:   ids.NamespaceID(le.Uint64(b[16:])),
		SCO:         ids.SCONum(le.Uint32(b[24:])),
		Put:         ids.PutID(le.Uint32(b[28:])),
		Epoch:       ids.Epoch(le.Uint64(b[32:])),
		SeqFirst:    ids.Seq(le.Uint64(b[40:])),
		SeqLast:     ids.Seq(le.Uint64(b[48:])),
		Size:        int64(le.Uint64(b[56:])),
		Plain:       int64(le.Uint64(b[64:])),
		MaxFrag:     le.Uint32(b[72:]),
		Policy:      Policy{K: b[76], M: b[77], C: b[78], X: b[79]},
		Compression: b[80],
		Encryption:  b[81],
		Key:         le.Uint32(b[84:]),
		Head:        le.Uint32(b[88:]),
	}, Chunk: le.Uint16(b[82:]), First: b[94], Sums: make([]uint64, b[95])}
	for i := range d.Sums {
		d.Sums[i] = le.Uint64(b[descHead+i*8:])
	}
	if err := d.validate(); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *Descriptor) validate() error {
	m := &d.Object
	_, _, err := m.checkFields()
	if err == nil && (int(d.Chunk) >= m.Geometry().Chunks || len(d.Sums) != min(m.Policy.N(), descSumsMax) ||
		int(d.First) >= m.Policy.N() || (d.First > 0 && m.Policy.N() <= descSumsMax)) {
		err = errs.New(errs.Corrupt, "descriptor of chunk %d with %d checksums from fragment %d on", d.Chunk,
			len(d.Sums), d.First)
	}
	return err
}

// Sum is the checksum of fragment frag of the descriptor's chunk, where it knows it.
func (d *Descriptor) Sum(frag int) (uint64, bool) {
	n := d.Object.Policy.N()
	i := (frag - int(d.First) + n) % n
	if i >= len(d.Sums) {
		return 0, false
	}
	return d.Sums[i], true
}

// Same reports whether both descriptors are of one put of one object.
func (d *Descriptor) Same(o *Descriptor) bool {
	a, b := &d.Object, &o.Object
	return a.Namespace == b.Namespace && a.SCO == b.SCO && a.Put == b.Put && a.Kind == b.Kind && a.Epoch == b.Epoch &&
		a.SeqFirst == b.SeqFirst && a.SeqLast == b.SeqLast && a.Size == b.Size && a.Plain == b.Plain &&
		a.MaxFrag == b.MaxFrag && a.Policy == b.Policy && a.Compression == b.Compression &&
		a.Encryption == b.Encryption && a.Key == b.Key && a.Head == b.Head
}

// FragInfo is what an ASD's index knows of a fragment.
type FragInfo struct {
	Key   FragKey
	Len   uint32 // payload, bytes
	Sum   uint64 // FragSum of the region sums
	Epoch ids.Epoch
	Class Class
	Time  int64 // of the put, ns since 1970
}
