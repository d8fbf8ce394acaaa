// Package sum computes the checksums of many pieces of data at once. Pure; any goroutine.
//
// Every byte is hashed when it comes in, when it is sealed, and as part of a fragment on both ends, all with XXH64,
// which is a chain: each 32 bytes wait for the multiplications of those before, about 4 bytes a cycle whatever the CPU
// is. But blocks and regions come in numbers, and their chains know nothing of one another. So eight of them go side by
// side through vector registers, where a CPU multiplies 64-bit lanes (AVX-512); elsewhere, and alone, they go through
// cespare/xxhash as ever. The sums are the same.
package sum

import (
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// lanes is how many pieces go side by side.
const lanes = 8

// blockSize is what Blocks and Batch take apart, in bytes.
const blockSize = 4096

// stripe is what a round of XXH64 takes in, in bytes: pieces are whole ones.
const stripe = 32

// The primes of XXH64 (github.com/Cyan4973/xxHash, doc/xxhash_spec.md).
const (
	prime1 uint64 = 0x9E3779B185EBCA87
	prime2 uint64 = 0xC2B2AE3D27D4EB4F
	prime3 uint64 = 0x165667B19E3779F9
	prime4 uint64 = 0x85EBCA77C2B2AE63
)

// Each is the XXH64 of each of pieces, all of one length, a multiple of 32 and not 0, into out.
func Each(out []uint64, pieces [][]byte) {
	for len(pieces) > 0 {
		var from [lanes]*byte
		n := min(lanes, len(pieces))
		for i, p := range pieces[:n] {
			from[i] = &p[0]
			_ = p[len(pieces[0])-1]
		}
		if !each(out[:n], &from, len(pieces[0])) {
			for i, p := range pieces[:n] {
				out[i] = xxhash.Sum64(p)
			}
		}
		out, pieces = out[n:], pieces[n:]
	}
}

// Cut is the XXH64 of each size bytes of b, the last of which may be shorter, into out, which has room for all; size is
// a multiple of 32.
func Cut(out []uint64, b []byte, size int) {
	for len(b) >= size {
		var from [lanes]*byte
		n := min(lanes, len(b)/size)
		for i := range n {
			from[i] = &b[i*size]
		}
		if !each(out[:n], &from, size) {
			for i := range n {
				out[i] = xxhash.Sum64(b[i*size : (i+1)*size])
			}
		}
		out, b = out[n:], b[n*size:]
	}
	if len(b) > 0 {
		out[0] = xxhash.Sum64(b)
	}
}

// Batch collects blocks that lie anywhere. The zero Batch is empty.
type Batch struct {
	blocks [lanes][]byte
	n      int
}

// BatchSize is how many blocks a Batch holds.
const BatchSize = lanes

// Add takes in a block of 4 KiB. Full: Sums comes next.
func (b *Batch) Add(block []byte) (full bool) {
	b.blocks[b.n] = block[:blockSize]
	b.n++
	return b.n == lanes
}

// Sums is the low half of the XXH64 of each block in the order of Add, in out, and empties the batch.
func (b *Batch) Sums(out *[BatchSize]uint32) []uint32 {
	var whole [lanes]uint64
	Each(whole[:b.n], b.blocks[:b.n])
	for i := range b.n {
		out[i] = uint32(whole[i])
		b.blocks[i] = nil
	}
	n := b.n
	b.n = 0
	return out[:n]
}

// Blocks is the low half of the XXH64 of each block of b, whole blocks of 4 KiB, into out.
func Blocks(out []uint32, b []byte) {
	var whole [lanes]uint64
	for len(b) > 0 {
		n := min(lanes, len(b)/blockSize)
		Cut(whole[:n], b[:n*blockSize], blockSize)
		for i := range n {
			out[i] = uint32(whole[i])
		}
		out, b = out[n:], b[n*blockSize:]
	}
}

// each hashes as many pieces of size bytes as out has, two to lanes, side by side. False: it does not here.
func each(out []uint64, from *[lanes]*byte, size int) bool {
	n := len(out)
	if !vectors || n < 2 || size%stripe != 0 {
		return false
	}
	for i := n; i < lanes; i++ {
		from[i] = from[0] // hashed for nothing
	}
	var acc [lanes][4]uint64
	for i := range acc {
		acc[i] = [4]uint64{prime1, prime2, 0, 0}
		acc[i][0] += prime2
		acc[i][3] -= prime1
	}
	rounds(&acc, from, size)
	for i := range out {
		out[i] = finish(&acc[i], uint64(size))
	}
	return true
}

// finish makes a sum of the four chains of a piece of n bytes, which ends with a whole stripe.
func finish(v *[4]uint64, n uint64) uint64 {
	h := bits.RotateLeft64(v[0], 1) + bits.RotateLeft64(v[1], 7) + bits.RotateLeft64(v[2], 12) +
		bits.RotateLeft64(v[3], 18)
	for _, x := range v {
		h = (h^bits.RotateLeft64(x*prime2, 31)*prime1)*prime1 + prime4
	}
	h += n
	h = (h ^ h>>33) * prime2
	h = (h ^ h>>29) * prime3
	return h ^ h>>32
}
