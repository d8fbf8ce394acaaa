package fragcache

import (
	"testing"

	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// BenchmarkLocate is what a read of a cached fragment costs on the loop beside its IO; BenchmarkLocateMiss what the
// cache costs a read that it does not help.
func BenchmarkLocate(b *testing.B)     { benchLocate(b, 0) }
func BenchmarkLocateMiss(b *testing.B) { benchLocate(b, 1000) }

func benchLocate(b *testing.B, from int) {
	c := open(b, testOptions(dio.NewMem(8<<20)))
	defer c.Close()
	r := c.NewReader()
	for i := range 64 {
		fill(b, c, fragKey(1, i), 8192)
	}
	exts := make([]layout.Extent, 0, 2)
	for i := 0; b.Loop(); i++ {
		key := fragKey(1, from+i%64)
		_, pin, kind := r.Locate(key, 0, 4096, exts)
		if kind == errs.OK {
			r.Unpin(pin)
			r.Served(key, 4096, 100, errs.OK)
		} else {
			r.Passed(key, 4096, 100)
		}
	}
}

// BenchmarkFill is the writer over a file in memory: fragments of 128 KiB, the cache full.
func BenchmarkFill(b *testing.B) {
	c := open(b, testOptions(dio.NewMem(32<<20)))
	defer c.Close()
	data := content(fragKey(1, 1), testFrag)
	b.SetBytes(testFrag)
	for i := 0; b.Loop(); i++ {
		for !offer(c, fragKey(1, i), data) {
			r := <-c.idle
			c.idle <- r
		}
	}
}
