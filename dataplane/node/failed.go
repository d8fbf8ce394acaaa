package node

import (
	"context"
	"slices"
	"strings"
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
}

// park keeps a vDisk that did not open, with what the journal has of it.
func (n *Node) park(r record, log []volume.LogEntry, why error) *failed {
	f := &failed{record: r, rig: n.rigs[r.Loop], err: why}
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

// unpark takes back what the journal has of it, with the places where that is now.
func (f *failed) unpark() []volume.LogEntry {
	got := make(chan []volume.LogEntry, 1)
	if !f.rig.loop.Call(func() { f.parked.Unpark(func(log []volume.LogEntry) { got <- log }) }) {
		return nil
	}
	return <-got
}

// refusal is what a client hears.
func (f *failed) refusal() error {
	return errs.New(errs.Of(f.err), "vDisk %s does not open: %v", f.Name, f.err)
}

// Opening a failed vDisk is tried again after reopenMin, then less and less often.
const (
	reopenMin = time.Second
	reopenMax = time.Minute
	// reopenTimeout bounds one try, during which no vDisk can be made or removed.
	reopenTimeout = 20 * time.Second
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

func (n *Node) tryReopen(ctx context.Context, f *failed) {
	n.control.Lock()
	defer n.control.Unlock()
	n.mu.Lock()
	there := n.failed[f.Name] == f
	n.mu.Unlock()
	if !there {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, reopenTimeout)
	defer cancel()
	log := f.unpark()
	d, err := n.openVDisk(ctx, f.record, log)
	if err != nil {
		n.park(f.record, log, err)
		return
	}
	n.mu.Lock()
	delete(n.failed, f.Name)
	n.vdisks[f.Name] = d
	n.mu.Unlock()
	n.log.Info("a vDisk that had not opened serves now", "vdisk", f.Name)
}

// removeFailed removes a vDisk that does not open. REQUIRES: n.control is held.
func (n *Node) removeFailed(ctx context.Context, name string) error {
	n.mu.Lock()
	f := n.failed[name]
	n.mu.Unlock()
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
	return api.VDisk{Name: f.Name, ID: uint64(f.ID), SizeBytes: f.Size, Created: f.Created,
		Problem: "it does not open: " + f.err.Error()}
}
