package bench

import "fmt"

// figuresHead names the columns of the table of all that was measured.
var figuresHead = []string{"job", "on", "rounds", "s", "IOPS", "MB/s", "p50 us", "p99 us", "p99.9 us", "CPU us/IO",
	"client", "copied", "on the drive"}

const figuresSay = "All jobs on all targets: medians of the rounds that were not disturbed, which are counted, and " +
	"ran so many seconds each. \"client\" is how much of its one core fio had: a figure whose client has all of it is " +
	"fio's and not the server's. \"copied\" are the bytes that were copied in user space on the way to NBD and back, " +
	"for each byte served, where the target counts them; \"on the drive\" the bytes that reached it for each that the " +
	"client wrote."

// figures is a line for each job on each target; a job is named once.
func (r *Report) figures() (rows [][]string) {
	for _, job := range r.jobs() {
		name := job
		for _, target := range r.targets() {
			cells, quiet := r.trusted(job, target)
			if len(cells) == 0 {
				continue
			}
			rows = append(rows, append([]string{name, target}, figuresOf(cells, quiet)...))
			name = ""
		}
	}
	return rows
}

// figuresOf is the rest of the line of these rounds.
func figuresOf(cells []Cell, quiet bool) []string {
	if !quiet {
		return []string{"disturbed", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-"}
	}
	of := func(f func(Cell) float64, digits int) string { return known(median(cells, f), digits) }
	return []string{fmt.Sprint(len(cells)), of(Cell.seconds, 0), of(IOPS.value, 0), of(MBps.value, 0),
		of(func(c Cell) float64 { return c.P50Us }, 0), of(P99.value, 0),
		of(func(c Cell) float64 { return c.P999Us }, 0), of(CPU.value, 1),
		of(func(c Cell) float64 { return c.ClientCPU }, 2), copied(cells), amplified(cells)}
}

// copied is how many bytes were copied for each; a dash where nobody counted.
func copied(cells []Cell) string {
	for _, c := range cells {
		if c.CopiedPerByte == nil {
			return "-"
		}
	}
	return fmt.Sprintf("%.2f", median(cells, func(c Cell) float64 { return *c.CopiedPerByte }))
}

// amplified is how many bytes reached the drive for each that was written, all rounds together.
func amplified(cells []Cell) string {
	var wrote, drive int64
	for _, c := range cells {
		wrote += c.WrittenBytes
		drive += c.DriveBytes
	}
	if wrote == 0 {
		return "-" // reads: what reached the drive is of others, or of before
	}
	return known(float64(drive)/float64(wrote), 2)
}
