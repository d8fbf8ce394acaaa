package proxy

import (
	"context"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/meta"
)

// Manifest reads the manifest of an object. Errors: Absent, Corrupt, Version.
func (px *Proxy) Manifest(ctx context.Context, ns ids.NamespaceID, sco ids.SCONum) (*layout.Manifest, error) {
	m, _, err := px.manifest(ctx, ns, sco)
	return m, err
}

func (px *Proxy) manifest(ctx context.Context, ns ids.NamespaceID, sco ids.SCONum) (
	*layout.Manifest, meta.Version, error) {
	if px.opts.Manifest != nil {
		m, err := px.opts.Manifest(ctx, ns, sco)
		return m, 0, err
	}
	b, ver, err := px.opts.Meta.Get(ctx, manifestKey(ns, sco))
	if errs.Of(err) == errs.Absent {
		return nil, 0, errs.New(errs.Absent, "proxy: there is no SCO %d/%d", ns, sco)
	}
	if err != nil {
		return nil, 0, err
	}
	m, err := layout.ParseManifest(b)
	if err != nil {
		return nil, 0, errs.Wrap(errs.Of(err), err, "proxy: SCO %d/%d", ns, sco)
	}
	if m.Namespace != ns || m.SCO != sco {
		return nil, 0, errs.New(errs.Corrupt, "proxy: manifest of SCO %d/%d lies where %d/%d belongs",
			m.Namespace, m.SCO, ns, sco)
	}
	return m, ver, nil
}

// Manifests returns up to limit manifests of a namespace with SCO numbers above after, in order. A
// manifest that does not decode is an error, not a gap.
func (px *Proxy) Manifests(ctx context.Context, ns ids.NamespaceID, after ids.SCONum, limit int) (
	[]*layout.Manifest, error) {
	limit = min(limit, meta.ScanMax)
	list, err := px.opts.Meta.Scan(ctx, nsKey(keyManifest, ns), manifestKey(ns, after), limit)
	if err != nil {
		return nil, err
	}
	out := make([]*layout.Manifest, 0, len(list))
	for _, e := range list {
		m, err := layout.ParseManifest(e.Value)
		if err != nil {
			return nil, errs.Wrap(errs.Of(err), err, "proxy: manifest %x", e.Key)
		}
		out = append(out, m)
	}
	return out, nil
}

// Amend changes a committed manifest by compare-and-swap: change gets the manifest as it is, put id and
// fragments as it finds them, and says whether it changed it; it may be called more than once. The
// manifest's version goes up. Returns the manifest as it then stands. Errors: Absent, Busy.
func (px *Proxy) Amend(ctx context.Context, ns ids.NamespaceID, sco ids.SCONum,
	change func(*layout.Manifest) bool) (*layout.Manifest, error) {
	for range casMax {
		m, ver, err := px.manifest(ctx, ns, sco)
		if err != nil {
			return nil, err
		}
		if !change(m) {
			return m, nil
		}
		m.Version++
		k := manifestKey(ns, sco)
		err = px.opts.Meta.Apply(ctx, new(meta.Txn).HasVersion(k, ver).Put(k, m.Append(nil)))
		if err == nil {
			px.count.amends.Add(1)
			return m, nil
		}
		if errs.Of(err) != errs.Refused {
			return nil, err
		}
		px.count.amendConflicts.Add(1)
	}
	return nil, errs.New(errs.Busy, "proxy: SCO %d/%d is amended elsewhere all the time", ns, sco)
}

// enterLanded marks the fragments present that are present in have, a manifest of one of our puts. If the
// object was deleted meanwhile, they are deleted too: its delete may have come before they landed.
func (px *Proxy) enterLanded(ctx context.Context, have *layout.Manifest) error {
	n := have.Policy.N()
	_, err := px.Amend(ctx, have.Namespace, have.SCO, func(m *layout.Manifest) bool {
		return m.Put == have.Put && markPresent(m, have, n)
	})
	if errs.Of(err) == errs.Absent {
		return px.deleteFragments(ctx, px.keysByASD(have))
	}
	return err
}

func markPresent(m, have *layout.Manifest, n int) bool {
	changed := false
	for i := range m.Frags {
		f, h := &m.Frags[i], &have.Frags[i]
		if h.State == layout.FragPresent && f.State == layout.FragMissing && f.Version == h.Version &&
			m.Target(i/n, i%n) == have.Target(i/n, i%n) {
			f.State = layout.FragPresent
			changed = true
		}
	}
	return changed
}
