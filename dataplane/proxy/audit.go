package proxy

import (
	"context"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// auditPage is how many manifests are compared at once: memory is bounded by the fragments that so many
// objects have on one ASD.
const auditPage = 64

// Audit compares what an ASD has with what the manifests say that it has, over all namespaces, and marks the
// fragments missing that it lacks: RepairMissing then writes them again from the others. An old copy of
// an ASD, or one whose index was made again from a damaged drive, is found so. It only reads the ASD's index;
// rot inside fragments is for those who read them. lacking is how many fragments were marked.
//
// An ASD that does not answer lacks nothing. A put in flight is left alone: its fragments and its manifest
// change in any order. One that is not, was written before its manifest said so; so a fragment that the
// manifest calls present, before and after the ASD was asked for that very key, and that the ASD answered
// not to have, is not there. Errors: Absent if there is no such ASD, Unreachable and what else it answers,
// those of the metadata store.
func (px *Proxy) Audit(ctx context.Context, asd ids.ASDID) (lacking int, err error) {
	if err := px.begin(); err != nil {
		return 0, err
	}
	defer px.done()
	ctx, cancel := px.join(ctx)
	defer cancel()
	spaces, err := px.Namespaces(ctx)
	if err != nil {
		return 0, err
	}
	for _, ns := range spaces {
		if gone, err := Deleted(ctx, px.opts.Meta, ns); err != nil || gone {
			if err != nil {
				return lacking, err
			}
			continue // what it lacks has been deleted already
		}
		n, err := px.auditNamespace(ctx, asd, ns)
		lacking += n
		if err != nil {
			return lacking, err
		}
	}
	return lacking, nil
}

// Namespaces lists those that have manifests, in order. Errors: those of the metadata store.
func (px *Proxy) Namespaces(ctx context.Context) ([]ids.NamespaceID, error) {
	var out []ids.NamespaceID
	var after []byte
	for {
		list, err := px.opts.Meta.Scan(ctx, key(keyManifest), after, 1)
		if err != nil || len(list) == 0 {
			return out, err
		}
		ns, ok := nsOf(list[0].Key)
		if !ok {
			return out, errs.New(errs.Corrupt, "proxy: key %x names no namespace", list[0].Key)
		}
		out = append(out, ns)
		after = manifestKey(ns, ^ids.SCONum(0))
	}
}

// auditNamespace walks the manifests and the ASD's keys side by side, both in order of SCO numbers. It holds
// off garbage collection and repair, which move fragments about.
func (px *Proxy) auditNamespace(ctx context.Context, id ids.ASDID, ns ids.NamespaceID) (lacking int, err error) {
	n := px.namespace(ns)
	n.maint.Lock()
	defer n.maint.Unlock()
	keys := keyStream{px: px, id: id, ns: ns}
	var after ids.SCONum
	for {
		list, err := px.Manifests(ctx, ns, after, auditPage)
		if err != nil || len(list) == 0 {
			return lacking, err
		}
		for _, m := range list {
			after = m.SCO
			if px.inFlight(ns, m.Put) {
				continue
			}
			lost, err := keys.lacks(ctx, m)
			if err != nil {
				return lacking, err
			}
			if len(lost) == 0 {
				continue
			}
			marked, err := px.markLacking(ctx, m, id, lost)
			lacking += marked
			if err != nil {
				return lacking, err
			}
		}
	}
}

// keyStream gives an ASD's keys of a namespace in order, a page at a time.
type keyStream struct {
	px   *Proxy
	id   ids.ASDID
	ns   ids.NamespaceID
	page []layout.FragKey
	last layout.FragKey
	end  bool
}

// peek is the next key; false at the end.
func (s *keyStream) peek(ctx context.Context) (layout.FragKey, bool, error) {
	for len(s.page) == 0 && !s.end {
		a := s.px.asd(s.id)
		switch {
		case a == nil:
			return layout.FragKey{}, false, errs.New(errs.Absent, "proxy: there is no ASD %d", s.id)
		case !a.Alive:
			return layout.FragKey{}, false, errs.New(errs.Unreachable, "proxy: ASD %d is down", s.id)
		}
		page, err := s.px.listOne(ctx, a, s.ns, s.last)
		if err != nil {
			return layout.FragKey{}, false, errs.Wrap(errs.Of(err), err, "proxy: ASD %d", s.id)
		}
		if s.page, s.end = page, len(page) == 0; !s.end {
			s.last = page[len(page)-1]
		}
	}
	if s.end {
		return layout.FragKey{}, false, nil
	}
	return s.page[0], true, nil
}

// lacks moves the stream past m's SCO and returns the fragments that m says are there and did not come by.
func (s *keyStream) lacks(ctx context.Context, m *layout.Manifest) ([]layout.ChunkFrag, error) {
	here := make(map[layout.FragKey]bool)
	for {
		k, ok, err := s.peek(ctx)
		if err != nil {
			return nil, err
		}
		if !ok || k.SCO > m.SCO {
			break
		}
		if k.SCO == m.SCO && k.Put == m.Put {
			here[k] = true
		}
		s.page = s.page[1:]
	}
	var lost []layout.ChunkFrag
	n := m.Policy.N()
	for i := range m.Frags {
		c, f := i/n, i%n
		if m.Present(c, f) && m.Target(c, f) == layout.ASDTarget(s.id) && !here[m.FragKey(c, f)] {
			lost = append(lost, layout.ChunkFrag{Chunk: c, Frag: f})
		}
	}
	return lost, nil
}

// markLacking asks the ASD for each fragment once more, by its own key, and marks those missing that it
// answers not to have, if the manifest still says the same of them.
func (px *Proxy) markLacking(ctx context.Context, m *layout.Manifest, id ids.ASDID, lost []layout.ChunkFrag) (
	int, error) {
	var sure []layout.ChunkFrag
	for _, cf := range lost {
		there, err := px.has(ctx, id, m.FragKey(cf.Chunk, cf.Frag))
		if err != nil {
			return 0, err
		}
		if !there {
			sure = append(sure, cf)
		}
	}
	marked := 0
	_, err := px.Amend(ctx, m.Namespace, m.SCO, func(now *layout.Manifest) bool {
		marked = 0
		if now.Put != m.Put {
			return false
		}
		for _, cf := range sure {
			if f := now.Frag(cf.Chunk, cf.Frag); now.Present(cf.Chunk, cf.Frag) &&
				now.Target(cf.Chunk, cf.Frag) == layout.ASDTarget(id) &&
				f.Version == m.Frag(cf.Chunk, cf.Frag).Version {
				f.State = layout.FragMissing
				marked++
			}
		}
		return marked > 0
	})
	if errs.Of(err) == errs.Absent { // deleted meanwhile, which is why its fragments were gone
		return 0, nil
	}
	px.count.lacking.Add(int64(marked))
	return marked, err
}

// has asks an ASD whether it lists a key. Errors: whatever keeps it from an answer.
func (px *Proxy) has(ctx context.Context, id ids.ASDID, k layout.FragKey) (bool, error) {
	a := px.asd(id)
	if a == nil || !a.Alive {
		return false, errs.New(errs.Unreachable, "proxy: ASD %d is down", id)
	}
	ctx, cancel := context.WithTimeout(ctx, px.opts.StallTimeout)
	defer cancel()
	list, err := a.Store.ListNamespace(ctx, k.Namespace, before(k), 1)
	if err != nil {
		return false, errs.Wrap(errs.Of(err), err, "proxy: ASD %d", id)
	}
	return len(list) > 0 && list[0] == k, nil
}

// before is the key right before k in key order. REQUIRES: k names a SCO, so there is one.
func before(k layout.FragKey) layout.FragKey {
	if k.Version--; k.Version != ^uint8(0) {
		return k
	}
	if k.Frag--; k.Frag != ^uint8(0) {
		return k
	}
	if k.Chunk--; k.Chunk != ^uint16(0) {
		return k
	}
	if k.Put--; k.Put != ^ids.PutID(0) {
		return k
	}
	k.SCO--
	return k
}
