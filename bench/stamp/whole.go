package stamp

import (
	"fmt"
	"strings"
)

// write is one issued write, zeroing or trim as one block saw it.
type write struct {
	version uint64 // 0: the block reads as zeros
	issued  uint64 // ticks of the oracle
	acked   uint64 // 0: not (yet) acknowledged
	fua     bool
}

// settled says whether a write must outlive the crash that is tested.
func (w write) settled(durable uint64) bool {
	return w.acked != 0 && (w.fua || w.acked <= durable)
}

// wholeBlock is what the oracle knows of a block that is written as a whole. An untouched one costs
// little: no writes means zeros.
type wholeBlock struct {
	writes  []write
	writers int32 // in flight
	reading bool
}

// prune forgets writes that no crash can bring back: those that were acknowledged before one that
// settled was issued.
func (b *wholeBlock) prune(durable uint64) {
	var newest uint64 // tick at which the last settled write was issued
	for _, w := range b.writes {
		if w.settled(durable) {
			newest = max(newest, w.issued)
		}
	}
	keep := b.writes[:0]
	for _, w := range b.writes {
		if w.acked == 0 || w.acked >= newest {
			keep = append(keep, w)
		}
	}
	b.writes = keep
}

// mayHold says whether the block may hold a version, given what counts as settled.
func (b *wholeBlock) mayHold(version, durable uint64) bool {
	newest := uint64(0)
	for _, w := range b.writes {
		if w.settled(durable) {
			newest = max(newest, w.issued)
		}
	}
	if version == 0 && newest == 0 {
		return true // never written for certain: still zeros
	}
	for _, w := range b.writes {
		if w.version == version && (w.acked == 0 || w.acked >= newest) {
			return true
		}
	}
	return false
}

// want describes what the block may hold.
func (b *wholeBlock) want(durable uint64) string {
	var out []string
	for _, w := range b.writes {
		s := fmt.Sprintf("version %d", w.version)
		if w.version == 0 {
			s = "zeros"
		}
		switch {
		case w.settled(durable):
			s += " (settled)"
		case w.acked != 0:
			s += " (acknowledged)"
		default:
			s += " (issued)"
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		return "zeros, it was never written"
	}
	return strings.Join(out, ", ")
}

// adopt takes what was read after a crash as the block's one state.
func (b *wholeBlock) adopt(version, tick uint64) {
	b.writes = append(b.writes[:0], write{version: version, issued: tick, acked: tick, fua: true})
	b.writers, b.reading = 0, false
}
