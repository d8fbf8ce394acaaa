package node

import (
	"context"
	"time"

	"vstor/dataplane/api"
	"vstor/dataplane/errs"
	"vstor/dataplane/nbd"
)

// exportRules is what an operator has set for a vDisk, as connections are judged by it.
type exportRules struct {
	readOnly bool
	words    []string // of the access list, as they are kept
	access   access
	problem  string // the list cannot be read: it admits nobody
}

func rulesOf(r record) exportRules {
	a, words, err := parseAccess(r.Allow)
	if err != nil {
		return exportRules{readOnly: r.ReadOnly, words: r.Allow, problem: "its access list admits nobody, since it cannot " +
			"be read (`vstor vdisk set " + r.Name + " --allow ...` replaces it): " + err.Error()}
	}
	return exportRules{r.ReadOnly, words, a, ""}
}

// show is the list as the API shows it and takes it.
func (r exportRules) show() []string {
	if len(r.words) == 0 {
		return []string{openToAll}
	}
	return r.words
}

// SetVDisk changes what s names, for good when it returns. Connections that are open:
//
//   - One that began writable would find its disk read-only in the middle of a write, and one that took the content
//     to be constant would see it change; so that is refused while anybody is connected.
//   - Those whom a new list does not admit are closed, before it returns: whoever is shut out is out. To refuse
//     instead would let an intruder keep himself in.
func (n *Node) SetVDisk(ctx context.Context, name string, s api.VDiskSettings) (api.VDiskChange, error) {
	n.control.Lock()
	defer n.control.Unlock()
	if s.Allow != nil {
		if _, _, err := parseAccess(s.Allow); err != nil {
			return api.VDiskChange{}, err
		}
	}
	d, err := n.changeVDisk(ctx, name, s)
	if err != nil {
		return api.VDiskChange{}, err
	}
	gone, err := n.shutOut(ctx, d)
	if err != nil {
		return api.VDiskChange{}, err
	}
	return api.VDiskChange{VDisk: n.show(d), Disconnected: gone}, nil
}

// changeVDisk notes the change, and has new connections judged by it. No vDisk is opened meanwhile, so nobody
// comes in by rules that are about to end.
func (n *Node) changeVDisk(ctx context.Context, name string, s api.VDiskSettings) (*vdisk, error) {
	n.settings.Lock()
	defer n.settings.Unlock()
	n.mu.Lock()
	d, f := n.vdisks[name], n.failed[name]
	conns := 0
	if d != nil && s.ReadOnly != nil && *s.ReadOnly != d.rules.readOnly {
		conns = len(d.open)
	}
	n.mu.Unlock()
	switch {
	case d == nil && f != nil:
		return nil, errs.New(errs.Busy, "vDisk %s does not open (%v); its settings can be changed once it does", name, f.err)
	case d == nil:
		return nil, noSuchVDisk(name)
	case conns > 0:
		return nil, errs.New(errs.Busy, "vDisk %s is in use by %d connections, which must not find it %s all at once; "+
			"disconnect them first", name, conns, map[bool]string{true: "read-only", false: "changing"}[*s.ReadOnly])
	}
	if s.ReadOnly != nil && *s.ReadOnly != d.rules.readOnly {
		if err := d.usedByEdges(); err != nil {
			return nil, err
		}
	}
	r, err := n.registry.change(ctx, name, func(r *record) {
		if s.ReadOnly != nil {
			r.ReadOnly = *s.ReadOnly
		}
		if s.Allow != nil {
			_, r.Allow, _ = parseAccess(s.Allow)
		}
		if s.Cache != nil {
			r.NoCache = !*s.Cache
		}
		if s.BlockCacheQuota != nil {
			r.BlockCacheQuota = *s.BlockCacheQuota
		}
		if s.FragCacheQuota != nil {
			r.FragCacheQuota = *s.FragCacheQuota
		}
	})
	if err != nil {
		return nil, err
	}
	rules := rulesOf(r)
	n.mu.Lock()
	d.rules, d.NoCache, d.BlockCacheQuota, d.FragCacheQuota = rules, r.NoCache, r.BlockCacheQuota, r.FragCacheQuota
	d.readOnly.Store(rules.readOnly)
	n.mu.Unlock()
	d.setCache(n, r)
	return d, nil
}

// shutOutTimeout bounds the wait for connections to end; a drive that hangs can hold one up.
const shutOutTimeout = 5 * time.Second

// shutOut closes the connections that the list does not admit any more, and says how many there were.
func (n *Node) shutOut(ctx context.Context, d *vdisk) (int, error) {
	seen := map[*export]bool{}
	for end := time.Now().Add(shutOutTimeout); ; {
		left := 0
		n.mu.Lock()
		for e := range d.open {
			if !d.rules.access.admits(e.who) {
				seen[e] = true
				left++
			}
		}
		n.mu.Unlock()
		if left == 0 {
			return len(seen), nil
		}
		if n.nbd != nil { // again each time: a connection may just be on its way from its handshake to its loop
			n.nbd.Disconnect(func(x nbd.Export) bool {
				e, ok := x.(*export)
				return ok && seen[e]
			})
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return 0, errs.New(errs.Busy, "the access list of vDisk %s is changed, but %d connections that it shuts out have "+
				"not ended yet: they wait for their last request, and get no other", d.Name, left)
		}
	}
}
