package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/units"
)

// Report is a whole run.
type Report struct {
	Started      time.Time `json:"started"`
	Machine      machine   `json:"machine"`
	Rounds       int       `json:"rounds"`
	VolumeBytes  int64     `json:"volume_bytes"`
	JournalBytes int64     `json:"journal_bytes"`
	Rows         []Row     `json:"rows"`
	Cells        []Cell    `json:"cells"`
}

// Cell is one job on one target in one round.
type Cell struct {
	Job    string  `json:"job"`
	Target string  `json:"target"`
	Round  int     `json:"round"`
	IOPS   float64 `json:"iops"`
	MBps   float64 `json:"mb_per_second"`
	MeanUs float64 `json:"mean_us"`
	P50Us  float64 `json:"p50_us"`
	P99Us  float64 `json:"p99_us"`
	P999Us float64 `json:"p999_us"`
	IOs    int64   `json:"ios"`
	Bytes  int64   `json:"bytes"`
	// Percentiles of latency in microseconds, by fio's names: "50.000000". Series is IOPS, a value each second.
	Percentiles map[string]float64 `json:"percentiles_us,omitempty"`
	Series      []float64          `json:"iops_by_second,omitempty"`
	CPUUsPerIO  float64            `json:"server_cpu_us_per_io"`
	// ServerBytes is what the server's processes wrote, DriveBytes what the drive was written by all.
	ServerBytes   int64   `json:"server_written_bytes"`
	DriveBytes    int64   `json:"drive_written_bytes"`
	ResidentBytes int64   `json:"server_resident_bytes"`
	RestSeconds   float64 `json:"rest_seconds"`
	// CopiedPerByte is how many bytes were copied in user space for each byte served; nil if the target does not tell.
	CopiedPerByte *float64 `json:"copied_per_byte,omitempty"`
	// OtherLoad is the share of all cores that others had just before the job, OtherDuring while it ran. A cell that is
	// Disturbed was so twice, and counts for no ratio.
	OtherLoad   float64 `json:"other_load"`
	OtherDuring float64 `json:"other_load_during"`
	Disturbed   bool    `json:"disturbed,omitempty"`
}

// Row is one goal: medians of the rounds.
type Row struct {
	Job    string `json:"job"`
	Figure Figure `json:"figure"`
	Target string `json:"target"`
	Base   string `json:"base"`
	// BaseJob is the job of Peer and Raw.
	BaseJob string  `json:"base_job"`
	Ours    float64 `json:"ours"`
	Peer    float64 `json:"peer"`
	Raw     float64 `json:"raw"`
	Ratio   float64 `json:"ratio"` // of Ours to the base's figure
	Goal    float64 `json:"goal"`  // 0: none
	Met     bool    `json:"met"`
	// Disturbed rows have no ratio: others used the machine during one of their cells.
	Disturbed bool `json:"disturbed,omitempty"`
	// SpreadPercent is how far our rounds lie apart, (max-min)/median.
	SpreadPercent float64 `json:"spread_percent"`
	OursCPU       float64 `json:"ours_cpu_us_per_io"`
	PeerCPU       float64 `json:"peer_cpu_us_per_io"`
	OursMean      float64 `json:"ours_mean_us"`
	PeerMean      float64 `json:"peer_mean_us"`
	OursP99       float64 `json:"ours_p99_us"`
	PeerP99       float64 `json:"peer_p99_us"`
	// Written bytes by the client, by our processes and to the drive, of our cells, all rounds.
	Bytes       int64 `json:"ours_bytes"`
	ServerBytes int64 `json:"ours_server_written_bytes"`
	DriveBytes  int64 `json:"ours_drive_written_bytes"`
}

func (j Job) value(c Cell) float64 {
	switch j.Figure {
	case Latency:
		return c.MeanUs
	case P99:
		return c.P99Us
	case MBps:
		return c.MBps
	case CPU:
		return c.CPUUsPerIO
	}
	return c.IOPS
}

func (r *Report) of(job, target string) []Cell {
	var out []Cell
	for _, c := range r.Cells {
		if c.Job == job && c.Target == target {
			out = append(out, c)
		}
	}
	return out
}

