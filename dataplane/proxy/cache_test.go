package proxy

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"sync"
	"testing"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// fakeCache keeps fragments in memory, and gives out those whose checksum is asked for.
type fakeCache struct {
	mu    sync.Mutex
	frags map[layout.FragKey][]byte
	sums  map[layout.FragKey]uint64
	out   int // rooms
	gets  int // that found something
	full  bool
}

func newFakeCache() *fakeCache {
	return &fakeCache{frags: map[layout.FragKey][]byte{}, sums: map[layout.FragKey]uint64{}}
}

func (c *fakeCache) Get(_ context.Context, key layout.FragKey, sum uint64, off int64, dst []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.frags[key]
	if !ok || c.sums[key] != sum || layout.FragSum(sumsOf(b)) != sum {
		clear(dst)
		return false
	}
	copy(dst, b[off:off+int64(len(dst))])
	c.gets++
	return true
}

func (c *fakeCache) Room(key layout.FragKey, n int) *layout.FragPut {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.full || c.frags[key] != nil {
		return nil
	}
	c.out++
	return &layout.FragPut{Key: key, Buf: make([]byte, layout.FragHeaderSize+n), Sums: make([]uint64, layout.Regions(n))}
}

func (c *fakeCache) Fill(p *layout.FragPut, keep bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out--
	if !keep {
		return
	}
	b := p.Buf[layout.FragHeaderSize:]
	if !slices.Equal(p.Sums, sumsOf(b)) {
		panic("filled with sums of something else")
	}
	c.frags[p.Key], c.sums[p.Key] = bytes.Clone(b), layout.FragSum(p.Sums)
}

func (c *fakeCache) Forget(keys []layout.FragKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range keys {
		delete(c.frags, k)
	}
}

func (c *fakeCache) keys() []layout.FragKey {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.SortedFunc(maps.Keys(c.frags), layout.FragKey.Compare)
}

// cacheRig is a rig with a cache and one committed object of three chunks.
func cacheRig(t *testing.T) (*rig, *fakeCache, *layout.Manifest, *content, ids.Epoch) {
	c := newFakeCache()
	r := newRig(t, 6, func(o *Options) { o.Cache = c })
	src := newContent(1200<<10, 5)
	epoch := r.own()
	p := r.put(epoch, 1, src)
	r.commit(p)
	r.waitSettled(p)
	t.Cleanup(func() {
		if c.out != 0 {
			t.Errorf("%d rooms of the cache are out", c.out)
		}
	})
	return r, c, r.manifestOf(1), src, epoch
}

// A put fills the cache with its data fragments and no others; with them, the object outlives all its ASDs.
func TestPutFillsCache(t *testing.T) {
	r, c, m, src, epoch := cacheRig(t)
	g := m.Geometry()
	var want []layout.FragKey
	for chunk := range g.Chunks {
		for f := range g.K {
			want = append(want, m.FragKey(chunk, f))
		}
	}
	if got := c.keys(); !slices.Equal(got, want) {
		t.Fatalf("cached: %v, want %v", got, want)
	}
	r.setDead(true, 0, 1, 2, 3, 4, 5)
	got := make([]byte, len(src.b))
	if err := r.Get(ctx, m, 0, got); err != nil || !bytes.Equal(got, src.b) {
		t.Fatal(err)
	}
	if r.Counters().FragsRebuilt != 0 {
		t.Fatal("rebuilt")
	}
	r.setDead(false, 0, 1, 2, 3, 4, 5)
	if err := r.DeleteObject(ctx, ns, epoch, 1); err != nil || len(c.keys()) != 0 {
		t.Fatalf("after the delete: %v, %v", err, c.keys())
	}
	spec := r.spec(epoch, 2, src)
	spec.Kind = layout.KindOther
	p, err := r.Put(ctx, spec)
	if err != nil || len(c.keys()) != 0 {
		t.Fatalf("a checkpoint is cached: %v, %v", err, c.keys())
	}
	p.Abandon()
	c.full = true
	r.commit(r.put(epoch, 3, src)) // takes no notice
	r.mustRead(r.manifestOf(3), src.b)
}

// What lies in the cache and is not what the manifest says is not given out.
func TestCacheIsNotTrusted(t *testing.T) {
	r, c, m, src, _ := cacheRig(t)
	for _, b := range c.frags {
		b[0] ^= 1
	}
	r.mustRead(m, src.b)
	for k, b := range c.frags { // good in itself, and something else
		c.sums[k] = layout.FragSum(sumsOf(b))
	}
	r.mustRead(m, src.b)
	if c.gets != 0 {
		t.Fatalf("the cache served %d reads", c.gets)
	}
}

// The cache helps a rebuild with sources, and hides nothing from repair: what an ASD lost is found lost and
// written again, whatever is cached.
func TestCacheHidesNothing(t *testing.T) {
	r, c, m, src, _ := cacheRig(t)
	c.Forget([]layout.FragKey{m.FragKey(0, 0)})
	r.setDead(true, 1, 2, 3)
	got := make([]byte, len(src.b))
	if err := r.Get(ctx, m, 0, got); err != nil || !bytes.Equal(got, src.b) {
		t.Fatalf("three fragments of four from the cache: %v", err)
	}
	r.setDead(false, 1, 2, 3)
	lost := m.FragKey(0, 1)
	store := r.stores[m.Target(0, 1).ASD]
	store.set(func(s *fakeStore) { delete(s.frags, lost) })
	before := r.Counters().Repaired
	if err := r.RepairFragment(ctx, lost); err != nil {
		t.Fatal(err)
	}
	if n := r.Counters().Repaired - before; n != 1 {
		t.Fatalf("%d fragments were repaired; the ASD has lost one", n)
	}
	r.mustRead(r.manifestOf(1), src.b)
}

// A fragment is fetched whole into the cache, from its ASD or rebuilt; what no manifest names is not.
func TestCacheFragment(t *testing.T) {
	r, c, m, src, epoch := cacheRig(t)
	all := c.keys()
	c.Forget(all)
	r.setDead(true, 2)
	for _, k := range all {
		if err := r.CacheFragment(ctx, k); err != nil {
			t.Fatalf("%v: %v", k, err)
		}
	}
	if !slices.Equal(c.keys(), all) {
		t.Fatalf("fetched: %v", c.keys())
	}
	r.setDead(true, 0, 1, 3, 4, 5)
	got := make([]byte, len(src.b))
	if err := r.Get(ctx, m, 0, got); err != nil || !bytes.Equal(got, src.b) {
		t.Fatal(err)
	}
	r.kind(r.CacheFragment(ctx, all[0]), errs.Busy) // here already
	c.Forget(all[:1])
	r.kind(r.CacheFragment(ctx, all[0]), errs.Unreachable)
	r.setDead(false, 0, 1, 2, 3, 4, 5)
	for _, change := range []func(*layout.FragKey){
		func(k *layout.FragKey) { k.Put++ }, func(k *layout.FragKey) { k.Version++ },
		func(k *layout.FragKey) { k.Frag = 4 }, func(k *layout.FragKey) { k.Chunk = 99 },
		func(k *layout.FragKey) { k.SCO = 99 },
	} {
		k := all[0]
		change(&k)
		r.kind(r.CacheFragment(ctx, k), errs.Absent)
	}
	if err := r.DeleteObject(ctx, ns, epoch, 1); err != nil || len(c.keys()) != 0 {
		t.Fatal(err, c.keys())
	}
	r.kind(r.CacheFragment(ctx, all[0]), errs.Absent)
}
