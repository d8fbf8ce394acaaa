package node

import (
	"strconv"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/edge"
	"vstor/dataplane/ids"
	"vstor/dataplane/nbd"
	"vstor/dataplane/stat"
	"vstor/pracc"
)

type praccASD = pracc.ASDStats

// WriteMetrics adds all metrics to a page. They are read without stopping anybody: figures on one page may
// be a few requests apart.
func (n *Node) WriteMetrics(p *stat.Page) {
	n.nbdMetrics(p)
	n.tlsMetrics(p)
	for _, d := range n.sortedVDisks() {
		d.metrics(p)
	}
	for _, d := range n.drives {
		n.asdMetrics(p, d)
		n.readerMetrics(p, d)
	}
	for _, r := range n.rigs {
		r.metrics(p)
	}
	caches, _ := n.ListCaches(n.ctx)
	n.cacheMetrics(p, caches)
	n.fragCacheMetrics(p, n.vdiskNames())
	n.corruptionMetrics(p)
}

func (n *Node) nbdMetrics(p *stat.Page) {
	if n.nbd == nil {
		return
	}
	s := n.nbd.Stats()
	p.Gauge("vstor_nbd_connections", "NBD connections now", float64(s.Connections))
	p.Counter("vstor_nbd_accepted_total", "NBD connections let in", float64(s.Accepted))
	p.Counter("vstor_nbd_refused_total", "NBD connections closed for --max-connections", float64(s.Refused))
	p.Counter("vstor_nbd_handshakes_failed_total", "NBD handshakes that ended in an error", float64(s.HandshakesFailed))
	p.Counter("vstor_nbd_bad_peers_total", "NBD connections closed for a broken protocol", float64(s.BadPeers))
	for c, v := range s.Requests {
		if v > 0 {
			p.Counter("vstor_nbd_requests_total", "NBD requests", float64(v), "command", nbd.Command(c).String())
		}
	}
	p.Counter("vstor_nbd_stalled_total", "NBD connections closed for silence while others waited for memory",
		float64(s.Stalled))
	p.Counter("vstor_nbd_overloaded_total", "NBD connections closed for bytes that could not be placed",
		float64(s.Overloaded))
	p.Counter("vstor_nbd_memory_waits_total", "times that a connection waited for memory", float64(s.Waits))
	p.Counter("vstor_nbd_errors_total", "NBD requests answered with an error", float64(s.Errors))
	p.Counter("vstor_nbd_read_bytes_total", "payload sent to NBD clients", float64(s.ReadBytes))
	p.Counter("vstor_nbd_written_bytes_total", "payload received from NBD clients", float64(s.WrittenBytes))
	p.Counter("vstor_copied_bytes_total", "payload copied in user space on the NBD side", float64(s.CopiedBytes))
	if served := s.ReadBytes + s.WrittenBytes; served > 0 {
		p.Gauge("vstor_copied_per_served", "bytes copied in user space per byte served",
			float64(s.CopiedBytes)/float64(served))
	}
}

