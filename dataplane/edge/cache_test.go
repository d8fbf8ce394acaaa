package edge

import (
	"math/rand/v2"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/ids"
)

// fakeCache keeps what was fetched and forgets at random. It is asked by place and checksum, as a cache is.
type fakeCache struct {
	pool   *buf.Pool
	rng    *rand.Rand
	below  Fetcher
	pages  map[cachedAs]buf.Page
	gets   int // blocks
	aheads int // reads
}

type cachedAs struct {
	sco ids.SCONum
	off uint32
	sum uint32
}

func (c *fakeCache) Get(_ ids.NamespaceID, sco ids.SCONum, off uint32, sums []uint32, dst *buf.Vec) int {
	for i, sum := range sums {
		key := cachedAs{sco, off + uint32(i), sum}
		page, ok := c.pages[key]
		if !ok {
			return i
		}
		if c.rng.IntN(4) == 0 {
			c.drop(key)
			return i
		}
		c.pool.Retain(page)
		dst.Add(buf.Seg{Page: page, Len: ids.BlockSize})
		c.gets++
	}
	return len(sums)
}

// Ahead reads some blocks ahead of one read in three.
func (c *fakeCache) Ahead(addr ids.BlockAddr, n int) (ids.BlockAddr, int) {
	if c.rng.IntN(3) > 0 {
		return 0, 0
	}
	return addr + ids.BlockAddr(n), 1 + c.rng.IntN(40)
}

func (c *fakeCache) Prefetch(f *block.Fetch) { c.aheads++; c.Fetch(f) }

func (c *fakeCache) drop(key cachedAs) {
	c.pool.Release(c.pages[key])
	delete(c.pages, key)
}

func (c *fakeCache) Shrink(n int) int {
	gave := 0
	for key := range c.pages {
		if gave == n {
			break
		}
		c.drop(key)
		gave++
	}
	return gave
}

// fakeFill is a fetch on its way through the cache.
type fakeFill struct {
	block.Fetch
	c   *fakeCache
	out *block.Fetch
}

func (c *fakeCache) Fetch(out *block.Fetch) {
	f := &fakeFill{Fetch: *out, c: c, out: out}
	f.Done = f
	c.below.Fetch(&f.Fetch)
}

func (f *fakeFill) FetchDone(*block.Fetch) {
	c, out := f.c, f.out
	out.Err, out.Via = f.Err, f.Via
	for i := uint32(0); out.Err == 0 && i < out.Count; i++ {
		key := cachedAs{out.SCO, out.Off + i, out.Sums[i]}
		page := out.Dst.PageAt(int(i) * ids.BlockSize)
		if _, ok := c.pages[key]; !ok {
			c.pool.Retain(page)
			c.pages[key] = page
		}
	}
	out.Done.FetchDone(out)
}
