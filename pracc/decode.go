package pracc

import (
	"bytes"
	"math/bits"

	"vstor/dataplane/buf"
	"vstor/dataplane/erasure"
	"vstor/dataplane/ids"
)

// inlineBlocks is how many blocks the loop decodes itself: 64 KiB, some 20 us. More is a worker's.
const inlineBlocks = 16

// decode computes blocks of one fragment from others and checks them. While it runs it owns the
// source pages and the destination's wanted blocks, so it may run on any goroutine.
type decode struct {
	pool   *buf.Pool
	codec  *erasure.Codec
	target int // fragment
	dst    *buf.Vec
	dstOff uint32 // bytes of dst to block 0
	sums   []uint32
	want   uint64 // blocks

	frags    []int      // sources, the most trusted first
	vecs     []*buf.Vec // their pages, from block 0 on
	triesMax int        // combinations for one block

	fixed  uint64 // blocks that match now
	rotten uint64 // fragments that contradict a block that matches

	have []int    // one combination
	src  [][]byte // and its ranges
	tmp  []byte
}

func (j *decode) reset() {
	clear(j.vecs)
	clear(j.src)
	j.frags, j.vecs, j.src, j.have = j.frags[:0], j.vecs[:0], j.src[:0], j.have[:0]
	j.fixed, j.rotten = 0, 0
}

func (j *decode) add(frag int, v *buf.Vec) {
	j.frags = append(j.frags, frag)
	j.vecs = append(j.vecs, v)
}

// inline reports whether the work is small enough for the loop.
func (j *decode) inline() bool { return bits.OnesCount64(j.want)*j.triesMax <= inlineBlocks }

// run does the work; fixed and rotten are its result.
func (j *decode) run() {
	if j.triesMax == 1 {
		j.runFirst()
		return
	}
	for i := range len(j.sums) {
		if j.want&(1<<i) != 0 && !j.search(i) {
			return // the fetch fails with this block, whatever the others are
		}
	}
}

// runFirst decodes from the first k sources, in runs as long as memory is contiguous.
func (j *decode) runFirst() {
	j.choose(1<<j.codec.K() - 1)
	for i := 0; i < len(j.sums); {
		if j.want&(1<<i) == 0 {
			i++
			continue
		}
		out := j.dstAt(i)
		n := min(len(out)/ids.BlockSize, bits.TrailingZeros64(^(j.want >> i)))
		n = j.ranges(i, n)
		out = out[:n*ids.BlockSize]
		ok := j.codec.Reconstruct(out, j.target, j.have, j.src) == nil
		for b := range n {
			if ok && matches(out[b*ids.BlockSize:(b+1)*ids.BlockSize], j.sums[i+b]) {
				j.fixed |= 1 << (i + b)
			}
		}
		i += n
	}
}

// search tries combinations for block i. They are counted so that those of the most trusted sources come
// first: all of the first t sources before any with a later one. Sources found to be rotten are moved
// to the end, so the next block meets them last.
func (j *decode) search(i int) bool {
	k, n := j.codec.K(), len(j.frags)
	out := j.dstAt(i)[:ids.BlockSize]
	set := uint64(1)<<k - 1
	for try := 0; try < j.triesMax; try++ {
		if j.attempt(out, j.target, set, i) && matches(out, j.sums[i]) {
			j.fixed |= 1 << i
			if try > 0 {
				j.blame(set, i)
			}
			return true
		}
		// The next larger number with as many bits (Gosper).
		low := set & -set
		up := set + low
		set = up | (set^up)>>2>>bits.TrailingZeros64(low)
		if up == 0 || bits.Len64(set) > n {
			return false
		}
	}
	return false
}

// attempt computes block i of a fragment from the sources in set.
func (j *decode) attempt(out []byte, frag int, set uint64, i int) bool {
	j.choose(set)
	j.ranges(i, 1)
	return j.codec.Reconstruct(out, frag, j.have, j.src) == nil
}

// choose makes the sources in set the combination.
func (j *decode) choose(set uint64) {
	j.have, j.src = j.have[:0], j.src[:0]
	for ; set != 0; set &= set - 1 {
		s := bits.TrailingZeros64(set)
		j.have = append(j.have, j.frags[s])
		j.src = append(j.src, nil)
	}
}

// ranges finds the bytes of the combination's sources from block i on, at most n blocks, and returns
// how many are contiguous in all of them.
func (j *decode) ranges(i, n int) int {
	for s, frag := range j.have {
		b := bytesAt(j.pool, j.vecOf(frag), uint32(i*ids.BlockSize))
		n = min(n, len(b)/ids.BlockSize)
		j.src[s] = b
	}
	for s := range j.src {
		j.src[s] = j.src[s][:n*ids.BlockSize]
	}
	return n
}

func (j *decode) vecOf(frag int) *buf.Vec {
	for s, f := range j.frags {
		if f == frag {
			return j.vecs[s]
		}
	}
	panic("BUG: pracc: a source that was not added")
}

// dstAt is the destination from block i on.
func (j *decode) dstAt(i int) []byte {
	return bytesAt(j.pool, j.dst, j.dstOff+uint32(i*ids.BlockSize))
}

// blame finds the sources outside set that contradict it: what they should hold in block i follows from
// set, which gave a block that matches. Those inside set are right.
func (j *decode) blame(set uint64, i int) {
	if j.tmp == nil {
		j.tmp = make([]byte, ids.BlockSize)
	}
	var bad uint64 // by place in frags
	for s, frag := range j.frags {
		if set&(1<<s) != 0 || !j.attempt(j.tmp, frag, set, i) {
			continue
		}
		if b := bytesAt(j.pool, j.vecs[s], uint32(i*ids.BlockSize)); !bytes.Equal(b[:ids.BlockSize], j.tmp) {
			bad |= 1 << s
			j.rotten |= 1 << frag
		}
	}
	j.demote(bad)
}

// demote moves the sources at the places in bad behind the others.
func (j *decode) demote(bad uint64) {
	if bad == 0 {
		return
	}
	for end := len(j.frags); bad != 0; {
		s := bits.Len64(bad) - 1
		bad &^= 1 << s
		end--
		j.frags[s], j.frags[end] = j.frags[end], j.frags[s]
		j.vecs[s], j.vecs[end] = j.vecs[end], j.vecs[s]
	}
}
