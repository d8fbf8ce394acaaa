package proxy

import (
	"context"
	"encoding/binary"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/meta"
)

// The order of commits is a table of its own, so that opening a vDisk finds the few SCOs behind its map's
// checkpoint without a look at all the others.
//
// A gap in it is seen, but not that its end is missing: a store that lost the newest manifests with their entries
// looks like one in which they never were, the journal let go of what they hold, and the vDisk would open as it was
// some minutes ago. So the number of the last commit is kept beside it, and every commit changes both at once.

// beginOrder adds to t that the first commit is yet to come, if the store does not know better.
func (px *Proxy) beginOrder(ctx context.Context, t *meta.Txn, ns ids.NamespaceID) error {
	c, err := px.rawCell(ctx, keyLast, ns)
	if err == nil && errs.Of(c.Err) == errs.Absent {
		t.Absent(nsKey(keyLast, ns)).Put(nsKey(keyLast, ns), encodeCell(keyLast, 0))
	}
	return err
}

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

// Committed returns up to limit manifests of a namespace with commit numbers above after, in their order. Fewer
// than limit are all that there are. Errors: Corrupt if the last commit is not among them.
func (px *Proxy) Committed(ctx context.Context, ns ids.NamespaceID, after ids.CommitNum,
	limit int) ([]*layout.Manifest, error) {
	end, err := px.rawCell(ctx, keyLast, ns) // before the scan, which finds it then
	if err != nil {
		return nil, err
	}
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
	if len(out) < limit {
		last := after
		if len(out) > 0 {
			last = out[len(out)-1].Commit
		}
		if err := reaches(end, last); err != nil {
			return nil, errs.Wrap(errs.Of(err), err, "proxy: namespace %d", ns)
		}
	}
	return out, nil
}

// reaches says what is wrong if the order of commits ends at last and the store remembers another end.
func reaches(end Cell, last ids.CommitNum) error {
	switch {
	case end.Err != nil:
		return errs.Wrap(errs.Corrupt, end.Err, "the number of its last commit cannot be read; `vstor fsck --manifests "+
			"--repair` finds it again")
	case ids.CommitNum(end.Value) > last:
		return errs.New(errs.Corrupt, "its last commit was %d, and the store ends at %d: the newest ones are lost; `vstor "+
			"fsck --manifests --repair` makes them again", end.Value, last)
	}
	return nil
}
