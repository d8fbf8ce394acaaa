package node

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"time"

	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/link"
	"vstor/dataplane/meta"
	"vstor/dataplane/router"
	"vstor/dataplane/stat"
)

// EdgeOptions say how edges in other processes are served.
type EdgeOptions struct {
	Secret        []byte
	TLS           *tls.Config   // for TCP; nil is none
	Connections   int           // 0: the router's default
	Lease, Margin time.Duration // 0: the router's defaults
	Clock         func() int64  // of leases; nil: the boot-time clock
}

// Who may have a lease of a vDisk, in the metadata store: durable before that edge is told a location.
//
//	vdisk/holder/ID    -> holder, as JSON
const holderKeys = "vdisk/holder/"

func holderKey(id ids.VolumeID) []byte { return []byte(holderKeys + id.String()) }

// holder is a router.Record as it is kept.
type holder struct {
	Opener []byte `json:"opener,omitempty"` // none: nobody
	Tenure uint64 `json:"tenure"`
	Former uint64 `json:"former,omitempty"`
}

// holders keeps them.
type holders struct{ meta meta.Store }

// KeepHolder implements router.Keeper.
func (h holders) KeepHolder(ctx context.Context, id ids.VolumeID, r router.Record) error {
	k := holder{Tenure: r.Tenure, Former: r.Former}
	if r.Holder != (proto.Opener{}) {
		k.Opener = r.Holder[:]
	}
	value, err := json.Marshal(k)
	if err != nil {
		return err
	}
	var t meta.Txn
	return h.meta.Apply(ctx, t.Put(holderKey(id), value))
}

// read is what was kept last.
func (h holders) read(ctx context.Context, id ids.VolumeID) (r router.Record, err error) {
	value, _, err := h.meta.Get(ctx, holderKey(id))
	if errs.Of(err) == errs.Absent {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	var k holder
	if err := json.Unmarshal(value, &k); err != nil || len(k.Opener) != 0 && len(k.Opener) != len(r.Holder) {
		return r, errs.New(errs.Corrupt, "who holds vDisk %d is kept as %.60q", id, value)
	}
	copy(r.Holder[:], k.Opener)
	r.Tenure, r.Former = k.Tenure, k.Former
	return r, nil
}

func (h holders) drop(ctx context.Context, id ids.VolumeID) error {
	var t meta.Txn
	return h.meta.Apply(ctx, t.Delete(holderKey(id)))
}

// formerHolder is who may have had a vDisk when the router ended.
func (n *Node) formerHolder(ctx context.Context, id ids.VolumeID) (router.Record, error) {
	if n.opts.Edges == nil {
		return router.Record{}, nil
	}
	return holders{n.meta}.read(ctx, id)
}

// openDoor lets edges open a vDisk, once the server finds it. It is there before the vDisk's cleaner, which must
// delete nothing that an edge of before a restart may still read.
func (n *Node) openDoor(d *vdisk, former router.Record) {
	o := n.opts.Edges
	if o == nil {
		return
	}
	d.rig.loop.Call(func() {
		d.door = router.NewVDisk(router.Options{ID: d.ID, Name: d.Name, Epoch: d.epoch, Loop: d.rig.loop, Hub: d.rig.hub,
			ReadOnly: d.readOnly.Load, Device: d.disk, Driver: d.vol, Objects: n.objects, Keeper: holders{n.meta},
			Rot:    func(m proto.Rot) { n.onRot(m.Key, m.ASD, m.Kind) },
			Former: former, Lease: o.Lease, Margin: o.Margin, Clock: o.Clock, Log: n.log})
	})
}

// settle waits until no edge reads from an object any more.
func (d *vdisk) settle(ctx context.Context, ns ids.NamespaceID, sco ids.SCONum) error {
	if d.door == nil {
		return nil
	}
	return d.door.Settle(ctx, ns, sco)
}

// restTimeout bounds what a stop waits for the metadata store.
const restTimeout = 5 * time.Second

// restDoor keeps that no edge has the vDisk, if all have gone in order.
func (d *vdisk) restDoor(n *Node) {
	if d.door == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), restTimeout)
	defer cancel()
	if err := d.door.Rest(ctx); err != nil {
		n.log.Warn("that no edge has a vDisk open could not be kept: the next one waits", "vdisk", d.Name, "error", err)
	}
}

