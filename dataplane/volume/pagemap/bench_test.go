package pagemap

import (
	"math/rand/v2"
	"testing"
	"time"

	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

func TestLookupAllocatesNothing(t *testing.T) {
	r := newRig(t, memDB(t), Options{Size: 1 << 20})
	r.put(1, 2, 300)
	r.mustFlush()
	r.put(2, 70000)
	dst := make([]layout.Location, 700)
	if n := testing.AllocsPerRun(100, func() {
		r.Lookup(1)
		r.Lookup(2)
		r.Lookup(70000)
		r.Lookup(1<<20 - 1)
		r.LookupRange(0, dst)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestApplyAllocatesLittle: once nodes and slots exist, applying allocates nothing.
func TestApplyAllocatesLittle(t *testing.T) {
	r := newRig(t, memDB(t), Options{Size: 1 << 20})
	n := r.put(1, 2, 300)
	c := r.c + 1
	e := []Entry{{Addr: 1}, {Addr: 2, Off: 1}, {Addr: 300, Off: 2}}
	if a := testing.AllocsPerRun(100, func() { r.Apply(c, n, e) }); a != 0 {
		t.Errorf("%v allocations", a)
	}
}

func BenchmarkLookup(b *testing.B) {
	const size = 1 << 22 // 16 GiB
	r := newRig(b, memDB(b), Options{Size: size, Budget: NewBudget(256 << 20)})
	w := writer{m: r.Map, loop: r.loop, size: size, rng: rand.New(rand.NewPCG(1, 2)), perSCO: 16300}
	w.fill()
	for p := range PageNo(size / PageBlocks) {
		r.load(p)
	}
	for range 100 {
		w.write()
	}
	addrs := make([]ids.BlockAddr, 1<<16)
	for i := range addrs {
		addrs[i] = ids.BlockAddr(w.rng.IntN(size))
	}
	b.ReportAllocs()
	b.ResetTimer()
	hits := 0
	for i := range b.N {
		if _, ok := r.Lookup(addrs[i&(1<<16-1)]); ok {
			hits++
		}
	}
	b.ReportMetric(float64(hits)/float64(b.N), "hits")
}

// BenchmarkApply16k applies a SCO of random blocks of a 100 GiB vDisk; ns/block counts Apply and Commit
// alone, write back included where it falls on the loop.
func BenchmarkApply16k(b *testing.B) {
	const size = 100 << 30 / 4096
	r := newRig(b, memDB(b), Options{Size: size, Budget: NewBudget(64 << 20)})
	w := writer{m: r.Map, loop: r.loop, size: size, rng: rand.New(rand.NewPCG(1, 2)), perSCO: 16300}
	for range 200 {
		w.write()
	}
	w.total, w.n, w.slowest = 0, 0, 0
	b.ResetTimer()
	for range b.N {
		w.write()
	}
	b.ReportMetric(float64(w.total.Nanoseconds())/float64(w.n*w.perSCO), "ns/block")
	b.ReportMetric(float64(w.slowest)/float64(time.Millisecond), "slowest-ms")
}

func BenchmarkPage(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	var p Page
	for i := range p.Locs {
		p.Locs[i] = randomLocation(rng)
	}
	buf := p.Append(nil)
	b.Run("Append", func(b *testing.B) {
		for range b.N {
			buf = p.Append(buf[:0])
		}
	})
	b.Run("Parse", func(b *testing.B) {
		for range b.N {
			if err := ParsePage(buf, &p); err != nil {
				b.Fatal(err)
			}
		}
	})
}
