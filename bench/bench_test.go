package bench

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"
)

func TestParseFio(t *testing.T) {
	text := `fio: connected to NBD server
{"jobs": [{"error": 0,
  "read":  {"total_ios": 0},
  "write": {"total_ios": 1000, "io_bytes": 4096000, "iops": 500.5, "bw_bytes": 2050048, "lat_ns": {"mean": 64000},
            "clat_ns": {"percentile": {"50.000000": 60000, "99.000000": 200000, "99.900000": 900000}}}}]}`
	r, err := parseFio([]byte(text))
	want := fioResult{IOs: 1000, Bytes: 4096000, IOPS: 500.5, MBps: 2.050048, Mean: 64, P50: 60, P99: 200, P999: 900}
	if err != nil || r != want {
		t.Errorf("%+v %v", r, err)
	}
	for _, bad := range []string{"", "{", `{"jobs": []}`, `{"jobs": [{"error": 5}]}`} {
		if _, err := parseFio([]byte(bad)); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

// Medians, ratios and verdicts, for figures where more is better and where less is.
func TestReport(t *testing.T) {
	r := Report{JournalBytes: 100}
	for _, j := range Jobs() {
		for round, f := range []float64{1, 3, 2} {
			cell := func(target string, x float64) Cell {
				return Cell{Job: j.Name, Target: target, Round: round, IOPS: x, MBps: x, MeanUs: x, Bytes: 399, ServerBytes: 500}
			}
			r.Cells = append(r.Cells, cell("vstor", f), cell("qemu-nbd", 1), cell("raw file", 4))
		}
	}
	r.summarize()
	for i, j := range Jobs() {
		row := r.Rows[i]
		if row.Ours != 2 || row.Ratio != 2 || row.Raw != 4 || row.SpreadPercent != 100 || row.Bytes != 3*399 {
			t.Errorf("%+v", row)
		}
		if row.Met != (j.Figure != Latency) {
			t.Errorf("%s: twice the peer's %s, met: %v", j.Name, j.Figure, row.Met)
		}
	}
	r.Cells[0].OtherLoad = 0.5
	var out bytes.Buffer
	r.print(&out, 4)
	for _, want := range []string{"MISSED", ">= 1.20", "<= 1.30", "round 2 wrote 4.0 journals' worth", "1.25x",
		"before 1 of 54 cells"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
	path := t.TempDir() + "/r.json"
	if err := r.save(path); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); !bytes.Contains(b, []byte(`"server_cpu_us_per_io"`)) {
		t.Error("the JSON lacks the CPU")
	}
}

func TestDefaultsFitTheDisk(t *testing.T) {
	for _, quick := range []bool{false, true} {
		o := Options{Quick: quick}
		o.Defaults()
		if need := o.Size + 6*o.ASDSize + o.Journal; need > 15<<30 {
			t.Errorf("quick %v: a run takes %d bytes", quick, need)
		}
		if raw := o.Size * 6 / 4; raw > 6*o.ASDSize/2 {
			t.Errorf("quick %v: the drives would be more than half full, and the cleaner the thing measured", quick)
		}
	}
}

func TestProc(t *testing.T) {
	before, err := processUsage(os.Getpid())
	if err != nil || before.rss == 0 {
		t.Fatal(before, err)
	}
	for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); {
	}
	after, err := processUsage(os.Getpid())
	if err != nil || after.cpu <= before.cpu {
		t.Errorf("100 ms of work cost %v (%v)", after.cpu-before.cpu, err)
	}
	if _, err := processUsage(1 << 30); err == nil {
		t.Error("a process that is not there has used something")
	}
	if n := field("a: 1\nb: 22 kB\n", "b:"); n != 22 {
		t.Errorf("b is %d", n)
	}
	if m := thisMachine(); m.Cores == 0 || m.Kernel == "" || m.RAM == 0 {
		t.Errorf("%+v", m)
	}
}
