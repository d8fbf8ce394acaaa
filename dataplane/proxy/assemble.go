package proxy

import (
	"context"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// Sketch makes of one put's fragments the manifest that they would have, as far as lists and one descriptor
// tell: all but Commit and the checksums of fragments that are nowhere. Whether the put was ever committed
// it cannot know. Errors: of the kind that kept every descriptor from being read.
func (c *Census) Sketch(ctx context.Context, put []Held) (*layout.Manifest, error) {
	var first error
	for i := range put {
		d, err := c.describe(ctx, &put[i])
		if err == nil {
			return sketch(&d.Object, put), nil
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

// sketch places the fragments. A repair that crashed may have left some on an ASD that the next one did not
// choose, so of the ASDs with fragments of a slot the one with most of them has it.
func sketch(o *layout.Manifest, put []Held) *layout.Manifest {
	m := *o
	g := m.Geometry()
	n := m.Policy.N()
	m.Targets, m.Frags = make([]layout.Target, n), make([]layout.Frag, g.Chunks*n)
	fits := func(h *Held) bool {
		k := h.Info.Key
		return int(k.Chunk) < g.Chunks && int(k.Frag) < n && int64(h.Info.Len) == g.FragLen
	}
	votes := make(map[layout.Target]int)
	for s := range n {
		clear(votes)
		for i := range put {
			h := &put[i]
			if !fits(h) || layout.Slot(int(h.Info.Key.Chunk), int(h.Info.Key.Frag), n) != s {
				continue
			}
			t := layout.ASDTarget(h.ASD)
			votes[t] += 256 + int(h.Info.Key.Version) // versions of one fragment count alike on each
			if best := m.Targets[s]; best.Kind == layout.TargetNone || votes[t] > votes[best] {
				m.Targets[s] = t
			}
		}
	}
	for i := range put {
		h := &put[i]
		k := h.Info.Key
		if !fits(h) || m.Target(int(k.Chunk), int(k.Frag)) != layout.ASDTarget(h.ASD) {
			continue
		}
		f := m.Frag(int(k.Chunk), int(k.Frag))
		if f.State == layout.FragMissing || k.Version >= f.Version {
			*f = layout.Frag{Version: k.Version, State: layout.FragPresent, Sum: h.Info.Sum}
		}
	}
	return &m
}

// Readable reports whether every chunk of m has the k fragments that it takes, and how many the one has
// that has fewest.
func Readable(m *layout.Manifest) (bool, int) {
	least := m.Policy.N()
	for c := range m.Geometry().Chunks {
		least = min(least, m.PresentIn(c))
	}
	return least >= int(m.Policy.K), least
}

// Assemble makes a put's manifest as it can be committed, but for Commit: Sketch, with every fragment's
// checksum out of the descriptors. A fragment that is not what the others say is left out. Errors:
// Corrupt if fewer than k fragments of a chunk are left, or a checksum cannot be found.
func (c *Census) Assemble(ctx context.Context, put []Held) (*layout.Manifest, error) {
	m, err := c.Sketch(ctx, put)
	if err != nil {
		return nil, err
	}
	whole := &layout.Descriptor{Object: *m}
	for chunk := range m.Geometry().Chunks {
		if err := c.sums(ctx, m, chunk, put, whole); err != nil {
			return nil, err
		}
	}
	if ok, least := Readable(m); !ok {
		return nil, errs.New(errs.Corrupt, "of SCO %d/%d, put %d, a chunk has %d of the %d fragments that it takes",
			m.Namespace, m.SCO, m.Put, least, m.Policy.K)
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return m, nil
}

// sums enters the checksums of a chunk's fragments.
func (c *Census) sums(ctx context.Context, m *layout.Manifest, chunk int, put []Held, whole *layout.Descriptor) error {
	n := m.Policy.N()
	known := make([]bool, n)
	want := make([]uint64, n)
	left := n
	var last error
	for i := range put {
		if left == 0 {
			break
		}
		if int(put[i].Info.Key.Chunk) != chunk {
			continue
		}
		d, err := c.describe(ctx, &put[i])
		if err == nil && !d.Same(whole) {
			err = errs.New(errs.Corrupt, "fragments of SCO %d/%d, put %d, disagree on what it is", m.Namespace, m.SCO, m.Put)
		}
		if err != nil {
			last = err
			continue
		}
		for f := range n {
			if s, ok := d.Sum(f); ok && !known[f] {
				known[f], want[f] = true, s
				left--
			}
		}
	}
	if left > 0 {
		return errs.Wrap(errs.Corrupt, last, "of SCO %d/%d, put %d, the checksums of %d fragments of chunk %d are lost",
			m.Namespace, m.SCO, m.Put, left, chunk)
	}
	for f := range n {
		frag := m.Frag(chunk, f)
		if frag.State == layout.FragPresent && frag.Sum != want[f] {
			frag.State = layout.FragMissing
		}
		frag.Sum = want[f]
	}
	return nil
}

// Names reports whether a manifest counts on a fragment that an ASD holds: names it, on that ASD and no other, and as
// present.
func Names(m *layout.Manifest, k layout.FragKey, on ids.ASDID) bool {
	c, f, n := int(k.Chunk), int(k.Frag), m.Policy.N()
	return f < n && c*n+f < len(m.Frags) && m.FragKey(c, f) == k && m.Target(c, f) == layout.ASDTarget(on) &&
		m.Present(c, f)
}

// Compare holds a committed manifest against the fragments that ASDs hold of its object. It returns those that the
// manifest calls present on one of the ASDs asked, and that are not there as it says; and how many fragments
// are there that the manifest does not name.
func Compare(m *layout.Manifest, held []Held, asked map[ids.ASDID]bool) (
	lacking []layout.FragKey, beside int) {
	n := m.Policy.N()
	found := make([]bool, len(m.Frags))
	for i := range held {
		k, t := held[i].Info.Key, layout.ASDTarget(held[i].ASD)
		at := int(k.Chunk)*n + int(k.Frag)
		if k.Put != m.Put || int(k.Frag) >= n || at >= len(m.Frags) || m.Target(int(k.Chunk), int(k.Frag)) != t ||
			m.FragKey(int(k.Chunk), int(k.Frag)) != k || m.Frags[at].Sum != held[i].Info.Sum {
			beside++
			continue
		}
		found[at] = true
	}
	for i := range m.Frags {
		c, f := i/n, i%n
		if t := m.Target(c, f); m.Present(c, f) && !found[i] && t.Kind == layout.TargetASD && asked[t.ASD] {
			lacking = append(lacking, m.FragKey(c, f))
		}
	}
	return lacking, beside
}
