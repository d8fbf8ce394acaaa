package stat

import (
	"io"
	"math"
	"strconv"
	"strings"

	"vstor/dataplane/invariants"
)

// Page collects metrics and writes them in the Prometheus text format, version 0.0.4. Samples of a
// name may come in any order and from anywhere in the walk: they are written together, below one HELP
// and one TYPE. A Page serves one scrape and one goroutine.
type Page struct {
	order    []*family
	families map[string]*family
}

type family struct {
	name, help, kind string
	body             []byte
}

// The histogram buckets given to Prometheus: powers of two from 4 us to 17 s. Exact, see the package comment.
const (
	lePowMin = 12
	lePowMax = 34
)

// Counter adds a sample of a counter; its name ends in _total. labels are name, value, name, value...
func (p *Page) Counter(name, help string, v float64, labels ...string) {
	invariants.Assert(strings.HasSuffix(name, "_total"), "stat: the counter %s must end in _total", name)
	f := p.family(name, help, "counter")
	f.body = sample(f.body, name, "", v, labels)
}

// Gauge adds a sample of a gauge.
func (p *Page) Gauge(name, help string, v float64, labels ...string) {
	f := p.family(name, help, "gauge")
	f.body = sample(f.body, name, "", v, labels)
}

// Histogram adds a histogram of durations; its name ends in _seconds.
func (p *Page) Histogram(name, help string, s *Snapshot, labels ...string) {
	invariants.Assert(strings.HasSuffix(name, "_seconds"), "stat: the histogram %s must end in _seconds", name)
	f := p.family(name, help, "histogram")
	var seen uint64
	next := 0
	for pow := lePowMin; pow <= lePowMax; pow++ {
		for next < Buckets && boundOf(next) <= 1<<pow {
			seen += s.Counts[next]
			next++
		}
		le := strconv.FormatFloat(float64(uint64(1)<<pow)/1e9, 'g', -1, 64)
		f.body = sample(f.body, name+"_bucket", le, float64(seen), labels)
	}
	f.body = sample(f.body, name+"_bucket", "+Inf", float64(s.Count), labels)
	f.body = sample(f.body, name+"_sum", "", float64(s.Sum)/1e9, labels)
	f.body = sample(f.body, name+"_count", "", float64(s.Count), labels)
}

// WriteTo writes the page.
func (p *Page) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for _, f := range p.order {
		head := "# HELP " + f.name + " " + escape(f.help, false) + "\n# TYPE " + f.name + " " + f.kind + "\n"
		n, err := io.WriteString(w, head)
		total += int64(n)
		if err != nil {
			return total, err
		}
		n, err = w.Write(f.body)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func (p *Page) family(name, help, kind string) *family {
	if f := p.families[name]; f != nil {
		invariants.Assert(f.kind == kind, "stat: %s is a %s and a %s", name, f.kind, kind)
		return f
	}
	invariants.Assert(goodName(name), "stat: %q is no metric name", name)
	f := &family{name: name, help: help, kind: kind}
	if p.families == nil {
		p.families = make(map[string]*family)
	}
	p.families[name] = f
	p.order = append(p.order, f)
	return f
}

func sample(b []byte, name, le string, v float64, labels []string) []byte {
	invariants.Assert(len(labels)%2 == 0, "stat: %s has a label without a value", name)
	b = append(b, name...)
	if len(labels) > 0 || le != "" {
		b = append(b, '{')
		for i := 0; i < len(labels); i += 2 {
			b = label(b, labels[i], labels[i+1])
		}
		if le != "" {
			b = label(b, "le", le)
		}
		b[len(b)-1] = '}'
	}
	b = append(b, ' ')
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		b = strconv.AppendInt(b, int64(v), 10)
	} else {
		b = strconv.AppendFloat(b, v, 'g', -1, 64)
	}
	return append(b, '\n')
}

func label(b []byte, name, value string) []byte {
	b = append(append(b, name...), '=', '"')
	return append(append(b, escape(value, true)...), '"', ',')
}

func escape(s string, quotes bool) string {
	if !strings.ContainsAny(s, "\\\n\"") {
		return s
	}
	s = strings.ReplaceAll(s, `\`, `\\`)
	s = strings.ReplaceAll(s, "\n", `\n`)
	if quotes {
		s = strings.ReplaceAll(s, `"`, `\"`)
	}
	return s
}

func goodName(s string) bool {
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r == '_'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}
