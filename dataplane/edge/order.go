package edge

import "vstor/dataplane/ids"

// Two writes of whole blocks that overlap need no care: the journal numbers them in the order of their
// calls and the higher number wins everywhere. A write of part of a block is different: it reads the
// block, merges and writes it back, so whatever changes that block in between is undone. The obvious
// cure is a lock per block; but nearly all writes are whole blocks, and they would all pay for it.
// Instead every mutation is in a list, and only partial ones look at it:
//
//	a partial one waits until no mutation that overlaps it is under way (its read must see them),
//	every one waits while a partial one that overlaps it is under way or waits before it.
//
// So order is kept, over all connections, and where no partial write is under way admission is one
// list insertion.
type order struct {
	active  *io // doubly linked by succ and prev
	partial int // how many of the active are partial
	wait    *io // singly linked by next, oldest first
	last    *io
}

func (x *io) overlaps(y *io) bool {
	return x.first < y.first+ids.BlockAddr(y.count) && y.first < x.first+ids.BlockAddr(x.count)
}

// admit starts a mutation now or when its turn comes.
func (x *io) admit(partial bool) {
	o := &x.d.order
	x.rmw = partial
	if x.count == 0 {
		x.d.loop.Defer(&x.op, 0)
		return
	}
	if (o.partial > 0 || partial || o.wait != nil) && o.blocked(x, nil) {
		x.d.Stats.Waits.Add(1)
		x.next = nil
		if o.wait == nil {
			o.wait = x
		} else {
			o.last.next = x
		}
		o.last = x
		return
	}
	o.enter(x)
	x.start()
}

// blocked reports whether x must wait for an active mutation, or for a waiting one before end.
func (o *order) blocked(x, end *io) bool {
	for a := o.active; a != nil; a = a.succ {
		if (x.rmw || a.rmw) && a.overlaps(x) {
			return true
		}
	}
	for w := o.wait; w != end; w = w.next {
		if w.overlaps(x) {
			return true
		}
	}
	return false
}

func (o *order) enter(x *io) {
	if x.rmw {
		o.partial++
	}
	x.prev, x.succ = nil, o.active
	if o.active != nil {
		o.active.prev = x
	}
	o.active = x
}

func (o *order) leave(x *io) {
	if x.rmw {
		o.partial--
	}
	if x.prev == nil {
		o.active = x.succ
	} else {
		x.prev.succ = x.succ
	}
	if x.succ != nil {
		x.succ.prev = x.prev
	}
	x.prev, x.succ = nil, nil
}

// admitWaiting starts every waiting mutation whose way is clear, oldest first.
func (o *order) admitWaiting() {
	var prev *io
	for x := o.wait; x != nil; {
		next := x.next
		if o.blocked(x, x) {
			prev, x = x, next
			continue
		}
		if prev == nil {
			o.wait = next
		} else {
			prev.next = next
		}
		if o.last == x {
			o.last = prev
		}
		x.next = nil
		o.enter(x)
		x.start()
		x = next
	}
}
