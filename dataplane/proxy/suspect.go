package proxy

import (
	"context"

	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// RepairFragment looks at a fragment that a reader found missing, failing or rotten. If that is so, it is
// written again from the others under a new version. The manifest names the old one until then: a drive
// that fails for a while would otherwise lose fragments that are still there. Errors: Unreachable if it
// cannot be rebuilt or written now; those of the metadata store. A key that no manifest names any
// more is no error.
func (px *Proxy) RepairFragment(ctx context.Context, key layout.FragKey) error {
	if err := px.begin(); err != nil {
		return err
	}
	defer px.done()
	ctx, cancel := px.join(ctx)
	defer cancel()
	n := px.namespace(key.Namespace)
	n.maint.Lock()
	defer n.maint.Unlock()
	m, err := px.Manifest(ctx, key.Namespace, key.SCO)
	if errs.Of(err) == errs.Absent {
		return nil
	}
	if err != nil {
		return err
	}
	c, f := int(key.Chunk), int(key.Frag)
	if m.Put != key.Put || c*m.Policy.N()+f >= len(m.Frags) || m.FragKey(c, f) != key || !m.Present(c, f) ||
		px.inFlight(key.Namespace, key.Put) {
		return nil
	}
	if a := px.asd(m.Target(c, f).ASD); a == nil || !a.Alive {
		return errs.New(errs.Unreachable, "proxy: its ASD is down, which says nothing about the fragment")
	}
	if px.verify(ctx, m, c, f, key.Version, func(int64, []byte, uint64) {}) == nil {
		return nil
	}
	px.count.corrupt.Add(1)
	m = m.Clone()
	m.Frag(c, f).State = layout.FragMissing // in this copy alone
	epoch, err := px.Owner(ctx, key.Namespace)
	if err != nil {
		return err
	}
	var r Repaired
	if err := px.repairObject(ctx, m, epoch, &r); err != nil {
		return err
	}
	if r.Left > 0 {
		return errs.New(errs.Unreachable, "proxy: %d fragments of SCO %d/%d are still missing", r.Left, m.Namespace, m.SCO)
	}
	return nil
}
