package plot

import (
	"fmt"
	"html"
	"strings"
)

// Bar is one of a plot of bars. Mark, if not 0, is a value to reach, drawn across it. Class is a CSS class for the
// bar in place of a series' colour, and for its text. Text stands behind it in place of its value.
type Bar struct {
	Label  string
	Value  float64
	Mark   float64
	Colour int
	Class  string
	Text   string
}

// Bars is a plot of horizontal bars. With One, bars begin at 1 of a logarithmic axis, which has a title, and go to
// either side.
type Bars struct {
	Title  string
	Unit   string // of the values
	XTitle string
	Wide   bool
	One    bool
	Bars   []Bar
}

const (
	barHeight, barGap = 14.0, 8.0
	textRoom          = 96.0 // behind the longest bar
	axisRoom          = 36.0 // of the ticks and the title below
)

// SVG draws it.
func (p *Bars) SVG() string {
	w, names := width, 100.0
	if p.Wide {
		w, names = 2*width+70, 380.0
	}
	h := 30 + float64(len(p.Bars))*(barHeight+barGap)
	if p.One {
		h += axisRoom
	}
	var b strings.Builder
	open(&b, w, h, p.Title)
	var values []float64
	base := 0.0
	for _, x := range p.Bars {
		values = append(values, x.Value, x.Mark)
	}
	if p.One {
		values, base = append(values, 1), 2
	}
	a := newAxis(base, values)
	px := func(v float64) float64 { return names + a.at(v)*(w-names-textRoom) }
	if p.One {
		p.axis(&b, a, h-axisRoom+2, px)
	}
	for i := range p.Bars {
		p.Bars[i].draw(&b, 28+float64(i)*(barHeight+barGap), names, px, p)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// axis draws the axis of a plot with One, y pixels from the top.
func (p *Bars) axis(b *strings.Builder, a axis, y float64, px func(float64) float64) {
	for _, t := range a.ticks() {
		fmt.Fprintf(b, `<path class="grid" d="M%.1f 24V%.0f"/><text class="tick" x="%.1f" y="%.0f" text-anchor="middle">`+
			"%s</text>\n", px(t), y, px(t), y+14, Number(t))
	}
	fmt.Fprintf(b, `<path class="one" d="M%.1f 24V%.0f"/>`, px(1), y)
	fmt.Fprintf(b, `<text class="tick" x="%.1f" y="%.0f" text-anchor="end">%s</text>`+"\n", px(a.high), y+30,
		html.EscapeString(p.XTitle))
}

// draw draws a bar of p y pixels from the top.
func (x *Bar) draw(b *strings.Builder, y, names float64, px func(float64) float64, p *Bars) {
	from, to := names, px(x.Value)
	if p.One {
		from = px(1)
	}
	value := strings.TrimSpace(Number(x.Value) + " " + p.Unit)
	text := x.Text
	if text == "" {
		text = value
	}
	fill := filled(x.Colour)
	if x.Class != "" {
		fill = fmt.Sprintf(`class="%s"`, x.Class)
	}
	fmt.Fprintf(b, `<text class="name" x="%.0f" y="%.1f" text-anchor="end">%s</text>`, names-8, y+11,
		html.EscapeString(x.Label))
	end := from
	if x.Value > 0 {
		fmt.Fprintf(b, `<rect %s x="%.1f" y="%.1f" width="%.1f" height="%.0f" rx="2"><title>%s: %s</title></rect>`, fill,
			min(from, to), y, max(1, max(from, to)-min(from, to)), barHeight, html.EscapeString(x.Label),
			html.EscapeString(value))
		end = max(from, to)
	}
	if x.Mark > 0 {
		fmt.Fprintf(b, `<path class="goal" d="M%.1f %.1fv%.0f"><title>goal %s</title></path>`, px(x.Mark), y-3, barHeight+6,
			Number(x.Mark))
		end = max(end, px(x.Mark))
	}
	fmt.Fprintf(b, `<text class="%s" x="%.1f" y="%.1f">%s</text>`+"\n", strings.TrimSpace("value "+x.Class), end+6, y+11,
		html.EscapeString(text))
}
