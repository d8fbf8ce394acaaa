package plot

import (
	"fmt"
	"html"
	"strings"
)

// Bar is one of a plot of bars. Mark, if not 0, is a value to reach, drawn across it. Class is a CSS class for the
// bar in place of a series' colour. Text stands behind it in place of its value.
type Bar struct {
	Label  string
	Value  float64
	Mark   float64
	Colour int
	Class  string
	Text   string
}

// Bars is a plot of horizontal bars. With One, bars begin at 1 of a logarithmic axis and go to either side.
type Bars struct {
	Title string
	Wide  bool
	One   bool
	Bars  []Bar
}

const (
	barHeight, barGap = 14.0, 8.0
	textRoom          = 96.0 // behind the longest bar
)

// SVG draws it.
func (p *Bars) SVG() string {
	w, names := width, 100.0
	if p.Wide {
		w, names = 2*width+20, 330.0
	}
	h := 30 + float64(len(p.Bars))*(barHeight+barGap)
	if p.One {
		h += 20
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
		for _, t := range a.ticks() {
			fmt.Fprintf(&b, `<path class="grid" d="M%.1f 24V%.0f"/><text class="tick" x="%.1f" y="%.0f" text-anchor="middle">`+
				"%s</text>\n", px(t), h-18, px(t), h-4, Number(t))
		}
		fmt.Fprintf(&b, `<path class="one" d="M%.1f 24V%.0f"/>`+"\n", px(1), h-18)
	}
	for i := range p.Bars {
		p.Bars[i].draw(&b, 28+float64(i)*(barHeight+barGap), names, px, p.One)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// draw draws a bar y pixels from the top.
func (x *Bar) draw(b *strings.Builder, y, names float64, px func(float64) float64, one bool) {
	from, to := names, px(x.Value)
	if one {
		from = px(1)
	}
	text := x.Text
	if text == "" {
		text = Number(x.Value)
	}
	fill := fmt.Sprintf(`fill="%s"`, colour(x.Colour))
	if x.Class != "" {
		fill = fmt.Sprintf(`class="%s"`, x.Class)
	}
	fmt.Fprintf(b, `<text class="name" x="%.0f" y="%.1f" text-anchor="end">%s</text>`, names-8, y+11,
		html.EscapeString(x.Label))
	end := names
	if x.Value > 0 {
		fmt.Fprintf(b, `<rect %s x="%.1f" y="%.1f" width="%.1f" height="%.0f" rx="2"><title>%s: %s</title></rect>`, fill,
			min(from, to), y, max(1, max(from, to)-min(from, to)), barHeight, html.EscapeString(x.Label), Number(x.Value))
		end = max(from, to)
	}
	if x.Mark > 0 {
		fmt.Fprintf(b, `<path class="goal" d="M%.1f %.1fv%.0f"><title>goal %s</title></path>`, px(x.Mark), y-3, barHeight+6,
			Number(x.Mark))
		end = max(end, px(x.Mark))
	}
	fmt.Fprintf(b, `<text class="value" x="%.1f" y="%.1f">%s</text>`+"\n", end+6, y+11, html.EscapeString(text))
}
