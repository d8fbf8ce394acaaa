package proxy

import (
	"context"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
	"vstor/dataplane/layout"
)

// Repaired says what a repair did.
type Repaired struct {
	Objects   int // that had fragments missing
	Fragments int // written again, or found at their places
	Left      int // still missing: their ASD is down, full, or nobody can be found
}

// RepairMissing writes the missing fragments of a namespace's objects to the ASDs they belong on, where those
// are back, and gives slots that never had an ASD one. A fragment that landed after all, unnoticed, is
// verified and adopted; others are rebuilt from verified sources under a new version. Each object's
// manifest is amended once, by compare-and-swap. Puts in flight are left alone. Errors: Absent if
// nobody owns the namespace, those of the metadata store; what an ASD does is only counted.
func (px *Proxy) RepairMissing(ctx context.Context, ns ids.NamespaceID) (Repaired, error) {
	var r Repaired
	if err := px.begin(); err != nil {
		return r, err
	}
	defer px.done()
	ctx, cancel := px.join(ctx)
	defer cancel()
	epoch, err := px.Owner(ctx, ns)
	if err != nil {
		return r, err
	}
	n := px.namespace(ns)
	n.maint.Lock()
	defer n.maint.Unlock()
	var after ids.SCONum
	for {
		list, err := px.Manifests(ctx, ns, after, 64)
		if err != nil || len(list) == 0 {
			return r, err
		}
		for _, m := range list {
			after = m.SCO
			if m.Whole() || px.inFlight(ns, m.Put) {
				continue
			}
			if err := px.repairObject(ctx, m, epoch, &r); err != nil {
				return r, err
			}
		}
	}
}

func (px *Proxy) repairObject(ctx context.Context, m *layout.Manifest, epoch ids.Epoch, r *Repaired) error {
	r.Objects++
	fixed := m.Clone()
	g := m.Geometry()
	need := int64(g.Chunks) * (g.FragLen + layout.FragHeaderSize)
	cands := px.candidates(px.opts.ASDs(), nil, need, layout.ClassRepair, false)
	layout.Replace(m.Policy, fixed.Targets, cands, px.nextSeed())
	done := 0
	for _, cf := range m.Missing() {
		if ctx.Err() != nil {
			return errs.Wrap(errs.Canceled, ctx.Err(), "proxy: repair")
		}
		if err := px.repairFragment(ctx, fixed, cf, epoch); err != nil {
			if _, _, gone := px.manifest(ctx, m.Namespace, m.SCO); errs.Of(gone) == errs.Absent {
				// Deleted meanwhile: no wonder. What we wrote goes, too, now or as garbage.
				_ = px.deleteFragments(ctx, px.keysByASD(fixed))
				return nil
			}
			px.opts.Log("proxy: repair of fragment %v: %v", m.FragKey(cf.Chunk, cf.Frag), err)
			r.Left++
			continue
		}
		done++
	}
	if done == 0 {
		return nil
	}
	dropUnused(m, fixed)
	entered := false
	_, err := px.Amend(ctx, m.Namespace, m.SCO, func(now *layout.Manifest) bool {
		if entered = now.Put == m.Put && now.Version == m.Version; entered {
			now.Targets, now.Frags = fixed.Targets, fixed.Frags
		}
		return entered
	})
	switch errs.Of(err) {
	case errs.OK:
		if !entered { // amended elsewhere: the next repair starts from what it is now
			r.Left += done
			return nil
		}
		r.Fragments += done
		px.deleteOlder(ctx, m, fixed)
		return nil
	case errs.Absent: // deleted meanwhile, perhaps before we wrote
		return px.deleteFragments(ctx, px.keysByASD(fixed))
	}
	return err
}

// dropUnused takes back the ASDs of slots that had none before and on which then nothing was put.
func dropUnused(old, now *layout.Manifest) {
	n := now.Policy.N()
	used := make([]bool, n)
	for i := range now.Frags {
		if now.Frags[i].State == layout.FragPresent {
			used[layout.Slot(i/n, i%n, n)] = true
		}
	}
	for s := range now.Targets {
		if old.Targets[s].Kind == layout.TargetNone && !used[s] {
			now.Targets[s] = layout.Target{}
		}
	}
}

