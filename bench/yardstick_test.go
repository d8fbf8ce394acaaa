package bench

import (
	"strings"
	"testing"
)

// A goal that is met against the slow one of qemu-nbd's two speeds says so, in its verdict and beside the count; one
// that is missed even so is missed. Jobs that have no such two speeds are as they were.
func TestSlowYardstick(t *testing.T) {
	for _, tc := range []struct {
		cpu  float64
		want string
	}{{12, "met"}, {24, "met, slow"}} {
		r := &Report{Machine: machine{Cores: 2}}
		r.run(coldRead, qemu, 100, 10, 0.5)
		r.run(coldRead, embedded, 140, 10, 0.5)
		r.run("4K write + fsync QD1", qemu, 100, 120, 0.5)
		r.run("4K write + fsync QD1", embedded, 140, 120, 0.5)
		r.run(randomWrite, qemu, 100, tc.cpu, 0.5)
		r.run(randomWrite, embedded, 180, 10, 0.5)
		r.run(randomWrite, processes, 120, 10, 0.5)
		r.summarize()
		slow := strings.HasSuffix(tc.want, "slow")
		for i := range r.Rows {
			row := &r.Rows[i]
			if row.Goal == 0 || row.Base != qemu {
				continue
			}
			want := "met"
			switch {
			case row.Job == randomWrite && row.Target == processes && row.Figure == IOPS:
				want = "MISSED"
			case row.Job == randomWrite:
				want = tc.want
			}
			if _, got := row.verdict(); got != want {
				t.Errorf("%g us: %s on %s%s: %q, want %q", tc.cpu, row.Job, row.Target, row.what(), got, want)
			}
		}
		if got := strings.Contains(r.tally(), "3 of them against a slow `qemu-nbd`"); got != slow {
			t.Errorf("%g us: %s", tc.cpu, r.tally())
		}
		if got := strings.Contains(r.slowSay(), "24.0 us of CPU, 2.4 times a read"); got != slow {
			t.Errorf("%g us: %q", tc.cpu, r.slowSay())
		}
	}
}
