package bench

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strconv"
	"strings"

	"vstor/bench/plot"
)

// each gives the cells of each target that did a job to draw, which says whether there is anything, and returns what
// a reader must know beside the plot: whose rounds others disturbed, which are drawn all the same, and of whom there is
// nothing.
func (r *Report) each(job, nothing string, draw func(target string, cells []Cell) bool) string {
	var disturbed, none, notes []string
	for _, target := range r.targets() {
		cells, quiet := r.trusted(job, target)
		switch {
		case len(cells) == 0:
		case !draw(target, cells):
			none = append(none, target)
		case !quiet:
			disturbed = append(disturbed, target)
		}
	}
	if len(disturbed) > 0 {
		notes = append(notes, "<b class=\"bad\">disturbed:</b> "+html.EscapeString(strings.Join(disturbed, ", ")))
	}
	if len(none) > 0 && nothing != "" {
		notes = append(notes, html.EscapeString(nothing+": "+strings.Join(none, ", ")))
	}
	return strings.Join(notes, "; ")
}

// figure is a plot and what is to be said below it.
func figure(svg, note string) string {
	if note != "" {
		note = "<figcaption>" + note + "</figcaption>"
	}
	return "<figure>" + svg + note + "</figure>\n"
}

// cpuPlot is a job's CPU per IO, a bar for each target that has processes.
func (r *Report) cpuPlot(job string) string {
	p := plot.Bars{Title: job, Unit: "us"}
	note := r.each(job, "", func(target string, cells []Cell) bool {
		us := median(cells, CPU.value)
		if us > 0 {
			p.Bars = append(p.Bars, plot.Bar{Label: target, Value: us, Colour: colour(target)})
		}
		return us > 0
	})
	if len(p.Bars) == 0 {
		return ""
	}
	return figure(p.SVG(), note)
}

// percentileTicks stand where nines are added: p is at -log10(1-p).
var percentileTicks = []plot.Tick{{At: 0, Label: "0"}, {At: 1, Label: "90"}, {At: 2, Label: "99"},
	{At: 3, Label: "99.9"}, {At: 4, Label: "99.99"}}

// latencyPlot is a job's latency by percentile.
func (r *Report) latencyPlot(job string) string {
	p := plot.Lines{Title: job, YTitle: "latency, us, logarithmic", Unit: "us", LogY: true,
		XTitle: "percentile of the IOs", Ticks: percentileTicks}
	note := r.each(job, "no percentiles", func(target string, cells []Cell) bool {
		points := curveOf(cells)
		if len(points) > 1 {
			p.Lines = append(p.Lines, plot.Line{Name: target, Colour: colour(target), Points: points})
		}
		return len(points) > 1
	})
	if len(p.Lines) == 0 {
		return ""
	}
	return figure(p.SVG(), note)
}

// curveOf is the medians of the rounds, by percentile.
func curveOf(cells []Cell) (out []plot.Point) {
	all := map[string][]float64{}
	for _, c := range cells {
		for name, us := range c.Percentiles {
			all[name] = append(all[name], us)
		}
	}
	for name, us := range all {
		p, err := strconv.ParseFloat(name, 64)
		x := -math.Log10(1 - p/100)
		if err != nil || p < 0 || x > percentileTicks[len(percentileTicks)-1].At+0.001 {
			continue
		}
		out = append(out, plot.Point{X: x, Y: middle(us), Label: fmt.Sprintf(", %g %% of the IOs within", p)})
	}
	slices.SortFunc(out, func(a, b plot.Point) int {
		if a.X < b.X {
			return -1
		}
		return 1
	})
	return out
}

// seriesPlot is a job's IOPS over its seconds.
func (r *Report) seriesPlot(job string) string {
	p := plot.Lines{Title: job, YTitle: "IOPS", Unit: "IOPS", XTitle: "seconds"}
	note := r.each(job, "no whole second was logged", func(target string, cells []Cell) bool {
		line := plot.Line{Name: target, Colour: colour(target)}
		for s, v := range middleCell(cells).Series {
			line.Points = append(line.Points, plot.Point{X: float64(s + 1), Y: v, Label: fmt.Sprintf(", second %d", s+1)})
		}
		if len(line.Points) > 0 {
			p.Lines = append(p.Lines, line)
		}
		return len(line.Points) > 0
	})
	if len(p.Lines) == 0 {
		return ""
	}
	return figure(p.SVG(), note)
}

// middleCell is the round whose IOPS are the median, the lower one of two; there must be one.
func middleCell(cells []Cell) *Cell {
	cells = slices.Clone(cells)
	slices.SortFunc(cells, func(a, b Cell) int {
		if a.IOPS < b.IOPS {
			return -1
		}
		return 1
	})
	return &cells[(len(cells)-1)/2]
}
