package node

import (
	"context"
	"fmt"
	"path/filepath"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/volume/pagemap"
)

// openMapDB opens the database of all maps. One that is damaged as a whole is put aside and a new one begun:
// a vDisk of which no SCO was ever deleted gets its map back from them. Where some were, trims may have gone
// with them, and what they covered would come back: such a vDisk does not open.
func (n *Node) openMapDB() error {
	dir := filepath.Join(n.cfg.Dir, "router", "map")
	open := func() (err error) {
		n.mapDB, err = pagemap.OpenDB(dir, pagemap.DBOptions{FS: n.host.FS(), Cache: n.cache, MemTable: memTable,
			Log: n.logError, Fatal: n.opts.Fatal})
		return err
	}
	err := open()
	if errs.Of(err) != errs.Corrupt || n.opts.Fresh {
		return err
	}
	n.mapDamage++
	aside, ferr := n.freeName(dir + ".damaged")
	if ferr == nil {
		ferr = n.host.FS().Rename(dir, aside)
	}
	if ferr == nil {
		ferr = syncDir(n.host.FS(), filepath.Dir(dir))
	}
	if ferr != nil {
		return errs.Wrap(errs.Corrupt, err, "the map database cannot be put aside (%v)", ferr)
	}
	n.log.Error("the map database is damaged; it is put aside, and the maps are made again from the SCOs where that "+
		"is possible", "aside", aside, "error", err)
	return open()
}

// freeName is path, or the first of path-2, path-3 ... that does not exist.
func (n *Node) freeName(path string) (string, error) {
	for i := 1; i < 1000; i++ {
		name := path
		if i > 1 {
			name = fmt.Sprintf("%s-%d", path, i)
		}
		if _, err := n.host.FS().Stat(name); err != nil {
			return name, nil
		}
	}
	return "", errs.New(errs.Exists, "%s and 998 more exist: remove some", path)
}

// openMap opens the map of a vDisk. One whose records are damaged is made again from nothing if no SCO was ever
// deleted.
func (n *Node) openMap(ctx context.Context, d *vdisk) error {
	whole, known, err := n.objects.whole(ctx, d.ID)
	if err != nil {
		return err
	}
	open := func() (err error) {
		d.m, _, err = n.mapDB.Open(pagemap.Options{ID: pagemap.MapID(d.ID), Size: ids.BlockAddr(d.Size >> ids.BlockShift),
			Budget: n.budget, Poster: poster{d.rig}, OnEmpty: func() { d.vol.Kick() }})
		return err
	}
	err = open()
	if err == nil && d.m.Fresh() && !known {
		d.closeMap()
		return errs.New(errs.Corrupt, "there is none, and whether SCOs were deleted is not known: without them trims may be "+
			"lacking")
	}
	if errs.Of(err) != errs.Corrupt || !whole {
		return err
	}
	if derr := n.mapDB.DropMap(pagemap.MapID(d.ID)); derr != nil {
		return err
	}
	n.log.Error("the map of a vDisk is damaged and made again from its SCOs", "vdisk", d.Name, "error", err)
	return open()
}

// closeMap closes a map that no Volume has yet.
func (d *vdisk) closeMap() {
	done := make(chan struct{})
	if d.rig.loop.Call(func() { d.m.Close(func() { close(done) }) }) {
		<-done
	}
}
