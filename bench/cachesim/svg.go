package cachesim

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"vstor/dataplane/errs"
)

// A plot is two panels: the policies at 64 KiB, and ours at all block sizes; hit ratio over cache size, on a
// logarithmic axis as sizes double.
const (
	plotWidth, plotHeight   = 460.0, 300.0
	plotLeft, plotTop       = 46.0, 44.0
	panelWidth, panelHeight = 390.0, 210.0
)

var plotColours = []string{"#7f7f7f", "#1f77b4", "#2ca02c", "#d62728", "#9467bd"}

// curve is a line of a panel.
type curve struct {
	name  string
	cells []Cell
}

// SVG draws a result.
func (r *Result) SVG() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" font-family=\"sans-serif\" "+
		"font-size=\"11\">\n", 2*plotWidth, plotHeight)
	fmt.Fprintf(&b, "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n")
	var policies, blocks []curve
	for _, p := range Policies {
		policies = append(policies, curve{p, r.line(p, 64<<10)})
	}
	for _, g := range Granules {
		blocks = append(blocks, curve{granule(g), r.line("vstor", g)})
	}
	panel(&b, 0, r.Trace+": policies, blocks of 64 KiB", policies)
	panel(&b, plotWidth, r.Trace+": vstor by block size", blocks)
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// panel draws one set of curves, x units from the left.
func panel(b *bytes.Buffer, x float64, title string, curves []curve) {
	cells := curves[0].cells
	low, high := math.Log2(float64(cells[0].CacheBytes)), math.Log2(float64(cells[len(cells)-1].CacheBytes))
	px := func(c *Cell) float64 {
		at := 0.0
		if high > low {
			at = (math.Log2(float64(c.CacheBytes)) - low) / (high - low)
		}
		return x + plotLeft + at*panelWidth
	}
	py := func(ratio float64) float64 { return plotTop + (1-ratio)*panelHeight }
	fmt.Fprintf(b, "<text x=\"%.0f\" y=\"18\" font-size=\"13\">%s</text>\n", x+plotLeft, escape(title))
	for i := range 6 {
		y := py(float64(i) / 5)
		fmt.Fprintf(b, "<path d=\"M%.0f %.1fh%.0f\" stroke=\"#ddd\"/>", x+plotLeft, y, panelWidth)
		fmt.Fprintf(b, "<text x=\"%.0f\" y=\"%.1f\" text-anchor=\"end\">%d %%</text>\n", x+plotLeft-5, y+4, i*20)
	}
	for i := range cells {
		fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">%s</text>\n", px(&cells[i]),
			plotTop+panelHeight+16, mib(cells[i].CacheBytes))
	}
	for i, c := range curves {
		colour := plotColours[i%len(plotColours)]
		var d strings.Builder
		for j := range c.cells {
			fmt.Fprintf(&d, "%c%.1f %.1f", "ML"[min(j, 1)], px(&c.cells[j]), py(c.cells[j].HitRatio))
		}
		fmt.Fprintf(b, "<path d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"1.8\"/>\n", d.String(), colour)
		lx := x + plotLeft + float64(i)*78
		fmt.Fprintf(b, "<path d=\"M%.0f 32h14\" stroke=\"%s\" stroke-width=\"3\"/><text x=\"%.0f\" y=\"36\">%s</text>\n",
			lx, colour, lx+18, escape(c.name))
	}
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// WriteSVG draws a result into a file of a folder, which is named after the trace.
func (r *Result) WriteSVG(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", errs.Wrap(errs.IO, err, "cannot make the folder for the plots")
	}
	name := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			return c
		}
		return '-'
	}, r.Trace)
	path := filepath.Join(dir, "cachesim-"+strings.ToLower(name)+".svg")
	if err := os.WriteFile(path, r.SVG(), 0o644); err != nil {
		return "", errs.Wrap(errs.IO, err, "cannot write a plot")
	}
	return path, nil
}
