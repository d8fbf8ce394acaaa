package node

import (
	"context"
	"os"
	"slices"
	"strings"
	"time"

	"vstor/dataplane/api"
	"vstor/dataplane/errs"
	"vstor/dataplane/nbd"
	"vstor/dataplane/stat"
)

// What an edge tells of itself, in the words of the deployment's API; its parent puts that together with what the
// router tells.

var errAskRouter = errs.New(errs.Unsupported, "an edge does not decide that: ask the router")

// open lists the vDisks that are open here.
func (e *Edge) open() []*edgeVDisk {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []*edgeVDisk
	for _, d := range e.vdisks {
		if d.r != nil {
			list = append(list, d)
		}
	}
	slices.SortFunc(list, func(a, b *edgeVDisk) int { return strings.Compare(a.name, b.name) })
	return list
}

// ListVDisks shows those that are open here, with what clients did.
func (e *Edge) ListVDisks(context.Context) ([]api.VDisk, error) {
	out := []api.VDisk{}
	for _, d := range e.open() {
		i := d.r.Info()
		v := api.VDisk{Name: d.name, ID: uint64(i.Volume), SizeBytes: i.Size, URI: api.NBDURI(e.n.cfg.Dir, d.name)}
		if d.disk != nil {
			s := &d.disk.Stats
			v.ReadOps, v.WriteOps = s.Reads.Load(), s.Writes.Load()
			v.ReadBytes, v.WriteBytes = s.ReadBytes.Load(), s.WriteBytes.Load()
		}
		switch {
		case i.Fenced != nil:
			v.Problem = "lost to this edge until all clients have disconnected: " + i.Fenced.Error()
		case !i.Connected:
			v.Problem = "its router does not answer: what the edge does not know waits"
		}
		e.mu.Lock()
		v.Connections = len(d.opens)
		e.mu.Unlock()
		out = append(out, v)
	}
	return out, nil
}

// ShowVDisk shows one that is open here.
func (e *Edge) ShowVDisk(ctx context.Context, name string) (api.VDisk, error) {
	list, err := e.ListVDisks(ctx)
	for _, v := range list {
		if v.Name == name {
			return v, nil
		}
	}
	if err == nil {
		err = errs.New(errs.Absent, "vDisk %s is not open here", name)
	}
	return api.VDisk{}, err
}

// SetVDisk closes the connections that what the router has set shuts out, before it returns.
func (e *Edge) SetVDisk(ctx context.Context, name string, _ api.VDiskSettings) (api.VDiskChange, error) {
	list, err := e.fresh(ctx)
	if err != nil {
		return api.VDiskChange{}, errs.Wrap(errs.Unreachable, err, "the edge cannot learn what was changed and goes by what "+
			"it knew: say it again")
	}
	at := slices.IndexFunc(list, func(v api.VDisk) bool { return v.Name == name })
	if at < 0 {
		return api.VDiskChange{}, noSuchVDisk(name)
	}
	out := api.VDiskChange{VDisk: list[at]}
	for _, d := range e.open() {
		if d.name == name {
			e.setCaches(d, &list[at])
		}
	}
	out.Disconnected, err = e.shutOut(ctx, &list[at])
	return out, err
}

// VDiskStats tells what the clients of a vDisk that is open here got.
func (e *Edge) VDiskStats(_ context.Context, name string) (api.VDiskStats, error) {
	for _, d := range e.open() {
		if d.name == name && d.disk != nil {
			return showStats(name, &d.disk.Stats), nil
		}
	}
	return api.VDiskStats{}, errs.New(errs.Absent, "vDisk %s is not open here", name)
}

// ListCaches shows what each vDisk that is open here has of each tier.
func (e *Edge) ListCaches(context.Context) ([]api.CacheShare, error) {
	var out []api.CacheShare
	for _, d := range e.open() {
		out = append(out, d.share.show(d.name, d.rig)...)
	}
	return append(out, e.n.listFragments(e.names())...), nil
}

