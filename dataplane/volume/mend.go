package volume

import (
	"cmp"
	"context"
	"slices"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/volume/sco"
)

// Bytes that were wrong when they were coded, or when the checksums of their region were computed, are read from their
// fragment without a complaint, and only a checksum of their own tells: that of a block, of an index. Readers have such
// a block rebuilt from other fragments. Whoever else reads a SCO has to do so too, above all who deletes it afterwards.

// readIndex reads header and index of a SCO and checks that they are the ones named. Blocking.
func (v *Volume) readIndex(ctx context.Context, m *layout.Manifest) (h sco.Header, index []byte, err error) {
	first := make([]byte, ids.BlockSize)
	err = v.readSound(ctx, m, 0, first, func() (err error) {
		if h, err = sco.ParseHeader(first); err == nil && (h.Volume != m.Namespace || h.SCO != m.SCO) {
			err = errs.New(errs.Corrupt, "the object says that it is SCO %d of vDisk %d", h.SCO, h.Volume)
		}
		return err
	})
	if err != nil {
		return h, nil, err
	}
	index = make([]byte, (h.DataStart()-1)*ids.BlockSize)
	if len(index) == 0 {
		return h, nil, nil
	}
	return h, index, v.readSound(ctx, m, ids.BlockSize, index, func() error { return h.CheckIndex(index) })
}

// readSound reads bytes of an object that must satisfy sound, and has them mended if they do not.
func (v *Volume) readSound(ctx context.Context, m *layout.Manifest, off int64, b []byte, sound func() error) error {
	if err := v.opts.Objects.Get(ctx, m, off, b); err != nil {
		return err
	}
	if sound() == nil {
		return nil
	}
	err := mend(ctx, v.opts.Objects, m, off, b, sound)
	if err == nil {
		v.opts.Log.Warn("an index that failed its checksum was rebuilt from other fragments", "vdisk", v.opts.Name,
			"SCO", m.SCO)
	}
	return err
}

// mend replaces bytes of an object that do not satisfy sound by what other fragments give. One fragment is held to be
// the wrong one after the other, of those in which the bytes lie, and its share is rebuilt from as many choices of
// others as there are fragments: one of those may be wrong, too. After an error b is as it was. The error is the last
// of Rebuild if there was one, else that of sound. Neither says that nothing can mend it: an ASD that is down may.
func mend(ctx context.Context, o Objects, m *layout.Manifest, off int64, b []byte, sound func() error) (err error) {
	was := slices.Clone(b)
	g := m.Geometry()
	for lo := int64(0); lo < int64(len(b)); {
		_, _, at := g.Place(off + lo)
		hi := min(lo+g.FragLen-at, int64(len(b)))
		for try := range m.Policy.N() - 1 {
			e := o.Rebuild(ctx, m, off+lo, b[lo:hi], try)
			if e == nil && sound() == nil {
				return nil
			}
			copy(b, was)
			if e != nil {
				err = e
				break // another choice would lack them, too
			}
		}
		lo = hi
	}
	return cmp.Or(err, sound())
}
