package bench

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"vstor/dataplane/units"
)

// tableHead names the columns of the table of goals.
var tableHead = []string{"job", "", "on", "its", qemu, rawFile, "ratio", "goal", "", "spread", "mean us", "p99 us",
	"CPU us/IO"}

// headline says where and how it was measured.
func (r *Report) headline() string {
	return fmt.Sprintf("%s, %d cores, Linux %s, %s, %s; %s%s; %d rounds, volume %s, journal %s", r.Machine.CPU,
		r.Machine.Cores, r.Machine.Kernel, r.Machine.Fio, r.Machine.Qemu, r.Started.Format(time.DateOnly), r.took(), r.Rounds,
		units.HumanSize(r.VolumeBytes), units.HumanSize(r.JournalBytes))
}

// caveats say what makes all figures of a run worth less than those of a whole and quiet one.
func (r *Report) caveats() (out []string) {
	if r.Planned > 0 {
		out = append(out, fmt.Sprintf("Broken off after %d of %d cells: some figures are the median of fewer rounds, and "+
			"some are missing.", len(r.Cells), r.Planned))
	}
	out = append(out, r.LeftOut...)
	if r.Quick {
		out = append(out, "A quick run: its cells are too short for its ratios to mean much.")
	}
	if r.Profiled {
		out = append(out, "Profiles were taken meanwhile, which takes time: its figures are too low.")
	}
	return out
}

// warnings are the caveats, and that others used the machine.
func (r *Report) warnings() []string {
	out := r.caveats()
	if s := r.disturbance(); s != "" {
		out = append(out, s)
	}
	return out
}

// Print writes the table of goals and what bears on it.
func (r *Report) Print(out io.Writer) error {
	fmt.Fprintf(out, "\n%s\n", r.headline())
	for _, s := range r.caveats() {
		fmt.Fprintf(out, "NOTE: %s\n", s)
	}
	fmt.Fprintln(out)
	if err := errors.Join(printTable(out, tableHead, r.table()), printTable(out, vitastorHead, r.besideVitastor()),
		printTable(out, limitsHead, r.limits()), printTable(out, hopsHead, r.hops())); err != nil {
		return err
	}
	fmt.Fprintln(out)
	if say := r.slowSay(); say != "" {
		fmt.Fprintln(out, say)
	}
	for _, line := range r.remarks() {
		fmt.Fprintln(out, line)
	}
	return nil
}

// namedTable is a table with its heading and a sentence or two before it.
type namedTable struct {
	title, say string
	head       []string
	rows       [][]string
}

// tables are those of the page and the summary behind that of all targets.
func (r *Report) tables() []namedTable {
	return []namedTable{
		{"What forbids more", limitsSay, limitsHead, r.limits()},
		{"Vitastor", vitastorSay, vitastorHead, r.besideVitastor()},
		{"Hop by hop", hopsSay, hopsHead, r.hops()},
		{"Every figure", figuresSay, figuresHead, r.figures()},
	}
}

