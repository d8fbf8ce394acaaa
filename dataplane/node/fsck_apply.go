package node

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/meta"
	"vstor/dataplane/proxy"
	"vstor/dataplane/volume/pagemap"
)

// checkManifests plans, reports and repairs.
func (c *checker) checkManifests(ctx context.Context) error {
	c.close = append(c.close, c.closeStore)
	p, err := c.planManifests(ctx)
	if err != nil {
		c.findDamaged(c.bad)
		return err
	}
	c.findDamaged(p.bad)
	if !c.o.Repair {
		return nil
	}
	return c.apply(ctx, p)
}

// planManifests opens what a plan takes, and makes it.
func (c *checker) planManifests(ctx context.Context) (*fsckPlan, error) {
	fs, dir := c.n.host.FS(), c.n.cfg.Dir
	var err error
	c.maps, err = pagemap.OpenDB(filepath.Join(dir, "router", "map"), pagemap.DBOptions{FS: fs, ReadOnly: true})
	switch errs.Of(err) {
	case errs.OK:
		c.close = append(c.close, func() { c.maps.Close() })
	case errs.Corrupt, errs.Absent:
		c.mapsErr = err
	default:
		return nil, err
	}
	c.copy, c.copyErr = readRegistryCopy(fs, dir)
	if errs.Of(c.copyErr) == errs.Corrupt {
		c.find("%v; the next start makes it again", c.copyErr)
	}
	place := filepath.Join(dir, "meta")
	if _, err = fs.Stat(place); err != nil {
		err = errs.Wrap(errs.Absent, err, "there is no metadata store in %s", place) // and none is made
	} else {
		err = c.openStore(meta.PebbleOptions{Dir: place, FS: fs, ReadOnly: !c.o.Repair, MustExist: true})
	}
	if err != nil {
		if k := errs.Of(err); k != errs.Absent && k != errs.Corrupt {
			return nil, err
		}
		if err := c.begin(err); err != nil {
			return nil, err
		}
	}
	if !c.o.Manifests && c.metaGone != nil {
		return nil, errs.Wrap(errs.Of(c.metaGone), c.metaGone,
			"`vstor fsck --manifests --repair` makes the metadata store again")
	}
	before := *c.rep
	p, err := c.plan(ctx)
	if err != nil && c.damage != nil && c.metaGone == nil {
		*c.rep = before
		c.rep.ASDs = append([]FsckASD(nil), before.ASDs...)
		if err = c.begin(c.damage); err == nil {
			p, err = c.plan(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	for _, s := range p.spaces {
		c.rep.VDisks = append(c.rep.VDisks, s.row)
	}
	for _, r := range p.add {
		c.find("the metadata store does not know vDisk %s; %s does", r.Name, registryFile)
	}
	return p, nil
}

// begin goes on without the metadata store, as if it were empty.
func (c *checker) begin(why error) error {
	if c.copyErr != nil {
		return errs.Wrap(errs.Corrupt, why, "the metadata store cannot be used, and its list of vDisks cannot be had from "+
			"%s either (%v): bring a copy of one of them back", registryFile, c.copyErr)
	}
	c.closeStore()
	c.metaGone = why
	c.rep.Metadata = why.Error()
	c.find("the metadata store is lost and is to be made again from the ASDs: %v", why)
	return c.openStore(meta.PebbleOptions{Dir: "meta", FS: vfs.NewMem(), Ballast: -1})
}

// openStore opens a metadata store and a proxy that reads with it.
func (c *checker) openStore(o meta.PebbleOptions) error {
	p, err := meta.OpenPebble(o)
	if err != nil {
		return err
	}
	c.store = p
	c.px, err = proxy.New(proxy.Options{Meta: p, ASDs: c.proxyASDs, Preset: c.n.preset(), Workers: 1, ChunkBuffers: 2,
		RetryInterval: -1})
	return err
}

func (c *checker) closeStore() {
	if c.px != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = c.px.Close(ctx) // it only read
		cancel()
		c.px = nil
	}
	if c.store != nil {
		if err := c.store.Close(); err != nil && c.closeErr == nil {
			c.closeErr = err
		}
		c.store = nil
	}
}

func (c *checker) proxyASDs() []proxy.ASD {
	var out []proxy.ASD
	for _, a := range c.asds {
		p := proxy.ASD{ID: a.id, Store: downStore{}}
		if a.store != nil {
			p.Alive, p.Store = true, fragStore{a.store}
		}
		out = append(out, p)
	}
	return out
}

// apply does what was planned. A store that is made anew is made beside the old one and takes its place when it
// is whole, so that a crash leaves the one or the other.
func (c *checker) apply(ctx context.Context, p *fsckPlan) error {
	if c.metaGone == nil {
		return c.write(ctx, p)
	}
	for _, s := range p.spaces {
		if s.blocked != "" {
			return errs.New(errs.Corrupt, "the metadata store is not made again, since vDisk %s would lose what it had: %s",
				s.Name, s.blocked)
		}
	}
	fs, dir := c.n.host.FS(), c.n.cfg.Dir
	c.closeStore()
	made := filepath.Join(dir, "meta.new")
	if err := fs.RemoveAll(made); err != nil {
		return errs.Wrap(errs.IO, err, "cannot clear %s", made)
	}
	if err := c.openStore(meta.PebbleOptions{Dir: made, FS: fs}); err != nil {
		return err
	}
	repaired := c.rep.Repaired
	err := c.write(ctx, p)
	c.closeErr = nil
	c.closeStore()
	if err == nil {
		err = c.closeErr
	}
	if err == nil {
		err = c.change(made)
	}
	if err != nil {
		c.rep.Repaired = repaired
		return err
	}
	c.rep.Repaired++
	return nil
}

// change puts the new store in the place of the old, which is kept.
func (c *checker) change(made string) error {
	fs, dir := c.n.host.FS(), c.n.cfg.Dir
	place := filepath.Join(dir, "meta")
	var err error
	if _, e := fs.Stat(place); e == nil {
		old := place + ".old"
		for i := 2; ; i++ {
			if _, e := fs.Stat(old); e != nil {
				break
			}
			old = fmt.Sprintf("%s.old-%d", place, i)
		}
		c.progress("moving what is left of the metadata store to %s", old)
		err = fs.Rename(place, old)
	}
	if err == nil {
		err = fs.Rename(made, place)
	}
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot put the new metadata store in its place")
	}
	return syncDir(fs, dir)
}

// write makes the changes in c.store. Nothing of a vDisk that is left as it is is marked either.
func (c *checker) write(ctx context.Context, p *fsckPlan) error {
	blocked := map[ids.NamespaceID]bool{}
	for _, s := range p.spaces {
		if s.blocked != "" {
			blocked[s.ID] = true
		} else if err := c.writeSpace(ctx, s); err != nil {
			return errs.Wrap(errs.Of(err), err, "vDisk %s", s.Name)
		}
	}
	left := func(o objectKey, _ []located) bool { return blocked[o.ns] }
	maps.DeleteFunc(p.lacking, left)
	maps.DeleteFunc(p.bad, left)
	if err := c.mark(ctx, p.lacking, false); err != nil {
		return err
	}
	if err := c.mark(ctx, p.bad, true); err != nil {
		return err
	}
	return c.writeRegistry(ctx, p)
}

func (c *checker) writeSpace(ctx context.Context, s *spacePlan) error {
	v := s.verdict
	census := c.census()
	for i, r := range v.restore {
		if i%1000 == 0 {
			c.progress("vDisk %s: making manifest %d of %d", s.Name, i+1, len(v.restore))
		}
		m, err := assemble(ctx, census, s.ID, r.SCO, r.Put)
		if err != nil {
			return err
		}
		m.Commit = r.Commit
		if err := c.px.Restore(ctx, m); err != nil {
			return err
		}
		c.rep.Repaired++
	}
	for n, commit := range v.commits {
		if _, err := c.px.Amend(ctx, s.ID, n, func(m *layout.Manifest) bool { m.Commit = commit; return true }); err != nil {
			return err
		}
		c.rep.Repaired++
	}
	for commit, n := range v.order {
		if err := c.px.RestoreOrder(ctx, s.ID, commit, n); err != nil {
			return err
		}
		if !v.restores(n, commit) {
			c.rep.Repaired++
		}
	}
	for _, n := range v.drop {
		if err := c.px.DropManifest(ctx, s.ID, n); err != nil {
			return err
		}
		c.rep.Repaired++
	}
	if s.floor != nil {
		t := new(meta.Txn).Put(floorKey(s.ID), strconv.AppendUint(nil, uint64(*s.floor), 10))
		if err := c.store.Apply(ctx, t); err != nil {
			return err
		}
		if s.floorFound {
			c.rep.Repaired++
		}
	}
	if s.last != nil {
		if err := c.px.RestoreLast(ctx, s.ID, *s.last); err != nil {
			return err
		}
		c.rep.Repaired++
	}
	if s.epoch == 0 && s.put == 0 && s.sco == 0 {
		return nil
	}
	c.rep.Repaired++
	return c.px.RestoreNumbers(ctx, s.ID, s.epoch, s.put, s.sco)
}

// mark marks fragments missing; the next start writes them again.
func (c *checker) mark(ctx context.Context, lists map[objectKey][]located, keep bool) error {
	for o, list := range lists {
		keys := make([]layout.FragKey, len(list))
		for i, l := range list {
			keys[i] = l.key
		}
		n, err := c.px.MarkMissing(ctx, o.ns, o.sco, keys, keep)
		if k := errs.Of(err); err != nil && k != errs.Absent && k != errs.Corrupt {
			return err
		}
		c.rep.Repaired += n
	}
	return nil
}

// writeRegistry enters the vDisks that the metadata store does not know.
func (c *checker) writeRegistry(ctx context.Context, p *fsckPlan) error {
	put := func(key []byte, r record) error {
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		return c.store.Apply(ctx, new(meta.Txn).Put(key, b))
	}
	for _, r := range p.add {
		if err := put(nameKey(r.Name), r); err != nil {
			return err
		}
		c.rep.Repaired++
	}
	for _, r := range p.gone {
		if err := put(goneKey(r.ID), r); err != nil {
			return err
		}
	}
	if p.next == 0 {
		return nil
	}
	return c.store.Apply(ctx, new(meta.Txn).Put([]byte(nextKey), strconv.AppendUint(nil, uint64(p.next), 10)))
}
