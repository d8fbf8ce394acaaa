package plot

import (
	"slices"
	"strings"
	"testing"
)

func TestAxis(t *testing.T) {
	for _, tc := range []struct {
		base   float64
		values []float64
		ticks  []float64
		v, at  float64
	}{
		{2, []float64{0.3, 1, 3}, []float64{0.25, 0.5, 1, 2, 4}, 1, 0.5},
		{10, []float64{30, 0, 900}, []float64{20, 50, 100, 200, 500, 1000}, 100, 0.411},
		{10, []float64{3, 9000}, []float64{1, 10, 100, 1000, 10000}, 100, 0.5},
		{10, []float64{100}, []float64{100, 200}, 5, 0},
		{0, []float64{3, 9}, []float64{0, 2, 4, 6, 8}, 4.5, 0.5},
		{0, []float64{30000}, []float64{0, 10000, 20000, 30000}, 60000, 1},
		{10, nil, []float64{1, 2, 5, 10}, 1, 0},
	} {
		a := newAxis(tc.base, tc.values)
		if got := a.ticks(); !slices.Equal(got, tc.ticks) {
			t.Errorf("%v: ticks %v, want %v", tc.values, got, tc.ticks)
		}
		if got := a.at(tc.v); got < tc.at-0.001 || got > tc.at+0.001 {
			t.Errorf("%v: %v lies at %v, want %v", tc.values, tc.v, got, tc.at)
		}
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.25: "0.25", 1.5: "1.5", 12.34: "12.3", 123.4: "123", 1234: "1.23k",
		999.7: "1k", 100: "100", 1_500_000: "1.5M", 20: "20"} {
		if got := Number(v); got != want {
			t.Errorf("%v is %s, want %s", v, got, want)
		}
	}
}

// A linear axis that is to end at a tick does, and not one later than it must.
func TestRoof(t *testing.T) {
	for high, want := range map[float64]float64{61294: 80000, 60000: 60000, 43000: 60000, 0.3: 0.3, 1284: 1500} {
		a := newAxis(0, []float64{high})
		a.roof()
		if got := a.ticks(); a.high < want*0.999 || a.high > want*1.001 || got[len(got)-1] < a.high*0.999 {
			t.Errorf("of %v it ends at %v, want %v", high, a.high, want)
		}
	}
}

// A line goes where its points are, and a name cannot break out.
func TestLines(t *testing.T) {
	p := Lines{Title: "a<b", YTitle: "latency", Unit: "us", LogY: true, Ticks: []Tick{{0, "0"}, {2, "99"}},
		Lines: []Line{{Name: "x & y", Colour: 9, Points: []Point{{X: 0, Y: 1}, {X: 1, Y: 10}, {X: 2, Y: 100}}},
			{Name: "empty"}}}
	svg := p.SVG()
	for _, want := range []string{`d="M52.0 214.0L226.0 126.0L400.0 38.0"`, "a&lt;b", "x &amp; y: 10 us", "var(--s1)",
		"stroke-dasharray"} {
		if !strings.Contains(svg, want) {
			t.Errorf("%q is missing:\n%s", want, svg)
		}
	}
}

// Bars of ratios begin at 1, and those below go to the left.
func TestBars(t *testing.T) {
	p := Bars{One: true, Bars: []Bar{{Label: "twice", Value: 8, Mark: 1, Class: "met"}, {Label: "half", Value: 0.125},
		{Label: "none", Text: "disturbed"}}}
	svg := p.SVG()
	for _, want := range []string{`class="met" x="212.0" y="28.0" width="112.0"`, `x="100.0" y="50.0" width="112.0"`,
		"M212.0 25.0v20", ">disturbed</text>"} {
		if !strings.Contains(svg, want) {
			t.Errorf("%q is missing:\n%s", want, svg)
		}
	}
	if n := strings.Count(svg, "<rect"); n != 2 {
		t.Errorf("%d bars", n)
	}
}
