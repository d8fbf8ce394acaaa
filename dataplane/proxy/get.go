package proxy

import (
	"context"
	"slices"
	"sync"

	"vstor/dataplane/erasure"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// getParallel is how many fragments one Get reads at once.
const getParallel = 8

// piecePool lends pieces of 64 KiB to reads that rebuild. It belongs to the collector: a burst of rebuilds
// is rare, and then large.
var piecePool = sync.Pool{New: func() any { return new([layout.RegionSize]byte) }}

// getBytesMax is what one whole-object Get that must rebuild everything takes.
func getBytesMax(n int) int64 { return getParallel * int64(n) * layout.RegionSize }

// Get reads bytes [off, off+len(dst)) of the object m describes. ASDs verify what they read against their
// region checksums; a range that an ASD does not give is rebuilt from the same range of k others, and if one
// of those fails, from others again. dst is garbage after an error. The caller verifies what
// it knows the checksum of, and turns to GetRebuilt if that fails. Errors: Invalid beyond the object;
// Unreachable, Corrupt or IO if fewer than k fragments of a chunk can be read; Canceled.
func (px *Proxy) Get(ctx context.Context, m *layout.Manifest, off int64, dst []byte) error {
	return px.get(ctx, m, off, dst, px.readRange)
}

// GetRebuilt gives a range that lies in one fragment and takes nothing from that: it is rebuilt from k others. It is
// for when what Get returned proves wrong although its ASD vouches for it: bytes that were wrong when their checksums
// were computed fail no checksum of a region, and none of the manifest's either. One of the k may be of that kind, too:
// another try takes others. The caller verifies what it gets. Errors: as Get; Invalid for a range of several fragments.
func (px *Proxy) GetRebuilt(ctx context.Context, m *layout.Manifest, off int64, dst []byte, try int) error {
	if _, _, at := m.Geometry().Place(off); at+int64(len(dst)) > m.Geometry().FragLen {
		return errs.New(errs.Invalid, "proxy: %d bytes at %d of SCO %d/%d lie in several fragments", len(dst), off,
			m.Namespace, m.SCO)
	}
	return px.get(ctx, m, off, dst, func(ctx context.Context, m *layout.Manifest, chunk, frag int, off int64,
		dst []byte) error {
		return px.rebuildRange(ctx, m, chunk, frag, off, dst, rebuildFrom{try: try})
	})
}

// GetVerified is Get that trusts no ASD: every fragment it touches is read whole and must match its
// checksum in the manifest, and so must all those it rebuilds from, and what it rebuilt. Slow: for
// repair.
func (px *Proxy) GetVerified(ctx context.Context, m *layout.Manifest, off int64, dst []byte) error {
	return px.get(ctx, m, off, dst, px.readVerified)
}

type readFunc func(ctx context.Context, m *layout.Manifest, chunk, frag int, off int64, dst []byte) error

func (px *Proxy) get(ctx context.Context, m *layout.Manifest, off int64, dst []byte, read readFunc) error {
	if err := px.begin(); err != nil {
		return err
	}
	defer px.done()
	ctx, cancel := px.join(ctx)
	defer cancel()
	if off < 0 || off+int64(len(dst)) > m.Size {
		return errs.New(errs.Invalid, "proxy: read of bytes %d to %d of SCO %d/%d, which has %d",
			off, off+int64(len(dst)), m.Namespace, m.SCO, m.Size)
	}
	px.count.gets.Add(1)
	px.count.getBytes.Add(int64(len(dst)))
	g := m.Geometry()
	if chunk, frag, at := g.Place(off); len(dst) > 0 && at+int64(len(dst)) <= g.FragLen {
		return read(ctx, m, chunk, frag, at, dst)
	}
	return px.getMany(ctx, m, g, off, dst, read)
}

// getMany reads a range of several fragments, some at a time. The first error ends it.
func (px *Proxy) getMany(ctx context.Context, m *layout.Manifest, g layout.Geometry, off int64, dst []byte,
	read readFunc) error {
	parent := ctx
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	var wg sync.WaitGroup
	slots := make(chan struct{}, getParallel)
	for len(dst) > 0 && ctx.Err() == nil {
		chunk, frag, at := g.Place(off)
		n := min(int64(len(dst)), g.FragLen-at)
		part := dst[:n]
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := read(ctx, m, chunk, frag, at, part); err != nil {
				cancel(err)
			}
		})
		off, dst = off+n, dst[n:]
	}
	wg.Wait()
	if err := parent.Err(); err != nil {
		return errs.Wrap(errs.Canceled, err, "proxy: read of SCO %d/%d", m.Namespace, m.SCO)
	}
	return context.Cause(ctx)
}

// readOne reads a range of one fragment from its ASD, or says why that cannot be.
func (px *Proxy) readOne(ctx context.Context, m *layout.Manifest, chunk, frag int, off int64, dst []byte) error {
	t := m.Target(chunk, frag)
	if !m.Present(chunk, frag) {
		return errs.New(errs.Absent, "proxy: fragment %v is missing", m.FragKey(chunk, frag))
	}
	if t.Kind != layout.TargetASD {
		return errs.New(errs.Unsupported, "proxy: fragment %v lies at %v", m.FragKey(chunk, frag), t)
	}
	a := px.asd(t.ASD)
	if a == nil || !a.Alive {
		return errs.New(errs.Unreachable, "proxy: ASD %d is down", t.ASD)
	}
	ctx, cancel := context.WithTimeout(ctx, px.opts.StallTimeout)
	defer cancel()
	err := a.Store.Get(ctx, m.FragKey(chunk, frag), uint32(off), dst)
	if errs.Of(err) == errs.Corrupt {
		px.count.corrupt.Add(1)
	}
	return err
}

