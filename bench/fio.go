package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"vstor/dataplane/errs"
)

// result of a job: what we take of fio's JSON and log, or counted ourselves.
type result struct {
	IOs   int64
	Bytes int64
	IOPS  float64
	MBps  float64 // 10^6 bytes
	// Latencies in microseconds, from submission to completion; of an open loop, from the intended start.
	Mean, P50, P99, P999 float64
	Percentiles          map[string]float64 // by fio's names
	Series               []float64          // IOPS in each whole second
	ClientCPU            float64            // share of a core that fio had
	Late                 float64            // of an open loop: p99 of how late IOs started
	FromCache            float64            // of a cache alone: which share of the IOs it served
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
	env   []string // beside ours: HOME, where libnbd looks for certificates, or where Ceph's settings lie
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
	dir, err := os.MkdirTemp("", "vstor-fio-")
	if err != nil {
		return result{}, errs.Wrap(errs.IO, err, "cannot make a folder for fio")
	}
	defer os.RemoveAll(dir)
	path, err := j.place(dir)
	if err != nil {
		return result{}, err
	}
	if j.Span > 0 {
		size /= j.Span
	}
	log := filepath.Join(dir, "log")
	args := append([]string{"--output-format=json", fmt.Sprintf("--cpus_allowed=%d", fioCPU),
		fmt.Sprintf("--size=%d", size), "--write_iops_log=" + log, "--log_avg_msec=1000", "--per_job_logs=0"}, at.flags...)
	limit := 10 * time.Minute
	if d > 0 {
		args = append(args, "--time_based", fmt.Sprintf("--runtime=%dms", d.Milliseconds()))
		limit = d + time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "fio", append(args, path)...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.Env = append(os.Environ(), at.env...)
	if err := cmd.Run(); ctx.Err() == context.DeadlineExceeded {
		return result{}, errs.New(errs.Unreachable, "fio %s did not end within %v, so it was stopped: does the server hang?",
			strings.Join(cmd.Args[1:], " "), limit)
	} else if err != nil {
		return result{}, errs.Wrap(errs.IO, err, "fio %s failed: %s", strings.Join(cmd.Args[1:], " "),
			lastLine(errOut.String()+out.String()))
	}
	r, err := parseFio(out.Bytes())
	if err == nil {
		r.ClientCPU *= float64(max(j.Conns, 1))   // fio adds the times that its threads ran to the time to divide by
		text, _ := os.ReadFile(log + "_iops.log") // none, and no series, if the job ended within a second
		r.Series = parseSeries(text, d)
	}
	return r, err
}

// parseFio reads fio's JSON, which its engines may precede with remarks.
func parseFio(b []byte) (result, error) {
	var doc struct {
		Jobs []struct {
			Error int     `json:"error"`
			User  float64 `json:"usr_cpu"` // percent of a core, the mean of its threads
			Sys   float64 `json:"sys_cpu"`
			Read  fioSide `json:"read"`
			Write fioSide `json:"write"`
			Mixed fioSide `json:"mixed"` // of jobs that read and write, if their file says so
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
	for _, s := range []fioSide{doc.Jobs[0].Write, doc.Jobs[0].Mixed} {
		if s.TotalIOs > side.TotalIOs {
			side = s
		}
	}
	r := result{IOs: side.TotalIOs, Bytes: side.IOBytes, IOPS: side.IOPS, MBps: side.BW / 1e6, Mean: side.Lat.Mean / 1e3,
		ClientCPU: (doc.Jobs[0].User + doc.Jobs[0].Sys) / 100}
	r.setPercentiles(side.CLat.Percentile)
	return r, nil
}

// setPercentiles takes latencies in nanoseconds, by fio's names.
func (r *result) setPercentiles(ns map[string]float64) {
	r.Percentiles = make(map[string]float64, len(ns))
	for name, v := range ns {
		r.Percentiles[name] = v / 1e3
	}
	r.P50, r.P99, r.P999 = r.Percentiles["50.000000"], r.Percentiles["99.000000"], r.Percentiles["99.900000"]
}

// parseSeries adds up what fio logged in each second: a line is milliseconds since the start, IOPS, direction, and
// more, one for each thread and direction. Only the seconds within d are whole, and the last of them may not be there.
func parseSeries(log []byte, d time.Duration) []float64 {
	series, last := make([]float64, int(d/time.Second)), 0
	for line := range strings.Lines(string(log)) {
		fields := strings.Split(line, ", ")
		if len(fields) < 2 {
			continue
		}
		ms, err1 := strconv.ParseFloat(fields[0], 64)
		n, err2 := strconv.ParseFloat(fields[1], 64)
		if at := int(math.Round(ms/1000)) - 1; err1 == nil && err2 == nil && at >= 0 && at < len(series) {
			series[at] += n
			last = max(last, at+1)
		}
	}
	return series[:last]
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
