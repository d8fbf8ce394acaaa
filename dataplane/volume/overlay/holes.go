package overlay

import (
	"slices"
	"sort"

	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// HoleKind says how a range came to read as zeros; it is layout.OffZero or layout.OffTrimmed.
type HoleKind uint8

// Hole is a range that reads as zeros unless it was written later.
type Hole struct {
	Addr  ids.BlockAddr
	Count uint64 // blocks
	Seq   ids.Seq
	Kind  HoleKind
	Pos   uint32 // where the journal has its record, in blocks
}

func (h Hole) end() ids.BlockAddr { return h.Addr + ids.BlockAddr(h.Count) }

// kind is what a Lookup of its blocks says.
func (h *Hole) kind() Kind {
	if h.Kind == layout.OffZero {
		return Zeros
	}
	return Trimmed
}

// holeSet is a list of ranges by address that do not overlap: a newer range cuts older ones. A trim of
// a terabyte is one element. Insertion moves the tail of the list, which the Volume Driver keeps
// short by closing a batch that has many.
type holeSet struct {
	list []Hole
}

// after is the index of the first hole that ends behind addr.
func (s *holeSet) after(addr ids.BlockAddr) int {
	return sort.Search(len(s.list), func(i int) bool { return s.list[i].end() > addr })
}

// at returns the hole that covers addr.
func (s *holeSet) at(addr ids.BlockAddr) *Hole {
	i := s.after(addr)
	if i < len(s.list) && s.list[i].Addr <= addr {
		return &s.list[i]
	}
	return nil
}

// add puts h over what is there. REQUIRES: h.Seq is higher than every Seq in the set that it overlaps.
func (s *holeSet) add(h Hole) {
	i := s.after(h.Addr)
	j := i
	var keep [3]Hole
	n := 0
	if i < len(s.list) && s.list[i].Addr < h.Addr {
		left := s.list[i]
		left.Count = uint64(h.Addr - left.Addr)
		keep[n] = left
		n++
	}
	keep[n] = h
	n++
	for j < len(s.list) && s.list[j].Addr < h.end() {
		j++
	}
	if j > i {
		if last := s.list[j-1]; last.end() > h.end() {
			right := last
			right.Addr = h.end()
			right.Count = uint64(last.end() - h.end())
			keep[n] = right
			n++
		}
	}
	s.list = slices.Replace(s.list, i, j, keep[:n]...)
}

// Flatten makes one list of the holes of several batches, by address and not overlapping: where two meet, the one that
// comes later in holes counts.
func Flatten(holes []Hole) []Hole {
	var s holeSet
	for _, h := range holes {
		s.add(h)
	}
	return s.list
}
