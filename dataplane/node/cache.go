package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"vstor/blockcache"
	"vstor/blockcache/ssd"
	"vstor/dataplane/api"
	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/config"
	"vstor/dataplane/edge"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/stat"
	"vstor/fragcache"
)

// blockCache is one vDisk's share of its loop's block cache, as the Edge needs it.
type blockCache struct {
	c *blockcache.Cache
	t *blockcache.Tenant
}

func (b blockCache) Get(ns ids.NamespaceID, sco ids.SCONum, off uint32, sums []uint32, dst *buf.Vec) int {
	return b.c.Get(b.t, ns, sco, off, sums, dst)
}
func (b blockCache) Fetch(f *block.Fetch)    { b.c.Fetch(b.t, f) }
func (b blockCache) Prefetch(f *block.Fetch) { b.c.Prefetch(b.t, f) }
func (b blockCache) Shrink(n int) int        { return b.c.Shrink(n) }
func (b blockCache) Ahead(addr ids.BlockAddr, n int) (ids.BlockAddr, int) {
	return b.t.Ahead.Step(addr, n)
}

// cachePath is the file of a loop's second tier.
func (n *Node) cachePath(i int) string {
	return filepath.Join(n.cfg.Dir, "cache", fmt.Sprintf("blocks-%d", i))
}

func (n *Node) ssdOptions() ssd.Options {
	return ssd.Options{UUID: n.ident.UUID, BlockBytes: int(n.cfg.BlockCacheBlock)}
}

// ssdBytes is the size of one loop's second tier.
func ssdBytes(cfg *config.Config) int64 {
	return cfg.BlockCacheSSD / int64(cfg.Loops) / buf.PageSize * buf.PageSize
}

// openCache makes the loop's block cache, if there is to be one. A cache holds nothing that is not elsewhere too: a
// second tier that cannot be opened is done without, loudly.
func (r *loopRig) openCache() error {
	n := r.n
	if n.plan.blocks == 0 {
		if n.cfg.BlockCacheSSD > 0 {
			n.log.Warn("there is no block cache: the memory leaves no room for its first tier", "loop", r.id)
		}
		return nil
	}
	if n.cfg.BlockCacheSSD > 0 {
		if err := r.openSSD(); err != nil {
			n.log.Warn("the block cache has no second tier for now", "loop", r.id, "error", err)
		}
	}
	var err error
	r.loop.Call(func() {
		r.cache, err = blockcache.New(r.loop, blockcache.Options{BlockBytes: int(n.cfg.BlockCacheBlock),
			RAMBytes: n.plan.blocks, Below: r.fetch, SSD: r.tier})
	})
	return err
}

// openSSD opens the file of the second tier, or makes it anew if it is not there or has another size.
func (r *loopRig) openSSD() error {
	n, size := r.n, ssdBytes(&r.n.cfg)
	path := n.cachePath(r.id)
	f, err := n.host.Open(path)
	if err == nil && f.Size() != size {
		f.Close()
		err = errs.New(errs.Absent, "%s has another size", path)
	}
	if err != nil {
		if err := n.host.FS().MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return errs.Wrap(errs.IO, err, "cannot make the folder of the block cache")
		}
		if err := n.host.FS().Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return errs.Wrap(errs.IO, err, "cannot remove the old file of the block cache")
		}
		if f, err = n.host.Create(path, size, false); err != nil {
			return err
		}
	}
	t, err := ssd.Open(f, n.ssdOptions())
	if err != nil {
		f.Close()
		return err
	}
	r.tier, r.tierFile = t, f
	return nil
}

// closeCache begins the end of the cache, and tells of it.
func (r *loopRig) closeCache() <-chan struct{} {
	done := make(chan struct{})
	if r.cache == nil || !r.loop.Call(func() { r.cache.Close(func() { close(done) }) }) {
		close(done)
	}
	return done
}

// openTenant gives a vDisk its share of the cache; nil without one. On the loop.
func (r *loopRig) openTenant(id ids.VolumeID, quota int64, off bool) *blockCache {
	if r.cache == nil {
		return nil
	}
	return &blockCache{r.cache, r.cache.Open(id, r.n.blockQuota(quota), off)}
}

// blockQuota is what a vDisk may have of each tier; own is its own setting, 0 for none.
func (n *Node) blockQuota(own int64) blockcache.Quota {
	q := cmp.Or(own, n.cfg.BlockCacheQuota, blockcache.Unlimited)
	return blockcache.Quota{RAM: q, SSD: q}
}

// cache is b for the Edge, which takes an interface that is nil for none.
func (b *blockCache) cache() edge.Cache {
	if b == nil {
		return nil
	}
	return b
}

// setCache has the settings of r count from now on.
func (d *vdisk) setCache(n *Node, r record) {
	n.setFragments(r)
	d.share.set(n, d.rig, r.BlockCacheQuota, r.NoCache)
}

// set changes quota and switch; on nil it does nothing.
func (b *blockCache) set(n *Node, rig *loopRig, quota int64, off bool) {
	if b == nil {
		return
	}
	rig.loop.Call(func() {
		b.t.SetQuota(n.blockQuota(quota))
		b.t.SetOff(off)
		rig.cache.Publish() // whoever looks next sees it
	})
}

