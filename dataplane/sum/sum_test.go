package sum

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/cespare/xxhash/v2"
)

func noise(n int) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(b)
	return b
}

// forBoth runs a test with vectors, where there are any, and without.
func forBoth(t *testing.T, test func(t *testing.T)) {
	t.Run("plain", func(t *testing.T) {
		defer setVectors(setVectors(false))
		test(t)
	})
	t.Run("vectors", func(t *testing.T) {
		if !vectors {
			t.Skip("SKIPPED: this CPU does not multiply 64-bit lanes")
		}
		test(t)
	})
}

// The sums are those of xxhash, for any number of pieces of any length.
func TestSums(t *testing.T) {
	forBoth(t, func(t *testing.T) {
		b := noise(1<<20 + 4096)
		for n := range 20 {
			for _, size := range []int{32, 64, 4096, 4128, 65536} {
				if n*size > len(b) {
					continue
				}
				pieces, want := make([][]byte, n), make([]uint64, n)
				for i := range pieces {
					pieces[i] = b[i*size : (i+1)*size]
					want[i] = xxhash.Sum64(pieces[i])
				}
				got, cut := make([]uint64, n), make([]uint64, n)
				Each(got, pieces)
				Cut(cut, b[:n*size], size)
				for i := range want {
					if got[i] != want[i] || cut[i] != want[i] {
						t.Fatalf("piece %d of %d of %d bytes: %x and %x, want %x", i, n, size, got[i], cut[i], want[i])
					}
				}
			}
			blocks := make([]uint32, n)
			Blocks(blocks, b[:n*4096])
			var batch Batch
			var out [BatchSize]uint32
			var collected []uint32
			for i := range n {
				at := b[(n-1-i)*4096:] // from behind: they lie anywhere
				if batch.Add(at[:4096]) {
					collected = append(collected, batch.Sums(&out)...)
				}
			}
			collected = append(collected, batch.Sums(&out)...)
			for i := range n {
				want := uint32(xxhash.Sum64(b[i*4096 : (i+1)*4096]))
				if blocks[i] != want || collected[n-1-i] != want {
					t.Fatalf("block %d of %d: %x and %x, want %x", i, n, blocks[i], collected[n-1-i], want)
				}
			}
		}
	})
}

// A last piece that is shorter has its own sum.
func TestCutRest(t *testing.T) {
	forBoth(t, func(t *testing.T) {
		b := noise(5*65536 + 8192)
		var got [6]uint64
		Cut(got[:], b, 65536)
		for i, g := range got {
			if want := xxhash.Sum64(b[i*65536 : min(len(b), (i+1)*65536)]); g != want {
				t.Errorf("piece %d: %x, want %x", i, g, want)
			}
		}
	})
}

// slowRounds is rounds in plain Go.
func slowRounds(acc *[lanes][4]uint64, from [][]byte) {
	for i, b := range from {
		for ; len(b) > 0; b = b[stripe:] {
			for j := range acc[i] {
				acc[i][j] += binary.LittleEndian.Uint64(b[8*j:]) * prime2
				acc[i][j] = bits.RotateLeft64(acc[i][j], 31) * prime1
			}
		}
	}
}

// A bit in any place of any piece changes its sum and no other.
func TestEveryLaneCounts(t *testing.T) {
	b := noise(8 * 4096)
	var before, after [8]uint32
	Blocks(before[:], b)
	rng := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		bit := rng.IntN(len(b) * 8)
		b[bit/8] ^= 1 << (bit % 8)
		Blocks(after[:], b)
		b[bit/8] ^= 1 << (bit % 8)
		for i := range after {
			if changed := after[i] != before[i]; changed != (bit/8/4096 == i) {
				t.Fatalf("bit %d: block %d changed: %v", bit, i, changed)
			}
		}
	}
}

// The vectors do what the plain rounds do.
func TestRounds(t *testing.T) {
	if !vectors {
		t.Skip("SKIPPED: this CPU does not multiply 64-bit lanes")
	}
	b := noise(8 * 96)
	var slow, fast [lanes][4]uint64
	var from [lanes]*byte
	var pieces [][]byte
	for i := range lanes {
		pieces = append(pieces, b[i*96:(i+1)*96])
		from[i] = &b[i*96]
		fast[i] = [4]uint64{uint64(i), 2, 3, 1 << 63}
	}
	slow = fast
	slowRounds(&slow, pieces)
	rounds(&fast, &from, 96)
	if slow != fast {
		t.Errorf("%x\nwant\n%x", fast, slow)
	}
}

func TestSumAllocs(t *testing.T) {
	b := noise(32 * 4096)
	var out [32]uint32
	var whole [2]uint64
	var batch Batch
	var few [BatchSize]uint32
	pieces := [][]byte{b[:65536], b[65536:]}
	if n := testing.AllocsPerRun(100, func() {
		Blocks(out[:], b)
		Each(whole[:], pieces)
		Cut(whole[:], b, 65536)
		batch.Add(b)
		batch.Add(b[4096:])
		batch.Sums(&few)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzSums compares with xxhash.
func FuzzSums(f *testing.F) {
	f.Add(noise(3*4096), 1)
	f.Fuzz(func(t *testing.T, b []byte, stripes int) {
		size := 32 * (1 + max(0, stripes)%200)
		b = b[:len(b)/32*32]
		got := make([]uint64, (len(b)+size-1)/size)
		Cut(got, b, size)
		for i, g := range got {
			if want := xxhash.Sum64(b[i*size : min(len(b), (i+1)*size)]); g != want {
				t.Errorf("piece %d of %d bytes: %x, want %x", i, size, g, want)
			}
		}
	})
}

func BenchmarkBlocks(b *testing.B) {
	for _, n := range []int{1, 2, 4, 8, 256} {
		data, out := noise(n*4096), make([]uint32, n)
		b.Run(fmt.Sprintf("%d", n), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				Blocks(out, data)
			}
		})
	}
}

func BenchmarkRegions(b *testing.B) {
	data, out := noise(6*65536), make([]uint64, 6)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		Cut(out, data, 65536)
	}
}

func BenchmarkXXH64(b *testing.B) {
	data := noise(6 * 65536)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		for at := 0; at < len(data); at += 4096 {
			xxhash.Sum64(data[at : at+4096])
		}
	}
}