// repairFragment brings one fragment to its target and enters it into m.
func (px *Proxy) repairFragment(ctx context.Context, m *layout.Manifest, cf layout.ChunkFrag, epoch ids.Epoch) error {
	t := m.Target(cf.Chunk, cf.Frag)
	if t.Kind != layout.TargetASD {
		return errs.New(errs.Unreachable, "proxy: no ASD can be found for it")
	}
	a := px.asd(t.ASD)
	if a == nil || !a.Alive || px.lags(t) {
		return errs.New(errs.Unreachable, "proxy: ASD %d is down", t.ASD)
	}
	f := m.Frag(cf.Chunk, cf.Frag)
	if px.verify(ctx, m, cf.Chunk, cf.Frag, f.Version, func(int64, []byte, uint64) {}) == nil {
		f.State = layout.FragPresent
		px.count.adopted.Add(1)
		return nil
	}
	if f.Version == ^uint8(0) {
		return errs.New(errs.Full, "proxy: it was repaired %d times; the object must be put again", f.Version)
	}
	if err := px.rewrite(ctx, a, m, cf, epoch); err != nil {
		return err
	}
	f.Version++
	f.State = layout.FragPresent
	px.count.repaired.Add(1)
	return nil
}

// rewrite rebuilds a fragment into the repair buffer and puts it under the next version.
func (px *Proxy) rewrite(ctx context.Context, a *ASD, m *layout.Manifest, cf layout.ChunkFrag, epoch ids.Epoch) error {
	n := int(m.Geometry().FragLen)
	if n > px.mem.fragLen {
		return errs.New(errs.Unsupported, "proxy: fragment of %d bytes; this proxy has buffers of %d", n, px.mem.fragLen)
	}
	px.repair.Lock()
	defer px.repair.Unlock()
	fb, err := px.mem.get()
	if err != nil {
		return err
	}
	defer px.mem.put(fb)
	end := layout.FragHeaderSize + n
	err = px.rebuild(ctx, m, cf.Chunk, cf.Frag, func(off int64, piece []byte, sum uint64) {
		copy(fb.mem[layout.FragHeaderSize+off:end], piece)
		fb.sums[off/layout.RegionSize] = sum
	})
	if err != nil {
		return err
	}
	sums := fb.sums[:layout.Regions(n)]
	if invariants.Enabled {
		invariants.Assert(layout.FragSum(sums) == m.Frag(cf.Chunk, cf.Frag).Sum,
			"proxy: rebuilt fragment has another checksum")
	}
	ctx, cancel := context.WithTimeout(ctx, px.opts.StallTimeout)
	defer cancel()
	return a.Store.Put(ctx, &layout.FragPut{
		Key:   m.FragKeyVersion(cf.Chunk, cf.Frag, m.Frag(cf.Chunk, cf.Frag).Version+1),
		Epoch: epoch, Class: layout.ClassRepair, Buf: fb.mem[:end:end], Sums: sums,
		Desc: m.AppendDescriptor(fb.desc[:0], cf.Chunk, cf.Frag),
	})
}

// deleteOlder removes the versions that a repair replaced; what does not go now, garbage collection finds.
func (px *Proxy) deleteOlder(ctx context.Context, old, now *layout.Manifest) {
	n := now.Policy.N()
	keys := make(map[ids.ASDID][]layout.FragKey)
	for i := range now.Frags {
		c, f := i/n, i%n
		if t := old.Target(c, f); now.Frags[i].Version > old.Frags[i].Version && t.Kind == layout.TargetASD {
			keys[t.ASD] = append(keys[t.ASD], old.FragKey(c, f))
		}
	}
	if err := px.deleteFragments(ctx, keys); err != nil {
		px.opts.Log("proxy: versions replaced in SCO %d/%d: %v", now.Namespace, now.SCO, err)
	}
}
