package nbd_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"vstor/dataplane/nbd"
)

// BenchmarkFio is the price of NBD itself: fio against a device in RAM. It reports figures and judges
// none; one iteration is one fio run of a few seconds.
//
//	go test -run - -bench Fio -benchtime 1x ./dataplane/nbd
func BenchmarkFio(b *testing.B) {
	fio, err := exec.LookPath("fio")
	if err != nil {
		b.Skip("SKIPPED: fio is not installed; `make test` installs it")
	}
	for _, j := range []struct {
		name, rw, bs string
		depth, jobs  int
	}{
		{"read4k-qd1", "randread", "4k", 1, 1},
		{"write4k-qd1", "randwrite", "4k", 1, 1},
		{"read4k-qd32", "randread", "4k", 32, 1},
		{"write4k-qd32", "randwrite", "4k", 32, 1},
		{"mixed4k-qd32", "randrw", "4k", 32, 1},
		{"read4k-qd32x4", "randread", "4k", 32, 4},
		{"write4k-qd32x4", "randwrite", "4k", 32, 4},
		{"read1m-qd8", "read", "1m", 8, 1},
		{"write1m-qd8", "write", "1m", 8, 1},
	} {
		b.Run(j.name, func(b *testing.B) {
			r := newRig(b, rigOptions{size: 1 << 30, pool: 1<<30 + 512<<20, keepOpen: true})
			defer r.close()
			report := filepath.Join(b.TempDir(), "fio.json")
			must(b, exec.Command(fio, "--name=fill", "--ioengine=nbd", "--uri=nbd+unix:///disk?socket="+r.sock,
				"--rw=write", "--bs=1m", "--iodepth=4", "--size=1g").Run())
			for b.Loop() {
				before := cpu()
				must(b, exec.Command(fio, "--name=j", "--ioengine=nbd",
					"--uri=nbd+unix:///disk?socket="+r.sock, "--rw="+j.rw, "--bs="+j.bs,
					fmt.Sprintf("--iodepth=%d", j.depth), fmt.Sprintf("--numjobs=%d", j.jobs), "--size=1g",
					"--runtime=4", "--time_based", "--group_reporting", "--norandommap", "--randrepeat=0",
					"--output-format=json", "--output="+report).Run())
				used := cpu() - before
				out, err := os.ReadFile(report)
				must(b, err)
				out = out[bytes.IndexByte(out, '{'):] // fio says a word before it begins
				var res fioResult
				must(b, json.Unmarshal(out, &res))
				rd, wr := res.Jobs[0].Read, res.Jobs[0].Write
				b.ReportMetric(rd.IOPS+wr.IOPS, "iops")
				b.ReportMetric((rd.BW+wr.BW)/1024, "MiB/s")
				b.ReportMetric(float64(used.Microseconds())/(rd.Total+wr.Total), "cpu-us/io")
				b.ReportMetric(max(rd.Clat.Pct["99.000000"], wr.Clat.Pct["99.000000"])/1000, "p99-us")
			}
		})
	}
}

type fioResult struct {
	Jobs []struct{ Read, Write fioSide }
}

type fioSide struct {
	IOPS  float64 `json:"iops"`
	BW    float64 `json:"bw"`
	Total float64 `json:"total_ios"`
	Clat  struct {
		Pct map[string]float64 `json:"percentile"`
	} `json:"clat_ns"`
}

func cpu() time.Duration {
	var ru syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// BenchmarkModes is what a request costs in each mode, both ends together: depth of them in one go, over and
// over.
func BenchmarkModes(b *testing.B) {
	for m := nbd.Simple; m <= nbd.Extended; m++ {
		for name, req := range map[string]nbd.Request{
			"read4k":  {Type: nbd.CmdRead, Length: 4096},
			"write4k": {Type: nbd.CmdWrite, Length: 4096},
			"flush":   {Type: nbd.CmdFlush},
			"hole4k":  {Type: nbd.CmdRead, Offset: 8 << 20, Length: 4096},
			"status":  {Type: nbd.CmdBlockStatus, Length: 64 << 10},
		} {
			if m == nbd.Simple && req.Type == nbd.CmdBlockStatus {
				continue
			}
			b.Run(modeNames[m]+"-"+name, func(b *testing.B) {
				r := newRig(b, rigOptions{keepOpen: true})
				defer r.close()
				c := r.dialMode(m)
				defer c.Close()
				must(b, c.WriteAt(make([]byte, 64<<10), 0, 0))
				if m == nbd.Extended && req.Type == nbd.CmdWrite {
					req.Flags |= nbd.FlagPayload
				}
				p := newPipeline(b, c, req)
				before := cpu()
				for i := 0; b.Loop(); i++ {
					if i%depth == 0 { // an iteration is a request
						p.round()
					}
				}
				b.ReportMetric(float64((cpu()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
			})
		}
	}
}
