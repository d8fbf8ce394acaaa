package bench

import (
	"strings"
	"testing"
)

// run adds a quiet cell to a report.
func (r *Report) run(job, target string, iops, cpu, client float64) {
	r.Cells = append(r.Cells, Cell{Job: job, Target: target, IOPS: iops, MBps: iops, MeanUs: 1, CPUUsPerIO: cpu,
		ClientCPU: client})
}

// A missed goal says how much is lacking, and the nearest of what forbids it: the drive as a log uses it, NBD before
// that, fio, the parts of ours, the cores.
func TestLimits(t *testing.T) {
	const job, hops = "16K random write QD8", "16K random write QD8, hop by hop"
	for _, tc := range []struct {
		what                       string
		log, edge, bare, cpu, busy float64
		verdict                    string
	}{
		{"nothing forbids", 200, 190, 180, 1000, 0.1, "nothing known forbids it"},
		{"the drive forbids", 120, 190, 0, 1000, 0.1, "forbidden by the drive: at most 1.20"},
		{"the drive gave more to the bare server", 120, 190, 130, 1000, 0.1, "forbidden by bare server: at most 1.30"},
		{"the drive gave enough to it", 120, 190, 180, 1000, 0.1, "nothing known forbids it"},
		{"the nearest of two forbids", 140, 110, 180, 1000, 0.1, "forbidden by Edge alone: at most 1.10"},
		{"NBD before a log forbids", 200, 190, 130, 1000, 0.1, "forbidden by bare server: at most 1.30"},
		{"fio forbids", 200, 190, 180, 1000, 0.95, "forbidden by fio: at most 1.05"},
		{"fio is not full", 200, 190, 180, 1000, 0.8, "nothing known forbids it"},
		{"what is slower than the whole forbids nothing", 90, 80, 70, 1000, 0.1, "nothing known forbids it"},
		{"the cores forbid", 200, 190, 180, 15000, 0.1, "forbidden by all cores: at most 1.25"},
	} {
		r := &Report{Machine: machine{Cores: 2}}
		r.run(job, qemu, 100, 0, 0)
		r.run(job, embedded, 100, tc.cpu, tc.busy)
		if tc.bare > 0 {
			r.run(job, bareServer, tc.bare, 0, 0)
		}
		r.run(hops, embedded, 100, 0, 0)
		r.run(hops, logAlone, tc.log, 0, 0)
		r.run(hops, edgeAlone, tc.edge, 0, 0)
		r.summarize()
		rows := r.limits()
		if len(rows) != 1 {
			t.Fatalf("%s: %q", tc.what, rows)
		}
		got := rows[0]
		if len(got) != len(limitsHead) || got[0] != job || got[1] != embedded || got[4] != "1.50x" ||
			got[len(got)-1] != tc.verdict {
			t.Errorf("%s: %q", tc.what, got)
		}
	}
}

// Goals that are met are not in it; of figures where less is better nothing forbids more; and where there are no hops,
// nothing is made up.
func TestLimitsOfOthers(t *testing.T) {
	r := &Report{Machine: machine{Cores: 2}}
	r.run(coldRead, qemu, 100, 10, 0.5)
	r.run(coldRead, embedded, 140, 20, 0.5)
	r.run("70/30 4K QD32", qemu, 100, 10, 0.5)
	r.run("70/30 4K QD32", embedded, 100, 10, 0)
	r.summarize()
	rows := r.limits()
	if len(rows) != 2 || rows[0][1] != embedded+", CPU" || rows[0][4] != "2.00x" || rows[1][4] != "1.30x" {
		t.Fatalf("%q", rows)
	}
	for _, row := range rows {
		for _, c := range row[5 : len(row)-1] {
			if c != "-" {
				t.Errorf("%q", row)
			}
		}
	}
}

// The cores' limit is known where loops sleep: of reads through ASDs, and of no others.
func TestCoresOfReads(t *testing.T) {
	for target, want := range map[string]string{processes: "1.25x", embedded: "-", local: "-"} {
		r := &Report{Machine: machine{Cores: 2}}
		r.run("70/30 4K QD32", qemu, 100, 10, 0.5)
		r.run("70/30 4K QD32", target, 70, 1.5e6/70, 0.1)
		r.summarize()
		if row := r.limits()[0]; row[len(row)-2] != want {
			t.Errorf("%s: %q, want %s", target, row, want)
		}
	}
}

// Of puts, which are durable when they are answered, the drive is what it gives if it is flushed as often.
func TestLimitOfPuts(t *testing.T) {
	const puts = "1M puts, 8 at a time"
	for flushed, want := range map[float64]string{
		70: "forbidden by the drive: at most 0.70",
		90: "nothing known forbids it",
	} {
		r := &Report{Machine: machine{Cores: 2}}
		r.run(puts, single, 60, 0, 0)
		r.run(sequentialWrite, rawFile, 100, 0, 0)
		r.run(syncedWrite, rawFile, flushed, 0, 0)
		r.summarize()
		if rows := r.limits(); len(rows) != 1 || rows[0][len(rows[0])-1] != want {
			t.Errorf("%q, want %q", rows, want)
		}
	}
}

// Where less is better a part bounds from below, and one that is hardly slower than the goal does so within the spread.
func TestLimitsOfLatency(t *testing.T) {
	const job, hops = "4K random read QD1, cold", "4K random read QD1, hop by hop"
	for edge, want := range map[float64]string{
		190: "forbidden by Edge alone: at least 1.90",
		100: "nothing known forbids it",
		118: "forbidden by Edge alone: at least 1.18, within the spread",
	} {
		r := &Report{Machine: machine{Cores: 2}}
		for round, us := range []float64{180, 200, 220} {
			r.Cells = append(r.Cells, Cell{Job: job, Target: qemu, Round: round, MeanUs: 100},
				Cell{Job: job, Target: embedded, Round: round, MeanUs: us})
		}
		r.Cells = append(r.Cells, Cell{Job: hops, Target: embedded, MeanUs: 200},
			Cell{Job: hops, Target: edgeAlone, MeanUs: edge})
		r.summarize()
		if rows := r.limits(); len(rows) != 1 || rows[0][len(rows[0])-1] != want {
			t.Errorf("%q, want %q", rows, want)
		}
	}
}

// The bars in one place: a line for each job, figure and yardstick, a column for each deployment.
func TestBars(t *testing.T) {
	r := &Report{Machine: machine{Cores: 2}}
	for target, iops := range map[string]float64{qemu: 100, rawFile: 200, embedded: 140, local: 120, processes: 70} {
		r.run(coldRead, target, iops, 10, 0.5)
	}
	r.summarize()
	want := map[string]string{
		coldRead + "|qemu-nbd":      "1.40 (>= 1.35)|1.20 (>= 1.35) **MISSED**|0.70 (>= 0.65)|-",
		coldRead + "|raw file":      "0.70 (>= 0.68)|-|-|-",
		coldRead + ", CPU|qemu-nbd": "1.00 (<= 1.00)|1.00 (<= 1.00)|1.00 (<= 2.50)|-",
		coldRead + "|Vitastor":      "2.7 (>= 2.3)|-|1.4 (>= 1.2)|-",
	}
	rows := r.bars()
	for _, row := range rows {
		key := row[0] + "|" + row[1]
		if got := strings.Join(row[2:], "|"); got != want[key] {
			t.Errorf("%s: %s, want %s", key, got, want[key])
		}
		delete(want, key)
	}
	if len(want) > 0 {
		t.Errorf("missing: %q", want)
	}
	if got := r.tally(); !strings.HasPrefix(got, "8 of 9 goals are met.") {
		t.Error(got)
	}
}
