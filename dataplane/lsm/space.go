package lsm

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/errs"
	"vstor/dataplane/units"
)

// ballast is a file kept for the moment when the file system is full, because others write there too: what
// has been begun, a log record or an edit of the manifest, then still finds room.
type ballast struct {
	path    string
	mu      sync.Mutex
	present bool
	given   atomic.Bool // it was given up and is to be written again
	unknown atomic.Bool // the file system never tells its free space
}

const ballastName = "BALLAST"

// Avail is what the file system has free for us, in bytes; false if it does not tell.
func (g *Guard) Avail() (int64, bool) {
	if g.ballast.unknown.Load() {
		return 0, false
	}
	u, err := g.FS.GetDiskUsage(g.opts.Dir)
	if err != nil {
		// Only what cannot be had at all is not asked for again: one failed call must not end the watch.
		g.ballast.unknown.Store(errors.Is(err, vfs.ErrUnsupported))
		return 0, false
	}
	return int64(min(u.AvailBytes, 1<<62)), true
}

// Room is nil, or an error of kind Full while the file system has less than the reserve free.
func (g *Guard) Room() error {
	if g.opts.Reserve == 0 {
		return nil
	}
	avail, ok := g.Avail()
	if !ok || avail >= g.opts.Reserve {
		g.renewBallast(avail)
		return nil
	}
	return errs.New(errs.Full, "the file system of %s has %s free; %s takes writes again from %s on: free some space",
		g.opts.Dir, units.HumanSize(avail), g.opts.Name, units.HumanSize(g.opts.Reserve))
}

// LastRoom is nil while what must not be refused finds room: there is some, or the ballast is there to be given
// up.
func (g *Guard) LastRoom() error {
	if !g.Low() {
		return nil
	}
	g.ballast.mu.Lock()
	present := g.ballast.present
	g.ballast.mu.Unlock()
	if present {
		return nil
	}
	return g.Room()
}

// Low reports whether the file system is so full that what has been begun may not find room.
func (g *Guard) Low() bool {
	avail, ok := g.Avail()
	return ok && g.opts.Reserve > 0 && avail < max(g.opts.Ballast/2, 1<<20)
}

// SetBallast writes the ballast file if it is missing and there is room. Best effort.
func (g *Guard) SetBallast() {
	b := &g.ballast
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := g.FS.Stat(b.path); err == nil {
		b.present = true
		return
	}
	avail, ok := g.Avail()
	if !ok || g.opts.Ballast <= 0 || avail < g.opts.Reserve+2*g.opts.Ballast {
		return
	}
	f, err := g.FS.Create(b.path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return
	}
	// Written and not merely allocated: a file system that shares or compresses must not cheat.
	piece := make([]byte, 256<<10)
	x := uint64(1)
	for i := range piece {
		x = x*6364136223846793005 + 1442695040888963407
		piece[i] = byte(x >> 56)
	}
	for n := int64(0); n < g.opts.Ballast && err == nil; n += int64(len(piece)) {
		_, err = f.Write(piece)
	}
	b.present = true
	if errors.Join(err, f.Sync(), f.Close()) != nil {
		b.present = g.FS.Remove(b.path) != nil
	}
}

// drop gives the ballast up; false: there is none.
func (b *ballast) drop(g *Guard) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.present {
		return false
	}
	b.present = false
	b.given.Store(true)
	g.opts.Log("%s: the file system is full; its ballast is given up", g.opts.Name)
	return g.FS.Remove(b.path) == nil
}

// renewBallast writes the ballast again once space has returned, in the background.
func (g *Guard) renewBallast(avail int64) {
	b := &g.ballast
	if !b.given.Load() || avail < g.opts.Reserve+2*g.opts.Ballast || !b.given.CompareAndSwap(true, false) {
		return
	}
	go g.SetBallast()
}
