package node

import (
	"vstor/dataplane/api"
	"vstor/dataplane/proxy"
)

// openFragments opens the edge's own fragment cache. Nothing is written here, so reads fill it: what is read again and
// again comes from its ASD as a whole, or is rebuilt, and is verified against the manifest, which the router tells.
func (e *Edge) openFragments() error {
	n := e.n
	if err := n.openFragCache(); err != nil { // there is no space: an edge does without
		n.frag.err = err
		n.log.Error("there is no fragment cache", "error", err)
	}
	if n.frag.cache == nil {
		return nil
	}
	var err error
	n.proxy, err = proxy.New(proxy.Options{Manifest: e.Manifest, ASDs: n.proxyASDs, Preset: n.preset(),
		Cache: n.frag.cache, Workers: 1, ChunkBuffers: 2, RetryInterval: -1})
	return err
}

// setCaches has the caches go by what the router says of a vDisk.
func (e *Edge) setCaches(d *edgeVDisk, v *api.VDisk) {
	e.n.setFragments(record{ID: d.info.Volume, NoCache: v.NoCache, FragCacheQuota: v.FragCacheQuota})
	d.share.set(e.n, d.rig, v.BlockCacheQuota, v.NoCache)
}
