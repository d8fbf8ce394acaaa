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
	want := result{IOs: 1000, Bytes: 4096000, IOPS: 500.5, MBps: 2.050048, Mean: 64, P50: 60, P99: 200, P999: 900}
	if err != nil || r != want {
		t.Errorf("%+v %v", r, err)
	}
	for _, bad := range []string{"", "{", `{"jobs": []}`, `{"jobs": [{"error": 5}]}`} {
		if _, err := parseFio([]byte(bad)); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

// tlsRead is the job that has no goal: nobody but our own does it.
const tlsRead = "4K random read QD32"

// Medians, ratios and verdicts, for figures where more is better and where less is.
func TestReport(t *testing.T) {
	r := Report{JournalBytes: 100}
	for _, j := range Jobs() {
		for round, f := range []float64{1, 3, 2} {
			for target, x := range map[string]float64{embedded: f, processes: 2 * f, local: f, cached: 3 * f, single: 3 * f,
				overTCP: 4 * f, overTLS: f, qemu: 1, rawFile: 4} {
				if j.on(target) {
					r.Cells = append(r.Cells, Cell{Job: j.Name, Target: target, Round: round, IOPS: x, MBps: x, MeanUs: x, P99Us: x,
						Bytes: 399, ServerBytes: 500})
				}
			}
		}
	}
	r.summarize()
	want := map[string]float64{embedded: 2, processes: 4, local: 2, cached: 6, single: 6, overTCP: 8, overTLS: 2}
	i := 0
	for _, j := range Jobs() {
		for _, g := range j.Goals {
			row := r.Rows[i]
			i++
			ratio := want[g.Target]
			switch g.Base {
			case "":
				ratio = 0
			case g.Target:
				ratio = 1
			case rawFile:
				ratio /= 4
			case overTCP:
				ratio /= 8
			}
			peer, limit := 1.0, 4.0
			if j.Name == tlsRead {
				peer, limit = 0, 0
			}
			if row.Target != g.Target || row.Ours != want[g.Target] || row.Ratio != ratio || row.Peer != peer ||
				row.Raw != limit || row.SpreadPercent != 100 || row.Bytes != 3*399 {
				t.Errorf("%+v", row)
			}
			if row.Met != (j.Figure != Latency && g.Ratio > 0) {
				t.Errorf("%s on %s: %.1f times the base's %s, met: %v", j.Name, g.Target, ratio, j.Figure, row.Met)
			}
		}
	}
	r.Cells[0].OtherLoad = 0.5
	var out bytes.Buffer
	r.print(&out, 4)
	for _, want := range []string{"MISSED", ">= 1.30", "<= 1.20", "<= 2.50", "<= 5.00 of without",
		">= 0.80 of raw file", "vstor ASDs",
		"one ASD", "round 2 wrote 4.0 journals' worth", "1.25x", "before 1 of 102 cells", "- of vstor TCP"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
	squeezed := strings.Join(strings.Fields(out.String()), " ")
	for line, n := range map[string]int{"vstor TCP 8 - - - - 100%": 1, "vstor TLS 2 - - 0.25 - of vstor TCP 100%": 1,
		"vstor TCP 8 1 4 - - 100%": 2, "vstor TLS 2 1 4 0.25 - of vstor TCP 100%": 2} {
		if got := strings.Count(squeezed, line); got != n {
			t.Errorf("%q is in the table %d times, want %d:\n%s", line, got, n, out.String())
		}
	}
	path := t.TempDir() + "/r.json"
	if err := r.save(path); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(path)
	for _, want := range []string{`"server_cpu_us_per_io"`, `"vstor ASDs"`, `"base": "raw file"`} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("the JSON lacks %s", want)
		}
	}
}

// Who does which job, and for how long.
func TestWhoDoesWhat(t *testing.T) {
	var o Options
	o.Defaults()
	total, encrypted := time.Duration(0), time.Duration(0)
	for _, j := range Jobs() {
		doers := ""
		for _, target := range []string{embedded, processes, local, cached, single, overTCP, overTLS, qemu, rawFile} {
			if j.on(target) {
				doers += target + ", "
				total += j.length(&o, target)
			}
		}
		want := "vstor, qemu-nbd, raw file, "
		switch {
		case j.Name == tlsRead:
			want = "vstor TCP, vstor TLS, "
		case j.Figure == MBps && j.RW != put:
			want = "vstor, vstor TCP, vstor TLS, qemu-nbd, raw file, "
		case j.Cold:
			want = "vstor, vstor ASDs, vstor short, one ASD, qemu-nbd, raw file, "
		case j.Span > 0:
			want = "vstor cache, "
		case j.Stall:
			want = "vstor ASDs, vstor short, "
		case j.RW == put:
			want = "one ASD, "
		case j.RW == "randread":
			want = "vstor, vstor ASDs, vstor short, qemu-nbd, raw file, "
		case j.Sustained:
			want = "vstor, vstor ASDs, qemu-nbd, raw file, "
		}
		if doers != want {
			t.Errorf("%s is done by %s", j.Name, doers)
		}
		if d := j.length(&o, rawFile); (d == o.Cell) != (j.Name == sequentialWrite) {
			t.Errorf("%s takes %v on the raw file", j.Name, d)
		}
		for _, target := range []string{overTCP, overTLS} {
			if j.on(target) {
				encrypted += j.length(&o, target)
			}
		}
	}
	if total *= time.Duration(o.Rounds); total > 15*time.Minute {
		t.Errorf("the jobs alone take %v", total)
	}
	if encrypted > 30*time.Second {
		t.Errorf("what TLS costs takes %v a round", encrypted)
	}
}

func TestDefaultsFitTheDisk(t *testing.T) {
	for _, quick := range []bool{false, true} {
		o := Options{Quick: quick}
		o.Defaults()
		if need := o.Space(); need > 26<<30 {
			t.Errorf("quick %v: a run takes %d bytes", quick, need)
		}
		if raw := o.Size * 6 / 4; raw > 6*o.ASDSize/2 {
			t.Errorf("quick %v: the drives would be more than half full, and the cleaner the thing measured", quick)
		}
		if kept := int64(8 * (putsKept + 1) * fragSize); kept*2 > putRoom {
			t.Errorf("eight putters hold up to %d bytes, and there is room for %d", kept, int64(putRoom))
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
	if twice, err := usageOf([]int{os.Getpid(), os.Getpid()}); err != nil || twice.rss < 2*before.rss/3*2 {
		t.Errorf("two processes: %+v %v", twice, err)
	}
	if u, err := usageOf(nil); err != nil || u != (usage{}) {
		t.Errorf("no process: %+v %v", u, err)
	}
	if _, err := usageOf([]int{os.Getpid(), 1 << 30}); err == nil {
		t.Error("a process that is not there has used something")
	}
	if n := field("a: 1\nb: 22 kB\n", "b:"); n != 22 {
		t.Errorf("b is %d", n)
	}
	if m := thisMachine(); m.Cores == 0 || m.Kernel == "" || m.RAM == 0 {
		t.Errorf("%+v", m)
	}
}
