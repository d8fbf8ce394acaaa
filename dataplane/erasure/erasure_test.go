package erasure

import (
	"bytes"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/klauspost/reedsolomon"
	"pgregory.net/rapid"

	"vstor/dataplane/errs"
)

func fill(rng *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
}

func coded(t testing.TB, c *Codec, n int) [][]byte {
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	shards := make([][]byte, c.K()+c.M())
	for i := range shards {
		shards[i] = make([]byte, n)
		if i < c.K() {
			fill(rng, shards[i])
		}
	}
	if err := c.Encode(shards); err != nil {
		t.Fatal(err)
	}
	return shards
}

// Every set of k shards rebuilds every other shard, for all small codes.
func TestAllPatterns(t *testing.T) {
	for k := 1; k <= 6; k++ {
		for m := 0; m <= 4; m++ {
			t.Run(fmt.Sprintf("%d,%d", k, m), func(t *testing.T) { allPatterns(t, k, m, 200) })
		}
	}
	allPatterns(t, 8, 2, 100)
	allPatterns(t, 10, 3, 70)
}

func allPatterns(t *testing.T, k, m, n int) {
	c, err := New(k, m)
	if err != nil {
		t.Fatal(err)
	}
	shards := coded(t, c, n)
	dst := make([]byte, n)
	for set := range uint64(1) << (k + m) {
		if bits.OnesCount64(set) != k {
			continue
		}
		var have []int
		var src [][]byte
		for s := k + m - 1; s >= 0; s-- { // descending: order must not matter
			if set&(1<<s) != 0 {
				have, src = append(have, s), append(src, shards[s])
			}
		}
		for want := range k + m {
			clear(dst)
			if err := c.Reconstruct(dst, want, have, src); err != nil || !bytes.Equal(dst, shards[want]) {
				t.Fatalf("(%d,%d): shard %d from %v: wrong bytes, %v", k, m, want, have, err)
			}
		}
	}
}

// The parity is the library's own, byte for byte: what another program made of the same code reads.
func TestAgainstLibrary(t *testing.T) {
	for _, km := range [][2]int{{2, 1}, {4, 2}, {8, 2}, {16, 4}} {
		k, m := km[0], km[1]
		c, _ := New(k, m)
		shards := coded(t, c, 4096)
		lib, err := reedsolomon.New(k, m)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := lib.Verify(shards); !ok || err != nil {
			t.Fatal(km, ok, err)
		}
	}
}

func TestRanges(t *testing.T) {
	c, _ := New(5, 3)
	shards := coded(t, c, 70000)
	rapid.Check(t, func(t *rapid.T) {
		off := rapid.IntRange(0, 69999).Draw(t, "off")
		n := rapid.IntRange(1, 70000-off).Draw(t, "n")
		have := rapid.Permutation([]int{0, 1, 2, 3, 4, 5, 6, 7}).Draw(t, "order")
		var src [][]byte
		for _, h := range have[:5] {
			src = append(src, shards[h][off:off+n])
		}
		dst := make([]byte, n)
		for _, want := range have[5:] {
			if err := c.Reconstruct(dst, want, have[:5], src); err != nil || !bytes.Equal(dst, shards[want][off:off+n]) {
				t.Fatalf("shard %d, %d+%d: %v", want, off, n, err)
			}
		}
	})
}

func TestBadArguments(t *testing.T) {
	for _, km := range [][2]int{{0, 1}, {1, -1}, {60, 5}, {-1, 2}} {
		if _, err := New(km[0], km[1]); errs.Of(err) != errs.Invalid {
			t.Errorf("%v: %v", km, err)
		}
		var r Registry
		if _, err := r.Codec(km[0], km[1]); errs.Of(err) != errs.Invalid {
			t.Errorf("%v: %v", km, err)
		}
	}
	c, _ := New(2, 1)
	b := make([]byte, 8)
	for i, err := range []error{
		c.Encode([][]byte{b, b}),
		c.Encode([][]byte{b, b, b[:4]}),
		c.Encode([][]byte{{}, {}, {}}),
		c.Reconstruct(b, 0, []int{1}, [][]byte{b}),
		c.Reconstruct(b, 0, []int{1, 1}, [][]byte{b, b}),
		c.Reconstruct(b, 0, []int{1, 3}, [][]byte{b, b}),
		c.Reconstruct(b, 3, []int{1, 2}, [][]byte{b, b}),
		c.Reconstruct(b, 0, []int{1, 2}, [][]byte{b, b[:4]}),
	} {
		if errs.Of(err) != errs.Invalid {
			t.Errorf("case %d: %v", i, err)
		}
	}
}

func TestRowCacheIsBounded(t *testing.T) {
	c, _ := New(8, 8)
	shards := coded(t, c, 64)
	dst := make([]byte, 64)
	rng := rand.New(rand.NewPCG(1, 2))
	for range rowsMax + 500 {
		have := rng.Perm(16)
		var src [][]byte
		for _, h := range have[:8] {
			src = append(src, shards[h])
		}
		if err := c.Reconstruct(dst, have[8], have[:8], src); err != nil || !bytes.Equal(dst, shards[have[8]]) {
			t.Fatal(have, err)
		}
		if len(c.rows) > rowsMax {
			t.Fatal(len(c.rows))
		}
	}
}

func TestConcurrent(t *testing.T) {
	var r Registry
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			c, err := r.Codec(4, 2)
			if err != nil {
				t.Error(err)
				return
			}
			shards := coded(t, c, 4096)
			dst := make([]byte, 4096)
			for i := range 200 {
				lost := (i + g) % 6
				var have []int
				var src [][]byte
				for s := 0; len(have) < 4; s++ {
					if s != lost {
						have, src = append(have, s), append(src, shards[s])
					}
				}
				if c.Reconstruct(dst, lost, have, src) != nil || !bytes.Equal(dst, shards[lost]) {
					t.Error("wrong bytes")
				}
			}
		})
	}
	wg.Wait()
}

func TestReconstructDoesNotAllocate(t *testing.T) {
	c, _ := New(4, 2)
	shards := coded(t, c, 4096)
	dst := make([]byte, 4096)
	have, src := []int{0, 2, 3, 4}, [][]byte{shards[0], shards[2], shards[3], shards[4]}
	if n := testing.AllocsPerRun(100, func() {
		if err := c.Reconstruct(dst, 1, have, src); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkReconstruct(b *testing.B) {
	for _, km := range [][2]int{{4, 2}, {8, 2}} {
		for _, n := range []int{4096, 65536} {
			b.Run(fmt.Sprintf("%d,%d/%d", km[0], km[1], n), func(b *testing.B) {
				c, _ := New(km[0], km[1])
				shards := coded(b, c, n)
				dst := make([]byte, n)
				var have []int
				var src [][]byte
				for s := 1; len(have) < km[0]; s++ {
					have, src = append(have, s), append(src, shards[s])
				}
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					c.Reconstruct(dst, 0, have, src)
				}
			})
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, km := range [][2]int{{4, 2}, {8, 2}} {
		b.Run(fmt.Sprintf("%d,%d/65536", km[0], km[1]), func(b *testing.B) {
			c, _ := New(km[0], km[1])
			shards := coded(b, c, 65536)
			b.SetBytes(int64(65536 * km[0]))
			b.ReportAllocs()
			for b.Loop() {
				c.Encode(shards)
			}
		})
	}
}
