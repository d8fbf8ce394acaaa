package bench

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"vstor/dataplane/errs"
)

// Benchstat writes every cell that was not disturbed as a line of Go's benchmark format, for
// golang.org/x/perf/cmd/benchstat. Job and target are keys of the name, so that `benchstat -col /target RUN` sets
// targets side by side, and two files two runs.
func (r *Report) Benchstat(out io.Writer) error {
	w := bufio.NewWriter(out)
	fmt.Fprintf(w, "goos: linux\npkg: vstor/bench\ncpu: %s\n", r.Machine.CPU)
	for _, unit := range []string{"iops better=higher", "MB/s better=higher", "p99-ns better=lower",
		"cpu-ns/op better=lower"} {
		fmt.Fprintf(w, "Unit %s\n", unit)
	}
	for i := range r.Cells {
		c := &r.Cells[i]
		if c.Disturbed { // a line that benchstat passes over
			fmt.Fprintf(w, "# left out, disturbed: %s on %s, round %d\n", c.Job, c.Target, c.Round+1)
			continue
		}
		fmt.Fprintf(w, "BenchmarkVstor/job=%s/target=%s %d %.0f ns/op %.1f iops %.2f MB/s %.0f p99-ns %.0f cpu-ns/op\n",
			benchWord(c.Job), benchWord(c.Target), max(1, c.IOs), c.MeanUs*1e3, c.IOPS, c.MBps, c.P99Us*1e3, c.CPUUsPerIO*1e3)
	}
	if err := w.Flush(); err != nil {
		return errs.Wrap(errs.IO, err, "cannot print")
	}
	return nil
}

// benchWord makes a name one word of a benchmark's name, in which a slash begins the next key and -N at the end
// would be the number of processors.
func benchWord(s string) string {
	return strings.NewReplacer(" ", "_", "/", ":", "-", "_", "=", "_").Replace(s)
}
