package proxy

import (
	"context"
	"errors"
	"math"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/meta"
)

// condemn sees to it that a put can never be committed: one transaction claims that the owner is epoch and that
// the SCO's manifest, if any, is of another put. Errors: Exists if the put is committed, Refused.
func (px *Proxy) condemn(ctx context.Context, ns ids.NamespaceID, sco ids.SCONum, put ids.PutID,
	epoch ids.Epoch) error {
	mk, ck := manifestKey(ns, sco), condemnedKey(ns, put)
	for range casMax {
		t := assertOwner(new(meta.Txn), ns, epoch).Put(ck, encodeCell(keyCondemned, uint64(sco)))
		m, ver, err := px.manifest(ctx, ns, sco)
		switch {
		case errs.Of(err) == errs.Absent:
			t.Absent(mk)
		case err != nil:
			return err
		case m.Put == put:
			return errs.New(errs.Exists, "proxy: put %d of SCO %d/%d is committed", put, ns, sco)
		default:
			t.HasVersion(mk, ver)
		}
		err = px.opts.Meta.Apply(ctx, t)
		switch conflict(err) {
		case 0:
			return fenced(ns, epoch)
		case 1:
			continue // committed, amended or deleted meanwhile
		}
		if err == nil {
			px.count.condemned.Add(1)
		}
		return err
	}
	return errs.New(errs.Busy, "proxy: manifest of SCO %d/%d changes all the time", ns, sco)
}

// Garbage says what a collection did.
type Garbage struct {
	Condemned int  // put ids that nobody will commit any more
	Deleted   int  // fragments
	Lost      bool // manifests of SCOs that are needed: what those name was left alone
	Silent    int  // ASDs that did not answer: collect again when they are back
}

// CollectGarbage deletes the fragments of a namespace that no manifest names: of puts that crashed or were
// given up, and versions that a repair replaced. The caller owns the namespace with epoch, and all of that
// epoch's puts go through this Proxy, which knows those in flight; whatever else is not committed is dead.
// Each dead put id is condemned before anything of it is deleted.
//
// needed tells of SCOs in which blocks lie by the vDisk's map: if the store has no manifest of one, the manifest is
// lost, and its fragments, which it can be made from again, stay. nil: none is.
//
// Errors: Refused with ErrFenced; Corrupt if an
// ASD holds numbers that this metadata store never gave out (see recorded); an ASD that does not answer is no
// error.
func (px *Proxy) CollectGarbage(ctx context.Context, ns ids.NamespaceID, epoch ids.Epoch,
	needed func(ids.SCONum) bool) (Garbage, error) {
	var g Garbage
	if err := px.begin(); err != nil {
		return g, err
	}
	defer px.done()
	ctx, cancel := px.join(ctx)
	defer cancel()
	owner, err := px.Owner(ctx, ns)
	if err != nil {
		return g, err
	}
	if owner != epoch {
		return g, fenced(ns, epoch)
	}
	n := px.namespace(ns)
	n.maint.Lock()
	defer n.maint.Unlock()
	c := collection{px: px, ns: ns, epoch: epoch, needed: needed, condemned: make(map[ids.PutID]bool)}
	if err := c.look(ctx); err != nil {
		return g, err
	}
	for _, a := range px.opts.ASDs() {
		err := px.listASD(ctx, &a, ns, func(keys []layout.FragKey) error { return c.page(ctx, &a, keys) })
		switch {
		case errors.Is(err, ErrFenced) || ctx.Err() != nil || errs.Of(err) == errs.Corrupt:
			return c.garbage, err
		case err != nil:
			c.garbage.Silent++
			px.opts.Log("proxy: garbage of namespace %d: %v", ns, err)
		}
	}
	return c.garbage, nil
}

type collection struct {
	px        *Proxy
	ns        ids.NamespaceID
	epoch     ids.Epoch
	needed    func(ids.SCONum) bool
	condemned map[ids.PutID]bool // false: found alive; of the current SCO only
	sco       ids.SCONum         // whose puts condemned holds
	garbage   Garbage
	puts      uint64 // first put id not given out, and
	scos      uint64 // first such SCO number, when last read
}

// recorded demands that the metadata store gave out these numbers. They are reserved, durably, before they
// are used, so one at or beyond what is reserved says that the store lost its newest records: what it does not
// name may be committed and acknowledged, and nothing of the namespace can be taken for garbage. Other puts
// reserve more all the time, therefore the store is asked again before anything is said.
func (c *collection) recorded(ctx context.Context, a *ASD, sco ids.SCONum, put ids.PutID) error {
	if uint64(put) < c.puts && uint64(sco) < c.scos {
		return nil
	}
	var err error
	if c.puts, _, err = c.px.cell(ctx, keyPuts, c.ns); err != nil {
		return err
	}
	if c.scos, _, err = c.px.cell(ctx, keySCOs, c.ns); err != nil {
		return err
	}
	if uint64(put) < c.puts && uint64(sco) < c.scos {
		return nil
	}
	return errs.New(errs.Corrupt, "ASD %d holds put %d of SCO %d/%d, and the metadata store gave out no put from %d "+
		"and no SCO from %d on: it lost its newest records, so nothing is deleted; `vstor fsck --manifests --repair` "+
		"rebuilds it from the ASDs", a.ID, put, c.ns, sco, c.puts, c.scos)
}

