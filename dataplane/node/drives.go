package node

import (
	"fmt"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"

	"vstor/asd/client"
	"vstor/asd/proto"
	"vstor/asd/server"
	"vstor/asd/store"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/proxy"
	"vstor/dataplane/supervise"
	"vstor/pracc"
)

// drive is one ASD as this process sees it: a store of its own, a daemon that it asks, or the reason why it
// is neither.
type drive struct {
	id   ids.ASDID
	node ids.NodeID
	path string

	file   dio.File // embedded
	faults *dio.Faulty
	store  *store.Store

	remote  *client.ASD // in a process of its own
	control *client.ASD // the same by a link that faults leave alone; nil unless they are allowed
	child   *supervise.Child

	err error // why there is neither
}

// stat is its newest figures, without IO; the error says why it does not serve now.
func (d *drive) stat() (proto.Stat, error) {
	switch {
	case d.remote != nil:
		s, _ := d.remote.Stat()
		if !d.remote.Up() {
			return s, d.silence()
		}
		return s, statErr(s)
	case d.store != nil:
		s := server.StatOf(d.store.Stat())
		return s, statErr(s)
	}
	return proto.Stat{}, d.err
}

// silence is why a daemon does not answer, as far as it is known.
func (d *drive) silence() error {
	if c := d.child; c != nil && c.Err() != nil && c.PID() == 0 {
		return errs.New(errs.Unreachable, "its process does not run: %v", c.Err())
	}
	if err := d.remote.Err(); err != nil {
		return err
	}
	return errs.New(errs.Unreachable, "it does not answer yet")
}

// statErr is what a drive says that takes no changes any more.
func statErr(s proto.Stat) error {
	if s.Failed == "" {
		return nil
	}
	return errs.New(errs.IO, "%s", s.Failed)
}

// fragments is the drive as the proxy uses it.
func (d *drive) fragments() proxy.FragmentStore {
	switch {
	case d.remote != nil:
		return d.remote
	case d.store != nil:
		return fragStore{d.store}
	}
	return downStore{}
}

func (n *Node) drivePath(id int) string { return filepath.Join(n.cfg.Dir, fmt.Sprintf("asd-%d", id)) }

// formatDrives makes the ASDs of a new deployment.
func (n *Node) formatDrives() error {
	for i := range n.cfg.ASDs {
		n.progress("making ASD %d of %d", i+1, n.cfg.ASDs)
		if err := n.formatDrive(i); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) formatDrive(i int) error {
	path := n.drivePath(i)
	if err := n.host.FS().MkdirAll(path, 0o700); err != nil {
		return errs.Wrap(errs.IO, err, "cannot make the folder of ASD %d", i)
	}
	file, err := n.host.Create(filepath.Join(path, "data"), n.cfg.ASDSize, false)
	if err != nil {
		return err
	}
	defer file.Close()
	return store.Format(n.storeOptions(i, file, nil))
}

func (n *Node) storeOptions(i int, file dio.File, cache *pebble.Cache) store.Options {
	return store.Options{
		Data: file, FS: n.host.FS(), Dir: filepath.Join(n.drivePath(i), "index"), Cache: cache,
		ID: ids.ASDID(i), UUID: n.ident.asdUUID(i), Deployment: n.ident.UUID,
	}
}

// openDrives opens every ASD it can, here or in processes of their own. One that does not open is down and
// says why; the others serve.
func (n *Node) openDrives() error {
	for i := range n.cfg.ASDs {
		n.drives = append(n.drives, &drive{id: ids.ASDID(i), node: ids.NodeID(i % n.cfg.Nodes), path: n.drivePath(i)})
	}
	if n.cfg.Processes {
		return n.startASDs()
	}
	for i, d := range n.drives {
		n.openDrive(i, d)
		if d.err != nil {
			n.log.Error("an ASD does not open; its fragments are read from the others until it does",
				"asd", i, "error", d.err)
		}
	}
	return nil
}

func (n *Node) openDrive(i int, d *drive) {
	if d.file, d.err = n.host.Open(filepath.Join(d.path, "data")); d.err != nil {
		return
	}
	if n.cfg.AllowFaults {
		d.faults = dio.NewFaulty(d.file, uint64(i))
		d.file = d.faults
	}
	d.store, d.err = store.Open(n.storeOptions(i, d.file, n.cache))
}

func (n *Node) closeDrives() {
	n.stopASDs()
	for _, d := range n.drives {
		if d.store != nil {
			if err := d.store.Close(); err != nil {
				n.log.Warn("closing an ASD", "asd", d.id, "error", err)
			}
		}
		if d.file != nil {
			d.file.Close()
		}
	}
}

// localDrive is a store as PRACC reads it: the loop itself reads the drive. It belongs to one loop; pins are
// handed out as places in its table.
type localDrive struct {
	s    *store.Store
	pins []store.Pin
	free []uint64
}

// Locate finds and pins a range.
func (d *localDrive) Locate(key layout.FragKey, off, n uint32,
	dst []layout.Extent) ([]layout.Extent, uint64, errs.Kind) {
	ext, pin, kind := d.s.Locate(key, off, n, dst)
	if kind != errs.OK {
		return ext, 0, kind
	}
	if k := len(d.free); k > 0 {
		at := d.free[k-1]
		d.free = d.free[:k-1]
		d.pins[at] = pin
		return ext, at, kind
	}
	d.pins = append(d.pins, pin)
	return ext, uint64(len(d.pins) - 1), kind
}

// Unpin gives back what Locate pinned; a store keeps its word.
func (d *localDrive) Unpin(at uint64) bool {
	d.s.Unpin(d.pins[at])
	d.free = append(d.free, at)
	return true
}

// File is the drive.
func (d *localDrive) File() dio.File { return d.s.File() }

// praccDrives are all drives as one loop's PRACC finds them, by number; nil where one is down.
func (n *Node) praccDrives() func(ids.ASDID) pracc.Drive {
	local := make([]pracc.Drive, len(n.drives))
	for i, d := range n.drives {
		if d.store != nil {
			local[i] = &localDrive{s: d.store}
		}
	}
	return func(id ids.ASDID) pracc.Drive {
		if int(id) >= len(local) {
			return nil
		}
		return local[id]
	}
}