// shutOut closes the connections that a vDisk's list does not admit, and says how many there were.
func (e *Edge) shutOut(ctx context.Context, v *api.VDisk) (int, error) {
	seen := map[*edgeExport]bool{}
	for end := time.Now().Add(shutOutTimeout); ; {
		left := 0
		e.mu.Lock()
		if d := e.vdisks[v.Name]; d != nil {
			for x := range d.opens {
				if !admitted(v, x.who) {
					seen[x] = true
					left++
				}
			}
		}
		e.mu.Unlock()
		if left == 0 {
			return len(seen), nil
		}
		e.n.nbd.Disconnect(func(x nbd.Export) bool {
			y, ok := x.(*edgeExport)
			return ok && seen[y]
		})
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return 0, errs.New(errs.Busy, "the access list of vDisk %s is changed, but %d connections that it shuts out have "+
				"not ended yet: they wait for their last request, and get no other", v.Name, left)
		}
	}
}

// CreateVDisk is not the edge's.
func (e *Edge) CreateVDisk(context.Context, string, int64) (api.VDisk, error) {
	return api.VDisk{}, errAskRouter
}

// RemoveVDisk is not the edge's.
func (e *Edge) RemoveVDisk(context.Context, string) error { return errAskRouter }

// ListASDs shows the ASDs as the edge reaches them.
func (e *Edge) ListASDs(context.Context) ([]api.ASD, error) {
	out := []api.ASD{}
	for _, d := range e.n.drives {
		a := api.ASD{ID: uint32(d.id), Path: d.path, State: api.StateUp}
		if _, err := d.stat(); err != nil {
			a.State, a.Problem = api.StateDown, err.Error()
		}
		out = append(out, a)
	}
	return out, nil
}

// ShowASD shows one.
func (e *Edge) ShowASD(ctx context.Context, id uint32) (api.ASD, error) {
	list, err := e.ListASDs(ctx)
	if int(id) < len(list) {
		return list[id], err
	}
	return api.ASD{}, errs.New(errs.Absent, "there is no ASD %d", id)
}

// Faults is not the edge's.
func (e *Edge) Faults(context.Context, uint32, string) error { return errAskRouter }

// Status is how the edge is doing.
func (e *Edge) Status(ctx context.Context) (api.Status, error) {
	s := api.Status{State: api.StateUp, Version: Version, Dir: e.n.cfg.Dir, PID: os.Getpid(), NBD: e.NBDURIs(),
		UptimeSeconds: time.Since(e.n.started).Seconds(), ASDs: len(e.n.drives), MaxConnections: e.n.cfg.MaxConnections}
	e.n.statusTLS(&s)
	e.n.statusIO(&s)
	e.n.statusFragCache(&s)
	e.n.statusAvoided(&s)
	if e.n.nbd != nil {
		s.Connections = int(e.n.nbd.Stats().Connections)
	}
	list, err := e.ListVDisks(ctx)
	for _, v := range list {
		if v.Problem != "" {
			s.State = api.StateDegraded
			s.Reasons = append(s.Reasons, "vDisk "+v.Name+": "+v.Problem)
		}
	}
	return s, err
}

// Memory lists the pools by name, with what they hold now.
func (e *Edge) Memory(context.Context) (api.Memory, error) {
	p := e.n.plan
	m := api.Memory{AllowanceBytes: api.MemoryAllowance}
	add := func(name, user string, bound, used int64) {
		m.Pools = append(m.Pools, api.Pool{Name: name, User: user, BoundBytes: bound, UsedBytes: used})
		m.PoolBytes += bound
	}
	var used, manifests, known int64
	for i, r := range e.n.rigs {
		r.loop.Call(func() { used += int64(r.pool.Pages()-r.pool.Free()) * 4096 })
		manifests += r.client.Stats().CacheBytes.Load()
		known += e.caches[i].Stats.Bytes.Load()
	}
	l := int64(p.loops)
	add("edge pages", "payload at the edge: received, read, on its way out", l*p.pages, used)
	add("edge rings", "io_uring and receive buffers of the edge", l*p.recv, l*p.recv)
	add("edge connections", "NBD connections, and received bytes that wait for memory", p.conns, 0)
	if p.blocks > 0 {
		add("edge block cache", "pages of blocks that were read, and what is noted about them", l*p.blocks, 0)
	}
	if p.cacheIdx > 0 {
		add("edge cache index", "what the block cache's second tier holds, beside --edge-memory", l*p.cacheIdx, l*p.cacheIdx)
	}
	if p.frag > 0 {
		add("edge fragment cache", "fragments on their way into the edge's fragment cache, and its index", p.frag, p.frag)
	}
	if p.extents > 0 {
		add("edge extents", "where fragments lie on drives that the edge reads itself", l*int64(len(e.n.drives))*p.extents,
			e.n.extentBytes())
	}
	add("edge manifests", "PRACC's cache of manifests at the edge", l*p.manifest, manifests)
	add("edge locations", "where blocks lie, as the edge knows it", e.n.cfg.LocationCache, known)
	return m, nil
}

