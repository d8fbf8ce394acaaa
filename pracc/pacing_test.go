package pracc

import "testing"

// Hedges stay below the percentage; those that never win die out, those that always do are had whenever allowed.
func TestPacing(t *testing.T) {
	for _, x := range []struct{ percent, wins, lo, hi int }{
		{5, 0, 200, 300}, {5, 50, 400, 600}, {5, 100, 4900, 5000}, {1, 100, 900, 1000}, {-1, 100, 0, 0},
	} {
		var p pacing
		p.init(x.percent)
		hedges, won := 0, 0
		for range 100000 {
			p.earn()
			if p.affords() {
				p.pay()
				hedges++
				if won*100 < hedges*x.wins {
					won++
					p.won()
				}
			}
		}
		if hedges < x.lo || hedges > x.hi {
			t.Errorf("%d percent allowed, %d won: %d hedges of 100000 reads", x.percent, x.wins, hedges)
		}
	}
}
