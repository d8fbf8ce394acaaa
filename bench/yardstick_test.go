package bench

import (
	"strings"
	"testing"
)

// All ratios to the slow one of qemu-nbd's two speeds are marked, whether they meet a goal or miss it, and counted; of
// jobs that have no such two speeds none is.
func TestSlowYardstick(t *testing.T) {
	for _, tc := range []struct {
		cpu  float64
		slow bool
	}{{12, false}, {24, true}} {
		r := &Report{Machine: machine{Cores: 2}}
		r.run(coldRead, qemu, 100, 10, 0.5)
		r.run(coldRead, embedded, 140, 10, 0.5)
		for _, job := range []string{"4K random write QD1", "4K write + fsync QD1"} {
			r.run(job, qemu, 100, 120, 0.5)
			r.run(job, embedded, 140, 120, 0.5)
		}
		for _, job := range []string{randomWrite, "4K random write QD128"} {
			r.run(job, qemu, 100, tc.cpu, 0.5)
			r.run(job, embedded, 180, 10, 0.5)
			r.run(job, processes, 120, 10, 0.5)
		}
		r.summarize()
		for i := range r.Rows {
			row := &r.Rows[i]
			deep := row.Base == qemu && (row.Job == randomWrite || row.Job == "4K random write QD128")
			if want := tc.slow && deep; row.Slow != want {
				t.Errorf("%g us: %s on %s%s: slow %v, want %v", tc.cpu, row.Job, row.Target, row.what(), row.Slow, want)
			}
		}
		for _, v := range r.besideVitastor() {
			if want := tc.slow && v[1] == embedded && v[3] == "0.083"; want && !strings.HasSuffix(v[4], slowMark) {
				t.Errorf("%q", v)
			}
		}
		for what, text := range map[string]string{
			"of them against a slow `qemu-nbd`":               r.tally(),
			"24.0 us of CPU, 2.4 times a read":                r.slowSay(),
			randomWrite + " on " + processes + " (1.20 slow)": r.tally(),
		} {
			if strings.Contains(text, what) != tc.slow {
				t.Errorf("%g us: %q in %s", tc.cpu, what, text)
			}
		}
	}
}