// Reload reads certificates and keys again.
func (e *Edge) Reload(ctx context.Context) error { return e.n.Reload(ctx) }

// Ready is nil while NBD is served.
func (e *Edge) Ready() error { return nil }

// WriteMetrics adds the edge's metrics to a page.
func (e *Edge) WriteMetrics(p *stat.Page) {
	e.n.nbdMetrics(p)
	e.n.tlsMetrics(p)
	for _, d := range e.open() {
		e.vdiskMetrics(p, d)
	}
	for _, d := range e.n.drives {
		e.n.readerMetrics(p, d)
	}
	caches, _ := e.ListCaches(e.n.ctx)
	e.n.cacheMetrics(p, caches)
	e.n.fragCacheMetrics(p, e.names())
	for i, r := range e.n.rigs {
		r.coreMetrics(p)
		s := &e.caches[i].Stats
		p.Gauge("vstor_edge_locations", "blocks that the edge knows the place of", float64(s.Blocks.Load()), "loop",
			r.loop.Name())
		p.Counter("vstor_edge_locations_evicted_total", "pages of 64 locations that made room", float64(s.Evicted.Load()),
			"loop", r.loop.Name())
	}
}

func (e *Edge) vdiskMetrics(p *stat.Page, d *edgeVDisk) {
	s := &d.r.Stats
	rung := func(name string, v uint64) {
		p.Counter("vstor_edge_blocks_read_total", "blocks of 4 KiB that reads resolved, by the rung that has them",
			float64(v), "vdisk", d.name, "rung", name)
	}
	rung("location", s.Located.Load())
	rung("zeros", s.Zeros.Load())
	rung("driver", s.Asked.Load())
	l := []string{"vdisk", d.name}
	c := func(name, help string, v uint64) { p.Counter(name, help, float64(v), l...) }
	c("vstor_edge_lookups_total", "questions about where blocks lie", s.Lookups.Load())
	c("vstor_edge_lookups_spoiled_total", "of them, those whose answer was not kept in part", s.LookupsSpoiled.Load())
	c("vstor_edge_connects_total", "connections to the router", s.Connects.Load())
	c("vstor_edge_replayed_total", "changes that were sent again after a connection was lost", s.Replayed.Load())
	c("vstor_edge_lease_lost_total", "times that the lease had run out when it was needed", s.LeaseLost.Load())
	c("vstor_edge_invalidations_total", "objects and ranges that the router had the edge forget", s.Invalidations.Load())
	c("vstor_edge_corrupt_total", "answers whose data was not what was sent", s.Corrupt.Load())
	c("vstor_edge_stalled_total", "requests that failed because they waited too long", s.Stalled.Load())
	p.Gauge("vstor_edge_connected", "1 while a session is open", float64(s.Connected.Load()), l...)
	p.Gauge("vstor_edge_fenced", "1 once it is lost to this edge for good", float64(s.Fenced.Load()), l...)
	p.Gauge("vstor_edge_waiting", "requests that wait to be sent", float64(s.Waiting.Load()), l...)
	if d.disk == nil {
		return
	}
	k := &d.disk.Stats
	ladder(p, d.name, k)
	c("vstor_vdisk_reads_total", "read requests", k.Reads.Load())
	c("vstor_vdisk_writes_total", "write requests", k.Writes.Load())
	c("vstor_vdisk_flushes_total", "flush requests", k.Flushes.Load())
	c("vstor_vdisk_trims_total", "trim and write-zeroes requests", k.Trims.Load())
	c("vstor_vdisk_read_bytes_total", "bytes read", k.ReadBytes.Load())
	c("vstor_vdisk_written_bytes_total", "bytes written", k.WriteBytes.Load())
	c("vstor_vdisk_errors_total", "requests that ended with an error", k.Errors.Load())
	c("vstor_vdisk_read_retries_total", "reads whose blocks had moved", k.Retries.Load())
	c("vstor_vdisk_lease_lost_total", "reads whose lease had run out when they were to be answered", k.LeaseLost.Load())
}

var _ api.System = (*Edge)(nil)
