package store

import (
	"cmp"
	"math/bits"
	"slices"

	"vstor/dataplane/invariants"
)

// blockNumberBits is how many bits name a block of the drive: 4 PiB.
const blockNumberBits = 40

// run is n blocks of the drive from block start.
type run struct{ start, n uint64 }

func (r run) end() uint64 { return r.start + r.n }

func runsLen(rs []run) uint64 {
	var n uint64
	for _, r := range rs {
		n += r.n
	}
	return n
}

// space knows the free runs of a drive. Callers hold a mutex around it.
//
// The obvious list of free runs by offset finds a fit in time that grows with the number of holes, and
// a tree costs a dozen cache misses per put. Instead runs of like size stand in lists, sixteen to each
// power of two, with a bit per list that is not empty, and two maps find the neighbours of what is
// freed (a two-level segregated fit): both ways take constant time with a million holes. Fragments
// mostly have one size, so a hole is taken again by what just fits it.
type space struct {
	slots   []freeRun
	unused  int32 // list of slots that hold nothing, -1 ends it
	byStart map[uint64]int32
	byEnd   map[uint64]int32
	heads   [binLevels * binSteps]int32
	levels  uint64
	steps   [binLevels]uint16
	free    uint64 // blocks
}

type freeRun struct {
	run
	next, prev int32
}

const (
	binSteps  = 16
	binLevels = 40
	// binLook bounds the search of a list whose runs may or may not be long enough.
	binLook = 64
)

func newSpace() *space {
	s := &space{unused: -1, byStart: map[uint64]int32{}, byEnd: map[uint64]int32{}}
	for i := range s.heads {
		s.heads[i] = -1
	}
	return s
}

// binOf is the list of runs of n blocks: exact below 16, then 16 steps to a power of two.
func binOf(n uint64) (level, step int) {
	if n < binSteps {
		return 0, int(n)
	}
	l := bits.Len64(n) - 1
	return l - 3, int(n>>(l-4)) & (binSteps - 1)
}

// add gives a run back and joins it with its free neighbours.
func (s *space) add(r run) {
	s.free += r.n
	if i, ok := s.byEnd[r.start]; ok {
		r = run{s.slots[i].start, s.slots[i].n + r.n}
		s.unlink(i)
	}
	if i, ok := s.byStart[r.end()]; ok {
		r.n += s.slots[i].n
		s.unlink(i)
	}
	s.link(r)
}

func (s *space) link(r run) {
	i := s.unused
	if i >= 0 {
		s.unused = s.slots[i].next
	} else {
		i = int32(len(s.slots))
		s.slots = append(s.slots, freeRun{})
	}
	l, st := binOf(r.n)
	head := &s.heads[l*binSteps+st]
	s.slots[i] = freeRun{run: r, next: *head, prev: -1}
	if *head >= 0 {
		s.slots[*head].prev = i
	}
	*head = i
	s.levels |= 1 << l
	s.steps[l] |= 1 << st
	s.byStart[r.start] = i
	s.byEnd[r.end()] = i
}

func (s *space) unlink(i int32) {
	f := s.slots[i]
	l, st := binOf(f.n)
	if f.prev >= 0 {
		s.slots[f.prev].next = f.next
	} else {
		s.heads[l*binSteps+st] = f.next
	}
	if f.next >= 0 {
		s.slots[f.next].prev = f.prev
	}
	if s.heads[l*binSteps+st] < 0 {
		s.steps[l] &^= 1 << st
		if s.steps[l] == 0 {
			s.levels &^= 1 << l
		}
	}
	delete(s.byStart, f.start)
	delete(s.byEnd, f.end())
	s.slots[i] = freeRun{next: s.unused, prev: -1}
	s.unused = i
}

// take cuts n blocks off the front of the free run in slot i.
func (s *space) take(i int32, n uint64) run {
	r := s.slots[i].run
	s.unlink(i)
	if r.n > n {
		s.link(run{r.start + n, r.n - n})
	}
	s.free -= n
	return run{r.start, n}
}

// find returns the slot of a run of at least n blocks, or -1: from n's own list if one of the first
// fits, else from the next list that is not empty, whose runs all do.
func (s *space) find(n uint64) int32 {
	l, st := binOf(n)
	look := binLook
	for i := s.heads[l*binSteps+st]; i >= 0 && look > 0; i, look = s.slots[i].next, look-1 {
		if s.slots[i].n >= n {
			return i
		}
	}
	if m := s.steps[l] >> (st + 1) << (st + 1); m != 0 {
		return s.heads[l*binSteps+bits.TrailingZeros16(m)]
	}
	if m := s.levels >> (l + 1) << (l + 1); m != 0 {
		l = bits.TrailingZeros64(m)
		return s.heads[l*binSteps+bits.TrailingZeros16(s.steps[l])]
	}
	return -1
}

// largest returns the slot of a run at most a sixteenth shorter than the longest, or -1.
func (s *space) largest() int32 {
	if s.levels == 0 {
		return -1
	}
	l := bits.Len64(s.levels) - 1
	return s.heads[l*binSteps+bits.Len16(s.steps[l])-1]
}

// alloc appends to dst n blocks in one run, or in as few as it finds up to maxExtents, by ascending
// address. false: there are no n blocks in so few pieces; nothing has changed.
func (s *space) alloc(dst []run, n uint64) ([]run, bool) {
	if s.free < n {
		return dst, false
	}
	keep := len(dst)
	for left := n; left > 0; {
		i := s.find(left)
		if i < 0 && len(dst)-keep < maxExtents-1 {
			i = s.largest()
		}
		if i < 0 {
			for _, r := range dst[keep:] {
				s.add(r)
			}
			return dst[:keep], false
		}
		r := s.take(i, min(left, s.slots[i].n))
		dst = append(dst, r)
		left -= r.n
	}
	slices.SortFunc(dst[keep:], func(a, b run) int { return cmp.Compare(a.start, b.start) })
	if invariants.Enabled {
		invariants.Assert(runsLen(dst[keep:]) == n, "store: allocated %v for %d blocks", dst[keep:], n)
	}
	return dst, true
}

// runs is a copy of all free runs, in no order.
func (s *space) runs() []run {
	out := make([]run, 0, len(s.byStart))
	for _, i := range s.byStart {
		out = append(out, s.slots[i].run)
	}
	return out
}
