package node

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"vstor/dataplane/api"
	"vstor/dataplane/config"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/stat"
	"vstor/dataplane/units"
	"vstor/fragcache"
)

// fragCache is the process's fragment cache. A deployment without one, or whose cache does not open, has none here
// and serves all the same.
type fragCache struct {
	cache *fragcache.Cache // nil: there is none
	file  dio.File
	err   error // why it does not open
}

// fragCachePath is the file. An edge may share the router's folder, and has one of its own.
func (n *Node) fragCachePath() string {
	name := "fragments"
	if n.edge {
		name = "edge-fragments"
	}
	return filepath.Join(n.cfg.Dir, "cache", name)
}

// fragCacheMax is the longest fragment that is cached.
func fragCacheMax(cfg *config.Config) int { return int(min(cfg.FragmentSize, fragcache.MaxPayload)) }

// fragCacheBytes is what the cache takes in RAM.
func fragCacheBytes(cfg *config.Config) int64 {
	if cfg.FragmentCache == 0 {
		return 0
	}
	return fragcache.MemoryBytes(cfg.FragmentCache, fragCacheMax(cfg))
}

// checkFragCache refuses a size that is too small, before anything is made.
func checkFragCache(cfg *config.Config) error {
	least := fragcache.MinSize(fragCacheMax(cfg))
	if cfg.FragmentCache == 0 || cfg.FragmentCache >= least {
		return nil
	}
	return errs.New(errs.Invalid, "fragment-cache is %s; with fragments of %s it must be at least %s, or 0 for none",
		units.FormatSize(cfg.FragmentCache), units.FormatSize(cfg.FragmentSize), units.HumanSize(least))
}

// openFragCache opens the cache, making its file first if there is none of that size. Without one, the space of an
// earlier one is given back. That there is no space for it is an error; whatever else goes wrong costs the cache alone.
func (n *Node) openFragCache() error {
	path := n.fragCachePath()
	if n.cfg.FragmentCache == 0 {
		if n.host.FS().Remove(path) == nil {
			n.log.Info("there is no fragment cache any more; its space is free")
		}
		return nil
	}
	f, err := n.fragCacheFile(path)
	if errs.Of(err) == errs.Full {
		return err
	}
	c := &n.frag
	if err == nil {
		c.file = f
		c.cache, err = fragcache.New(fragcache.Options{File: f, Deployment: n.ident.UUID, MaxFragment: fragCacheMax(&n.cfg),
			Quota: n.cfg.FragmentCacheQuota, OnRead: n.cfg.FragmentCacheOnRead || n.edge, // which writes none
			Log: func(format string, args ...any) { n.log.Warn(fmt.Sprintf(format, args...)) }})
	}
	if c.err = err; err != nil {
		n.log.Error("the fragment cache does not open; reads do without", "error", err)
		return nil
	}
	return nil
}

func (n *Node) fragCacheFile(path string) (dio.File, error) {
	f, err := n.host.Open(path)
	switch {
	case err == nil && f.Size() == n.cfg.FragmentCache:
		return f, nil
	case err == nil: // another size was wanted then; what was in it is in the backend as well
		f.Close()
		n.host.FS().Remove(path)
	case errs.Of(err) != errs.Absent:
		return nil, err
	}
	if err := n.host.FS().MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, errs.Wrap(errs.IO, err, "cannot make the folder of the fragment cache")
	}
	n.progress("making the fragment cache")
	return n.host.Create(path, n.cfg.FragmentCache, false)
}

// fetchWanted fetches the fragments that the cache asks for, one at a time.
func (n *Node) fetchWanted(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case key := <-n.frag.cache.Wanted():
			if err := n.proxy.CacheFragment(ctx, key); err != nil && ctx.Err() == nil && errs.Of(err) != errs.Absent &&
				errs.Of(err) != errs.Busy {
				n.log.Warn("a fragment could not be fetched into the cache", "fragment", key, "error", err)
			}
		}
	}
}

// pruneFragCache drops what the cache has of vDisks that are not there any more: it may have missed their end.
func (n *Node) pruneFragCache(have map[ids.NamespaceID]bool) {
	if n.frag.cache == nil {
		return
	}
	n.frag.cache.EachTenant(func(t fragcache.Tenant) {
		if !have[t.Namespace] {
			n.frag.cache.Drop(t.Namespace)
		}
	})
}

// dropFragCache forgets a vDisk that was removed.
func (n *Node) dropFragCache(ns ids.NamespaceID) {
	if n.frag.cache != nil {
		n.frag.cache.Drop(ns)
	}
}

