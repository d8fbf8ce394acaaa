package blockcache

import (
	"testing"

	"vstor/dataplane/buf"
)

// BenchmarkGet is a hit of 4 KiB, and of 64 KiB, somewhere in 64 MiB; run it without -tags invariants, which verify.
func BenchmarkGet(b *testing.B) {
	for name, blocks := range map[string]int{"4KiB": 1, "64KiB": 16} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, 80<<20, 0, nil)
			v := w.tenant(1, everything)
			const set = 16 << 10
			sums := at{1, 1, 0}.sums(set)
			for off := 0; off < set; off += 256 {
				w.read(v, at{1, 1, uint32(off)}, 256)
			}
			w.loop.Call(func() {
				var out buf.Vec
				off := 0
				b.ReportAllocs()
				for b.Loop() {
					off = (off + 7919*16) % set
					if w.c.Get(v, 1, 1, uint32(off), sums[off:off+blocks], &out) != blocks {
						b.Error("a miss")
						return
					}
					w.pool.ReleaseVec(&out)
				}
			})
		})
	}
}
