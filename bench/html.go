package bench

import (
	"bytes"
	"cmp"
	"fmt"
	"html"
	"slices"
	"strings"

	"vstor/bench/plot"
)

// HTML is the run as one page that needs nothing else: no script, no font, no picture of another's.
func (r *Report) HTML() []byte {
	var b bytes.Buffer
	title := "vstor bench, " + r.Started.Format("2006-01-02")
	fmt.Fprintf(&b, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"+
		"<meta name=\"viewport\" content=\"width=device-width\">\n<title>%s</title>\n<style>%s</style></head><body>\n",
		title, pageStyle)
	fmt.Fprintf(&b, "<h1>%s</h1>\n<p>%s</p>\n", title,
		strings.Replace(html.EscapeString(r.tally()), "MISSED:", "<b class=\"bad\">MISSED:</b>", 1))
	for _, warning := range r.warnings() {
		fmt.Fprintf(&b, "<p class=\"warn\">%s</p>\n", html.EscapeString(warning))
	}
	b.WriteString("<table class=\"facts\">\n")
	for _, f := range r.facts() {
		fmt.Fprintf(&b, "<tr><th>%s</th><td>%s</td></tr>\n", html.EscapeString(f[0]), html.EscapeString(f[1]))
	}
	fmt.Fprintf(&b, "</table>\n<pre>%s</pre>\n", html.EscapeString(r.commands()))
	r.ratioSection(&b)
	htmlTable(&b, tableHead, r.table())
	fmt.Fprintf(&b, "<h2>Every target</h2>\n<p>%s</p>\n", html.EscapeString(everythingSay))
	head, rows := r.everything()
	htmlTable(&b, head, rows)
	for _, t := range r.tables() {
		if len(t.rows) > 0 {
			fmt.Fprintf(&b, "<h2>%s</h2>\n<p>%s</p>\n", t.title, html.EscapeString(t.say))
			htmlTable(&b, t.head, t.rows)
		}
	}
	r.section(&b, "CPU of all server processes per IO, in microseconds", "Medians of the rounds, with what a job leaves "+
		"to be done in the background. The raw file has no server: fio does its IO itself.", r.cpuPlot)
	r.section(&b, "Latency by percentile", "Medians of the rounds; each mark to the right leaves a tenth of the IOs.",
		r.latencyPlot)
	r.section(&b, "IOPS over time", "Of each target the round whose IOPS are the median, the mean of each whole second.",
		r.seriesPlot)
	b.WriteString("<h2>Remarks</h2>\n<ul>\n")
	for _, line := range r.remarks() {
		item := "<li>"
		if strings.HasPrefix(line, " ") { // of the line before
			item = "<li class=\"sub\">"
		}
		fmt.Fprintf(&b, "%s%s</li>\n", item, html.EscapeString(strings.TrimSpace(line)))
	}
	b.WriteString("</ul></body></html>\n")
	return b.Bytes()
}

// ratioSection is all ratios, in one plot where more is better and in one where less is.
func (r *Report) ratioSection(b *bytes.Buffer) {
	fmt.Fprintf(b, "<h2>Ratios and goals</h2>\n<p>Rounds: %d; figures and ratios are their medians. The line across a "+
		"bar is the goal.</p>\n<p class=\"keys\"><span><i class=\"key met\"></i>met</span> <span><i class=\"key "+
		"missed\"></i>missed</span> <span><i class=\"key plain\"></i>no goal</span></p>\n", r.Rounds)
	for _, less := range []bool{false, true} {
		p := plot.Bars{Title: "More is better", Wide: true, One: true,
			XTitle: "ratio to " + qemu + ", or to what the name ends with; logarithmic"}
		if less {
			p.Title = "Less is better: latencies and CPU"
		}
		for i := range r.Rows {
			if row := &r.Rows[i]; row.Figure.less() == less && (row.Goal > 0 || row.Ratio > 0) {
				p.Bars = append(p.Bars, row.bar())
			}
		}
		if len(p.Bars) > 0 {
			fmt.Fprintf(b, "<div class=\"wide\">%s</div>\n", p.SVG())
		}
	}
}