// look asks each ASD for the SCOs beyond those given out, before anything is deleted: keys come in the order of
// SCO numbers, and a collection that met them in passing would have deleted what lies before.
func (c *collection) look(ctx context.Context) error {
	next, _, err := c.px.cell(ctx, keySCOs, c.ns)
	if err != nil {
		return err
	}
	from := layout.FragKey{Namespace: c.ns}
	if next > 0 {
		from = before(layout.FragKey{Namespace: c.ns, SCO: ids.SCONum(min(next, math.MaxUint32))})
	}
	for _, a := range c.px.opts.ASDs() {
		if !a.Alive {
			continue
		}
		keys, err := c.px.listOne(ctx, &a, c.ns, from)
		if err != nil || len(keys) == 0 {
			continue // what does not answer now is met in passing, or silent
		}
		k := keys[len(keys)-1]
		if err := c.recorded(ctx, &a, k.SCO, k.Put); err != nil {
			return err
		}
	}
	return nil
}

// page judges a page of keys of one ASD, put by put.
func (c *collection) page(ctx context.Context, a *ASD, keys []layout.FragKey) error {
	var dead []layout.FragKey
	for len(keys) > 0 {
		n := 1
		for n < len(keys) && keys[n].SCO == keys[0].SCO && keys[n].Put == keys[0].Put {
			n++
		}
		d, err := c.judge(ctx, a, keys[:n])
		if err != nil {
			return err
		}
		dead = append(dead, d...)
		keys = keys[n:]
	}
	if len(dead) == 0 {
		return nil
	}
	if err := c.px.deleteFrom(ctx, a.ID, dead); err != nil {
		return err
	}
	c.garbage.Deleted += len(dead)
	c.px.count.garbage.Add(int64(len(dead)))
	return nil
}

// judge returns those of one put's keys that nobody can ever need.
func (c *collection) judge(ctx context.Context, a *ASD, keys []layout.FragKey) ([]layout.FragKey, error) {
	px, sco, put := c.px, keys[0].SCO, keys[0].Put
	// First this, then the manifest: a put leaves the flight only after its commit.
	if px.inFlight(c.ns, put) {
		return nil, nil
	}
	m, _, err := px.manifest(ctx, c.ns, sco)
	if err != nil && errs.Of(err) != errs.Absent {
		return nil, err
	}
	if err == nil && m.Put == put {
		return superseded(m, a.ID, keys), nil
	}
	if _, _, err := px.opts.Meta.Get(ctx, deleteKey(c.ns, sco, put)); errs.Of(err) != errs.Absent {
		return nil, err // being deleted: ResumeDeletes sees to it
	}
	if err := c.recorded(ctx, a, sco, put); err != nil {
		return nil, err
	}
	if m == nil && c.needed != nil && c.needed(sco) {
		return nil, c.lost(ctx)
	}
	if c.sco != sco {
		c.sco = sco
		clear(c.condemned)
	}
	if done, ok := c.condemned[put]; ok {
		if done {
			return keys, nil
		}
		return nil, nil
	}
	err = px.condemn(ctx, c.ns, sco, put, c.epoch)
	c.condemned[put] = err == nil
	if kind := errs.Of(err); kind == errs.Exists || kind == errs.Busy {
		return nil, nil // committed this moment
	}
	if err != nil {
		return nil, err
	}
	c.garbage.Condemned++
	return keys, nil
}

// lost notes that a manifest is, unless it was there until the namespace was deleted, or taken by who deletes.
func (c *collection) lost(ctx context.Context) error {
	owner, err := c.px.Owner(ctx, c.ns)
	switch {
	case errs.Of(err) == errs.Absent || err == nil && owner != c.epoch:
		return fenced(c.ns, c.epoch)
	case err == nil:
		c.garbage.Lost = true
	}
	return err
}

// superseded are the keys of a committed put that its manifest does not name: older versions, and
// fragments on an ASD where they do not belong. A newer version is a repair that crashed before its amendment:
// the next one writes the same bytes under the same key. The named version of a missing fragment stays, too:
// repair adopts it.
func superseded(m *layout.Manifest, id ids.ASDID, keys []layout.FragKey) []layout.FragKey {
	chunks, n := m.Geometry().Chunks, m.Policy.N()
	var out []layout.FragKey
	for _, k := range keys {
		c, f := int(k.Chunk), int(k.Frag)
		if c >= chunks || f >= n || m.Target(c, f) != layout.ASDTarget(id) || k.Version < m.Frag(c, f).Version {
			out = append(out, k)
		}
	}
	return out
}
