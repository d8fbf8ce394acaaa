package pagemap

import (
	"vstor/dataplane/invariants"
	"vstor/dataplane/layout"
)

// slabLocs is a slab's size in locations: 12 KiB, a size class of Go's allocator.
const (
	slabLocs  = 1024
	slabBytes = slabLocs * layout.LocationSize
	slotBits  = 8 // slots of a slab: at most slabLocs / slabSizes[0]
)

// slabSizes are the sizes of slots, in locations. Steps are small: a page that gathers deltas moves
// through all of them, and what a slot has too much is RAM that absorbs no writes (6 % at 33 deltas).
var slabSizes = [...]uint16{4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 200, 256}

const _ = uint(1<<slotBits - slabLocs/4)

// slabs keeps the deltas of a map's pages: packed slices of locations, named by a handle of 4 bytes.
//
// A Go slice per page would do the same, at 24 bytes a page and with the garbage collector walking a
// pointer per page and keeping the outgrown ones until it runs. Here nothing counted per page holds a
// pointer, an outgrown slot is reused at once, and the bytes held are known exactly.
//
// A slab has slots of one size. Slabs with free slots form a list per size; a slab with no used slot
// goes back.
type slabs struct {
	budget *Budget
	all    []slab
	gone   []uint32 // indexes into all without memory
	spare  [][]layout.Location
	part   [len(slabSizes)]uint32 // first slab with a free slot, index + 1
	used   int64                  // bytes in slots that are in use
}

type slab struct {
	mem        []layout.Location
	size       uint16 // locations per slot
	class      uint8
	inUse      uint16
	fresh      uint16 // slots from here on were never used
	free       uint16 // first free slot below fresh, + 1; the next is in its first location's Sum
	next, prev uint32 // in the list of its class, index + 1
}

// spareMax bounds the empty slabs kept for reuse.
const spareMax = 16

func classFor(n int) int {
	for c, s := range slabSizes {
		if int(s) >= n {
			return c
		}
	}
	panic("BUG: a page has no more than 256 deltas")
}

// get is the slot's memory. It stays the caller's until free.
func (a *slabs) get(h uint32) []layout.Location {
	s := &a.all[(h-1)>>slotBits]
	at := int((h-1)&(1<<slotBits-1)) * int(s.size)
	return s.mem[at : at+int(s.size) : at+int(s.size)]
}

// alloc returns the handle of a slot for n locations; never 0.
func (a *slabs) alloc(n int) uint32 {
	c := classFor(n)
	if a.part[c] == 0 {
		a.grow(c)
	}
	i := a.part[c] - 1
	s := &a.all[i]
	var slot uint16
	if s.free != 0 {
		slot = s.free - 1
		s.free = uint16(s.mem[int(slot)*int(s.size)].Sum)
	} else {
		slot = s.fresh
		s.fresh++
	}
	s.inUse++
	if int(s.inUse) == slabLocs/int(s.size) {
		a.unlink(i)
	}
	a.used += int64(s.size) * layout.LocationSize
	return (i<<slotBits | uint32(slot)) + 1
}

func (a *slabs) free(h uint32) {
	i, slot := (h-1)>>slotBits, uint16((h-1)&(1<<slotBits-1))
	s := &a.all[i]
	if s.inUse == 0 || slot >= s.fresh {
		invariants.Assert(false, "slot %d of slab %d freed twice", slot, i)
	}
	if int(s.inUse) == slabLocs/int(s.size) {
		a.link(i)
	}
	s.mem[int(slot)*int(s.size)].Sum = uint32(s.free)
	s.free = slot + 1
	s.inUse--
	a.used -= int64(s.size) * layout.LocationSize
	if s.inUse > 0 {
		return
	}
	a.unlink(i)
	if len(a.spare) < spareMax {
		a.spare = append(a.spare, s.mem)
	} else {
		a.budget.used.Add(-slabBytes)
	}
	a.all[i] = slab{}
	a.gone = append(a.gone, i)
}

// dropSpare gives the spare slabs back to the collector.
func (a *slabs) dropSpare() {
	a.budget.used.Add(-int64(len(a.spare)) * slabBytes)
	clear(a.spare)
	a.spare = a.spare[:0]
}

// grow adds a slab of class c to its list.
func (a *slabs) grow(c int) {
	var mem []layout.Location
	if n := len(a.spare); n > 0 {
		mem = a.spare[n-1]
		a.spare = a.spare[:n-1]
	} else {
		mem = make([]layout.Location, slabLocs)
		a.budget.used.Add(slabBytes)
	}
	var i uint32
	if n := len(a.gone); n > 0 {
		i = a.gone[n-1]
		a.gone = a.gone[:n-1]
	} else {
		i = uint32(len(a.all))
		a.all = append(a.all, slab{})
	}
	a.all[i] = slab{mem: mem, size: slabSizes[c], class: uint8(c)}
	a.link(i)
}

func (a *slabs) link(i uint32) {
	s := &a.all[i]
	s.prev, s.next = 0, a.part[s.class]
	if s.next != 0 {
		a.all[s.next-1].prev = i + 1
	}
	a.part[s.class] = i + 1
}

func (a *slabs) unlink(i uint32) {
	s := &a.all[i]
	if s.prev != 0 {
		a.all[s.prev-1].next = s.next
	} else {
		a.part[s.class] = s.next
	}
	if s.next != 0 {
		a.all[s.next-1].prev = s.prev
	}
	s.next, s.prev = 0, 0
}

// insert puts loc at place at of the n locations of slot h and returns the slot they are in now.
func (a *slabs) insert(h uint32, n, at int, loc layout.Location) uint32 {
	if h == 0 {
		h = a.alloc(1)
	} else if old := a.get(h); n == len(old) {
		to := a.alloc(n + 1)
		d := a.get(to)
		copy(d, old[:at])
		copy(d[at+1:], old[at:n])
		d[at] = loc
		a.free(h)
		return to
	}
	d := a.get(h)
	copy(d[at+1:n+1], d[at:n])
	d[at] = loc
	return h
}

// shrink moves the first n locations of slot h to the smallest slot that holds them; 0 if n is 0.
func (a *slabs) shrink(h uint32, n int) uint32 {
	if n == 0 {
		a.free(h)
		return 0
	}
	old := a.get(h)
	if int(slabSizes[classFor(n)]) == len(old) {
		return h
	}
	to := a.alloc(n)
	copy(a.get(to), old[:n])
	a.free(h)
	return to
}
