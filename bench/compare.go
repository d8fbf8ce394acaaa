package bench

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"vstor/dataplane/errs"
	"vstor/dataplane/units"
)

// Comparison is two runs side by side, the second judged against the first.
type Comparison struct {
	// Doubts are reasons not to believe it.
	Doubts  []string `json:"doubts"`
	Changes []Change `json:"changes"`
}

// Change is one job on one target in two runs: medians of the rounds.
type Change struct {
	Job     string  `json:"job"`
	Target  string  `json:"target"`
	Figure  Figure  `json:"figure"`
	A       float64 `json:"a"`
	B       float64 `json:"b"`
	Percent float64 `json:"percent"`
	// BesidePercent is the change of the ratio to qemu-nbd's figure in the same rounds, which a slower day does not move;
	// 0 where there is none.
	BesidePercent float64 `json:"beside_qemu_percent"`
	SpreadA       float64 `json:"spread_a_percent"`
	SpreadB       float64 `json:"spread_b_percent"`
	// Chance is how often rounds of two equal runs would lie apart as these do, by luck; 1 where they overlap.
	Chance float64 `json:"chance"`
	Word   string  `json:"word"`
}

// How a change is judged: it counts when no round of one run reaches into the rounds of the other. Of n and m rounds
// of equal runs that happens with chance 2/C(n+m, n), which is the least p that Mann and Whitney's test can give;
// with three rounds each it is one in ten, so a test at the usual 5 % could never say anything about a run of three
// rounds. With fewer the rule proves nothing and says so.
const mostChance = 0.1

const howJudged = "A change counts when no round of one run reaches into the rounds of the other; with three rounds " +
	"each that happens by luck to one line in ten, with five to one in 126. \"beside qemu-nbd\" is the change of the " +
	"ratio to it."

// Compare sets run b against run a. Errors: Invalid (they have nothing in common).
func Compare(a, b *Report) (*Comparison, error) {
	out := &Comparison{Doubts: doubts(a, b)}
	common := false
	for _, k := range keys(a, b) {
		c := change(a, b, k)
		common = common || c.A != 0 && c.B != 0
		out.Changes = append(out.Changes, c)
	}
	if !common {
		return nil, errs.New(errs.Invalid, "the two runs have no job on a target in common")
	}
	return out, nil
}

// key is a job on a target.
type key struct{ job, target string }

// keys are those of both runs, in the order of their first appearance by job.
func keys(reports ...*Report) []key {
	var jobs []string
	var all []key
	for _, r := range reports {
		for _, c := range r.Cells {
			if !slices.Contains(jobs, c.Job) {
				jobs = append(jobs, c.Job)
			}
			if k := (key{c.Job, c.Target}); !slices.Contains(all, k) {
				all = append(all, k)
			}
		}
	}
	slices.SortStableFunc(all, func(x, y key) int { return slices.Index(jobs, x.job) - slices.Index(jobs, y.job) })
	return all
}

// figure is what a job is judged by; what CPU it takes is judged beside that.
func (r *Report) figure(job string) Figure {
	for _, j := range Jobs() {
		if j.Name == job {
			return j.Figure
		}
	}
	for i := range r.Rows {
		if r.Rows[i].Job == job && r.Rows[i].Figure != CPU {
			return r.Rows[i].Figure
		}
	}
	return IOPS
}

func change(a, b *Report, k key) Change {
	f := b.figure(k.job)
	if len(b.of(k.job, k.target)) == 0 {
		f = a.figure(k.job)
	}
	was, quietA := a.trusted(k.job, k.target)
	is, quietB := b.trusted(k.job, k.target)
	c := Change{Job: k.job, Target: k.target, Figure: f, A: median(was, f.value), B: median(is, f.value),
		SpreadA: 100 * spread(was, f.value), SpreadB: 100 * spread(is, f.value), Chance: 1}
	switch {
	case c.A == 0 && c.B == 0:
		c.Word = "not measured"
		return c
	case c.B == 0:
		c.Word = "only in the first"
		return c
	case c.A == 0:
		c.Word = "only in the second"
		return c
	}
	c.Percent = 100 * (c.B/c.A - 1)
	if p, q := a.besideQemu(k.job, k.target, f.value), b.besideQemu(k.job, k.target, f.value); p > 0 && q > 0 &&
		k.target != qemu {
		c.BesidePercent = 100 * (q/p - 1)
	}
	c.judge(values(was, f), values(is, f))
	if !quietA || !quietB {
		c.Word = "disturbed"
	}
	return c
}