// setFragments has the fragment cache go by the settings of r.
func (n *Node) setFragments(r record) {
	if c := n.frag.cache; c != nil {
		q := r.FragCacheQuota
		if q == 0 {
			q = fragcache.QuotaDefault
		}
		c.SetQuota(r.ID, q)
		c.SetEnabled(r.ID, !r.NoCache)
	}
}

// listFragments shows what vDisks have of the fragment cache.
func (n *Node) listFragments(names map[ids.NamespaceID]string) (out []api.CacheShare) {
	if n.frag.cache == nil {
		return nil
	}
	n.frag.cache.EachTenant(func(t fragcache.Tenant) {
		if name, ok := names[t.Namespace]; ok {
			out = append(out, n.showFragments(name, t))
		}
	})
	slices.SortFunc(out, func(a, b api.CacheShare) int { return strings.Compare(a.VDisk, b.VDisk) })
	return out
}

func (n *Node) showFragments(name string, t fragcache.Tenant) api.CacheShare {
	cache := "fragments"
	if n.edge { // beside the router's
		cache = "edge-fragments"
	}
	c := api.CacheShare{VDisk: name, Cache: cache, SizeBytes: n.cfg.FragmentCache, QuotaBytes: t.Quota,
		ShareBytes: t.Share, UsedBytes: t.Used, Hits: t.Hits, Misses: t.Misses}
	switch {
	case !t.Enabled:
		c.QuotaBytes, c.ShareBytes = 0, 0
	case t.Quota == 0:
		c.QuotaBytes = -1
	}
	return c
}

// ListCaches shows what each vDisk has of each tier.
func (n *Node) ListCaches(context.Context) ([]api.CacheShare, error) {
	var out []api.CacheShare
	for _, d := range n.sortedVDisks() {
		out = append(out, d.share.show(d.Name, d.rig)...)
	}
	return append(out, n.listFragments(n.vdiskNames())...), nil
}

// show is what a vDisk has of each tier; none of nil.
func (b *blockCache) show(vdisk string, rig *loopRig) (out []api.CacheShare) {
	if b == nil {
		return nil
	}
	out = append(out, showTier(vdisk, "block-ram", &b.t.Stats.RAM))
	if rig.tier != nil {
		out = append(out, showTier(vdisk, "block-ssd", &b.t.Stats.SSD))
	}
	return out
}

func showTier(vdisk, cache string, s *blockcache.TierStats) api.CacheShare {
	c := api.CacheShare{VDisk: vdisk, Cache: cache, SizeBytes: s.Size.Load(), QuotaBytes: s.Quota.Load(),
		ShareBytes: s.Share.Load(), UsedBytes: s.Used.Load(), Hits: s.Hits.Load(), Misses: s.Misses.Load()}
	if c.QuotaBytes == blockcache.Unlimited {
		c.QuotaBytes = -1
	}
	return c
}

func (n *Node) cacheMetrics(p *stat.Page, list []api.CacheShare) {
	for _, c := range list {
		l := []string{"vdisk", c.VDisk, "cache", c.Cache}
		p.Gauge("vstor_cache_used_bytes", "what a vDisk has of a tier of a cache", float64(c.UsedBytes), l...)
		p.Gauge("vstor_cache_share_bytes", "what it has a right to while all want theirs", float64(c.ShareBytes), l...)
		p.Counter("vstor_cache_hits_total", "blocks that were there", float64(c.Hits), l...)
		p.Counter("vstor_cache_misses_total", "blocks that were not", float64(c.Misses), l...)
	}
	for _, r := range n.rigs {
		if r.cache != nil {
			r.cacheMetrics(p)
		}
	}
}

func (r *loopRig) cacheMetrics(p *stat.Page) {
	s, l := &r.cache.Stats, []string{"loop", strconv.Itoa(r.id)}
	c := func(name, help string, x *stat.Counter) { p.Counter(name, help, float64(x.Load()), l...) }
	c("vstor_block_cache_evicted_total", "cache blocks that left RAM", &s.Evicted)
	c("vstor_block_cache_shed_total", "cache blocks that gave way to other uses of memory", &s.Shed)
	c("vstor_block_cache_starved_total", "fills that found no memory", &s.Starved)
	c("vstor_block_cache_mismatches_total", "blocks cached under another checksum than the map's", &s.Mismatches)
	if r.tier == nil {
		return
	}
	c("vstor_block_cache_ssd_rotten_total", "blocks of the second tier that failed their checksum", &s.Rotten)
	c("vstor_block_cache_ssd_errors_total", "reads of the second tier that failed", &s.Errors)
	c("vstor_block_cache_ssd_late_total", "reads of the second tier that were given up", &s.Late)
	c("vstor_block_cache_ssd_full_total", "reads that went to the backend as too many were under way", &s.QueueFull)
	p.Gauge("vstor_block_cache_ssd_bypassed", "1 while the second tier is slower than the backend",
		float64(s.Slow.Load()), l...)
}