func (d *vdisk) metrics(p *stat.Page) {
	l := []string{"vdisk", d.Name}
	e, v := &d.disk.Stats, &d.vol.Stats
	c := func(name, help string, x uint64) { p.Counter(name, help, float64(x), l...) }
	c("vstor_vdisk_reads_total", "read requests", e.Reads.Load())
	c("vstor_vdisk_writes_total", "write requests", e.Writes.Load())
	c("vstor_vdisk_flushes_total", "flush requests", e.Flushes.Load())
	c("vstor_vdisk_trims_total", "trim and write-zeroes requests", e.Trims.Load())
	c("vstor_vdisk_read_bytes_total", "bytes read", e.ReadBytes.Load())
	c("vstor_vdisk_written_bytes_total", "bytes written", e.WriteBytes.Load())
	c("vstor_vdisk_errors_total", "requests that ended with an error", e.Errors.Load())
	c("vstor_vdisk_partial_writes_total", "writes of part of a block", e.Partials.Load())
	c("vstor_vdisk_read_retries_total", "reads whose blocks had moved", e.Retries.Load())
	c("vstor_sealed_scos_total", "SCOs of client writes committed", v.Sealed.Load())
	c("vstor_sealed_blocks_total", "blocks in them", v.SealedBlocks.Load())
	c("vstor_cleaned_scos_total", "SCOs written by cleaning", v.Cleaned.Load())
	c("vstor_cleaned_blocks_total", "blocks moved by cleaning", v.CleanedBlocks.Load())
	c("vstor_deleted_scos_total", "SCOs deleted", v.Deleted.Load())
	c("vstor_journal_copied_blocks_total", "blocks copied forward in the journal", v.Copied.Load())
	c("vstor_overlay_evicted_blocks_total", "blocks that left RAM for the journal", v.Evicted.Load())
	c("vstor_seal_retries_total", "stores and commits of SCOs tried again", v.SealRetries.Load())
	c("vstor_journal_rotten_blocks_total", "blocks lost in the journal", v.Rotten.Load())
	c("vstor_vdisk_corrupt_total", "requests that ended with an error because data is damaged", e.Corrupt.Load())
	c("vstor_journal_trimmed_incomplete_total", "journal space freed before all fragments were written",
		v.TrimIncomplete.Load())
	if d.door != nil {
		d.doorMetrics(p, l)
	}
	p.Gauge("vstor_seal_queue", "batches closed and not yet in the map", float64(v.Queue.Load()), l...)
	ladder(p, d.Name, &d.disk.Stats)
}

// ladder is where reads came from, and how long requests took. A rung that never served is left out: each is a
// histogram.
func ladder(p *stat.Page, vdisk string, e *edge.Stats) {
	for i := range e.Rungs {
		var s stat.Snapshot
		e.Rungs[i].Latency.AddTo(&s)
		bytes := e.Rungs[i].Bytes.Load()
		if s.Count == 0 && bytes == 0 {
			continue
		}
		l := []string{"vdisk", vdisk, "rung", block.Rung(i).String()}
		p.Histogram("vstor_vdisk_read_seconds", "reads, by the last rung of the read ladder that they needed", &s, l...)
		p.Counter("vstor_vdisk_rung_bytes_total", "bytes read, by the rung that gave them", float64(bytes), l...)
	}
	var writes, flushes stat.Snapshot
	e.WriteLatency.AddTo(&writes)
	e.FlushLatency.AddTo(&flushes)
	p.Histogram("vstor_vdisk_write_seconds", "writes", &writes, "vdisk", vdisk)
	p.Histogram("vstor_vdisk_flush_seconds", "flushes", &flushes, "vdisk", vdisk)
}

func (n *Node) asdMetrics(p *stat.Page, d *drive) {
	a := n.showASD(d)
	l := []string{"asd", strconv.Itoa(int(d.id))}
	up := 0.0
	if a.State != "down" {
		up = 1
	}
	p.Gauge("vstor_asd_up", "1 while the ASD serves", up, l...)
	p.Gauge("vstor_asd_size_bytes", "what fragments may take", float64(a.SizeBytes), l...)
	p.Gauge("vstor_asd_used_bytes", "what live fragments take", float64(a.UsedBytes), l...)
	p.Gauge("vstor_asd_quarantined_bytes", "deleted space that rests", float64(a.DeferredBytes), l...)
	p.Gauge("vstor_asd_fragments", "fragments", float64(a.Fragments), l...)
	p.Counter("vstor_asd_reads_total", "range reads and verified reads", float64(a.ReadOps), l...)
	p.Counter("vstor_asd_puts_total", "fragments put", float64(a.WriteOps), l...)
	p.Counter("vstor_asd_read_bytes_total", "bytes of range reads", float64(a.ReadBytes), l...)
	p.Counter("vstor_asd_put_bytes_total", "bytes put", float64(a.WriteBytes), l...)
	p.Counter("vstor_asd_corrupt_total", "blocks or regions that failed their checksum", float64(a.Corrupt), l...)
}