// closeDoor ends the sessions of edges.
func (d *vdisk) closeDoor() {
	if d.door == nil {
		return
	}
	done := make(chan struct{})
	if d.rig.loop.Call(func() { d.door.Close(func() { close(done) }) }) {
		<-done
	}
}

// usedByEdges says who keeps a vDisk from being removed, or nothing.
func (d *vdisk) usedByEdges() error {
	if d.door == nil {
		return nil
	}
	names, held := d.door.Edges()
	switch {
	case len(names) > 0:
		return errs.New(errs.Busy, "vDisk %s is open at %s; close it there first", d.Name, names[0])
	case held:
		return errs.New(errs.Busy, "vDisk %s was open at an edge that went away without a word; its lease runs out within "+
			"half a minute", d.Name)
	}
	return nil
}

// openEdges makes the server for edges. It listens once ServeEdges is called.
func (n *Node) openEdges() {
	o := n.opts.Edges
	if o == nil {
		return
	}
	n.edges = router.NewServer(router.ServerOptions{Secret: o.Secret, Deployment: n.ident.UUID, Find: n.findDoor,
		TLS: o.TLS, Connections: o.Connections, Link: link.Options{}, Log: n.log})
}

// findDoor is the vDisk that an edge wants.
func (n *Node) findDoor(name string) (*router.VDisk, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	d, f := n.vdisks[name], n.failed[name]
	switch {
	case n.stopping:
		return nil, errs.New(errs.Closed, "the router is stopping")
	case f != nil:
		return nil, errs.New(errs.Busy, "vDisk %s does not open: %v", name, f.err)
	case d == nil || d.removing:
		return nil, noSuchVDisk(name)
	}
	return d.door, nil
}

// ServeEdges serves edges that connect to l, until Close.
func (n *Node) ServeEdges(l net.Listener) {
	n.work.Add(1)
	go func() {
		defer n.work.Done()
		if err := n.edges.Serve(l); err != nil {
			n.log.Error("edges are not served any more", "address", l.Addr(), "error", err)
		}
	}()
}

// doorMetrics are what edges did with the vDisk.
func (d *vdisk) doorMetrics(p *stat.Page, l []string) {
	s := &d.door.Stats
	c := func(name, help string, v uint64) { p.Counter(name, help, float64(v), l...) }
	c("vstor_router_reads_total", "reads of edges", s.Reads.Load())
	c("vstor_router_writes_total", "writes of edges", s.Writes.Load())
	c("vstor_router_flushes_total", "flushes of edges", s.Flushes.Load())
	c("vstor_router_discards_total", "trims and zeroes of edges", s.Discards.Load())
	c("vstor_router_lookups_total", "questions of edges about where blocks lie", s.Lookups.Load())
	c("vstor_router_manifests_total", "manifests that edges asked for", s.Manifests.Load())
	c("vstor_router_read_bytes_total", "bytes sent to edges", s.ReadBytes.Load())
	c("vstor_router_written_bytes_total", "bytes received from edges", s.WriteBytes.Load())
	c("vstor_router_refused_total", "requests of sessions that were over", s.Refused.Load())
	c("vstor_router_takeovers_total", "edges that were fenced", s.Takeovers.Load())
	c("vstor_router_bad_peers_total", "connections of edges closed for a broken protocol", s.BadPeers.Load())
	c("vstor_router_rot_reports_total", "damaged fragments that edges told of", s.Rot.Load())
	c("vstor_router_settled_total", "objects that an edge gave up before they were deleted", s.Settled.Load())
	g := func(name, help string, v int64) { p.Gauge(name, help, float64(v), l...) }
	g("vstor_router_edge_reads", "blocks that clients of the exclusive edge have read, as it tells", s.EdgeReads.Load())
	g("vstor_router_edge_located", "of them, those whose place it knew", s.EdgeLocated.Load())
	g("vstor_router_edge_asked", "of them, those that it asked of the router", s.EdgeAsked.Load())
	g("vstor_router_edge_locations", "blocks whose place it knows, on the vDisk's loop", s.EdgeKeeps.Load())
	p.Gauge("vstor_router_sessions", "edges that have the vDisk open", float64(s.Sessions.Load()), l...)
}
