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

// decadesOnly is the span beyond which a decimal axis has room for no steps within its decades.
const decadesOnly = 1000

// newAxis spans the values, from 0 where it is linear. Of a logarithmic one values that are not positive have no
// place, and the ends are powers of its base; of a short decimal one steps of 1, 2 or 5, for the better part of two
// decades might stay empty.
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
		a.widen()
	default:
		a.low = 0
	}
	return a
}

// widen moves the ends of a logarithmic axis outwards to round values.
func (a *axis) widen() {
	log := func(v float64) float64 { return math.Log2(v) / math.Log2(a.base) }
	floor := math.Pow(a.base, math.Floor(log(a.low)))
	ceil := math.Pow(a.base, math.Ceil(log(a.high)))
	if floor == ceil {
		ceil *= a.base
	}
	inner := axis{low: floor, high: ceil, base: a.base}
	if a.base == 10 {
		for _, v := range steps(floor, ceil) {
			if v <= a.low {
				inner.low = v
			}
			if v >= a.high && v < inner.high && v > inner.low {
				inner.high = v
			}
		}
	}
	if inner.high/inner.low > decadesOnly {
		inner.low, inner.high = floor, ceil
	}
	*a = inner
}

// roof moves the end of a linear axis up to a tick, so that what lies highest can be read. Twice, for the first move
// may make the steps longer.
func (a *axis) roof() {
	for range 2 {
		step := a.ticks()[1]
		a.high = math.Ceil(a.high/step*0.999) * step
	}
}

// steps are 1, 2 and 5 of each decade from low to high.
func steps(low, high float64) (out []float64) {
	for decade := math.Pow(10, math.Floor(math.Log10(low*1.001))); decade <= high*1.001; decade *= 10 {
		for _, m := range []float64{1, 2, 5} {
			if v := m * decade; v >= low*0.999 && v <= high*1.001 {
				out = append(out, v)
			}
		}
	}
	return out
}

// at is where a value lies, 0 to 1.
func (a axis) at(v float64) float64 {
	if a.base > 0 {
		return min(1, max(0, math.Log(max(v, a.low)/a.low)/math.Log(a.high/a.low)))
	}
	return min(1, max(0, (v-a.low)/(a.high-a.low)))
}

// ticks are round values in range: powers of the base, in a short decimal axis 2 and 5 of each, or three to six steps
// of 1, 2 or 5.
func (a axis) ticks() (out []float64) {
	if a.base == 10 && a.high/a.low <= decadesOnly {
		return steps(a.low, a.high)
	}
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

// colour is that of a series. Beyond eight they repeat, dashed, and beyond sixteen dotted.
func colour(i int) string { return fmt.Sprintf("var(--s%d)", i%8) }

func dashed(i int) string {
	switch {
	case i < 8:
		return ""
	case i < 16:
		return ` stroke-dasharray="5 3"`
	}
	return ` stroke-dasharray="2 2"`
}

// filled is how the bar of a series is drawn: where its colour is another's too, as an outline with its dashes.
func filled(i int) string {
	if i < 8 {
		return fmt.Sprintf(`fill="%s"`, colour(i))
	}
	return fmt.Sprintf(`fill="%s" fill-opacity=".25" stroke="%s"%s`, colour(i), colour(i), dashed(i))
}

// Key is the sign of a series in a legend: the line it is drawn with.
func Key(i int) string {
	return fmt.Sprintf(`<svg class="line" viewBox="0 0 26 8" aria-hidden="true"><path d="M0 4H26" stroke="%s" `+
		`stroke-width="4"%s/></svg>`, colour(i), dashed(i))
}
