package proxy

import (
	"fmt"
	"testing"
	"time"

	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// BenchmarkPut codes and hashes 64 MiB SCOs for stores that discard them. coding-GB/s is object bytes per
// second of one coding worker: gather, parity, region sums.
func BenchmarkPut(b *testing.B) {
	for _, pol := range []layout.Policy{{K: 4, M: 2, C: 5, X: 1}, {K: 8, M: 2, C: 9, X: 1}} {
		for _, frag := range []uint32{1 << 20, 4 << 20} {
			b.Run(fmt.Sprintf("%v/%dMiB", pol, frag>>20), func(b *testing.B) { benchPut(b, pol, frag) })
		}
	}
}

func benchPut(b *testing.B, pol layout.Policy, frag uint32) {
	r := newRig(b, 10, func(o *Options) {
		o.Workers = 1
		o.Preset = layout.Preset{MaxFragment: frag, Policies: []layout.Policy{pol}}
	})
	for _, s := range r.stores {
		s.discard = true
	}
	e := r.own()
	src := newContent(64<<20, 1)
	b.SetBytes(src.Size())
	b.ReportAllocs()
	start := r.Counters().CodingNanos
	sco := ids.SCONum(0)
	for b.Loop() {
		sco++
		r.commit(r.put(e, sco, src))
	}
	coding := time.Duration(r.Counters().CodingNanos - start).Seconds()
	b.ReportMetric(float64(sco)*float64(src.Size())/1e9/coding, "coding-GB/s")
}
