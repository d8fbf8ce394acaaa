package main

import (
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/erasure"
	"vstor/dataplane/sum"
)

// figure is one measurement. Names and sizes are those of isal/isal.c too: 64 KiB is what a coding worker takes at
// once, 4 KiB what a read that goes round a lost drive rebuilds.
type figure struct {
	name string
	gb   float64 // 10^9 bytes each second: data of an encoding, output of a rebuilding
}

// ours measures everything once, each for a time.
func ours(each time.Duration) ([]figure, error) {
	var out []figure
	for _, c := range []struct{ k, m, size int }{{4, 2, 65536}, {8, 2, 65536}} {
		f, err := encoding(each, c.k, c.m, c.size)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	for _, c := range []struct{ k, m, size int }{{4, 2, 65536}, {8, 2, 65536}, {4, 2, 4096}} {
		f, err := rebuilding(each, c.k, c.m, c.size)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	block := content(4096, 1)
	out = append(out, measure("checksum, 4 KiB", each, len(block), func() { xxhash.Sum64(block) }))
	blocks, sums := content(8*4096, 1), make([]uint32, 8)
	out = append(out, measure("checksums, 8 of 4 KiB", each, len(blocks), func() { sum.Blocks(sums, blocks) }))
	for _, n := range []int{4096, 262144} {
		from, to := content(n, 1), make([]byte, n)
		out = append(out, measure(fmt.Sprintf("copy, %d KiB", n>>10), each, n, func() { copy(to, from) }))
	}
	return out, nil
}

func encoding(each time.Duration, k, m, size int) (figure, error) {
	c, err := erasure.New(k, m)
	if err != nil {
		return figure{}, err
	}
	shards := make([][]byte, k+m)
	for i := range shards {
		shards[i] = content(size, i)
	}
	return measure(fmt.Sprintf("encode %d+%d, %d KiB", k, m, size>>10), each, k*size, func() { c.Encode(shards) }), nil
}

// rebuilding is of the first shard, from the k behind it.
func rebuilding(each time.Duration, k, m, size int) (figure, error) {
	c, err := erasure.New(k, m)
	if err != nil {
		return figure{}, err
	}
	var have []int
	var src [][]byte
	for i := 1; i <= k; i++ {
		have, src = append(have, i), append(src, content(size, i))
	}
	dst := make([]byte, size)
	return measure(fmt.Sprintf("rebuild %d+%d, %d KiB", k, m, size>>10), each, size,
		func() { c.Reconstruct(dst, 0, have, src) }), nil
}

// measure repeats f, which works on n bytes. Nobody looks at what comes out: Go's compiler leaves out no call and no
// write to the heap for that.
func measure(name string, each time.Duration, n int, f func()) figure {
	times, start := 0, time.Now()
	for {
		for range 64 {
			f()
		}
		times += 64
		if d := time.Since(start); d >= each {
			return figure{name, float64(n) * float64(times) / float64(d.Nanoseconds())}
		}
	}
}

func content(n, seed int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i/251 + seed)
	}
	return b
}
