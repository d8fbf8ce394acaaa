package proxy

import (
	"context"
	"encoding/binary"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// The order of commits is a table of its own, so that opening a vDisk finds the few SCOs behind its map's
// checkpoint without a look at all the others.

func orderKey(ns ids.NamespaceID, c ids.CommitNum) []byte {
	return binary.BigEndian.AppendUint64(nsKey(keyOrder, ns), uint64(c))
}

// CommitAs is Commit with the commit number that the caller knows only now. The number must be the next of
// the namespace, and the same in every try.
func (p *Pending) CommitAs(ctx context.Context, c ids.CommitNum) error {
	p.mu.Lock()
	if p.phase == phaseOpen {
		p.man.Commit = c
	}
	p.mu.Unlock()
	return p.Commit(ctx)
}

// Committed returns up to limit manifests of a namespace with commit numbers above after, in their order.
func (px *Proxy) Committed(ctx context.Context, ns ids.NamespaceID, after ids.CommitNum,
	limit int) ([]*layout.Manifest, error) {
	list, err := px.opts.Meta.Scan(ctx, nsKey(keyOrder, ns), orderKey(ns, after), limit)
	if err != nil {
		return nil, err
	}
	out := make([]*layout.Manifest, 0, len(list))
	for _, e := range list {
		sco, err := decodeCell(keyOrder, e.Value)
		if err != nil {
			return nil, errs.Wrap(errs.Of(err), err, "proxy: commit %x", e.Key)
		}
		m, err := px.Manifest(ctx, ns, ids.SCONum(sco))
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}