// closeFragCache stops the cache once nobody asks it any more. A file that hangs must not keep the process.
func (n *Node) closeFragCache() {
	if c := n.frag.cache; c != nil {
		done := make(chan struct{})
		go func() {
			c.Close()
			close(done)
		}()
		select {
		case <-done:
		case <-time.After(shutdownTimeout):
			n.log.Warn("the fragment cache does not answer; it is left behind")
			return
		}
	}
	if n.frag.file != nil {
		n.frag.file.Close()
	}
}

// statusFragCache says what is wrong with the cache.
func (n *Node) statusFragCache(s *api.Status) {
	switch {
	case n.frag.err != nil:
		s.Warnings = append(s.Warnings, "the fragment cache does not open: "+n.frag.err.Error())
	case n.frag.cache != nil && n.frag.cache.Stats().BypassedNow:
		s.Warnings = append(s.Warnings, "the fragment cache is slower than the ASDs, fails or hangs: reads go past it")
	}
}

// vdiskNames are the names of this process's vDisks.
func (n *Node) vdiskNames() map[ids.NamespaceID]string {
	names := map[ids.NamespaceID]string{}
	for _, d := range n.sortedVDisks() {
		names[d.ID] = d.Name
	}
	return names
}

func (n *Node) fragCacheMetrics(p *stat.Page, names map[ids.NamespaceID]string) {
	if n.frag.cache == nil {
		return
	}
	s := n.frag.cache.Stats()
	const pre = "vstor_fragment_cache_"
	c := func(name, help string, v uint64, l ...string) { p.Counter(pre+name, help, float64(v), l...) }
	bypassed := 0.0
	if s.BypassedNow {
		bypassed = 1
	}
	p.Gauge(pre+"size_bytes", "what vDisks can share", float64(s.Size))
	p.Gauge(pre+"used_bytes", "what fragments take", float64(s.Used))
	p.Gauge(pre+"fragments", "fragments in it", float64(s.Fragments))
	p.Gauge(pre+"segments_free", "segments that are free", float64(s.FreeSegments))
	p.Gauge(pre+"bypassed", "1 while reads go past it because it is slower than the ASDs", bypassed)
	c("hits_total", "reads that it served", s.Hits)
	c("hit_bytes_total", "bytes that it served", s.HitBytes)
	c("misses_total", "reads of fragments that it did not have", s.Misses)
	c("bypassed_reads_total", "reads that went past it because it is slower than the ASDs", s.Bypassed)
	c("bypasses_total", "times that a bypass began", s.Bypasses)
	c("sampled_reads_total", "reads that went past it to see how fast the ASDs are", s.Sampled)
	c("probes_total", "reads to see how fast it is while it is bypassed", s.Probes)
	c("fills_total", "fragments filled in", s.Fills)
	c("fill_bytes_total", "bytes filled in", s.FillBytes)
	for why, v := range map[string]uint64{"busy": s.DroppedBusy, "full": s.DroppedFull, "refused": s.Refused,
		"large": s.TooLarge} {
		c("fills_dropped_total", "fragments that were not filled in", v, "why", why)
	}
	c("evicted_total", "fragments that went for room or quota", s.Evicted)
	c("evicted_bytes_total", "bytes of those", s.EvictedBytes)
	c("refiled_bytes_total", "bytes written again because they deserved to stay", s.RefiledBytes)
	c("corrupt_total", "fragments in it that failed a checksum", s.Corrupt)
	c("stale_total", "fragments in it that their manifest does not vouch for", s.Stale)
	c("read_errors_total", "reads that its file failed", s.ReadErrors)
	c("write_errors_total", "writes that its file failed", s.WriteErrors)
	c("wanted_total", "fragments asked for because they are read", s.Wanted)
	n.frag.cache.EachTenant(func(t fragcache.Tenant) {
		name, ok := names[t.Namespace]
		if !ok {
			return
		}
		p.Gauge(pre+"vdisk_used_bytes", "what a vDisk's fragments take", float64(t.Used), "vdisk", name)
		p.Gauge(pre+"vdisk_quota_bytes", "what they may take; 0: no limit", float64(t.Quota), "vdisk", name)
		c("vdisk_hits_total", "reads of a vDisk's fragments that it served", t.Hits, "vdisk", name)
		c("vdisk_misses_total", "reads of a vDisk's fragments that it did not have", t.Misses, "vdisk", name)
		c("vdisk_fills_total", "a vDisk's fragments filled in", t.Fills, "vdisk", name)
		c("vdisk_evicted_total", "a vDisk's fragments that went for room or quota", t.Evicted, "vdisk", name)
	})
}
