package node

import (
	"context"
	"fmt"

	"vstor/asd/store"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/meta"
	"vstor/dataplane/proxy"
	"vstor/dataplane/volume"
)

// openProxy joins the drives to a backend.
func (n *Node) openProxy() error {
	o := proxy.Options{Meta: n.meta, ASDs: n.proxyASDs, Preset: n.preset(), Workers: coderWorkers(),
		ChunkBuffers: chunkBuffers(), Grace: n.opts.Grace, StallTimeout: n.opts.Stall,
		Log: func(format string, args ...any) { n.log.Warn(fmt.Sprintf(format, args...)) }}
	if n.frag.cache != nil {
		o.Cache = n.frag.cache
	}
	var err error
	if n.proxy, err = proxy.New(o); err != nil {
		return err
	}
	n.deletes.Store(n.proxy)
	n.objects = &objects{n.proxy, n.meta}
	n.source = n.proxy
	return nil
}

func (n *Node) preset() layout.Preset {
	return layout.Preset{MaxFragment: uint32(n.cfg.FragmentSize), Policies: n.cfg.Policies}
}

// chunkBuffers is how many chunks are coded or written at once: two per worker, so that coding overlaps
// writing.
func chunkBuffers() int { return 2 * coderWorkers() }

// proxyASDs is the list of drives as they are now.
func (n *Node) proxyASDs() []proxy.ASD {
	out := make([]proxy.ASD, 0, len(n.drives))
	for _, d := range n.drives {
		s, err := d.stat()
		out = append(out, proxy.ASD{ID: d.id, Node: d.node, Alive: err == nil, Free: s.Free - s.Reserve,
			Store: d.fragments()})
	}
	return out
}

// drivesUsed is the used part of all drives, in percent.
func (n *Node) drivesUsed() int {
	var used, size int64
	for _, d := range n.drives {
		if s, err := d.stat(); err == nil {
			used, size = used+s.Capacity-s.Free+s.Reserve, size+s.Capacity
		}
	}
	return int(used * 100 / max(size, 1))
}

// fragStore is a store as the proxy needs it.
type fragStore struct{ s *store.Store }

func (f fragStore) Put(ctx context.Context, p *layout.FragPut) error { return f.s.Put(ctx, p) }

func (f fragStore) Get(ctx context.Context, key layout.FragKey, off uint32, dst []byte) error {
	return f.s.Get(ctx, key, off, dst)
}

func (f fragStore) Delete(ctx context.Context, keys []layout.FragKey) error {
	return f.s.Delete(ctx, keys)
}

func (f fragStore) ListNamespace(_ context.Context, ns ids.NamespaceID, after layout.FragKey,
	limit int) ([]layout.FragKey, error) {
	infos, err := f.s.ListNamespace(ns, after, limit)
	if err != nil {
		return nil, err
	}
	keys := make([]layout.FragKey, len(infos))
	for i := range infos {
		keys[i] = infos[i].Key
	}
	return keys, nil
}

var errDown = errs.New(errs.Unreachable, "the ASD is down")

// downStore stands for a drive that did not open: it cannot say anything about what it holds.
type downStore struct{}

func (downStore) Put(context.Context, *layout.FragPut) error { return errDown }
func (downStore) Get(context.Context, layout.FragKey, uint32, []byte) error {
	return errDown
}
func (downStore) Delete(context.Context, []layout.FragKey) error { return errDown }
func (downStore) ListNamespace(context.Context, ids.NamespaceID, layout.FragKey, int) ([]layout.FragKey, error) {
	return nil, errDown
}

// objects is the proxy as the Volume Drivers need it.
type objects struct {
	px   *proxy.Proxy
	meta meta.Store
}

// ReserveSCOs gives out SCO numbers.
func (o *objects) ReserveSCOs(ctx context.Context, ns ids.NamespaceID, epoch ids.Epoch, n int) (ids.SCONum, error) {
	return o.px.ReserveSCOs(ctx, ns, epoch, n)
}

// Put stores an object.
func (o *objects) Put(ctx context.Context, s volume.PutSpec) (volume.Stored, error) {
	p, err := o.px.Put(ctx, proxy.PutSpec{Namespace: s.Namespace, SCO: s.SCO, Epoch: s.Epoch, Kind: s.Kind, Class: s.Class,
		SeqFirst: s.SeqLo, SeqLast: s.SeqHi, Source: s.Content})
	if err != nil {
		return nil, err
	}
	return stored{p}, nil
}

// stored is an object that was put.
type stored struct{ p *proxy.Pending }

func (s stored) Manifest() *layout.Manifest { return s.p.Manifest() }
func (s stored) Complete() <-chan struct{}  { return s.p.Settled() }
func (s stored) Abandon()                   { s.p.Abandon() }

// Commit makes the object part of the namespace.
func (o *objects) Commit(ctx context.Context, s volume.Stored, commit ids.CommitNum) error {
	return s.(stored).p.CommitAs(ctx, commit)
}

// Committed lists manifests in commit order.
func (o *objects) Committed(ctx context.Context, ns ids.NamespaceID, after ids.CommitNum,
	limit int) ([]*layout.Manifest, error) {
	return o.px.Committed(ctx, ns, after, limit)
}

// Get reads bytes of a committed object.
func (o *objects) Get(ctx context.Context, m *layout.Manifest, off int64, dst []byte) error {
	return o.px.Get(ctx, m, off, dst)
}

// Rebuild gives bytes that lie in one fragment without it.
func (o *objects) Rebuild(ctx context.Context, m *layout.Manifest, off int64, dst []byte, try int) error {
	return o.px.GetRebuilt(ctx, m, off, dst, try)
}

// Manifest finds a committed object.
func (o *objects) Manifest(ctx context.Context, ns ids.NamespaceID, n ids.SCONum) (*layout.Manifest, error) {
	return o.px.Manifest(ctx, ns, n)
}

// Delete removes a committed object.
func (o *objects) Delete(ctx context.Context, ns ids.NamespaceID, epoch ids.Epoch, n ids.SCONum) error {
	return o.px.DeleteObject(ctx, ns, epoch, n)
}
