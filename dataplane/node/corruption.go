package node

import (
	"fmt"
	"maps"
	"slices"

	"vstor/dataplane/api"
	"vstor/dataplane/errs"
	"vstor/dataplane/stat"
)

// corruption is how often damage was met since the start, by place. One piece counts as often as it is met.
//
//	data     blocks and regions of fragments that failed their checksum
//	cache    fragments in the fragment cache, and blocks in the block cache's second tier, that failed a checksum
//	index    indexes and superblocks of ASDs that do not open for it
//	journal  blocks found rotten when the journal was replayed or they were sealed
//	map      tables and records of the maps' database
//	meta     tables and records of the metadata store
func (n *Node) corruption() map[string]uint64 {
	c := map[string]uint64{"data": 0, "cache": 0, "index": 0, "journal": 0, "map": n.mapDamage, "meta": 0}
	for _, r := range n.rigs {
		c["data"] += r.client.Stats().Corrupt.Load()
		if r.cache != nil {
			c["cache"] += r.cache.Stats.Rotten.Load()
		}
	}
	for _, d := range n.drives {
		s, err := d.stat()
		c["data"] += uint64(s.Corrupt)
		if errs.Of(err) == errs.Corrupt {
			c["index"]++
		}
	}
	if n.frag.cache != nil {
		c["cache"] += n.frag.cache.Stats().Corrupt
	}
	n.mu.Lock()
	for _, d := range n.vdisks {
		c["journal"] += d.vol.Stats.Rotten.Load()
	}
	for _, f := range n.failed {
		c["journal"] += f.parked.Stats.Rotten.Load()
	}
	n.mu.Unlock()
	if n.mapDB != nil {
		c["map"] += n.mapDB.Corrupt()
	}
	if n.meta != nil {
		c["meta"] += n.meta.Corrupt()
	}
	return c
}

func (n *Node) corruptionMetrics(p *stat.Page) {
	c := n.corruption()
	for _, place := range slices.Sorted(maps.Keys(c)) {
		p.Counter("vstor_corrupt_found_total", "pieces of damage met, by place", float64(c[place]), "place", place)
	}
}

// statusCorruption shows what was found, and what the databases cannot do for it.
func (n *Node) statusCorruption(s *api.Status) {
	s.CorruptPlaces = n.corruption()
	for _, x := range s.CorruptPlaces {
		s.CorruptBlocks += x
	}
	if err := n.meta.Problem(); err != nil {
		s.Reasons = append(s.Reasons, err.Error())
	}
	if err := n.mapDB.Problem(); err != nil {
		s.Reasons = append(s.Reasons, err.Error())
	}
}

// logError takes the error lines of the databases.
func (n *Node) logError(format string, args ...any) { n.log.Error(fmt.Sprintf(format, args...)) }
