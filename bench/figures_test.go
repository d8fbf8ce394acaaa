package bench

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Each job on each target has a line with the medians of its quiet rounds, and says what it does not know.
func TestFigures(t *testing.T) {
	half := 0.5
	r := &Report{Cells: []Cell{
		{Job: coldRead, Target: embedded, IOPS: 10, IOs: 80, MBps: 1, P50Us: 5, P99Us: 7, P999Us: 9, CPUUsPerIO: 2,
			ClientCPU: 0.97, CopiedPerByte: &half},
		{Job: coldRead, Target: embedded, IOPS: 30, IOs: 240, MBps: 3, P50Us: 7, P99Us: 9, P999Us: 11, CPUUsPerIO: 4,
			ClientCPU: 0.95, CopiedPerByte: &half},
		{Job: coldRead, Target: embedded, IOPS: 999, Disturbed: true},
		{Job: coldRead, Target: qemu, IOPS: 1, Disturbed: true},
		{Job: randomWrite, Target: qemu, IOPS: 40, WrittenBytes: 100, DriveBytes: 150},
	}}
	want := []string{
		coldRead + "|vstor|2|8|20|2|6|8|10|3.0|0.96|0.50|-",
		"|qemu-nbd|disturbed|-|-|-|-|-|-|-|-|-|-",
		randomWrite + "|qemu-nbd|1|-|40|-|-|-|-|-|-|-|1.50",
	}
	var got []string
	for _, row := range r.figures() {
		if len(row) != len(figuresHead) {
			t.Errorf("%q has %d cells, not %d", row, len(row), len(figuresHead))
		}
		got = append(got, strings.Join(row, "|"))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// A bar by Vitastor is judged through qemu-nbd: 29.8k were 0.514 of it for reads, 4.4k 0.083 for writes.
func TestBesideVitastor(t *testing.T) {
	r := &Report{}
	for target, iops := range map[string]float64{embedded: 125, processes: 60, qemu: 100} {
		r.Cells = append(r.Cells, Cell{Job: coldRead, Target: target, IOPS: iops})
	}
	for round := range 3 { // what one round of three leaves is no ratio
		r.Cells = append(r.Cells, Cell{Job: randomWrite, Target: qemu, Round: round, IOPS: 100},
			Cell{Job: randomWrite, Target: embedded, Round: round, IOPS: 167, Disturbed: round > 0})
	}
	var got []string
	for _, row := range r.besideVitastor() {
		got = append(got, strings.Join(row, "|"))
	}
	want := []string{
		coldRead + "|vstor|1.25|0.514|2.4|>= 2.3|met",
		"|vstor ASDs|0.60|0.514|1.2|>= 1.2|MISSED",
		randomWrite + "|vstor|-|0.083|-|>= 20.0|disturbed",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// What a reader of the tables should not believe blindly is said.
func TestDoubts(t *testing.T) {
	for _, tc := range []struct {
		c    Cell
		want string
	}{
		{Cell{P99Us: 100}, ""},
		{Cell{P99Us: 100, LateP99Us: 9}, ""},
		{Cell{P99Us: 100, LateP99Us: 50}, "started 50 us late"},
		{Cell{FromCache: 0.99}, ""},
		{Cell{FromCache: 0.5}, "served 50 %"},
	} {
		got := tc.c.doubts()
		if (tc.want == "") != (len(got) == 0) || tc.want != "" && !strings.Contains(got[0], tc.want) {
			t.Errorf("%+v: %q, want %q", tc.c, got, tc.want)
		}
	}
}

// Whoever asks for an open loop alone gets the job that sets its rate as well, before it.
func TestOpenLoopBringsItsRate(t *testing.T) {
	o := &Options{Only: regexp.MustCompile("open loop at 50 % on vstor$")}
	o.Defaults()
	var got []string
	for _, s := range plan(o, withoutHeavy()) {
		if s.round == 0 {
			got = append(got, s.job.Name+" on "+s.target)
		}
	}
	want := []string{coldRead + " on qemu-nbd", "4K random read, open loop at 50 % on vstor", randomWrite + " on qemu-nbd",
		"4K random write, open loop at 50 % on vstor"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
