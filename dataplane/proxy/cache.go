package proxy

import (
	"context"

	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
	"vstor/dataplane/sum"
)

// FragmentCache holds whole fragments nearer than their ASDs. Safe for concurrent use; nothing of it is needed, so
// nothing of it fails, and none of it waits for room.
type FragmentCache interface {
	// Get reads bytes [off, off+len(dst)) of the payload of a fragment whose checksum in its manifest is sum, verified;
	// any alignment. false: they are not here as they should be, and dst is garbage. It returns soon after ctx is done.
	Get(ctx context.Context, key layout.FragKey, sum uint64, off int64, dst []byte) bool
	// Room lends a buffer for a fragment of n bytes, or nil. Its user sets payload and Sums of what it gets, and ends
	// it with Fill, which keeps it or not.
	Room(key layout.FragKey, n int) *layout.FragPut
	Fill(p *layout.FragPut, keep bool)
	// Forget drops fragments that nobody will ask for.
	Forget(keys []layout.FragKey)
}

// readNear is readOne by way of the cache, which may have what the ASD lost or never had. Whoever asks for the sake of
// the ASD's own fragment must not come by here.
func (px *Proxy) readNear(ctx context.Context, m *layout.Manifest, chunk, frag int, off int64, dst []byte) error {
	if c := px.opts.Cache; c != nil && c.Get(ctx, m.FragKey(chunk, frag), m.Frag(chunk, frag).Sum, off, dst) {
		return nil
	}
	return px.readOne(ctx, m, chunk, frag, off, dst)
}

// offer copies a fragment that was just written into the cache. Only data fragments: all reads go to those, and what
// parity is needed for, the loss of data fragments, is what having them in the cache makes good. Objects that cleaning
// wrote are cached too, as their blocks would leave the cache with the fragments that they are moved out of. That its
// ASD did not take the fragment does not matter: then it is missed most.
func (p *Pending) offer(i, f int, fb *fragBuf) {
	c := p.px.opts.Cache
	if c == nil || f >= int(p.man.Policy.K) || p.spec.Kind == layout.KindOther || p.ctx.Err() != nil {
		return
	}
	n := int(p.geo.FragLen)
	room := c.Room(p.fragKey(i, f), n)
	if room == nil {
		return
	}
	copy(room.Buf[layout.FragHeaderSize:], fb.mem[layout.FragHeaderSize:layout.FragHeaderSize+n])
	copy(room.Sums, fb.sums)
	c.Fill(room, true)
}

// forget drops what the cache has of an object that is deleted.
func (px *Proxy) forget(m *layout.Manifest) {
	if px.opts.Cache == nil {
		return
	}
	var keys []layout.FragKey
	for c := range m.Geometry().Chunks {
		for f := range int(m.Policy.K) {
			keys = append(keys, m.FragKey(c, f))
			if m.Frag(c, f).Version > 0 { // as it was filled when it was put
				keys = append(keys, m.FragKeyVersion(c, f, 0))
			}
		}
	}
	px.opts.Cache.Forget(keys)
}

// CacheFragment fetches a data fragment into the cache, from its ASD or rebuilt, and verifies it against its manifest.
// Errors: Absent if no manifest names it, or not any more; Busy if the cache does not take it; those of Get.
func (px *Proxy) CacheFragment(ctx context.Context, key layout.FragKey) error {
	if err := px.begin(); err != nil {
		return err
	}
	defer px.done()
	ctx, cancel := px.join(ctx)
	defer cancel()
	m, err := px.Manifest(ctx, key.Namespace, key.SCO)
	if err != nil {
		return err
	}
	g := m.Geometry()
	chunk, frag := int(key.Chunk), int(key.Frag)
	if chunk >= g.Chunks || frag >= int(m.Policy.K) || m.FragKey(chunk, frag) != key {
		return errs.New(errs.Absent, "proxy: no manifest names a data fragment %v", key)
	}
	if px.opts.Cache == nil {
		return errs.New(errs.Busy, "proxy: there is no cache")
	}
	room := px.opts.Cache.Room(key, int(g.FragLen))
	if room == nil {
		return errs.New(errs.Busy, "proxy: the cache does not take fragment %v", key)
	}
	err = px.fetch(ctx, m, chunk, frag, room)
	px.opts.Cache.Fill(room, err == nil)
	return err
}

// fetch reads a whole fragment into room, region sums and all.
func (px *Proxy) fetch(ctx context.Context, m *layout.Manifest, chunk, frag int, room *layout.FragPut) error {
	payload, want := room.Buf[layout.FragHeaderSize:], m.Frag(chunk, frag).Sum
	if err := px.readRange(ctx, m, chunk, frag, 0, payload); err != nil {
		return err
	}
	if sumRegions(room.Sums, payload); layout.FragSum(room.Sums) == want {
		return nil
	}
	if err := px.readVerified(ctx, m, chunk, frag, 0, payload); err != nil {
		return err
	}
	if sumRegions(room.Sums, payload); layout.FragSum(room.Sums) != want {
		return errs.New(errs.Corrupt, "proxy: fragment %v is not what its manifest says", room.Key)
	}
	return nil
}

func sumRegions(sums []uint64, payload []byte) {
	sum.Cut(sums, payload, layout.RegionSize)
}
