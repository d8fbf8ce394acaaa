package proxy

import (
	"context"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// sink takes the pieces of a fragment as they come: each region once, in order. They are good only when
// the call that feeds it returns nil.
type sink func(off int64, piece []byte, sum uint64)

// readVerified reads a range of a fragment, checking the whole fragment against the manifest.
func (px *Proxy) readVerified(ctx context.Context, m *layout.Manifest, chunk, frag int, off int64, dst []byte) error {
	cut := func(at int64, piece []byte, _ uint64) {
		from, to := max(at, off), min(at+int64(len(piece)), off+int64(len(dst)))
		if from < to {
			copy(dst[from-off:to-off], piece[from-at:])
		}
	}
	if err := px.verify(ctx, m, chunk, frag, m.Frag(chunk, frag).Version, cut); err == nil {
		return nil
	} else if ctx.Err() != nil {
		return errs.Wrap(errs.Canceled, ctx.Err(), "proxy: read")
	}
	return px.rebuild(ctx, m, chunk, frag, cut)
}

// verify reads a version of a fragment from its target, piece by piece, and checks it against the
// manifest's checksum. It does not ask whether the manifest thinks that it is there.
func (px *Proxy) verify(ctx context.Context, m *layout.Manifest, chunk, frag int, version uint8, out sink) error {
	at := m.Clone()
	f := at.Frag(chunk, frag)
	f.Version, f.State = version, layout.FragPresent
	piece := piecePool.Get().(*[layout.RegionSize]byte)
	defer piecePool.Put(piece)
	fragLen := m.Geometry().FragLen
	sums := make([]uint64, 0, layout.Regions(int(fragLen)))
	for off := int64(0); off < fragLen; off += layout.RegionSize {
		b := piece[:min(layout.RegionSize, fragLen-off)]
		if err := px.readOne(ctx, at, chunk, frag, off, b); err != nil {
			return err
		}
		sum := xxhash.Sum64(b)
		sums = append(sums, sum)
		out(off, b, sum)
	}
	if layout.FragSum(sums) != f.Sum {
		px.count.corrupt.Add(1)
		return errs.New(errs.Corrupt, "proxy: fragment %v at %v is not what its manifest says",
			at.FragKey(chunk, frag), at.Target(chunk, frag))
	}
	return nil
}

// rebuild computes a whole fragment from k others, each checked whole against the manifest as it is read,
// and checks the result. A source that proves bad is left out and all begins again with another.
func (px *Proxy) rebuild(ctx context.Context, m *layout.Manifest, chunk, frag int, out sink) error {
	px.count.fragsRebuilt.Add(1)
	s, err := px.newSources(m, chunk, frag)
	if err != nil {
		return err
	}
	defer s.release()
	for {
		again, err := px.rebuildOnce(ctx, s, frag, out)
		if !again {
			return err
		}
	}
}

// rebuildOnce tries the sources at hand; again says that it left out a bad one and another try is worth it.
func (px *Proxy) rebuildOnce(ctx context.Context, s *sources, frag int, out sink) (again bool, err error) {
	if err := s.choose(); err != nil {
		return false, err
	}
	m := s.m
	fragLen := m.Geometry().FragLen
	regions := layout.Regions(int(fragLen))
	before := append([]int(nil), s.have...)
	sums := make([][]uint64, m.Policy.N())
	dst := piecePool.Get().(*[layout.RegionSize]byte)
	defer piecePool.Put(dst)
	for r := range regions {
		off := int64(r) * layout.RegionSize
		n := int(min(layout.RegionSize, fragLen-off))
		if err := s.read(ctx, off, n); err != nil {
			return false, err
		}
		if !sameInts(before, s.have) {
			return true, nil // a source was replaced midway: its earlier regions were not checked
		}
		for i, h := range s.have {
			sums[h] = append(sums[h], xxhash.Sum64(s.bufs[i][:n]))
		}
		if err := s.codec.Reconstruct(dst[:n], frag, s.have, s.ranges(n)); err != nil {
			return false, err
		}
		sum := xxhash.Sum64(dst[:n])
		sums[frag] = append(sums[frag], sum)
		out(off, dst[:n], sum)
	}
	return px.judge(s, frag, sums)
}

// judge compares sources and result with the manifest.
func (px *Proxy) judge(s *sources, frag int, sums [][]uint64) (again bool, err error) {
	bad := false
	for i := len(s.have) - 1; i >= 0; i-- {
		h := s.have[i]
		if layout.FragSum(sums[h]) != s.m.Frag(s.chunk, h).Sum {
			px.count.corrupt.Add(1)
			s.drop(i, errs.New(errs.Corrupt, "proxy: fragment %v is not what its manifest says", s.m.FragKey(s.chunk, h)))
			bad = true
		}
	}
	if bad {
		return true, nil
	}
	if layout.FragSum(sums[frag]) != s.m.Frag(s.chunk, frag).Sum {
		return false, errs.New(errs.Corrupt,
			"proxy: fragment %v rebuilt from good sources is not what its manifest says", s.m.FragKey(s.chunk, frag))
	}
	return false, nil
}

func sameInts(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
