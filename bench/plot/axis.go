package plot

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// axis maps values of a range to 0..1.
type axis struct {
	low, high float64
	base      float64 // of the logarithm; 0: linear
}

// newAxis spans the values, from 0 where it is linear. Of a logarithmic one values that are not positive have no
// place, and the ends are powers of its base.
func newAxis(base float64, values []float64) axis {
	a := axis{base: base, low: math.Inf(1)}
	for _, v := range values {
		if v > 0 {
			a.low, a.high = min(a.low, v), max(a.high, v)
		}
	}
	switch {
	case a.high == 0:
		return axis{low: 1, high: 10, base: base}
	case base > 0:
		log := func(v float64) float64 { return math.Log2(v) / math.Log2(base) }
		a.low = math.Pow(base, math.Floor(log(a.low)))
		a.high = math.Pow(base, math.Ceil(log(a.high)))
		if a.low == a.high {
			a.high *= base
		}
	default:
		a.low = 0
	}
	return a
}

// at is where a value lies, 0 to 1.
func (a axis) at(v float64) float64 {
	if a.base > 0 {
		return min(1, max(0, math.Log(max(v, a.low)/a.low)/math.Log(a.high/a.low)))
	}
	return min(1, max(0, (v-a.low)/(a.high-a.low)))
}

// ticks are round values in range: powers of the base, or three to six steps of 1, 2 or 5.
func (a axis) ticks() (out []float64) {
	if a.base > 0 {
		for v := a.low; v <= a.high*1.001; v *= a.base {
			out = append(out, v)
		}
		return out
	}
	step := math.Pow(10, math.Floor(math.Log10(a.high/3)))
	for _, m := range []float64{5, 2} {
		if a.high/(step*m) >= 2.5 {
			step *= m
			break
		}
	}
	for i := 0; float64(i)*step <= a.high*1.001; i++ {
		out = append(out, float64(i)*step)
	}
	return out
}

// Number writes a value as short as it can be read: 1.2k for 1234.
func Number(v float64) string {
	switch m := math.Abs(v); {
	case m >= 999.5e3:
		return trim(v/1e6) + "M"
	case m >= 999.5:
		return trim(v/1e3) + "k"
	}
	return trim(v)
}

func trim(v float64) string {
	digits := 2
	switch m := math.Abs(v); {
	case m >= 99.95:
		digits = 0
	case m >= 9.995:
		digits = 1
	}
	s := strconv.FormatFloat(v, 'f', digits, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// colour is that of a series. Beyond eight they repeat, dashed.
func colour(i int) string { return fmt.Sprintf("var(--s%d)", i%8) }

func dashed(i int) string {
	if i < 8 {
		return ""
	}
	return ` stroke-dasharray="5 3"`
}
