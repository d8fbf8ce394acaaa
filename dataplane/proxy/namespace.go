package proxy

import (
	"context"
	"encoding/binary"
	"errors"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/meta"
)

// listPage is how many keys an ASD is asked for at once.
const listPage = 1000

// DeleteNamespace removes a namespace and all that is in it, committed or not. When it returns nil, nobody
// owns it any more nor ever will, which fences every put and commit, and its fragments will go: resumed
// like DeleteObject where an ASD does not answer. Errors: those of the metadata store, Busy.
func (px *Proxy) DeleteNamespace(ctx context.Context, ns ids.NamespaceID) error {
	if err := px.begin(); err != nil {
		return err
	}
	defer px.done()
	ctx, cancel := px.join(ctx)
	defer cancel()
	for range casMax {
		v, ver, err := px.cell(ctx, keyOwner, ns)
		if err != nil || ids.Epoch(v) == epochGone {
			return err
		}
		t := setCell(new(meta.Txn), keyOwner, ns, ver, uint64(epochGone))
		err = px.opts.Meta.Apply(ctx, t.Put(nsKey(keyGone, ns), encodeCell(keyGone, 0)))
		if errs.Of(err) == errs.Refused {
			continue // taken meanwhile
		}
		if err != nil {
			return err
		}
		px.count.deletesLeft.Add(1)
		if err := px.sweep(ctx, ns); err == nil {
			px.count.deletesLeft.Add(-1)
		} else {
			px.opts.Log("proxy: namespace %d: %v", ns, err)
		}
		return nil
	}
	return errs.New(errs.Busy, "proxy: namespace %d changes owners faster than it can be deleted", ns)
}

// sweep empties a namespace that is gone: fragments first, then what named them, last the order to do so.
// Only the owner's cell stays, as a tombstone.
func (px *Proxy) sweep(ctx context.Context, ns ids.NamespaceID) error {
	var all []error
	for _, a := range px.opts.ASDs() {
		if err := px.sweepASD(ctx, &a, ns); err != nil {
			all = append(all, err)
		}
	}
	if err := errors.Join(all...); err != nil {
		return err
	}
	for _, kind := range []byte{keyManifest, keyOrder, keyLast, keyDelete, keyCondemned, keyPuts, keySCOs, keyGone} {
		if err := px.dropAll(ctx, nsKey(kind, ns), func(*meta.Txn) {}); err != nil {
			return err
		}
	}
	px.mu.Lock()
	delete(px.namespaces, ns)
	px.mu.Unlock()
	return nil
}

func (px *Proxy) sweepASD(ctx context.Context, a *ASD, ns ids.NamespaceID) error {
	return px.listASD(ctx, a, ns, func(keys []layout.FragKey) error {
		return px.deleteFrom(ctx, a.ID, keys)
	})
}

// listASD calls page with all keys of a namespace on an ASD, some at a time.
func (px *Proxy) listASD(ctx context.Context, a *ASD, ns ids.NamespaceID, page func([]layout.FragKey) error) error {
	if !a.Alive {
		return errs.New(errs.Unreachable, "proxy: ASD %d is down", a.ID)
	}
	var after layout.FragKey
	for {
		keys, err := px.listOne(ctx, a, ns, after)
		if err != nil {
			return errs.Wrap(errs.Of(err), err, "proxy: ASD %d", a.ID)
		}
		if len(keys) == 0 {
			return nil
		}
		if err := page(keys); err != nil {
			return err
		}
		after = keys[len(keys)-1]
	}
}

func (px *Proxy) listOne(ctx context.Context, a *ASD, ns ids.NamespaceID, after layout.FragKey) (
	[]layout.FragKey, error) {
	ctx, cancel := context.WithTimeout(ctx, px.opts.StallTimeout)
	defer cancel()
	return a.Store.ListNamespace(ctx, ns, after, listPage)
}

// nsOf reads the namespace out of one of the proxy's keys.
func nsOf(k []byte) (ids.NamespaceID, bool) {
	if len(k) < 10 {
		return 0, false
	}
	return ids.NamespaceID(binary.BigEndian.Uint64(k[2:])), true
}
