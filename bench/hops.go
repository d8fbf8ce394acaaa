package bench

import "fmt"

// hopsHead names the columns of the table of hops.
var hopsHead = []string{"job", "down from", "IOPS", "mean us", "this hop", "p50 us", "p99 us", "CPU us/IO"}

const hopsSay = "One path, cut off further and further up: each line is an IO that begins at that part and goes all " +
	"the way down. What its mean is more than that of the line above is this hop. The raw file is driven by fio, the " +
	"lines called alone by the part's own loop, those called vstor by fio over NBD: the hop of the first of these has " +
	"what fio does itself in it. " + bareServer + " is NBD and fio on what stands above it and nothing else: the line " +
	"below is set against that above. " + logAlone + " is the drive as a log uses it that stores 4+2 behind it: " +
	"records of a header and what waits, and half as much again in pieces of 1 MiB, with no code, sum or map. " +
	"In " + local + " edge and router are processes of their own, in " + processes + " reads go by way of the ASDs'. " +
	"fio's percentiles do not count the submission, ours do, and come in steps of 6 %. Each line was run once, and " +
	"differences of a few microseconds between lines are the drive's scatter. Times at a depth are mostly queueing, and " +
	"loops go round without sleeping then, so that CPU per IO says little of a hop. The block cache has no depth: it is " +
	"asked for one block after the other, with two readings of the clock in each."

// hops is a line for each part of the paths that were measured so. CPU is of the server, which drives itself where it
// stands alone. A disturbed line says nothing, neither of itself nor of the next; nor does the raw file of the next,
// for fio's clock is not ours.
func (r *Report) hops() (rows [][]string) {
	for _, j := range Jobs() {
		if !j.Hops {
			continue
		}
		name, below := j.Name, 0.0
		for _, g := range j.Goals {
			cells, quiet := r.trusted(j.Name, g.Target)
			if len(cells) == 0 {
				continue
			}
			mean, hop := median(cells, Latency.value), "-"
			if below > 0 {
				hop = fmt.Sprintf("%+.1f", mean-below)
			}
			if !quiet {
				hop = "disturbed"
			}
			switch {
			case g.Target == bareServer: // the next does not stand on it
			case !quiet, j.Apart, g.Target == rawFile: // that by another's clock
				below = 0
			default:
				below = mean
			}
			p50 := median(cells, func(c Cell) float64 { return c.P50Us })
			rows = append(rows, []string{name, g.Target, known(median(cells, IOPS.value), 0), known(mean, 1), hop,
				known(p50, 1), known(median(cells, P99.value), 1), known(median(cells, CPU.value), 1)})
			name = ""
		}
	}
	return rows
}
