package bench

import (
	"bytes"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseFio(t *testing.T) {
	side := `{"total_ios": 1000, "io_bytes": 4096000, "iops": 500.5, "bw_bytes": 2050048, "lat_ns": {"mean": 64000},
		"clat_ns": {"percentile": {"50.000000": 60000, "99.000000": 200000, "99.900000": 900000}}}`
	want := result{IOs: 1000, Bytes: 4096000, IOPS: 500.5, MBps: 2.050048, Mean: 64, P50: 60, P99: 200, P999: 900,
		Percentiles: map[string]float64{"50.000000": 60, "99.000000": 200, "99.900000": 900}}
	for _, text := range []string{
		"fio: connected to NBD server\n" + `{"jobs": [{"error": 0, "read": {"total_ios": 0}, "write": ` + side + `}]}`,
		`{"jobs": [{"error": 0, "mixed": ` + side + `}]}`,
	} {
		if r, err := parseFio([]byte(text)); err != nil || !reflect.DeepEqual(r, want) {
			t.Errorf("%+v %v", r, err)
		}
	}
	for _, bad := range []string{"", "{", `{"jobs": []}`, `{"jobs": [{"error": 5}]}`} {
		if _, err := parseFio([]byte(bad)); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

// Threads and directions are added up; the second that was cut short and what is no line count for nothing.
func TestParseSeries(t *testing.T) {
	log := "1000, 10, 0, 0, 0\n1001, 5, 1, 0, 0\n1999, 20, 0, 0, 0\n1000, 1, 0, 0, 0\n2500, 9, 0, 0, 0\nnonsense\n\n"
	if s := parseSeries([]byte(log), 2500*time.Millisecond); !slices.Equal(s, []float64{16, 20}) {
		t.Error(s)
	}
}

// everyone is all targets there can be.
func everyone() (names []string) {
	list, _ := targets(&Options{Peers: true})
	for _, t := range list {
		names = append(names, t.name())
	}
	return names
}

// Medians, ratios and verdicts, for figures where more is better and where less is.
func TestReport(t *testing.T) {
	r := Report{JournalBytes: 100}
	speed := map[string]float64{embedded: 1, processes: 2, local: 1, cached: 3, cachedASDs: 3, single: 3, overTCP: 4,
		overTLS: 1, full: 1, fullASDs: 1, qemu: 1, rawFile: 4, cephEC: 0.5, driveAlone: 4, praccAlone: 3, edgeAlone: 2,
		bareServer: 5}
	for _, j := range Jobs() {
		for round, f := range []float64{1, 3, 2} {
			for target, x := range speed {
				if x *= f; j.on(target) {
					r.Cells = append(r.Cells, Cell{Job: j.Name, Target: target, Round: round, IOPS: x, MBps: x, MeanUs: x, P99Us: x,
						CPUUsPerIO: x, Bytes: 399, WrittenBytes: 399, ServerBytes: 500})
				}
			}
		}
	}
	r.summarize()
	i := 0
	for _, j := range Jobs() {
		if j.Hops {
			continue
		}
		for _, g := range j.Goals {
			row := r.Rows[i]
			i++
			ratio := 0.0
			if g.Base != "" {
				ratio = speed[g.Target] / speed[g.Base]
			}
			if row.Target != g.Target || row.Ours != 2*speed[g.Target] || row.Ratio != ratio || row.SpreadPercent != 100 ||
				row.Bytes != 3*399 || row.Figure != j.by(g).Figure {
				t.Errorf("%+v", row)
			}
			meets := ratio == g.Ratio || (ratio > g.Ratio) != row.Figure.less()
			if row.Met != (g.Ratio > 0 && meets) {
				t.Errorf("%s on %s: %.2f times the base's %s, met: %v", j.Name, g.Target, ratio, row.Figure, row.Met)
			}
		}
	}
	var out bytes.Buffer
	r.MinJournals = 4
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"MISSED", ">= 1.35", "<= 1.15", "<= 2.30", "<= 5.00 of without", ">= 0.80 of raw file",
		"vstor ASDs", "one ASD", "round 2 wrote 4.0 journals' worth", "1.25x", "- of vstor TCP", "us CPU/IO"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
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

// A disturbed cell on either side takes the ratio away, and the table says why; other rows keep theirs.
func TestDisturbedRowsHaveNoRatio(t *testing.T) {
	r := Report{}
	cells := func(job string, bad bool) {
		r.Cells = append(r.Cells, Cell{Job: job, Target: embedded, IOPS: 3, CPUUsPerIO: 1},
			Cell{Job: job, Target: qemu, IOPS: 1, CPUUsPerIO: 1,
				OtherDuring: 0.5, Disturbed: bad})
	}
	cells(coldRead, true)
	cells(randomWrite, false)
	r.summarize()
	for _, row := range r.Rows {
		if bad := row.Job == coldRead; row.Disturbed != bad || (row.Ratio == 0) != bad || bad && row.Met {
			t.Errorf("%+v", row)
		}
	}
	if len(r.Rows) != 4 {
		t.Errorf("%d rows, of cells for IOPS and CPU of two jobs", len(r.Rows))
	}
	var out bytes.Buffer
	r.MinJournals = 4
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "DISTURBED: in 1 of 4 cells something else kept up to 50 %") {
		t.Error(out.String())
	}
}

// Who does which job.
func TestWhoDoesWhat(t *testing.T) {
	inTurns := "vstor, vstor ASDs, "
	peers := "qemu-nbd, nbdkit file, bare server, raw file, "
	for name, want := range map[string]string{
		coldRead: inTurns + "vstor short, " + peers + "one ASD, tgt iSCSI, Ceph 3x, Ceph 4+2",

		"4K random read QD32, cached": "vstor cache, ASDs cache",
		"4K random read QD32":         "vstor TCP, vstor TLS",
		"4K random read QD128":        inTurns + "qemu-nbd, raw file",
		"1M puts, 8 at a time":        "one ASD",
		sequentialRead: inTurns +
			"qemu-nbd, nbdkit file, raw file, vstor TCP, vstor TLS, tgt iSCSI",
		"4K random write QD32, 30 s, drives 80 % full": "vstor 80 %, ASDs 80 %",
		"4K random write QD32, 120 s":                  inTurns + "qemu-nbd",
		"4K random write QD32, degraded":               "vstor ASDs",
		"4K random read QD1, hop by hop": inTurns +
			"vstor short, bare server, raw file, drive alone, PRACC alone, Edge alone",
		"4K random write QD1, hop by hop":         inTurns + "raw file, drive alone, log alone, Edge alone",
		"4K random read QD32, cached, hop by hop": "vstor cache, Edge alone, block cache",
		"4K random read QD32, other caches alone": "block cache file, fragment cache",
	} {
		i := slices.IndexFunc(Jobs(), func(j Job) bool { return j.Name == name })
		if i < 0 {
			t.Errorf("there is no job %q", name)
			continue
		}
		var doers []string
		for _, target := range everyone() {
			if Jobs()[i].on(target) {
				doers = append(doers, target)
			}
		}
		if got := strings.Join(doers, ", "); got != want {
			t.Errorf("%s is done by %s", name, got)
		}
	}
}

func TestDefaultsFitTheDisk(t *testing.T) {
	for _, quick := range []bool{false, true} {
		o := Options{Quick: quick}
		o.Defaults()
		if need := o.Space(); need > 39<<30 {
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
	after := before
	for end := time.Now().Add(time.Minute); err == nil && after.cpu <= before.cpu; {
		if after, err = processUsage(os.Getpid()); time.Now().After(end) {
			t.Fatal("a minute of work cost no CPU")
		}
	}
	if err != nil {
		t.Error(err)
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
	if m := thisMachine(t.TempDir()); m.Cores == 0 || m.Kernel == "" || m.RAM == 0 {
		t.Errorf("%+v", m)
	}
}

func TestSumOf(t *testing.T) {
	page := "# HELP a_total what\na_total{process=\"edge-0\"} 3\n" +
		"a_total{process=\"router-0\"} 4e3\na_total_more 5\nb 1\na_total 1\n"
	if n := sumOf(page, "a_total"); n != 4004 {
		t.Errorf("the samples of a_total are %v together", n)
	}
}

// What is not asked for is not started, but for what it leans on.
func TestOnlyStartsWhatItNeeds(t *testing.T) {
	o := Options{Only: regexp.MustCompile("cached on ASDs|QD32 on vstor TLS|80 %")}
	o.Defaults()
	list, _ := targets(&o)
	steps := plan(&o, withoutHeavy())
	list = slices.DeleteFunc(list, func(t target) bool { return !needed(t, steps) })
	var names []string
	for _, t := range list {
		names = append(names, t.name())
	}
	if got := strings.Join(names, ", "); got != "vstor, vstor ASDs, ASDs cache, vstor TLS, vstor 80 %, ASDs 80 %" {
		t.Error(got)
	}
}

// Of a job that does both only the writes are written.
func TestWrites(t *testing.T) {
	for _, c := range []struct {
		j    Job
		want int64
	}{{Job{RW: "randread"}, 0}, {Job{RW: "randwrite"}, 1000}, {Job{RW: put}, 1000}, {Job{RW: "randrw", Mix: 70}, 300}} {
		if got := c.j.writes(1000); got != c.want {
			t.Errorf("%s writes %d of 1000 bytes", c.j.RW, got)
		}
	}
}

// A peer that is not installed is left out with a sentence; qemu-nbd is not, as nothing can be told without it.
func TestMissingPeer(t *testing.T) {
	missing := &peer{as: "a peer", tool: "no-such-tool", socket: t.TempDir() + "/s"}
	err := guest{missing}.start(t.Context())
	if want := "a peer is left out: no-such-tool is not installed"; !leftOut(guest{missing}, err) ||
		!strings.Contains(err.Error(), want) {
		t.Errorf("a peer that may be missing: %v", err)
	}
	if err := missing.start(t.Context()); err == nil || leftOut(missing, err) {
		t.Errorf("a peer that may not be missing: %v", err)
	}
}