// readerMetrics is how an ASD in another process answers, over all loops.
func (n *Node) readerMetrics(p *stat.Page, d *drive) {
	if d.remote == nil {
		return
	}
	l := []string{"asd", strconv.Itoa(int(d.id))}
	var latency stat.Snapshot
	var timeouts, stalls, breaks uint64
	for _, r := range n.rigs {
		s := r.remote[d.id].Stats()
		s.Latency.AddTo(&latency)
		timeouts += s.Timeouts.Load()
		stalls += s.Stalls.Load()
		breaks += s.Breaks.Load()
	}
	p.Histogram("vstor_asd_read_seconds", "from a range read's start to its answer, over the wire", &latency, l...)
	p.Counter("vstor_asd_read_timeouts_total", "range reads that got no answer in time", float64(timeouts), l...)
	p.Counter("vstor_asd_stalls_total", "times that the ASD's connection went silent", float64(stalls), l...)
	p.Counter("vstor_asd_connections_lost_total", "connections for reads that ended", float64(breaks), l...)
	n.shortMetrics(p, d)
	if d.child != nil {
		p.Counter("vstor_asd_restarts_total", "times that its process was started again", float64(d.child.Restarts()), l...)
	}
}

// readings is how an ASD in another process was read: over its socket, or by this process itself.
type readings struct {
	socketReads, socketBytes, shortReads, shortBytes      uint64
	misses, late, forgotten, dropped, entries, tableBytes uint64
}

func (n *Node) readings(d *drive) (s readings) {
	if d.remote == nil {
		return s
	}
	for _, r := range n.rigs {
		st := r.remote[d.id].Stats()
		s.socketReads += st.Reads.Load()
		s.socketBytes += st.Bytes.Load()
		s.shortReads += st.Short.Reads.Load()
		s.shortBytes += st.Short.Bytes.Load()
		s.misses += st.Short.Misses.Load()
		s.late += st.Short.Late.Load()
		s.forgotten += st.Short.Forgotten.Load()
		s.dropped += st.Short.Dropped.Load()
		s.entries += uint64(st.Short.Entries.Load())
		s.tableBytes += uint64(st.Short.TableBytes.Load())
	}
	return s
}

func (n *Node) shortMetrics(p *stat.Page, d *drive) {
	l, s := []string{"asd", strconv.Itoa(int(d.id))}, n.readings(d)
	c := func(name, help string, x uint64) { p.Counter(name, help, float64(x), l...) }
	c("vstor_asd_socket_reads_total", "range reads over the ASD's socket", s.socketReads)
	c("vstor_asd_socket_read_bytes_total", "bytes of them", s.socketBytes)
	c("vstor_asd_short_circuit_reads_total", "range reads of the ASD's drive by this process itself", s.shortReads)
	c("vstor_asd_short_circuit_read_bytes_total", "bytes of them", s.shortBytes)
	c("vstor_asd_short_circuit_late_total", "of them, those that ended after their lease and were not used", s.late)
	c("vstor_asd_short_circuit_leases_dropped_total", "leases dropped with their connection", s.dropped)
	c("vstor_asd_extents_hits_total", "range reads whose place was known", s.shortReads)
	c("vstor_asd_extents_misses_total", "range reads whose place was not known", s.misses)
	c("vstor_asd_extents_forgotten_total", "places dropped because the fragment was deleted", s.forgotten)
	p.Gauge("vstor_asd_extents_entries", "fragments whose place is known", float64(s.entries), l...)
	p.Gauge("vstor_asd_extents_bytes", "memory that these take", float64(s.tableBytes), l...)
}

