package node

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"vstor/dataplane/api"
	"vstor/dataplane/block"
	"vstor/dataplane/edge"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/stat"
	"vstor/dataplane/volume/pagemap"
)

// Version is what `vstor version` and the status say.
const Version = "0.1.0"

// CreateVDisk makes a vDisk that survives power loss when it returns.
func (n *Node) CreateVDisk(ctx context.Context, name string, size int64) (api.VDisk, error) {
	d, err := n.createVDisk(ctx, name, size)
	if err != nil {
		return api.VDisk{}, err
	}
	return n.show(d), nil
}

// ListVDisks shows all of them by name.
func (n *Node) ListVDisks(context.Context) ([]api.VDisk, error) {
	out := []api.VDisk{}
	for _, d := range n.sortedVDisks() {
		out = append(out, n.show(d))
	}
	out = append(out, n.failedVDisks()...)
	slices.SortFunc(out, func(a, b api.VDisk) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (n *Node) sortedVDisks() []*vdisk {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []*vdisk
	for _, d := range n.vdisks {
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b *vdisk) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// ShowVDisk shows one.
func (n *Node) ShowVDisk(_ context.Context, name string) (api.VDisk, error) {
	n.mu.Lock()
	d, f := n.vdisks[name], n.failed[name]
	n.mu.Unlock()
	switch {
	case d != nil:
		return n.show(d), nil
	case f != nil:
		return f.show(), nil
	}
	return api.VDisk{}, noSuchVDisk(name)
}

// VDiskStats tells what the clients of one got.
func (n *Node) VDiskStats(_ context.Context, name string) (api.VDiskStats, error) {
	n.mu.Lock()
	d, f := n.vdisks[name], n.failed[name]
	n.mu.Unlock()
	switch {
	case d != nil:
		return showStats(d.Name, &d.disk.Stats), nil
	case f != nil:
		return api.VDiskStats{Name: name}, nil
	}
	return api.VDiskStats{}, noSuchVDisk(name)
}

func showStats(vdisk string, e *edge.Stats) api.VDiskStats {
	s := api.VDiskStats{Name: vdisk, Writes: latency(&e.WriteLatency), Flushes: latency(&e.FlushLatency),
		WriteBytes: e.WriteBytes.Load(), Errors: e.Errors.Load()}
	for i := range e.Rungs {
		g := &e.Rungs[i]
		r := api.RungStats{Rung: block.Rung(i).String(), Bytes: g.Bytes.Load(), Latency: latency(&g.Latency)}
		if r.Count > 0 || r.Bytes > 0 {
			s.Reads = append(s.Reads, r)
		}
	}
	return s
}

func latency(h *stat.Histogram) api.Latency {
	var s stat.Snapshot
	h.AddTo(&s)
	return api.NewLatency(&s)
}

// RemoveVDisk removes one that is not in use.
func (n *Node) RemoveVDisk(ctx context.Context, name string) error { return n.removeVDisk(ctx, name) }

func (n *Node) show(d *vdisk) api.VDisk {
	v := api.VDisk{Name: d.Name, ID: uint64(d.ID), SizeBytes: d.Size, Created: d.Created,
		URI:     api.NBDURI(n.cfg.Dir, d.Name),
		ReadOps: d.disk.Stats.Reads.Load(), WriteOps: d.disk.Stats.Writes.Load(),
		ReadBytes: d.disk.Stats.ReadBytes.Load(), WriteBytes: d.disk.Stats.WriteBytes.Load()}
	n.mu.Lock()
	rules := d.rules
	v.Connections, v.ReadOnly, v.Allow = len(d.open), rules.readOnly, rules.show()
	v.NoCache, v.BlockCacheQuota, v.FragCacheQuota = d.NoCache, d.BlockCacheQuota, d.FragCacheQuota
	n.mu.Unlock()
	var stored int64
	d.rig.loop.Call(func() {
		d.m.EachSCO(func(s pagemap.SCO, live int) bool {
			v.SCOs++
			stored += int64(s.Blocks) * ids.BlockSize
			v.MappedBytes += int64(live) * ids.BlockSize
			return true
		})
		dirty, _ := d.vol.Dirty()
		v.JournalBytes = int64(dirty) * ids.BlockSize
		v.Problem = cmp.Or(d.vol.Problem(), rules.problem)
	})
	// Overwritten blocks count as mapped until the map is written back.
	v.MappedBytes = min(v.MappedBytes, d.Size)
	v.GarbageBytes = stored - v.MappedBytes
	p := n.cfg.Policies[0]
	v.StoredBytes = stored * int64(p.N()) / int64(p.K)
	return v
}

// ListASDs shows the drives.
func (n *Node) ListASDs(context.Context) ([]api.ASD, error) {
	out := []api.ASD{}
	for _, d := range n.drives {
		out = append(out, n.showASD(d))
	}
	return out, nil
}

// ShowASD shows one.
func (n *Node) ShowASD(_ context.Context, id uint32) (api.ASD, error) {
	if int(id) >= len(n.drives) {
		return api.ASD{}, errs.New(errs.Absent, "there is no ASD %d; they are numbered 0 to %d", id, len(n.drives)-1)
	}
	return n.showASD(n.drives[id]), nil
}

func (n *Node) showASD(d *drive) api.ASD {
	a := api.ASD{ID: uint32(d.id), Node: uint32(d.node), Path: d.path, UUID: uuid(n.ident.asdUUID(int(d.id))).String()}
	s, err := d.stat()
	a.State = api.StateUp
	if d.child != nil {
		a.PID, a.Restarts = d.child.PID(), d.child.Restarts()
	}
	a.SizeBytes, a.UsedBytes, a.FreeBytes = s.Capacity, s.Used, s.Free
	a.DeferredBytes, a.Fragments = s.Quarantined, s.Fragments
	a.ReadOps, a.WriteOps, a.WriteBytes = uint64(s.Gets), uint64(s.Puts), uint64(s.PutBytes)
	a.Corrupt = uint64(s.Corrupt)
	for _, r := range n.rigs {
		r.client.EachASD(func(id ids.ASDID, c *praccASD) {
			if id == d.id {
				a.ReadOps += c.Reads.Load()
				a.ReadBytes += c.Bytes.Load()
				a.Corrupt += c.Corrupt.Load()
			}
		})
	}
	rd := n.readings(d)
	a.SocketReads, a.SocketBytes, a.ShortReads, a.ShortBytes = rd.socketReads, rd.socketBytes, rd.shortReads, rd.shortBytes
	a.Extents, a.ExtentBytes, a.ExtentMisses = int64(rd.entries), int64(rd.tableBytes), rd.misses
	a.LateReads, a.LeasesDropped = rd.late, rd.dropped
	if n.avoided()[d.id] {
		a.Problem = readAround
	}
	switch {
	case err != nil:
		a.State, a.Problem = api.StateDown, err.Error()
	case s.Free-s.Reserve < n.cfg.FragmentSize+layout.FragHeaderSize:
		a.State, a.Problem = api.StateFull, "it takes no more client data"
	}
	return a
}

// readAround is said of an ASD outside the fast set.
const readAround = "slow or failing: what it holds is rebuilt from others"

// avoided are the ASDs that some loop does not read, for they are slow or fail.
func (n *Node) avoided() map[ids.ASDID]bool {
	out := map[ids.ASDID]bool{}
	for _, r := range n.rigs {
		r.client.EachASD(func(id ids.ASDID, c *praccASD) {
			if c.Fast.Load() == 0 {
				out[id] = true
			}
		})
	}
	return out
}

// statusAvoided warns of those that answer all the same.
func (n *Node) statusAvoided(s *api.Status) {
	out := n.avoided()
	for _, d := range n.drives {
		if _, err := d.stat(); out[d.id] && err == nil {
			s.Warnings = append(s.Warnings, fmt.Sprintf("ASD %d is %s", d.id, readAround))
		}
	}
}

// Status is how the deployment is doing.
func (n *Node) Status(ctx context.Context) (api.Status, error) {
	s := api.Status{State: api.StateUp, Version: Version, Dir: n.cfg.Dir, PID: os.Getpid(),
		UptimeSeconds: time.Since(n.started).Seconds(), ASDs: len(n.drives), MaxConnections: n.cfg.MaxConnections,
		NBD: n.NBDURIs(), Unprotected: []string{api.OneCopy}}
	n.statusTLS(&s)
	n.statusIO(&s)
	n.statusFragCache(&s)
	for _, p := range n.cfg.Policies {
		s.Policies = append(s.Policies, fmt.Sprintf("%d,%d,%d,%d", p.K, p.M, p.C, p.X))
	}
	full := n.statusASDs(&s)
	n.statusAvoided(&s)
	n.statusVDisks(&s)
	for _, r := range n.rigs {
		r.loop.Call(func() {
			p := r.jrn.Pressure()
			size := r.file.Size()
			s.JournalBytes += size
			s.JournalUsed += size * int64(p.Total-p.Free) / int64(max(p.Total, 1))
		})
	}
	n.statusCorruption(&s)
	if n.nbd != nil {
		s.Connections = int(n.nbd.Stats().Connections)
	}
	n.judge(&s, full)
	return s, nil
}

func (n *Node) statusASDs(s *api.Status) (full int) {
	for _, d := range n.drives {
		a := n.showASD(d)
		s.CapacityBytes += a.SizeBytes
		s.UsedBytes += a.UsedBytes + a.DeferredBytes
		switch a.State {
		case api.StateUp:
			s.ASDsUp++
		case api.StateFull:
			s.ASDsUp++
			full++
			s.Reasons = append(s.Reasons, fmt.Sprintf("ASD %d is full", a.ID))
		default:
			s.Reasons = append(s.Reasons, fmt.Sprintf("ASD %d is down: %s", a.ID, a.Problem))
		}
	}
	return full
}

func (n *Node) statusVDisks(s *api.Status) {
	for _, d := range n.sortedVDisks() {
		v := n.show(d)
		s.VDisks++
		s.GarbageBytes += v.GarbageBytes
		if v.Problem != "" {
			s.Reasons = append(s.Reasons, "vDisk "+v.Name+": "+v.Problem)
		}
	}
	for _, v := range n.failedVDisks() {
		s.VDisks++
		s.Reasons = append(s.Reasons, "vDisk "+v.Name+": "+v.Problem)
	}
}

// judge names the state: the policy that can be kept now decides.
func (n *Node) judge(s *api.Status, full int) {
	i := slices.IndexFunc(n.cfg.Policies, func(p layout.Policy) bool { return n.usable(p) })
	if i >= 0 {
		s.UsablePolicy = s.Policies[i]
	}
	switch {
	case i < 0:
		s.State = api.StateDown
		s.Reasons = append(s.Reasons, "too few ASDs are up for any policy: writes wait")
	case full > 0:
		s.State = api.StateFull
	case s.ASDsUp < s.ASDs || i > 0 || len(s.Reasons) > 0:
		s.State = api.StateDegraded
	}
}

// usable reports whether enough ASDs are up on enough nodes for p's c fragments.
func (n *Node) usable(p layout.Policy) bool {
	perNode := map[ids.NodeID]int{}
	up := 0
	for _, d := range n.drives {
		if _, err := d.stat(); err == nil && perNode[d.node] < int(p.X) {
			perNode[d.node]++
			up++
		}
	}
	return up >= int(p.C)
}

// Memory is the sum of all pools by name.
func (n *Node) Memory(context.Context) (api.Memory, error) { return n.memory(), nil }

// Ready is nil while IO is served.
func (n *Node) Ready() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopping {
		return errs.New(errs.Closed, "vstor is stopping")
	}
	return nil
}