func (px *Proxy) readRange(ctx context.Context, m *layout.Manifest, chunk, frag int, off int64, dst []byte) error {
	err := px.readNear(ctx, m, chunk, frag, off, dst)
	if err == nil {
		return nil
	}
	return px.rebuildRange(ctx, m, chunk, frag, off, dst, rebuildFrom{why: err})
}

// rebuildFrom says what is known of a rebuild's sources.
type rebuildFrom struct {
	why error // what happened to the fragment itself, if it was read
	try int   // how many of them stand back
}

// rebuildRange rebuilds a range of a fragment from the same range of k others.
func (px *Proxy) rebuildRange(ctx context.Context, m *layout.Manifest, chunk, frag int, off int64, dst []byte,
	from rebuildFrom) error {
	px.count.fragsRebuilt.Add(1)
	s, err := px.newSources(m, chunk, frag)
	if err != nil {
		return err
	}
	if from.why != nil {
		s.because(from.why)
	}
	if n := len(s.spare); n > 0 {
		s.spare = slices.Concat(s.spare[from.try%n:], s.spare[:from.try%n])
	}
	defer s.release()
	for len(dst) > 0 {
		n := min(len(dst), layout.RegionSize)
		if err := s.read(ctx, off, n); err != nil {
			return err
		}
		if err := s.codec.Reconstruct(dst[:n], frag, s.have, s.ranges(n)); err != nil {
			return err
		}
		off, dst = off+int64(n), dst[n:]
	}
	return nil
}

// sources are the k fragments that a lost one is rebuilt from, and which have been tried.
type sources struct {
	px    *Proxy
	m     *layout.Manifest
	chunk int
	codec *erasure.Codec
	have  []int // k fragments in use
	bufs  []*[layout.RegionSize]byte
	srcs  [][]byte
	spare []int // fragments not yet tried
	cause error // the most telling failure
}

func (px *Proxy) newSources(m *layout.Manifest, chunk, lost int) (*sources, error) {
	codec, err := px.codecs.Codec(int(m.Policy.K), int(m.Policy.M))
	if err != nil {
		return nil, err
	}
	s := &sources{px: px, m: m, chunk: chunk, codec: codec}
	var slow []int
	for f := range m.Policy.N() {
		switch {
		case f == lost || !m.Present(chunk, f):
		case px.lags(m.Target(chunk, f)):
			slow = append(slow, f)
		default:
			s.spare = append(s.spare, f)
		}
	}
	s.spare = append(s.spare, slow...)
	return s, nil
}

func (px *Proxy) lags(t layout.Target) bool {
	px.mu.Lock()
	defer px.mu.Unlock()
	return t.Kind == layout.TargetASD && px.lag[t.ASD] > 0
}

func (s *sources) release() {
	for _, b := range s.bufs {
		piecePool.Put(b)
	}
	s.bufs = nil
}

// because remembers why a fragment could not be read; that somebody is unreachable outweighs that
// something is missing.
func (s *sources) because(err error) {
	if s.cause == nil || errs.Of(s.cause) == errs.Absent || errs.Of(err) == errs.Unreachable {
		s.cause = err
	}
}

// choose fills have up to k.
func (s *sources) choose() error {
	for len(s.have) < s.codec.K() && len(s.spare) > 0 {
		s.have = append(s.have, s.spare[0])
		s.spare = s.spare[1:]
		if len(s.bufs) < len(s.have) {
			s.bufs = append(s.bufs, piecePool.Get().(*[layout.RegionSize]byte))
		}
	}
	if len(s.have) == s.codec.K() {
		return nil
	}
	kind := errs.Of(s.cause)
	if kind == errs.OK || kind == errs.Absent {
		kind = errs.Corrupt // the manifest says that they are there
	}
	return errs.Wrap(kind, s.cause, "proxy: chunk %d of SCO %d/%d: %d fragments can be read and it takes %d",
		s.chunk, s.m.Namespace, s.m.SCO, len(s.have), s.codec.K())
}

// drop takes a source out of use.
func (s *sources) drop(i int, err error) {
	s.because(err)
	s.have = append(s.have[:i], s.have[i+1:]...)
	b := s.bufs[i]
	s.bufs = append(append(s.bufs[:i], s.bufs[i+1:]...), b)
}

// read fetches [off, off+n) of every source, all at once, replacing those that fail.
func (s *sources) read(ctx context.Context, off int64, n int) error {
	fresh := 0 // sources before this index have the range
	for {
		if err := s.choose(); err != nil {
			return err
		}
		failed := make([]error, len(s.have))
		var wg sync.WaitGroup
		for i := fresh; i < len(s.have); i++ {
			wg.Go(func() {
				failed[i] = s.px.readNear(ctx, s.m, s.chunk, s.have[i], off, s.bufs[i][:n])
			})
		}
		wg.Wait()
		if ctx.Err() != nil {
			return errs.Wrap(errs.Canceled, ctx.Err(), "proxy: rebuild")
		}
		for i := len(failed) - 1; i >= 0; i-- {
			if failed[i] != nil {
				s.drop(i, failed[i])
			}
		}
		if fresh = len(s.have); fresh == s.codec.K() {
			return nil
		}
	}
}

// ranges are the first n bytes of the sources' pieces, in the order of have.
func (s *sources) ranges(n int) [][]byte {
	s.srcs = s.srcs[:0]
	for i := range s.have {
		s.srcs = append(s.srcs, s.bufs[i][:n])
	}
	return s.srcs
}
