package bench

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// limitsHead names the columns of the table of goals that are missed.
var limitsHead = slices.Concat([]string{"job", "on", "ratio", "goal", "lacks"}, limitNames, []string{""})

// limitNames are what may forbid a goal, in the order of their columns; see factors.
var limitNames = []string{"the drive", bareServer, "fio", edgeAlone, "all cores"}

const limitsSay = "For each goal that is missed how many times faster it would have to be (\"lacks\"), and how many " +
	"times faster others are in the same job. \"The drive\" is the part of that name below: " + driveAlone + ", and for " +
	"writes " + logAlone + ", which writes the bytes that a log with 4+2 behind it writes; \"" + edgeAlone + "\" is " +
	"all of ours but NBD. Where the bare server has more than the log alone, that one cell is no limit. Each is set " +
	"against our own line in the same table of hops, measured minutes apart, once. Of " +
	"puts, which are durable when they are answered, the drive is the raw file flushed after every eight, in its one " +
	"round. \"" + bareServer + "\" is our NBD before the raw file and such a log, with nothing between, in the same " +
	"rounds and for a cell each. \"fio\" is what the one core that it is kept to would give if it were never idle, told " +
	"from nine tenths of it on, and \"all cores\" what all would, at the CPU that an IO takes of ours and of fio: where " +
	"our loops sleep when there is nothing to do, as they do unless they read drives. What the " +
	"drive forbids is forbidden on this machine, what fio does to its one core, the bare server to whoever keeps such a " +
	"log behind such NBD, the Edge or the cores to this code. \"Within the spread\": the rounds' ratios lie further " +
	"apart than what is lacking beyond it. A part that is slower by itself than the whole forbids nothing. Where " +
	"nothing forbids a goal it is missed and nothing else."

// limits is a line for each of them.
func (r *Report) limits() (rows [][]string) {
	last := ""
	for i := range r.Rows {
		row := &r.Rows[i]
		if row.Goal == 0 || row.Ratio == 0 || row.Met {
			continue
		}
		name := row.Job
		if name == last {
			name = ""
		}
		last = row.Job
		goal, _ := row.verdict()
		rows = append(rows, append([]string{name, row.Target + row.what(), row.ratioText(), goal},
			r.limitsOf(row)...))
	}
	return rows
}

// limitsOf is the rest of the line of a row.
func (r *Report) limitsOf(row *Row) []string {
	lacks, factors, bound := row.Goal/row.Ratio, r.factors(row), "at most"
	if row.Figure.less() {
		lacks, bound = 1/lacks, "at least"
	}
	out, verdict := []string{timesFaster(lacks)}, "nothing known forbids it"
	least := math.Inf(1)
	for i, f := range factors {
		out = append(out, timesFaster(f))
		if f < 1 || f >= lacks || f >= least {
			continue
		}
		least = f
		best := row.Ratio * f
		if row.Figure.less() {
			best = row.Ratio / f
		}
		verdict = fmt.Sprintf("forbidden by %s: %s %.2f", limitNames[i], bound, best)
		if f*(1+row.RatioSpreadPercent/100) >= lacks {
			verdict += ", within the spread"
		}
	}
	return append(out, verdict)
}

// factors are how many times faster than a row's target each of limitNames is; 0: not measured. Of latencies what cores
// have left says nothing.
func (r *Report) factors(row *Row) []float64 {
	switch row.Figure {
	case CPU, P99:
		return make([]float64, len(limitNames))
	case Latency:
		return []float64{r.drive(row), r.bareFactor(row), 0, r.hopFactor(row, edgeAlone), 0}
	}
	return []float64{r.drive(row), r.bareFactor(row), r.fioFactor(row), r.hopFactor(row, edgeAlone), r.coresFactor(row)}
}

func timesFaster(f float64) string {
	if f <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.2fx", f)
}

// drive is how many times faster the drive alone is than a row's target; 0: not measured. The log alone is one cell,
// and what the drive gave that minute: where the bare server, which writes the same in each round, has more, it is no
// limit, and the bare server's is the only one known.
func (r *Report) drive(row *Row) float64 {
	if f := r.hopFactor(row, logAlone); f > 0 {
		if r.bareFactor(row) > f {
			return 0
		}
		return f
	}
	if row.Target == single && row.Writes {
		return r.times(syncedWrite, rawFile, row)
	}
	return r.hopFactor(row, driveAlone)
}

// hopFactor is how many times faster a part alone is than a row's target, in the hops of the row's job; 0: not
// measured.
func (r *Report) hopFactor(row *Row, part string) float64 {
	hops, ok := hopsOf(row.Job)
	if !ok {
		return 0
	}
	alone, quiet := r.trusted(hops.Name, part)
	us, usQuiet := r.trusted(hops.Name, row.Target)
	them, ours := median(alone, hops.Figure.value), median(us, hops.Figure.value)
	switch {
	case !quiet || !usQuiet || them <= 0 || ours <= 0:
		return 0
	case hops.Figure.less():
		return ours / them
	}
	return them / ours
}

// bareFactor is how many times faster the bare server is; 0: not measured, or the row's target is not behind NBD.
func (r *Report) bareFactor(row *Row) float64 {
	if row.Target == single {
		return 0
	}
	return r.times(row.Job, bareServer, row)
}

// times is how many times faster than a row's target another is in a job, in the same rounds; 0: not measured.
func (r *Report) times(job, other string, row *Row) float64 {
	ratios, sound := r.paired(job, other, row.Job, row.Target, row.Figure.value)
	switch {
	case len(ratios) == 0 || !sound || middle(ratios) <= 0:
		return 0
	case row.Figure.less():
		return 1 / middle(ratios)
	}
	return middle(ratios)
}

// fioFull is how much of its core fio has where the core may be what limits: below, it takes less for each IO the more
// of them there are.
const fioFull = 0.9

// fioFactor is by how much a core is more than what fio had of its one; 0: it had much less.
func (r *Report) fioFactor(row *Row) float64 {
	cells, quiet := r.trusted(row.Job, row.Target)
	if busy := median(cells, func(c Cell) float64 { return c.ClientCPU }); quiet && busy >= fioFull {
		return max(1, 1/busy) // its threads may run a little longer than their job
	}
	return 0
}

// hopsOf is the job that goes through the hops of another one.
func hopsOf(name string) (hops Job, ok bool) {
	file := ""
	for _, j := range Jobs() {
		if j.Name == name {
			file = j.File
		}
	}
	for _, j := range Jobs() {
		if j.Hops && !j.Apart && j.Span == 0 && file != "" && j.File == file {
			return j, true
		}
	}
	return Job{}, false
}

// coresFactor is by how much all cores are more than those that a row's target and fio kept busy; 0: not known, as they
// go round without sleeping, or fio does not tell.
func (r *Report) coresFactor(row *Row) float64 {
	cells, quiet := r.trusted(row.Job, row.Target)
	if !quiet || !row.sleeps() {
		return 0
	}
	busy := median(cells, func(c Cell) float64 { return c.IOPS*c.CPUUsPerIO/1e6 + c.ClientCPU })
	if client := median(cells, func(c Cell) float64 { return c.ClientCPU }); busy <= 0 || client <= 0 {
		return 0
	}
	return float64(r.Machine.Cores) / busy
}

// sleeps says whether the loops of a row's target sleep when there is nothing to do. Those that read drives go round;
// those that write to them, or wait for sockets alone, do not.
func (row *Row) sleeps() bool {
	readsDrives := !row.Writes || strings.HasPrefix(row.Job, "70/30")
	return !readsDrives || slices.Contains([]string{processes, cached, cachedASDs}, row.Target)
}
