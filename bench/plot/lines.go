package plot

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Point is one of a line. Label says where it is, to those who point at it.
type Point struct {
	X, Y  float64
	Label string
}

// Line is one series. Colour is its number among all series of the page: what it shows keeps its colour from one plot
// to the next.
type Line struct {
	Name   string
	Colour int
	Points []Point
}

// Tick is a mark of the x axis.
type Tick struct {
	At    float64
	Label string
}

// Lines is a plot of lines.
type Lines struct {
	Title  string
	YTitle string
	Unit   string // of what is pointed at
	LogY   bool
	XTitle string
	// Ticks of the x axis, whose ends they are; none: from 0 in whole steps.
	Ticks []Tick
	Lines []Line
}

// Measures of a plot, in pixels of the SVG.
const (
	width, height           = 420.0, 250.0
	left, right, top, below = 52.0, 20.0, 38.0, 36.0
)

// SVG draws it.
func (p *Lines) SVG() string {
	var b strings.Builder
	open(&b, width, height, p.Title)
	var ys, xs []float64
	for _, l := range p.Lines {
		for _, q := range l.Points {
			xs, ys = append(xs, q.X), append(ys, q.Y)
		}
	}
	base := 0.0
	if p.LogY {
		base = 10
	}
	x, y := newAxis(0, xs), newAxis(base, ys)
	if !p.LogY {
		y.roof()
	}
	if n := len(p.Ticks); n > 0 {
		x.low, x.high = p.Ticks[0].At, p.Ticks[n-1].At
	}
	px := func(v float64) float64 { return left + x.at(v)*(width-left-right) }
	py := func(v float64) float64 { return height - below - y.at(v)*(height-top-below) }
	for _, t := range y.ticks() {
		fmt.Fprintf(&b, `<path class="grid" d="M%.0f %.1fH%.0f"/><text class="tick" x="%.0f" y="%.1f" text-anchor="end">%s`+
			"</text>\n", left, py(t), width-right, left-6, py(t)+4, Number(t))
	}
	for _, t := range p.ticks(x) {
		fmt.Fprintf(&b, `<path class="grid" d="M%.1f %.0fV%.0f"/><text class="tick" x="%.1f" y="%.0f" text-anchor="middle">`+
			"%s</text>\n", px(t.At), top, height-below, px(t.At), height-below+16, html.EscapeString(t.Label))
	}
	fmt.Fprintf(&b, `<text class="tick" x="%.0f" y="%.0f">%s</text>`, left, top-8, html.EscapeString(p.YTitle))
	fmt.Fprintf(&b, `<text class="tick" x="%.0f" y="%.0f" text-anchor="end">%s</text>`+"\n", width-right, height-4,
		html.EscapeString(p.XTitle))
	for _, l := range p.Lines {
		l.draw(&b, px, py, p.Unit)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (p *Lines) ticks(x axis) []Tick {
	if len(p.Ticks) > 0 {
		return p.Ticks
	}
	var out []Tick
	for _, t := range x.ticks() {
		if t == math.Trunc(t) {
			out = append(out, Tick{t, Number(t)})
		}
	}
	return out
}

// draw draws a line, and dots to point at: they say their value. A point alone makes no line, so its dot is seen.
func (l *Line) draw(b *strings.Builder, px, py func(float64) float64, unit string) {
	if len(l.Points) == 0 {
		return
	}
	fmt.Fprintf(b, `<path fill="none" stroke="%s" stroke-width="2" stroke-linejoin="round"%s d="`, colour(l.Colour),
		dashed(l.Colour))
	for i, q := range l.Points {
		fmt.Fprintf(b, "%c%.1f %.1f", "ML"[min(i, 1)], px(q.X), py(q.Y))
	}
	b.WriteString("\"/>\n")
	dot := `class="dot" r="6"`
	if len(l.Points) == 1 {
		dot = fmt.Sprintf(`r="4" stroke="%s" stroke-width="2" fill="%s"`, colour(l.Colour), colour(l.Colour))
		if dashed(l.Colour) != "" {
			dot += ` fill-opacity="0"`
		}
	}
	for _, q := range l.Points {
		fmt.Fprintf(b, `<circle %s cx="%.1f" cy="%.1f"><title>%s: %s %s</title></circle>`+"\n", dot, px(q.X), py(q.Y),
			html.EscapeString(l.Name+q.Label), Number(q.Y), html.EscapeString(unit))
	}
}

func open(b *strings.Builder, w, h float64, title string) {
	fmt.Fprintf(b, `<svg viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">`+"\n", w, h, html.EscapeString(title))
	fmt.Fprintf(b, `<text class="title" x="0" y="14">%s</text>`+"\n", html.EscapeString(title))
}
