package remote

import (
	"context"
	"log/slog"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/router"
)

// The router of the world: its lives.

// KeepHolder implements router.Keeper.
func (w *world) KeepHolder(_ context.Context, _ ids.VolumeID, r router.Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = r
	return nil
}

// find is the vDisk of a name (router.ServerOptions).
func (w *world) find(name string) (*router.VDisk, error) {
	if name != "v" {
		return nil, errs.New(errs.Absent, "there is no vDisk named %s", name)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.v.door, nil
}

// openDoor lets edges open the vDisk, as who was kept last may.
func (w *world) openDoor(id ids.VolumeID) {
	w.v.loop.Call(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.v.door = router.NewVDisk(router.Options{ID: id, Name: "v", Epoch: w.epoch, Loop: w.v.loop, Hub: w.v.hub,
			Device: w.v, Driver: w.v, Objects: w.v, Keeper: w, Clock: w.clock, Former: w.kept,
			ReadOnly: func() bool { return w.v.constant }, Log: slog.New(slog.DiscardHandler)})
	})
}

func (w *world) closeDoor() {
	done := make(chan struct{})
	w.v.loop.Call(func() { w.v.door.Close(func() { close(done) }) })
	<-done
}

// restart is the death of the router and its next life. What it was told takes effect, or not; meanwhile is run on its
// loop between the two.
func (w *world) restart(id ids.VolumeID, meanwhile func()) {
	w.down.Store(true)
	w.cut()
	w.closeDoor()
	w.v.loop.Call(meanwhile)
	w.epoch++
	w.openDoor(id)
	w.down.Store(false)
}