// printTable writes nothing where there are no rows.
func printTable(out io.Writer, head []string, rows [][]string) error {
	if len(rows) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', tabwriter.AlignRight)
	for _, cells := range append([][]string{head}, rows...) {
		for _, c := range cells {
			fmt.Fprintf(w, "%s\t", c)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// table is a line for each goal, in the columns of tableHead; a job is named once.
func (r *Report) table() [][]string {
	var out [][]string
	last := ""
	for i := range r.Rows {
		row := &r.Rows[i]
		name := row.Job
		if name == last {
			name = ""
		}
		last = row.Job
		goal, verdict := row.verdict()
		ratio := row.ratioText()
		if row.Disturbed {
			ratio = "disturbed"
		}
		spread := "-" // one round has none
		if cells, _ := r.trusted(row.Job, row.Target); len(cells) > 1 {
			spread = fmt.Sprintf("%.0f%%", row.SpreadPercent)
			if row.Pairs > 1 {
				spread += fmt.Sprintf(" : %.0f%%", row.RatioSpreadPercent)
			}
		}
		out = append(out, []string{name, string(row.Figure), row.Target, fmt.Sprintf("%.0f", row.Ours),
			known(row.Peer, 0), known(row.Raw, 0), ratio, goal, verdict, spread,
			fmt.Sprintf("%.0f : %s", row.OursMean, known(row.PeerMean, 0)),
			fmt.Sprintf("%.0f : %s", row.OursP99, known(row.PeerP99, 0)),
			fmt.Sprintf("%.1f : %s", row.OursCPU, known(row.PeerCPU, 1))})
	}
	return out
}

const everythingSay = "Medians, and in parentheses the ratio to `" + qemu + "`, but where writes ran much shorter " +
	"than its own: what they leave to be done is a larger part of them. How long each ran stands in \"Every figure\"."

// everything is each job on each target, ours and peers: the median of its figure, and its ratio to qemu-nbd's.
// Head names the columns.
func (r *Report) everything() (head []string, rows [][]string) {
	targets := r.targets()
	head = append([]string{"job", ""}, targets...)
	for _, job := range r.jobs() {
		f := r.figure(job)
		row := []string{job, string(f)}
		for _, target := range targets {
			cells, quiet := r.trusted(job, target)
			text := known(median(cells, f.value), 0)
			if !quiet {
				text = "disturbed"
			} else if x := r.besideQemu(job, target, f.value); x > 0 && target != qemu && r.alike(job, target) {
				text += fmt.Sprintf(" (%s)", marking(fmt.Sprintf("%.2fx", x), r.qemuSlow(job)))
			}
			row = append(row, text)
		}
		rows = append(rows, row)
	}
	return head, rows
}

// alike says whether a target's cells of a job are to be set beside qemu-nbd's: writes that ran much shorter leave more
// to be done, as their share, than those that ran on, and are as much faster for it.
func (r *Report) alike(job, target string) bool {
	const much = 1.5
	us, them := r.of(job, target), r.of(job, qemu)
	wrote := slices.ContainsFunc(us, func(c Cell) bool { return c.WrittenBytes > 0 })
	return !wrote || median(them, Cell.seconds) <= much*median(us, Cell.seconds)
}

// what names the figure where it is not the job's.
func (row *Row) what() string {
	if row.Figure == CPU {
		return ", CPU"
	}
	return ""
}

// yardstick names what a row's ratio is to.
func (row *Row) yardstick() string {
	switch {
	case row.Base == row.Target:
		return "without"
	case row.BaseJob == syncedWrite && row.Job != syncedWrite:
		return row.Base + ", flushed"
	}
	return row.Base
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
	if row.Base != "" && row.Base != qemu {
		goal += " of " + row.yardstick()
	}
	switch {
	case row.Goal == 0:
		return goal, ""
	case row.Disturbed:
		return goal, "?"
	case row.Ratio == 0:
		return goal, "not measured"
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
func (r *Report) remarks() []string {
	out := []string{
		"Pairs are ours : qemu-nbd's, of the same job; of 1M puts, against its sequential writes; " +
			"of cached reads, against its cold ones. The spreads are that of our figure, and that of the ratio, which is " +
			"the median of the rounds' ratios and not that of the two figures beside it.",
		fmt.Sprintf("%s and %s are the deployment of %s over loopback; TLS 1.3 with certificates.", overTCP, overTLS,
			embedded)}
	if len(r.of(coldRead, tgtISCSI)) > 0 {
		out = append(out, peersSay)
	}
	for i := range r.Cells {
		out = append(out, r.Cells[i].doubts()...)
	}
	said := map[[2]string]bool{} // a job may have two goals on one target
	for i := range r.Rows {
		row := &r.Rows[i]
		key := [2]string{row.Job, row.Target}
		if row.Writes && row.ServerBytes > 0 && !said[key] {
			out = append(out, r.written(row)...)
		}
		said[key] = true
	}
	if line := r.disturbance(); line != "" {
		out = append(out, line)
	}
	return out
}

// peersSay is what the heavy peers' figures have in them beside the peers.
const peersSay = tgtISCSI + " is reached through a qemu-nbd with its iSCSI initiator, for this fio speaks NBD and " +
	"not iSCSI: its figures have that hop in them. Ceph's six OSDs keep theirs in files on the same drive; their " +
	"volumes have 1 GiB. They are stopped while others are measured, so that what they do in the background falls into " +
	"their own cells. Set are the least memory that an OSD takes, no cache in the client, no authentication, no " +
	"autoscaling, and timeouts that the stops need; all else is Ceph's default."

// doubts say where an open loop did not start its IOs by the clock, which is in its latencies and may not be the
// server's doing; and where a cache alone was not alone.
func (c *Cell) doubts() (out []string) {
	const late, mostly = 0.1, 0.98 // of the p99; of the reads
	if c.LateP99Us > late*c.P99Us {
		out = append(out, fmt.Sprintf("%s, %s: one IO in a hundred started %.0f us late or more, as 1024 were waiting for "+
			"answers or the generator had no CPU; its p99 of %.0f us has that in it", c.Job, c.Target, c.LateP99Us, c.P99Us))
	}
	if c.FromCache > 0 && c.FromCache < mostly {
		out = append(out, fmt.Sprintf("%s, %s: it served %.0f %% of the reads, and the rest came from behind it", c.Job,
			c.Target, 100*c.FromCache))
	}
	return out
}

// disturbance says how much of the run something else on the machine took; empty: nothing to speak of.
func (r *Report) disturbance() string {
	n, worst, moved := 0, 0.0, 0.0
	for _, c := range r.Cells {
		if c.Disturbed {
			n++
		}
		worst, moved = max(worst, c.OtherLoad, c.OtherDuring), max(moved, c.OtherDriveMBps)
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("DISTURBED: in %d of %d cells something else kept up to %.0f %% of the cores busy, or moved up to "+
		"%.0f MB/s on the drive, twice; these rounds are left out, and where they are half of a figure's or more it has no "+
		"ratio: measure again on a quiet machine", n, len(r.Cells), worst*100, moved)
}

// written says what became of the bytes of a writing job on one of our targets.
func (r *Report) written(row *Row) []string {
	out := []string{fmt.Sprintf("%s, %s: %s written, %s by its processes (%.2fx), %s on the drive (%.2fx)", row.Job,
		row.Target, units.HumanSize(row.Bytes), units.HumanSize(row.ServerBytes),
		float64(row.ServerBytes)/float64(row.Bytes), units.HumanSize(row.DriveBytes),
		float64(row.DriveBytes)/float64(row.Bytes))}
	if row.Target == bareServer {
		return out // it has no such journal
	}
	for _, c := range r.of(row.Job, row.Target) {
		if n := float64(c.Bytes) / float64(r.JournalBytes); row.Sustained && n < r.MinJournals {
			out = append(out, fmt.Sprintf("  round %d wrote %.1f journals' worth; %.0f are asked for: its figure flatters",
				c.Round+1, n, r.MinJournals))
		}
	}
	return out
}
