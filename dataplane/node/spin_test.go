package node

import (
	"testing"

	"vstor/dataplane/config"
)

// Loops go round where each that reads drives has a CPU, of those that they are kept to too, and one is left.
func TestSpins(t *testing.T) {
	defer func(n int) { cpus = n }(cpus)
	for _, tc := range []struct {
		what      string
		cpus      int
		processes bool
		loops     int
		kept      []int
		off, want bool
	}{
		{"one loop on two CPUs", 2, false, 1, nil, false, true},
		{"on one", 1, false, 1, nil, false, false},
		{"a loop on each CPU", 4, false, 4, nil, false, false},
		{"an edge and a router on two CPUs", 2, true, 1, nil, false, true},
		{"each kept to one", 2, true, 1, []int{1, 0}, false, true},
		{"both kept to the same", 2, true, 1, []int{1}, false, false},
		{"two loops kept to one", 8, false, 2, []int{1}, false, false},
		{"switched off", 8, false, 1, nil, true, false},
	} {
		cpus = tc.cpus
		cfg := config.Config{Processes: tc.processes, Loops: tc.loops, LoopCPUs: tc.kept, LoopSpin: config.On, ASDs: 6}
		if tc.off {
			cfg.LoopSpin = config.Off
		}
		if got := spins(&cfg); got != tc.want {
			t.Errorf("%s: %v", tc.what, got)
		}
	}
}
