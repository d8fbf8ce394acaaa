package stamp

import "fmt"

// sectorWrite is a write of sectors [lo, hi) of one block.
type sectorWrite struct {
	write
	lo, hi int
}

type sectorState [perBlock]uint64 // version of each sector, 0: zeros

func (s *sectorState) apply(w sectorWrite) {
	for i := w.lo; i < w.hi; i++ {
		s[i] = w.version
	}
}

// sectorBlock is what the oracle knows of a block that is written in parts, one part at a time: a
// settled state, and the writes since then in their order.
type sectorBlock struct {
	base   sectorState
	writes []sectorWrite
	busy   bool
}

// must is the number of writes, from the first, that cannot be missing.
func (b *sectorBlock) must(durable uint64) int {
	for i := len(b.writes) - 1; i >= 0; i-- {
		if b.writes[i].settled(durable) {
			return i + 1
		}
	}
	return 0
}

// prune folds what has settled into the base.
func (b *sectorBlock) prune(durable uint64) {
	n := b.must(durable)
	for _, w := range b.writes[:n] {
		b.base.apply(w)
	}
	b.writes = append(b.writes[:0], b.writes[n:]...)
}

// mayHold says whether the block may hold a state.
func (b *sectorBlock) mayHold(got sectorState, durable uint64) bool {
	s := b.base
	must := b.must(durable)
	for i, w := range b.writes {
		if i >= must && s == got {
			return true
		}
		s.apply(w)
	}
	return s == got
}

func (b *sectorBlock) want(durable uint64) string {
	s := b.base
	must := b.must(durable)
	for _, w := range b.writes[:must] {
		s.apply(w)
	}
	out := fmt.Sprintf("sector versions %v", s)
	for _, w := range b.writes[must:] {
		out += fmt.Sprintf(", then perhaps version %d in sectors %d to %d", w.version, w.lo, w.hi-1)
	}
	return out
}

func (b *sectorBlock) adopt(got sectorState) {
	b.base, b.writes, b.busy = got, b.writes[:0], false
}