// bar is a row in the plot of ratios.
func (row *Row) bar() plot.Bar {
	_, verdict := row.verdict()
	out := plot.Bar{Label: row.Job + ", " + row.Target + row.what(), Value: row.Ratio, Mark: row.Goal, Class: "plain"}
	switch {
	case row.Disturbed:
		out.Text, out.Class = "disturbed", "disturbed"
	case row.Ratio == 0:
		out.Text = verdict
	default:
		out.Text = strings.TrimSpace(fmt.Sprintf("%s %s", marking(fmt.Sprintf("%.2fx", row.Ratio), row.Slow), verdict))
	}
	switch {
	case row.Met:
		out.Class = "met"
	case row.Goal > 0 && row.Ratio > 0:
		out.Class = "missed"
	}
	switch {
	case row.Base == row.Target:
		out.Label += ", of without"
	case row.Base != qemu && row.Base != "":
		out.Label += ", of " + row.Base
	}
	return out
}

func htmlTable(b *bytes.Buffer, head []string, rows [][]string) {
	b.WriteString("<div class=\"wide\"><table>\n<thead><tr>")
	for _, h := range head {
		fmt.Fprintf(b, "<th>%s</th>", html.EscapeString(h))
	}
	b.WriteString("</tr></thead>\n<tbody>\n")
	for _, cells := range rows {
		b.WriteString("<tr>")
		for _, c := range cells {
			class := ""
			if isBad(c) {
				class = " class=\"bad\""
			}
			fmt.Fprintf(b, "<td%s>%s</td>", class, html.EscapeString(c))
		}
		b.WriteString("</tr>\n")
	}
	b.WriteString("</tbody></table></div>\n")
}

// section is a plot for each job that has one, below a legend of all targets, which stays in sight.
func (r *Report) section(b *bytes.Buffer, title, say string, draw func(job string) string) {
	var plots []string
	for _, j := range r.jobs() {
		if svg := draw(j); svg != "" {
			plots = append(plots, svg)
		}
	}
	if len(plots) == 0 {
		return
	}
	fmt.Fprintf(b, "<section><h2>%s</h2>\n<p>%s</p>\n<p class=\"keys stay\">", html.EscapeString(title),
		html.EscapeString(say))
	for _, t := range r.targets() {
		fmt.Fprintf(b, "<span>%s%s</span> ", plot.Key(colour(t)), html.EscapeString(t))
	}
	fmt.Fprintf(b, "</p>\n<div class=\"plots\">\n%s</div></section>\n", strings.Join(plots, ""))
}

// jobs are those that were measured, in the order of the run.
func (r *Report) jobs() (out []string) {
	for _, k := range keys(r) {
		if !slices.Contains(out, k.job) {
			out = append(out, k.job)
		}
	}
	return out
}

// allTargets are in the order of columns and colours, those of most jobs first: colours are used again after eight, and
// which they are must not hang on what else a run had.
var allTargets = []string{embedded, processes, local, qemu, nbdkitFile, rawFile, single, cached, cachedASDs, overTCP,
	overTLS, full, driveAlone, praccAlone, edgeAlone, bareServer, tgtISCSI, cephRep, cephEC, logAlone, ramAlone, ssdAlone,
	fragsAlone, fullASDs}

// colour is the number of a target's, the same in all pages. One that is not known has the last.
func colour(target string) int {
	if i := slices.Index(allTargets, target); i >= 0 {
		return i
	}
	return len(allTargets)
}

// targets are those that were measured, in the order of their colours, which no run's turns change.
func (r *Report) targets() (out []string) {
	for _, k := range keys(r) {
		if !slices.Contains(out, k.target) {
			out = append(out, k.target)
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		return cmp.Or(cmp.Compare(colour(a), colour(b)), strings.Compare(a, b))
	})
	return out
}