func values(cells []Cell, f Figure) (v []float64) {
	for _, c := range cells {
		v = append(v, f.value(c))
	}
	return v
}

func (c *Change) judge(a, b []float64) {
	luck := 2 / binomial(len(a)+len(b), len(a))
	apart := slices.Max(a) < slices.Min(b) || slices.Max(b) < slices.Min(a)
	if apart {
		c.Chance = min(1, luck)
	}
	switch {
	case luck > mostChance*1.0001:
		c.Word = "too few rounds"
	case !apart:
		c.Word = "within the spread"
	case (c.B > c.A) == !c.Figure.less():
		c.Word = "BETTER"
	default:
		c.Word = "WORSE"
	}
}

// binomial is n over k.
func binomial(n, k int) float64 {
	x := 1.0
	for i := range k {
		x = x * float64(n-i) / float64(i+1)
	}
	return x
}

// doubts are what makes two runs differ beside the code.
func doubts(a, b *Report) (out []string) {
	differ := func(what, x, y string) {
		if x != y {
			out = append(out, fmt.Sprintf("%s: %s in the first, %s in the second", what, x, y))
		}
	}
	differ("another machine", fmt.Sprintf("%s, %d cores", a.Machine.CPU, a.Machine.Cores),
		fmt.Sprintf("%s, %d cores", b.Machine.CPU, b.Machine.Cores))
	differ("another drive", a.Machine.Drive, b.Machine.Drive)
	differ("another kernel", a.Machine.Kernel, b.Machine.Kernel)
	differ("another fio", a.Machine.Fio, b.Machine.Fio)
	differ("another qemu", a.Machine.Qemu, b.Machine.Qemu)
	differ("another volume", units.HumanSize(a.VolumeBytes), units.HumanSize(b.VolumeBytes))
	differ("another journal", units.HumanSize(a.JournalBytes), units.HumanSize(b.JournalBytes))
	differ("other ASDs", a.drives(), b.drives())
	differ("another speed of qemu-nbd's 4K writes, which \"beside qemu-nbd\" moves with", a.writeSpeed(), b.writeSpeed())
	for i, r := range []*Report{a, b} {
		for _, s := range r.warnings() {
			out = append(out, fmt.Sprintf("the %s run: %s", []string{"first", "second"}[i], s))
		}
	}
	return out
}

// Print writes a line for each change, doubts in front.
func (c *Comparison) Print(out io.Writer) error {
	for _, d := range c.Doubts {
		fmt.Fprintf(out, "DOUBT: %s\n", d)
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "job\t\ton\tfirst\tsecond\tchange\tbeside qemu-nbd\tspreads\t\t")
	last := ""
	for _, x := range c.Changes {
		name := x.Job
		if name == last {
			name = ""
		}
		last = x.Job
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.0f%% : %.0f%%\t%s\t\n", name, x.Figure, x.Target, known(x.A, 0),
			known(x.B, 0), signed(x.Percent), signed(x.BesidePercent), x.SpreadA, x.SpreadB, x.Word)
	}
	if err := w.Flush(); err != nil {
		return errs.Wrap(errs.IO, err, "cannot print")
	}
	fmt.Fprintf(out, "\n%s\n", howJudged)
	return nil
}

func signed(percent float64) string {
	if percent == 0 {
		return "-"
	}
	return fmt.Sprintf("%+.1f%%", percent)
}
