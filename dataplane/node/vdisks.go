package node

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"vstor/dataplane/edge"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/router"
	"vstor/dataplane/volume"
	"vstor/dataplane/volume/pagemap"
)

// vdisk is an opened vDisk.
type vdisk struct {
	record
	rig    *loopRig
	vol    *volume.Volume
	m      *pagemap.Map
	disk   *edge.Disk
	share  *blockCache // of the loop's block cache; nil: there is none
	epoch  ids.Epoch
	before ids.Epoch // whose it was when it was opened

	door     *router.VDisk // for edges; nil: there are none
	readOnly *atomic.Bool  // rules.readOnly, for the door

	// Guarded by Node.mu:
	open     map[*export]struct{} // connections
	rules    exportRules
	removing bool
}

// poster lets a map post to its loop.
type poster struct{ r *loopRig }

func (p poster) PostFunc(f func()) { p.r.loop.PostFunc(f) }

// openVDisk takes ownership of a vDisk and brings it to where it was. The journal is not attached yet when
// the node starts; for a new vDisk it is, and log is empty.
func (n *Node) openVDisk(ctx context.Context, r record, log []volume.LogEntry) (*vdisk, error) {
	rig := n.rigs[r.Loop]
	before, skip, err := n.checkEpoch(ctx, r)
	if err != nil {
		return nil, err
	}
	epoch, err := n.proxy.TakeOwnershipBeyond(ctx, r.ID, skip)
	if err != nil {
		return nil, errs.Wrap(errs.Of(err), err, "vDisk %s cannot be owned", r.Name)
	}
	d := &vdisk{record: r, rig: rig, epoch: epoch, before: before, open: map[*export]struct{}{}, rules: rulesOf(r),
		readOnly: new(atomic.Bool)}
	d.readOnly.Store(r.ReadOnly)
	former, err := n.formerHolder(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	if err = n.openMap(ctx, d); err != nil {
		return nil, errs.Wrap(errs.Of(err), err, "the map of vDisk %s cannot be opened", r.Name)
	}
	rig.loop.Call(func() {
		d.vol = volume.New(volume.Options{ID: r.ID, Name: r.Name, Size: r.Size, Epoch: epoch, SCOSize: r.SCOSize,
			Loop: rig.loop, Journal: rig.jrn, Map: d.m, Objects: n.objects, Reader: rig.client,
			Sealer: n.sealer, Log: n.log, Hook: n.opts.Hook, Settle: d.settle})
		rig.keeper.Add(d.vol)
		d.share = rig.openTenant(d.ID, d.BlockCacheQuota, d.NoCache)
		d.disk = edge.NewDisk(rig.loop, d.vol, rig.fetch, d.share.cache())
	})
	if err := d.vol.Recover(ctx, log); err != nil {
		d.close()
		return nil, err
	}
	n.openDoor(d, former)
	n.setFragments(r)
	d.vol.StartCleaning(n.cleaners)
	return d, nil
}

// close stops it; what is not sealed stays in the journal.
func (d *vdisk) close() {
	done := make(chan struct{})
	if d.rig.loop.Call(func() {
		d.disk.Close(nil)
		if d.share != nil {
			d.share.t.Close()
		}
		d.vol.Close(func() { close(done) })
	}) {
		<-done
	}
}

// createVDisk makes a vDisk. When it returns the vDisk survives power loss. A number of which an ASD has
// something is passed over; should one tell only when the vDisk is opened, the number is given up, nothing is
// deleted, and another one taken.
func (n *Node) createVDisk(ctx context.Context, name string, size int64) (d *vdisk, err error) {
	n.control.Lock()
	defer n.control.Unlock()
	for range createTries {
		if d, err = n.tryCreate(ctx, name, size); !errors.Is(err, errOldStore) {
			break
		}
	}
	return d, err
}

// createTries bounds the numbers that turn out to be somebody else's after they were found free.
const createTries = 3

func (n *Node) tryCreate(ctx context.Context, name string, size int64) (*vdisk, error) {
	r, err := n.registry.add(ctx, record{Name: name, Size: size, Loop: n.quietestLoop(), SCOSize: n.scoSize(),
		Created: time.Now().UTC().Truncate(time.Second)}, n.unseen)
	if err != nil {
		return nil, err
	}
	d, err := n.openVDisk(ctx, r, nil)
	if err != nil {
		r.Foreign = errors.Is(err, errOldStore)
		if rerr := n.registry.remove(ctx, r); rerr == nil {
			n.background(func(ctx context.Context) { n.bury(ctx, r) })
		}
		return nil, err
	}
	n.mu.Lock()
	n.vdisks[name] = d
	n.mu.Unlock()
	return d, nil
}

// scoSize is the size of a SCO for new vDisks: the journal holds at least eight, or sealing could not keep
// ahead of writing.
func (n *Node) scoSize() int64 {
	size := n.cfg.SCOSize
	for size > 1<<20 && size*8 > n.journalBytes() {
		size /= 2
	}
	return size
}

func (n *Node) quietestLoop() int {
	count := make([]int, len(n.rigs))
	n.mu.Lock()
	for _, d := range n.vdisks {
		count[d.Loop]++
	}
	n.mu.Unlock()
	best := 0
	for i, c := range count {
		if c < count[best] {
			best = i
		}
	}
	return best
}

// removeVDisk takes a vDisk away that nobody uses. Its name is free at once; its objects go in the
// background, and after a restart if need be.
func (n *Node) removeVDisk(ctx context.Context, name string) error {
	n.control.Lock()
	defer n.control.Unlock()
	n.mu.Lock()
	d := n.vdisks[name]
	switch {
	case d == nil && n.failed[name] != nil:
		n.mu.Unlock()
		return n.removeFailed(ctx, name)
	case d == nil:
		n.mu.Unlock()
		return noSuchVDisk(name)
	case len(d.open) > 0:
		conns := len(d.open)
		n.mu.Unlock()
		return errs.New(errs.Busy, "vDisk %s is in use by %d connections; disconnect them first", name, conns)
	}
	d.removing = true // from here on no edge finds it
	n.mu.Unlock()
	if err := d.usedByEdges(); err != nil {
		n.mu.Lock()
		d.removing = false
		n.mu.Unlock()
		return err
	}
	if err := n.registry.remove(ctx, d.record); err != nil {
		n.mu.Lock()
		d.removing = false
		n.mu.Unlock()
		return err
	}
	n.mu.Lock()
	delete(n.vdisks, name)
	n.mu.Unlock()
	d.closeDoor()
	d.close()
	d.rig.loop.Call(func() { d.rig.jrn.ForgetVolume(d.ID) })
	n.background(func(ctx context.Context) { n.bury(ctx, d.record) })
	return nil
}

// bury deletes what a removed vDisk left, for as long as it takes.
func (n *Node) bury(ctx context.Context, r record) {
	for pause := time.Second; ; pause = min(2*pause, time.Minute) {
		err := n.tryBury(ctx, r)
		if err == nil || ctx.Err() != nil {
			return
		}
		n.log.Warn("a removed vDisk still takes space; deleting is tried again", "vdisk", r.Name, "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

func (n *Node) tryBury(ctx context.Context, r record) error {
	if r.Foreign {
		return n.objects.dropFloor(ctx, r.ID)
	}
	if err := n.proxy.DeleteNamespace(ctx, r.ID); err != nil {
		return err
	}
	n.dropFragCache(r.ID)
	if err := n.mapDB.DropMap(pagemap.MapID(r.ID)); err != nil {
		return err
	}
	if err := n.objects.dropFloor(ctx, r.ID); err != nil {
		return err
	}
	if err := (holders{n.meta}).drop(ctx, r.ID); err != nil {
		return err
	}
	return n.registry.forget(ctx, r)
}

func noSuchVDisk(name string) error {
	return errs.New(errs.Absent, "there is no vDisk named %s; `vstor vdisk ls` lists those there are", name)
}
