package bench

import (
	"math"
	"slices"
	"strconv"

	"vstor/bench/plot"
)

// cpuPlot is a job's CPU per IO, a bar for each target that has processes.
func (r *Report) cpuPlot(job string) string {
	p := plot.Bars{Title: job}
	for i, target := range r.targets() {
		cells, _ := r.trusted(job, target)
		if us := median(cells, func(c Cell) float64 { return c.CPUUsPerIO }); us > 0 {
			p.Bars = append(p.Bars, plot.Bar{Label: target, Value: us, Colour: i})
		}
	}
	if len(p.Bars) == 0 {
		return ""
	}
	return p.SVG()
}

// percentileTicks stand where nines are added: p is at -log10(1-p).
var percentileTicks = []plot.Tick{{At: 0, Label: "0"}, {At: 1, Label: "90"}, {At: 2, Label: "99"},
	{At: 3, Label: "99.9"}, {At: 4, Label: "99.99"}}

// latencyPlot is a job's latency by percentile.
func (r *Report) latencyPlot(job string) string {
	p := plot.Lines{Title: job, YUnit: "us", LogY: true, XUnit: "percentile", Ticks: percentileTicks}
	for i, target := range r.targets() {
		cells, _ := r.trusted(job, target)
		if points := curveOf(cells); len(points) > 1 {
			p.Lines = append(p.Lines, plot.Line{Name: target, Colour: i, Points: points})
		}
	}
	if len(p.Lines) == 0 {
		return ""
	}
	return p.SVG()
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
		out = append(out, plot.Point{X: x, Y: middle(us)})
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
	p := plot.Lines{Title: job, YUnit: "IOPS", XUnit: "s"}
	for i, target := range r.targets() {
		cells, _ := r.trusted(job, target)
		if c := middleCell(cells); c != nil && len(c.Series) > 1 {
			line := plot.Line{Name: target, Colour: i}
			for s, v := range c.Series {
				line.Points = append(line.Points, plot.Point{X: float64(s + 1), Y: v})
			}
			p.Lines = append(p.Lines, line)
		}
	}
	if len(p.Lines) == 0 {
		return ""
	}
	return p.SVG()
}

// middleCell is the round whose IOPS are the median, the lower one of two.
func middleCell(cells []Cell) *Cell {
	if len(cells) == 0 {
		return nil
	}
	cells = slices.Clone(cells)
	slices.SortFunc(cells, func(a, b Cell) int {
		if a.IOPS < b.IOPS {
			return -1
		}
		return 1
	})
	return &cells[(len(cells)-1)/2]
}
