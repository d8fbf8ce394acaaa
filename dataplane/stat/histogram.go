package stat

import (
	"math/bits"
	"sync/atomic"
)

const (
	subBits = 4  // 16 steps per power of two
	maxBits = 40 // values above 2^40 ns, 18 minutes, count as that
	// Buckets is the number of steps of a Histogram.
	Buckets = (maxBits-1-subBits)<<subBits + 2<<subBits
)

// Histogram counts durations. The zero Histogram is ready. One goroutine or loop writes, all may read.
type Histogram struct {
	sum    atomic.Uint64 // ns
	max    atomic.Uint64 // ns
	counts [Buckets]atomic.Uint64
}

// Record counts one duration in nanoseconds; a negative one counts as 0. Its one writer only. It
// allocates nothing.
func (h *Histogram) Record(ns int64) {
	v := uint64(max(ns, 0))
	c := &h.counts[bucketOf(v)]
	c.Store(c.Load() + 1)
	h.sum.Store(h.sum.Load() + v)
	if v > h.max.Load() {
		h.max.Store(v)
	}
}

// AddTo adds what h holds to s, from anywhere.
func (h *Histogram) AddTo(s *Snapshot) {
	for i := range h.counts {
		n := h.counts[i].Load()
		s.Counts[i] += n
		s.Count += n
	}
	s.Sum += h.sum.Load()
	s.Max = max(s.Max, h.max.Load())
}

// Snapshot is a Histogram at rest, or the sum of several. Its owner alone uses it.
type Snapshot struct {
	Count  uint64
	Sum    uint64 // ns
	Max    uint64 // ns
	Counts [Buckets]uint64
}

// Merge adds o to s.
func (s *Snapshot) Merge(o *Snapshot) {
	for i, n := range o.Counts {
		s.Counts[i] += n
	}
	s.Count += o.Count
	s.Sum += o.Sum
	s.Max = max(s.Max, o.Max)
}

// Sub takes an earlier snapshot of the same histograms from s, leaving what came in between; Max stays
// that of the whole.
func (s *Snapshot) Sub(earlier *Snapshot) {
	for i, n := range earlier.Counts {
		s.Counts[i] -= n
	}
	s.Count -= earlier.Count
	s.Sum -= earlier.Sum
}

// Quantile is a duration in ns that at least the fraction q of all are not above; it overstates by at
// most 6.25 %. 0 if there are none.
func (s *Snapshot) Quantile(q float64) uint64 {
	if s.Count == 0 {
		return 0
	}
	rank := min(uint64(q*float64(s.Count)), s.Count-1)
	var seen uint64
	for i, n := range s.Counts {
		seen += n
		if seen > rank {
			return min(boundOf(i), s.Max)
		}
	}
	return s.Max
}

// Mean is the mean duration in ns.
func (s *Snapshot) Mean() float64 {
	if s.Count == 0 {
		return 0
	}
	return float64(s.Sum) / float64(s.Count)
}

// CountUpTo is the number of durations of at most 2^pow ns, exactly.
func (s *Snapshot) CountUpTo(pow int) uint64 {
	var n uint64
	for i := 0; i < Buckets && boundOf(i) <= 1<<pow; i++ {
		n += s.Counts[i]
	}
	return n
}

// Each calls f with the upper bound, in ns, and the count of every step that is not empty, in rising order.
func (s *Snapshot) Each(f func(le, n uint64)) {
	for i, n := range s.Counts {
		if n > 0 {
			f(boundOf(i), n)
		}
	}
}

// Put adds n durations of le ns each, as Each told them; Sum and Max stay.
func (s *Snapshot) Put(le, n uint64) {
	s.Counts[bucketOf(le)] += n
	s.Count += n
}

// bucketOf is the step of v. A step holds its upper bound, as Prometheus' le does, hence v-1:
//
//	u = v-1 < 32: step u                 else: e = bits(u)-5, step 16*e + (u >> e), u>>e being 16..31
func bucketOf(v uint64) int {
	if v == 0 {
		return 0
	}
	u := min(v-1, 1<<maxBits-1)
	e := max(bits.Len64(u)-1-subBits, 0)
	return e<<subBits + int(u>>e)
}

// boundOf is the largest value of step i, in ns.
func boundOf(i int) uint64 {
	e := max(i>>subBits-1, 0)
	return (uint64(i-e<<subBits) + 1) << e
}