// coreMetrics are those of every loop.
func (r *loopRig) coreMetrics(p *stat.Page) {
	l := []string{"loop", strconv.Itoa(r.id)}
	s, q := r.loop.Stats(), r.client.Stats()
	p.Counter("vstor_loop_passes_total", "passes of the loop", float64(s.Passes), l...)
	p.Counter("vstor_loop_enters_total", "kernel entries", float64(s.Enters), l...)
	p.Counter("vstor_loop_sleeps_total", "kernel entries that waited", float64(s.Sleeps), l...)
	p.Counter("vstor_loop_spins_total", "kernel entries that did not wait with nothing left to do", float64(s.Spins), l...)
	p.Counter("vstor_loop_operations_total", "operations submitted", float64(s.SQEs), l...)
	p.Counter("vstor_pracc_fetches_total", "reads of objects", float64(q.Fetches.Load()), l...)
	p.Counter("vstor_pracc_failed_total", "reads of objects that failed", float64(q.Failed.Load()), l...)
	p.Counter("vstor_pracc_bytes_total", "bytes read and verified", float64(q.Bytes.Load()), l...)
	p.Counter("vstor_pracc_rebuilds_total", "ranges rebuilt from other fragments", float64(q.Rebuilds.Load()), l...)
	p.Counter("vstor_pracc_hedges_total", "late reads for which other ASDs were read too", float64(q.Hedges.Load()), l...)
	p.Counter("vstor_pracc_hedge_wins_total", "late reads that were overtaken by reads of other ASDs",
		float64(q.HedgeWins.Load()), l...)
	p.Counter("vstor_pracc_hedges_denied_total", "late reads that were not hedged at once, as there were too many",
		float64(q.HedgeDenied.Load()), l...)
	p.Counter("vstor_pracc_around_total", "reads that went round a slow or failing ASD", float64(q.Around.Load()), l...)
	p.Counter("vstor_pracc_probes_total", "reads to find out whether an ASD is well again", float64(q.Probes.Load()), l...)
	p.Gauge("vstor_pracc_stuck_reads", "reads under way that nobody waits for", float64(q.StuckReads.Load()), l...)
	p.Gauge("vstor_pracc_stuck_bytes", "memory that such reads hold", float64(q.StuckPages.Load()*buf.PageSize), l...)
	r.client.EachASD(func(id ids.ASDID, s *praccASD) { praccASDMetrics(p, id, s, l) })
	p.Counter("vstor_pracc_cached_total", "ranges that the fragment cache served", float64(q.Cached.Load()), l...)
	p.Counter("vstor_pracc_cache_failed_total", "ranges that the fragment cache gave out and that were no good",
		float64(q.CacheFailed.Load()), l...)
	p.Counter("vstor_pracc_manifest_misses_total", "reads whose manifest was not cached", float64(q.Misses.Load()), l...)
	p.Counter("vstor_corrupt_blocks_total", "blocks that failed their checksum", float64(q.Corrupt.Load()), l...)
}

func (r *loopRig) metrics(p *stat.Page) {
	r.coreMetrics(p)
	l := []string{"loop", strconv.Itoa(r.id)}
	var jr struct{ records, entries, bytes, syncs, stalls, braked float64 }
	var free, total float64
	r.loop.Call(func() {
		j, pr := r.jrn.Stats(), r.jrn.Pressure()
		jr.records, jr.entries, jr.bytes = float64(j.Records), float64(j.Entries), float64(j.Bytes)
		jr.syncs, jr.stalls, jr.braked = float64(j.Syncs), float64(j.Stalls), float64(j.Braked)
		free, total = float64(pr.Free), float64(pr.Total)
	})
	p.Counter("vstor_journal_records_total", "group commits", jr.records, l...)
	p.Counter("vstor_journal_entries_total", "mutations in them", jr.entries, l...)
	p.Counter("vstor_journal_written_bytes_total", "bytes written with headers", jr.bytes, l...)
	p.Counter("vstor_journal_syncs_total", "fdatasyncs", jr.syncs, l...)
	p.Counter("vstor_journal_stalls_total", "times that writes waited for space", jr.stalls, l...)
	p.Counter("vstor_journal_braked_total", "times that writes were slowed down as little space was left", jr.braked, l...)
	p.Gauge("vstor_journal_segments", "segments", total, l...)
	p.Gauge("vstor_journal_segments_free", "segments that are free", free, l...)
}

// praccASDMetrics is one ASD as a loop's PRACC sees it.
func praccASDMetrics(p *stat.Page, id ids.ASDID, s *praccASD, loop []string) {
	l := append([]string{"asd", strconv.Itoa(int(id))}, loop...)
	p.Gauge("vstor_pracc_asd_fast", "1 while the ASD is read, 0 while others are in its place",
		float64(s.Fast.Load()), l...)
	p.Counter("vstor_pracc_asd_left_total", "times that the ASD was found slow or failing", float64(s.Left.Load()), l...)
	for class, name := range pracc.SizeNames {
		q := func(quantile string, g *stat.Gauge) {
			p.Gauge("vstor_pracc_asd_latency_seconds", "quantiles of the last few hundred reads of the ASD",
				float64(g.Load())/1e9, append(l, "size", name, "quantile", quantile)...)
		}
		q("0.5", &s.P50[class])
		q("0.95", &s.P95[class])
	}
}
