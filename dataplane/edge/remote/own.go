package remote

import (
	"vstor/dataplane/block"
	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
)

// A write of part of a block reads what is there, merges and writes it back. Two edges have a vDisk open while a
// machine moves from one to the other, and the one that holds it yields between two changes: between that read and
// that write too, and then the write would undo what the other has written meanwhile. A passive one that reads first
// and asks for the vDisk with its write is the same. So a partial write owns the vDisk from before its read to its
// end:
//
//	it begins     once this edge is exclusive and not asked to yield
//	meanwhile     the edge does not yield, and goes on with all changes: its own may stand behind others in line
//	others begin  that are partial when it has yielded and is exclusive again: so there is an end to it
type owning struct {
	who   block.Owner
	since int64 // loop time
}

// Own reports whether a partial write may begin now, and reckons with it until Disown; if not, who is told later, which
// counts as well if it is told OK. On the loop.
func (r *Remote) Own(who block.Owner) bool {
	if len(r.owning) == 0 && r.mayOwn() {
		r.owners++
		return true
	}
	r.owning = append(r.owning, owning{who, r.loop.Now()})
	r.loop.AtPassEnd(&r.owned)
	return false
}

func (r *Remote) mayOwn() bool {
	return r.mode == proto.Exclusive && !r.yielding && r.over() == errs.OK
}

// Disown is the end of a partial write. The vDisk is not given up in the call.
func (r *Remote) Disown() {
	r.owners--
	if r.owners == 0 && r.yielding {
		r.loop.AtPassEnd(&r.owned)
	}
}

// ownNext lets those begin that wait, or sees to it that they can.
func (r *Remote) ownNext() {
	r.atRest()
	for len(r.owning) > 0 && r.mayOwn() {
		r.owners++
		r.nextOwning().Owned(errs.OK)
	}
	switch k := r.over(); {
	case len(r.owning) == 0:
	case k != errs.OK:
		r.failOwning(k, r.loop.Now())
	case r.state == up && r.mode != proto.Exclusive:
		r.acquire()
	}
}

func (r *Remote) nextOwning() block.Owner {
	who := r.owning[0].who
	r.owning = r.owning[:copy(r.owning, r.owning[1:])]
	return who
}

// failOwning ends those that have waited since some time or longer, but none that comes meanwhile.
func (r *Remote) failOwning(k errs.Kind, since int64) {
	for n := len(r.owning); n > 0 && r.owning[0].since <= since; n-- {
		r.nextOwning().Owned(k)
	}
}

// ownSoon has ownNext look, outside of the call.
func (r *Remote) ownSoon() {
	if len(r.owning) > 0 {
		r.loop.AtPassEnd(&r.owned)
	}
}
