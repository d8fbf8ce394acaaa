package store

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// The free space of a model is a bit per block.
func TestSpaceModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const total = 600
		var free [total]bool
		s := newSpace()
		for i := range free {
			free[i] = true
		}
		s.add(run{0, total})
		var live [][]run
		steps := rapid.SliceOfN(rapid.IntRange(0, 1<<20), 1, 200).Draw(t, "steps")
		for _, v := range steps {
			if v%2 == 0 && len(live) > 0 {
				i := v / 2 % len(live)
				for _, r := range live[i] {
					s.add(r)
					for b := r.start; b < r.end(); b++ {
						free[b] = true
					}
				}
				live = append(live[:i], live[i+1:]...)
			} else {
				n := uint64(v/2%90 + 1)
				rs, ok := s.alloc(nil, n)
				if ok != fits(free[:], n) && (ok || longest(free[:]) >= n) {
					t.Fatalf("alloc of %d: %v", n, ok)
				}
				if ok && longest(free[:]) >= n && len(rs) > 1 {
					t.Fatalf("%d blocks split into %v without need", n, rs)
				}
				for i, r := range rs {
					if i > 0 && rs[i-1].end() > r.start {
						t.Fatalf("order %v", rs)
					}
					for b := r.start; b < r.end(); b++ {
						if !free[b] {
							t.Fatalf("block %d given out twice", b)
						}
						free[b] = false
					}
				}
				if ok {
					live = append(live, rs)
				}
			}
			compareSpace(t, s, free[:])
		}
	})
}

func fits(free []bool, n uint64) bool {
	c := uint64(0)
	for _, f := range free {
		if f {
			c++
		}
	}
	return c >= n
}

func longest(free []bool) (best uint64) {
	n := uint64(0)
	for _, f := range free {
		if n++; !f {
			n = 0
		}
		best = max(best, n)
	}
	return best
}

func compareSpace(t *rapid.T, s *space, free []bool) {
	seen := make([]bool, len(free))
	n := uint64(0)
	for _, r := range s.runs() {
		n += r.n
		for b := r.start; b < r.end(); b++ {
			if seen[b] || !free[b] {
				t.Fatalf("block %d free twice or not", b)
			}
			seen[b] = true
		}
		if int(r.end()) < len(free) && free[r.end()] {
			t.Fatalf("run %v is not joined with the next", r)
		}
	}
	if n != s.free || !fits(free, n) || fits(free, n+1) {
		t.Fatalf("%d blocks in runs, %d counted", n, s.free)
	}
}

// A million fragments of mixed sizes, then a churn of them: the time per operation does not grow.
func BenchmarkSpaceChurn(b *testing.B) {
	s := newSpace()
	s.add(run{0, 1 << 32})
	rng := rand.New(rand.NewPCG(1, 1))
	size := func() uint64 { return 2 + rng.Uint64N(1024) }
	live := make([][]run, 0, 1<<20)
	for range 1 << 20 {
		rs, _ := s.alloc(nil, size())
		live = append(live, rs)
	}
	for range len(live) / 2 {
		i := rng.IntN(len(live))
		for _, r := range live[i] {
			s.add(r)
		}
		live[i] = live[len(live)-1]
		live = live[:len(live)-1]
	}
	b.ResetTimer()
	for range b.N {
		i := rng.IntN(len(live))
		for _, r := range live[i] {
			s.add(r)
		}
		live[i], _ = s.alloc(live[i][:0], size())
	}
	b.ReportMetric(float64(len(s.byStart)), "runs")
}
