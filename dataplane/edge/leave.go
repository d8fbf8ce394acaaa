package edge

import "vstor/dataplane/ring"

// Reads that were found under a lease leave together at the end of the pass, behind one look at the clock, as late as
// this package can: the server's hook that sends is the next thing that runs. The look before, when the range was
// resolved, does not do: the process may have been stopped since, and somebody else may own the vDisk and have
// changed it.
//
// A partial write needs no second look: it owns the vDisk until it has ended, and what it read goes into a change,
// which its driver refuses if the vDisk was taken over.
type leaving struct {
	first, last *io // linked by next
	hook        ring.Hook
}

// leaveLater queues a read whose pieces are all there.
func (d *Disk) leaveLater(x *io) {
	l := &d.leaving
	x.next = nil
	if l.first == nil {
		l.first = x
	} else {
		l.last.next = x
	}
	l.last = x
	d.loop.AtPassEnd(&l.hook)
}

// leave answers the reads that wait, or has them climb the ladder again.
func (d *Disk) leave() {
	holds := d.leased.Holds()
	x := d.leaving.first
	d.leaving.first, d.leaving.last = nil, nil
	for x != nil {
		next := x.next
		x.next = nil
		if holds {
			x.assemble()
			x.finish()
		} else {
			d.Stats.LeaseLost.Add(1)
			x.dropPieces()
			x.resolve()
		}
		x = next
	}
}
