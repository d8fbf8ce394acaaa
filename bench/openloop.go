package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"vstor/bench/load"
	"vstor/dataplane/ids"
)

// door is where a target serves NBD.
type door struct{ network, addr string }

// percentilesKept are those that fio tells of its own accord.
var percentilesKept = []float64{1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 99.5, 99.9, 99.95, 99.99}

// percentiles are values by fio's names.
func percentiles(at func(percent float64) float64) map[string]float64 {
	m := make(map[string]float64, len(percentilesKept))
	for _, p := range percentilesKept {
		m[fmt.Sprintf("%.6f", p)] = at(p)
	}
	return m
}

// runOpen does an open-loop job.
func runOpen(ctx context.Context, to door, j Job, d time.Duration) (result, error) {
	defer keepTo(ctx, strconv.Itoa(fioCPU))()
	got, err := load.Run(ctx, load.Options{Network: to.network, Addr: to.addr, Export: volume, Conns: j.Conns,
		Rate: j.rate, For: d, Block: ids.BlockSize, Write: strings.Contains(j.RW, "write")})
	if err != nil {
		return result{}, err
	}
	h, n := got.Latency, got.Latency.TotalCount()
	r := result{IOs: n, Bytes: n * ids.BlockSize, IOPS: float64(n) / got.Took.Seconds(), Mean: h.Mean() / 1e3,
		MBps: float64(n*ids.BlockSize) / 1e6 / got.Took.Seconds(), Series: got.Series,
		Late: float64(got.Late.ValueAtPercentile(99)) / 1e3}
	r.setPercentiles(percentiles(func(p float64) float64 { return float64(h.ValueAtPercentile(p)) }))
	return r, nil
}

// keepTo keeps all threads of this process to some CPUs, as fio is kept: see fioCPU. restore lets them go where they
// like.
func keepTo(ctx context.Context, cpus string) (restore func()) {
	set := func(cpus string) {
		exec.CommandContext(ctx, "taskset", "-a", "-p", "-c", cpus, strconv.Itoa(os.Getpid())).Run()
	}
	if serverCPUs() == "" {
		return func() {}
	}
	set(cpus)
	return func() { set(fmt.Sprintf("0-%d", runtime.NumCPU()-1)) }
}
