package pracc

import (
	"testing"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// halfDrive is a drive that this process can read while it knows where to, beside the process that knows it all.
type halfDrive struct {
	*memDrive
	knows bool
	lost  bool
}

func (d *halfDrive) Locate(key layout.FragKey, off, n uint32, dst []layout.Extent) (
	[]layout.Extent, uint64, errs.Kind) {
	if !d.knows {
		return dst, 0, errs.Unreachable
	}
	return d.memDrive.Locate(key, off, n, dst)
}

func (d *halfDrive) Unpin(pin uint64) bool { return d.memDrive.Unpin(pin) && !d.lost }

// What the drive does not know is read from the Remote, where that answers, and what it knows is not; a read whose
// extents were lost meanwhile is as good as none, and nobody's fault.
func TestDriveBesideRemote(t *testing.T) {
	halves := map[ids.ASDID]*halfDrive{}
	w, rs := newRemoteWorld(t, 6, 6, 16<<20, func(o *Options) {
		drives := o.Drives
		o.Drives = func(id ids.ASDID) Drive {
			if halves[id] == nil {
				halves[id] = &halfDrive{memDrive: drives(id).(*memDrive)}
			}
			return halves[id]
		}
	})
	o := w.put(1, 1000, pol42, 256<<10, 20<<10)
	remote := func() (n uint64) {
		w.loop.Call(func() {
			for _, r := range rs {
				n += r.token
			}
		})
		return n
	}
	each := func(f func(h *halfDrive)) {
		w.loop.Call(func() {
			for _, h := range halves {
				f(h)
			}
		})
	}
	w.want(o, 0, 1000)
	first := remote()
	if first == 0 {
		t.Fatal("no Remote was asked for what no drive knows")
	}
	each(func(h *halfDrive) { h.knows = true })
	w.want(o, 0, 1000)
	if n := remote(); n != first {
		t.Fatalf("Remotes were asked %d times for what the drives know", n-first)
	}
	w.loop.Call(func() { halves[0].lost = true })
	w.want(o, 0, 1000)
	w.loop.Call(func() {
		if len(w.rots) != 0 || w.c.stats.Corrupt.Load() != 0 {
			t.Errorf("%d reports of rot, %d corrupt blocks", len(w.rots), w.c.stats.Corrupt.Load())
		}
	})
	if w.c.stats.Rebuilds.Load() == 0 {
		t.Error("what may be other bytes was given out")
	}
	// Neither the drive nor its process: unreachable, as ever.
	each(func(h *halfDrive) { h.knows, h.lost = false, false })
	w.loop.Call(func() {
		for _, r := range rs[:3] {
			r.unready = true
		}
	})
	if fl := w.fetch(o, 0, 1000); fl.Err != errs.Unreachable {
		t.Fatal(fl.Err)
	}
	each(func(h *halfDrive) {
		if h.pins != 0 {
			t.Errorf("%d pins are left", h.pins)
		}
	})
}