func median(cells []Cell, f func(Cell) float64) float64 {
	if len(cells) == 0 {
		return 0
	}
	v := make([]float64, len(cells))
	for i, c := range cells {
		v[i] = f(c)
	}
	slices.Sort(v)
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// summarize makes a row of each goal.
func (r *Report) summarize() {
	r.Rows = nil
	for _, j := range Jobs() {
		for _, g := range j.Goals {
			if r.has(j, g) {
				r.Rows = append(r.Rows, r.row(j, g))
			}
		}
	}
}

// has says whether what a goal speaks of was measured: a quick run does not do all jobs, and not every run has all
// peers.
func (r *Report) has(j Job, g Goal) bool {
	from := j.Name
	if g.BaseJob != "" {
		from = g.BaseJob
	}
	return len(r.of(j.Name, g.Target)) > 0 && (g.Base == "" || len(r.of(from, g.Base)) > 0)
}

func (r *Report) row(j Job, g Goal) Row {
	j = j.by(g)
	from := j.Name
	if g.BaseJob != "" {
		from = g.BaseJob
	}
	us, them, limit := r.of(j.Name, g.Target), r.of(from, qemu), r.of(from, rawFile)
	cpu := func(c Cell) float64 { return c.CPUUsPerIO }
	mean := func(c Cell) float64 { return c.MeanUs }
	p99 := func(c Cell) float64 { return c.P99Us }
	row := Row{Job: j.Name, Figure: j.Figure, Target: g.Target, Base: g.Base, BaseJob: from, Goal: g.Ratio,
		Ours: median(us, j.value), Peer: median(them, j.value), Raw: median(limit, j.value),
		OursCPU: median(us, cpu), PeerCPU: median(them, cpu), OursMean: median(us, mean), PeerMean: median(them, mean),
		OursP99: median(us, p99), PeerP99: median(them, p99)}
	isBad := func(c Cell) bool { return c.Disturbed }
	row.Disturbed = slices.ContainsFunc(us, isBad) || slices.ContainsFunc(r.of(from, g.Base), isBad)
	if base := median(r.of(from, g.Base), j.value); base > 0 && !row.Disturbed {
		row.Ratio = row.Ours / base
		row.Met = len(us) > 0 && g.Ratio > 0 && j.Met(g, row.Ratio)
	}
	lo, hi := row.Ours, row.Ours
	for _, c := range us {
		lo, hi = min(lo, j.value(c)), max(hi, j.value(c))
		row.Bytes += c.Bytes
		row.ServerBytes += c.ServerBytes
		row.DriveBytes += c.DriveBytes
	}
	if row.Ours > 0 {
		row.SpreadPercent = (hi - lo) / row.Ours * 100
	}
	return row
}

func (r *Report) print(out io.Writer, minJournals float64) {
	fmt.Fprintf(out, "\n%s, %d cores, Linux %s, %s, %s; %s; %d rounds, volume %s, journal %s\n\n", r.Machine.CPU,
		r.Machine.Cores, r.Machine.Kernel, r.Machine.Fio, r.Machine.Qemu, r.Started.Format(time.DateOnly), r.Rounds,
		units.HumanSize(r.VolumeBytes), units.HumanSize(r.JournalBytes))
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "job\t\ton\tits\tqemu-nbd\traw file\tratio\tgoal\t\tspread\tmean us\tp99 us\tCPU us/IO\t")
	last := ""
	for _, row := range r.Rows {
		name := row.Job
		if name == last {
			name = ""
		}
		last = row.Job
		goal, verdict := row.verdict()
		fmt.Fprintf(w, "%s\t%s\t%s\t%.0f\t%s\t%s\t%s\t%s\t%s\t%.0f%%\t%.0f : %s\t%.0f : %s\t%.1f : %s\t\n",
			name, row.Figure, row.Target, row.Ours, known(row.Peer, 0), known(row.Raw, 0), known(row.Ratio, 2), goal, verdict,
			row.SpreadPercent, row.OursMean, known(row.PeerMean, 0), row.OursP99, known(row.PeerP99, 0),
			row.OursCPU, known(row.PeerCPU, 1))
	}
	w.Flush()
	r.remarks(out, minJournals)
}

// verdict is the goal of a row, and whether it is met.
func (row *Row) verdict() (goal, verdict string) {
	switch {
	case row.Goal == 0:
		goal = "-"
	case row.Figure.less():
		goal = fmt.Sprintf("<= %.2f", row.Goal)
	default:
		goal = fmt.Sprintf(">= %.2f", row.Goal)
	}
	if row.Base == row.Target {
		goal += " of without"
	} else if row.Base != "" && row.Base != qemu {
		goal += " of " + row.Base
	}
	switch {
	case row.Disturbed:
		return goal, "DISTURBED"
	case row.Goal == 0:
		return goal, ""
	case row.Met:
		return goal, "met"
	}
	return goal, "MISSED"
}

// known writes a figure, or a dash for one that was not measured.
func known(v float64, digits int) string {
	if v == 0 {
		return "-"
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

// remarks says what bears on the table: bytes on the drive, cells that count less than they seem to.
func (r *Report) remarks(out io.Writer, minJournals float64) {
	fmt.Fprintln(out, "\nPairs are ours : qemu-nbd's, of the same job; of 1M puts, against its 1M sequential write; "+
		"of cached reads, against its cold ones.")
	fmt.Fprintf(out, "%s and %s are the deployment of %s over loopback; TLS 1.3 with certificates.\n", overTCP, overTLS,
		embedded)
	for _, j := range Jobs() {
		done := map[string]bool{}
		for _, g := range j.Goals {
			if row := r.row(j, g); j.write() && row.Bytes > 0 && !done[g.Target] {
				done[g.Target] = true
				r.written(out, j, &row, minJournals)
			}
		}
	}
	n, worst := 0, 0.0
	for _, c := range r.Cells {
		if c.Disturbed {
			n++
		}
		worst = max(worst, c.OtherLoad, c.OtherDuring)
	}
	if n > 0 {
		fmt.Fprintf(out, "DISTURBED: in %d of %d cells something else kept up to %.0f %% of the cores busy, twice; "+
			"they give no ratios, measure again on a quiet machine\n", n, len(r.Cells), worst*100)
	}
}

// written says what became of the bytes of a writing job on one of our targets.
func (r *Report) written(out io.Writer, j Job, row *Row, minJournals float64) {
	fmt.Fprintf(out, "%s, %s: %s written, %s by its processes (%.2fx), %s on the drive (%.2fx)\n", j.Name, row.Target,
		units.HumanSize(row.Bytes), units.HumanSize(row.ServerBytes), float64(row.ServerBytes)/float64(row.Bytes),
		units.HumanSize(row.DriveBytes), float64(row.DriveBytes)/float64(row.Bytes))
	for _, c := range r.of(j.Name, row.Target) {
		if n := float64(c.Bytes) / float64(r.JournalBytes); j.Sustained && n < minJournals {
			fmt.Fprintf(out, "  round %d wrote %.1f journals' worth; %.0f are asked for: its figure flatters\n",
				c.Round+1, n, minJournals)
		}
	}
}

func (r *Report) save(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = os.WriteFile(path, append(b, '\n'), 0o644)
	}
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot write the results")
	}
	return nil
}
