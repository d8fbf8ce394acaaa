package node

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"vstor/dataplane/api"
	"vstor/dataplane/errs"
	"vstor/dataplane/volume"
)

// failed is a vDisk that does not open: its map is damaged, or too many ASDs are gone to read the indexes of
// its newest SCOs. The others serve. What the journal holds of it is parked, so that it neither gets lost nor
// stops the journal for all, and opening is tried again.
type failed struct {
	record
	rig    *loopRig
	parked *volume.Volume
	err    error
	try    *try
}

// try is the attempt to open it, if there is one. There may be thousands of SCOs to read, so it does not hold
// Node.control, or no vDisk could be made meanwhile; who removes the vDisk stops it.
type try struct {
	sync.Mutex                    // held while it goes on
	stop       context.CancelFunc // guarded by Node.mu
}

// park keeps a vDisk that did not open, with what the journal has of it.
func (n *Node) park(r record, log []volume.LogEntry, why error) *failed {
	f := &failed{record: r, rig: n.rigs[r.Loop], err: why, try: &try{stop: func() {}}}
	f.rig.loop.Call(func() {
		f.parked = volume.Park(volume.Options{ID: r.ID, Name: r.Name, Size: r.Size, SCOSize: r.SCOSize,
			Loop: f.rig.loop, Journal: f.rig.jrn, Sealer: n.sealer, Log: n.log}, f.rig.keeper, log)
	})
	n.mu.Lock()
	n.failed[r.Name] = f
	n.mu.Unlock()
	n.log.Error("a vDisk does not open; opening it is tried again, the others serve", "vdisk", r.Name, "error", why)
	return f
}

// unpark forgets what the journal has of it.
func (f *failed) unpark() {
	done := make(chan struct{})
	if f.rig.loop.Call(func() { f.parked.Unpark(func([]volume.LogEntry) { close(done) }) }) {
		<-done
	}
}

// refusal is what a client hears.
func (f *failed) refusal() error {
	return errs.New(errs.Of(f.err), "vDisk %s does not open: %v", f.Name, f.err)
}

// Opening a failed vDisk is tried again after reopenMin, then less and less often.
const (
	reopenMin = time.Second
	reopenMax = time.Minute
)

// reopen tries failed vDisks again for as long as there are any; the pause begins anew when the number of
// ASDs that serve changes.
func (n *Node) reopen(ctx context.Context) {
	pause, up := reopenMin, -1
	next := time.Now()
	tick := time.NewTicker(reopenMin)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		n.mu.Lock()
		list := make([]*failed, 0, len(n.failed))
		for _, f := range n.failed {
			list = append(list, f)
		}
		n.mu.Unlock()
		if len(list) == 0 {
			tick.Stop()
			return // vDisks fail when the node starts, and not later
		}
		if now := n.asdsUp(); now != up {
			pause, up, next = reopenMin, now, time.Now()
		}
		if time.Now().Before(next) {
			continue
		}
		for _, f := range list {
			n.tryReopen(ctx, f)
		}
		pause = min(2*pause, reopenMax)
		next = time.Now().Add(pause)
	}
}

func (n *Node) asdsUp() int {
	up := 0
	for _, d := range n.drives {
		if n.showASD(d).State != api.StateDown {
			up++
		}
	}
	return up
}

// tryReopen tries once. What is parked stays so, and moves on in the journal, until Recover has read the indexes
// and takes it over; so a try may take its time, and one that fails has changed nothing.
func (n *Node) tryReopen(ctx context.Context, f *failed) {
	f.try.Lock()
	defer f.try.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n.mu.Lock()
	there := n.failed[f.Name] == f
	f.try.stop = cancel
	n.mu.Unlock()
	if !there {
		return
	}
	d, err := n.openVDisk(ctx, f.record, nil)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil && ctx.Err() != nil {
		return // the node stops, or the vDisk is removed
	}
	if err != nil {
		again := *f // readers have f without a lock
		again.err = err
		n.failed[f.Name] = &again
		n.log.Error("a vDisk still does not open", "vdisk", f.Name, "error", err)
		return
	}
	delete(n.failed, f.Name)
	n.vdisks[f.Name] = d
	n.log.Info("a vDisk that had not opened serves now", "vdisk", f.Name)
}

// removeFailed removes a vDisk that does not open. REQUIRES: n.control is held.
func (n *Node) removeFailed(ctx context.Context, name string) error {
	n.mu.Lock()
	f := n.failed[name]
	if f != nil {
		f.try.stop()
	}
	n.mu.Unlock()
	if f != nil {
		f.try.Lock()
		defer f.try.Unlock()
		n.mu.Lock()
		f = n.failed[name]
		n.mu.Unlock()
	}
	if f == nil {
		return errs.New(errs.Busy, "vDisk %s has just been opened; remove it once more", name)
	}
	if err := n.registry.remove(ctx, f.record); err != nil {
		return err
	}
	n.mu.Lock()
	delete(n.failed, name)
	n.mu.Unlock()
	f.unpark()
	f.rig.loop.Call(func() { f.rig.jrn.ForgetVolume(f.ID) })
	n.background(func(ctx context.Context) { n.bury(ctx, f.record) })
	return nil
}

// failedVDisks shows them by name.
func (n *Node) failedVDisks() []api.VDisk {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []api.VDisk
	for _, f := range n.failed {
		out = append(out, f.show())
	}
	slices.SortFunc(out, func(a, b api.VDisk) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (f *failed) show() api.VDisk {
	rules := rulesOf(f.record)
	return api.VDisk{Name: f.Name, ID: uint64(f.ID), SizeBytes: f.Size, Created: f.Created,
		ReadOnly: rules.readOnly, Allow: rules.show(),
		Problem: "it does not open: " + f.err.Error()}
}
