package blockcache

import "math/bits"

// door remembers blocks that left RAM unread, so that a second time they go to the SSD. It forgets: four names of 16
// bits share a word, a fifth pushes the oldest out, and two blocks of one name are taken for one, one time
// in 16,000. That writes a block too many now and then.
type door struct {
	words []uint64
	mask  uint64
}

// makeDoor makes a door over n bytes of memory, a power of two.
func makeDoor(words []uint64) door {
	return door{words: words, mask: uint64(len(words)) - 1}
}

// pass reports whether a block was here before, and remembers it.
func (d *door) pass(hash uint64) bool {
	w := &d.words[hash&d.mask]
	name := max(hash>>48, 1) // 0 is nobody
	const lanes = 0x0001000100010001
	// A lane that is equal becomes zero; the classic test for a zero among them may name a wrong one, but not for none.
	x := *w ^ name*lanes
	if (x-lanes)&^x&(0x8000*lanes) != 0 {
		return true
	}
	*w = *w<<16 | name
	return false
}

// count is how many names are remembered.
func (d *door) count() (n int) {
	for _, w := range d.words {
		n += (bits.Len64(w) + 15) / 16
	}
	return n
}
