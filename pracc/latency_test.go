package pracc

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestLatencySteps(t *testing.T) {
	last := int64(1) << latLow
	for i := range latSteps {
		b := latBound(i)
		if b <= last || latStep(b-1) != i || latStep(last) != i || float64(b-last)/float64(last) > 1.0/8 {
			t.Fatalf("step %d is [%d, %d); its ends fall into %d and %d", i, last, b, latStep(last), latStep(b-1))
		}
		last = b
	}
	if latStep(-1) != 0 || latStep(0) != 0 || latStep(1<<62) != latSteps-1 || last != 1<<latHigh {
		t.Fatal("the ends of the range fall outside the steps")
	}
}

// Quantiles are those of the last few hundred samples, at most an eighth too high.
func TestLatencyQuantiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	var l latency
	for round, scale := range []int64{100e3, 20e6, 50e3} {
		var vals []int64
		for i := range 4 * latFull {
			v := scale/2 + rng.Int64N(scale)
			vals = append(vals, v)
			l.add(v, int64(i))
		}
		slices.Sort(vals)
		n := len(vals)
		for _, q := range []struct{ got, lo, hi int64 }{
			{l.p50, vals[n*40/100], vals[n*60/100] * 9 / 8},
			{l.p95, vals[n*90/100], vals[n*99/100] * 9 / 8},
		} {
			if q.got < q.lo || q.got > q.hi {
				t.Errorf("round %d: a quantile of %d; between %d and %d would be right", round, q.got, q.lo, q.hi)
			}
		}
	}
	if g := l.guess(l.at); g != l.p50 {
		t.Errorf("a guess of %d", g)
	}
	if g := l.guess(l.at + 3e9); g != l.p50/8 || l.guess(l.at+1e15) != 0 {
		t.Errorf("a guess of %d after 3 s", g)
	}
}

func TestLatencyIsUnknownAtFirst(t *testing.T) {
	var l latency
	for i := range latFew {
		if l.p50 != 0 || l.p95 != 0 {
			t.Fatalf("quantiles of %d samples", i)
		}
		l.add(1e6, 1)
	}
	if l.p50 < 1e6 || l.p95 < 1e6 || l.p95 > 9e6/8 {
		t.Fatal(l.p50, l.p95)
	}
	if n := testing.AllocsPerRun(1000, func() { l.add(1e6, 1) }); n != 0 {
		t.Errorf("%v allocations a sample", n)
	}
}

func BenchmarkLatency(b *testing.B) {
	var l latency
	for i := range b.N {
		l.add(int64(80e3+i%1024*100), int64(i))
	}
}
