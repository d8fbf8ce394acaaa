package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"vstor/dataplane/errs"
)

// result of a job: what we take of fio's JSON, summed over reads and writes, or counted ourselves.
type result struct {
	IOs   int64
	Bytes int64
	IOPS  float64
	MBps  float64 // 10^6 bytes
	// Latencies in microseconds, from submission to completion.
	Mean, P50, P99, P999 float64
}

type fioSide struct {
	TotalIOs int64   `json:"total_ios"`
	IOBytes  int64   `json:"io_bytes"`
	IOPS     float64 `json:"iops"`
	BW       float64 `json:"bw_bytes"`
	Lat      struct {
		Mean float64 `json:"mean"`
	} `json:"lat_ns"`
	CLat struct {
		Percentile map[string]float64 `json:"percentile"`
	} `json:"clat_ns"`
}

// aim is what fio is to work on.
type aim struct {
	flags []string
	home  string // the user's home as fio sees it, for libnbd to find certificates; empty: as it is
}

func nbdArgs(uri string) aim { return aim{flags: []string{"--ioengine=nbd", "--uri=" + uri}} }

func rawArgs(path string) aim {
	return aim{flags: []string{"--ioengine=io_uring", "--direct=1", "--filename=" + path}}
}

// fioCPU is where fio runs; servers' loops have the others. On KVM guests the kernel otherwise puts a client and
// its server on one CPU for seconds while the next one idles, at random: see dataplane/ring/thread.go.
const fioCPU = 0

// runFio runs a job for a time; size 0 means the whole volume. A time of 0 goes over the volume once.
func runFio(ctx context.Context, at aim, j Job, size int64, d time.Duration) (result, error) {
	if j.Span > 0 {
		size /= j.Span
	}
	args := append([]string{"--name=job", "--thread", "--output-format=json", "--randrepeat=0", "--norandommap",
		"--refill_buffers", "--group_reporting", fmt.Sprintf("--cpus_allowed=%d", fioCPU),
		"--rw=" + j.RW, "--bs=" + j.Block, fmt.Sprintf("--iodepth=%d", j.Depth), fmt.Sprintf("--size=%d", size)}, at.flags...)
	limit := 10 * time.Minute
	if d > 0 {
		args = append(args, "--time_based", fmt.Sprintf("--runtime=%dms", d.Milliseconds()))
		limit = d + time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "fio", args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if at.home != "" {
		cmd.Env = append(os.Environ(), "HOME="+at.home)
	}
	if err := cmd.Run(); err != nil {
		return result{}, errs.Wrap(errs.IO, err, "fio %s failed: %s", strings.Join(args, " "),
			lastLine(errOut.String()+out.String()))
	}
	return parseFio(out.Bytes())
}

// parseFio reads fio's JSON, which its engines may precede with remarks.
func parseFio(b []byte) (result, error) {
	var doc struct {
		Jobs []struct {
			Error int     `json:"error"`
			Read  fioSide `json:"read"`
			Write fioSide `json:"write"`
		} `json:"jobs"`
	}
	if i := bytes.IndexByte(b, '{'); i > 0 {
		b = b[i:]
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return result{}, errs.Wrap(errs.IO, err, "fio's output is no JSON")
	}
	if len(doc.Jobs) != 1 || doc.Jobs[0].Error != 0 {
		return result{}, errs.New(errs.IO, "fio reports an error: %.300s", b)
	}
	side := doc.Jobs[0].Read
	if w := doc.Jobs[0].Write; w.TotalIOs > side.TotalIOs {
		side = w
	}
	p := side.CLat.Percentile
	return result{IOs: side.TotalIOs, Bytes: side.IOBytes, IOPS: side.IOPS, MBps: side.BW / 1e6,
		Mean: side.Lat.Mean / 1e3, P50: p["50.000000"] / 1e3, P99: p["99.000000"] / 1e3, P999: p["99.900000"] / 1e3}, nil
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
