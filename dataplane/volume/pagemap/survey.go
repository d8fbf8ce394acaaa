package pagemap

import (
	"cmp"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/lsm"
)

// openReadOnly opens a database for Survey.
func openReadOnly(dir string, o DBOptions) (*DB, error) {
	if _, err := o.FS.Stat(dir); err != nil {
		return nil, errs.Wrap(errs.Absent, err, "there is no map database in %s", dir)
	}
	d := &DB{closing: make(chan struct{})}
	d.guard = lsm.NewGuard(lsm.Options{FS: o.FS, Dir: dir, Name: "the map database", Log: o.Log, Fatal: o.Fatal})
	if _, err := d.guard.Inspect(); err != nil {
		return nil, err
	}
	var err error
	if d.p, err = pebble.Open(dir, d.pebble(o)); err != nil {
		return nil, d.guard.OpenError(err)
	}
	v, c, err := d.p.Get(key(0, tableDB, 0))
	if err == nil {
		_, err = openFrame(v, magicDB, 0, 0)
		_ = c.Close()
	}
	if err != nil {
		_ = d.p.Close() // the first error is the one to tell
		return nil, errs.Wrap(errs.Corrupt, err, "the map database in %s has no header", dir)
	}
	return d, nil
}

// Kept is a SCO as the durable side of a map knows it.
type Kept struct {
	SCO
	Live uint32 // blocks of the base pages that lie in it
}

// Survey reads what is kept of a map beside its pages: the checkpoint, and the SCOs in the order of their
// commits. Every SCO up to some commit at or after the checkpoint is among them, but for those deleted, which
// held nothing at the checkpoint. found is false if nothing was ever kept. Blocks; for tools that look at a
// deployment which does not run. Errors: Corrupt, Version, IO.
func (d *DB) Survey(id MapID) (ckpt Checkpoint, scos []Kept, found bool, err error) {
	m := &Map{db: d, opts: Options{ID: id}}
	m.live.init(0)
	m.flush.init()
	if found, err = m.readRecords(); err != nil {
		return ckpt, nil, false, errs.Wrap(errs.Of(err), err, "map %d", id)
	}
	for _, s := range m.live.all {
		scos = append(scos, Kept{SCO: s.SCO, Live: s.base})
	}
	slices.SortFunc(scos, func(a, b Kept) int { return cmp.Compare(a.Commit, b.Commit) })
	return m.ckpt, scos, found, nil
}
