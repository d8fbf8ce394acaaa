package volume

import (
	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
	"vstor/dataplane/volume/pagemap"
)

// Warm is a hint and must cost those nothing who read and write meanwhile: of all that came one is under way,
// it loads a few pages at a time, and it takes a bounded look in each pass of the loop, whatever was asked
// for. Pages wait for their turn in the map behind those that a reader waits for, so a client that warms a
// whole disk slows a miss down by a few loads.
type warmer struct {
	v       *Volume
	first   *warm // under way; linked by next, oldest first
	last    *warm
	free    *warm
	loading int // pages of the first one
	timer   ring.Timer
	loaded  func(error) // bound once
}

// warm is one range, in pages.
type warm struct {
	at, end pagemap.PageNo
	l       block.Loaded
	next    *warm
}

const (
	warmTogether = 8    // pages loaded at a time
	warmLook     = 4096 // pages looked at in a pass, about 50 us
)

func (w *warmer) init(v *Volume) {
	w.v = v
	w.timer.Fire = w.step
	w.loaded = func(error) { // a page that cannot be read is no page to warm; readers are told
		if w.loading--; w.loading == 0 {
			w.step()
		}
	}
}

// Warm brings the pages of the map for n blocks from addr on into RAM, the first of them if all would take
// more than a user's share of the map's budget, and tells l when it is done: OK, or Closed. On the loop; l is
// told there, not from inside the call.
func (v *Volume) Warm(addr ids.BlockAddr, n int, l block.Loaded) {
	w := &v.warmer
	x := w.free
	if x == nil {
		x = new(warm)
	} else {
		w.free = x.next
	}
	*x = warm{at: pagemap.PageOf(addr), l: l}
	x.end = x.at
	if n > 0 {
		x.end = pagemap.PageOf(addr+ids.BlockAddr(n-1)) + 1
	}
	x.end = min(x.end, x.at+pagemap.PageNo(v.m.CacheShare()))
	if w.first == nil {
		w.first = x
		v.loop.After(&w.timer, 0)
	} else {
		w.last.next = x
	}
	w.last = x
}

// step goes on until it has to wait: for pages, or for the next pass.
func (w *warmer) step() {
	left := warmLook
	for w.first != nil && w.loading == 0 {
		x := w.first
		for x.at < x.end && w.loading < warmTogether && left > 0 && !w.v.closed {
			if !w.v.m.Resident(x.at) {
				w.loading++
				w.v.m.Load(x.at, w.loaded)
			}
			x.at++
			left--
		}
		switch {
		case w.loading > 0:
			return
		case left <= 0:
			w.v.loop.After(&w.timer, 0)
			return
		}
		w.end(x)
		left--
	}
}

// end tells whoever waits for the first one.
func (w *warmer) end(x *warm) {
	l := x.l
	w.first = x.next
	*x = warm{next: w.free}
	w.free = x
	if w.v.closed {
		l.MapLoaded(errs.Closed)
		return
	}
	l.MapLoaded(errs.OK)
}
