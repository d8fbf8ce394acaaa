package pracc

import (
	"vstor/dataplane/ids"
	"vstor/dataplane/stat"
)

// Stats are a Client's counters. The loop writes, anyone may Load.
type Stats struct {
	Fetches stat.Counter // asked for
	Failed  stat.Counter // ended with anything but OK
	Blocks  stat.Counter // given out, verified
	Bytes   stat.Counter

	Hedges      stat.Counter // late reads for which others were read too
	HedgeWins   stat.Counter // parts whose own read was overtaken, by a hedge or because its ASD had left the fast set
	HedgeDenied stat.Counter // late reads that were not hedged at once, as there were too many
	Around      stat.Counter // reads that went round an ASD out of the fast set
	Probes      stat.Counter // of such ASDs

	Rebuilds      stat.Counter // steps of at most 64 blocks that were rebuilt from other fragments
	RebuiltBlocks stat.Counter
	RebuildFailed stat.Counter // steps for which no combination of fragments was left
	Cached        stat.Counter // parts that the Cache served
	CacheFailed   stat.Counter // parts that the Cache gave out and that did not match or could not be read
	Waited        stat.Counter // steps that stood in line for a slot or for scratch pages
	Corrupt       stat.Counter // blocks that did not match; by ASD in ASDStats

	Hits        stat.Counter // fetches whose manifest was cached
	Misses      stat.Counter // fetches whose manifest was not
	Lookups     stat.Counter // times that Manifests was asked
	Refreshes   stat.Counter // fetches that failed and asked for their manifest again
	Retries     stat.Counter // of those, the ones that found it changed and began anew
	Evictions   stat.Counter // manifests that were dropped for room
	Unreachable stat.Counter // reads of an ASD that could not be asked
	Parked      stat.Counter // times that a fetch rested because too few ASDs could be asked

	CacheBytes    stat.Gauge // manifests kept
	CacheEntries  stat.Gauge
	RangesFlying  stat.Gauge
	ScratchPages  stat.Gauge // held by rebuilds
	RebuildsGoing stat.Gauge
	StuckReads    stat.Gauge // under way though nobody waits for them
	StuckPages    stat.Gauge // that they hold
}

// ASDStats are the counters of one ASD. The loop writes, anyone may Load.
type ASDStats struct {
	Reads   stat.Counter // range reads that brought their bytes
	Bytes   stat.Counter
	Errors  stat.Counter // range reads that failed with anything but Absent
	Absent  stat.Counter // fragments that the manifest names and the ASD does not have
	Corrupt stat.Counter // blocks that came from it and did not match

	Fast stat.Gauge   // 1 in the fast set, 0 out of it
	Left stat.Counter // times that it left it
	// How long its reads took, by size: all of them, and the quantiles of the last few hundred, in ns.
	Latency  [sizeClasses]stat.Histogram
	P50, P95 [sizeClasses]stat.Gauge
}

// Stats are the Client's counters; they live as long as it does. Any goroutine.
func (c *Client) Stats() *Stats { return &c.stats }

// EachASD calls f for every ASD that was ever read, in the order of first use. Any goroutine.
func (c *Client) EachASD(f func(ids.ASDID, *ASDStats)) {
	list := c.asds.Load()
	if list == nil {
		return
	}
	for _, t := range *list {
		f(t.id, &t.stats)
	}
}

// publish adds t to the list that EachASD walks: a new list, as readers may walk the old one.
func (c *Client) publish(t *target) {
	var list []*target
	if old := c.asds.Load(); old != nil {
		list = append(list, *old...)
	}
	list = append(list, t)
	c.asds.Store(&list)
}
