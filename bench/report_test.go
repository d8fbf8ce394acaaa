package bench

import (
	"bytes"
	"context"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vstor/dataplane/errs"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sampleRun is a small run: two jobs on two targets, three rounds, one goal met and one missed.
func sampleRun() *Report {
	r := &Report{Format: format, Started: time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC), Vstor: "0.1.0",
		Command: "vstor bench --out run.json", Rounds: 3, MinJournals: 4, VolumeBytes: 2 << 30, JournalBytes: 1 << 30,
		Machine: machine{CPU: "A CPU <1>", Cores: 2, Kernel: "6.12", RAM: 8 << 30, Fio: "fio-3.39", Qemu: "qemu-nbd 10"}}
	for _, j := range []struct {
		name       string
		ours, peer float64
	}{{coldRead, 150, 100}, {"70/30 4K QD32", 120, 100}} {
		for round := range 3 {
			wobble := float64(round - 1)
			for target, x := range map[string]float64{embedded: j.ours, qemu: j.peer} {
				r.Cells = append(r.Cells, Cell{Job: j.name, Target: target, Round: round, IOPS: x + wobble, MeanUs: 1e3 / x,
					P99Us: 5e3 / x, IOs: 1000, Bytes: 5 << 30, CPUUsPerIO: 2000 / x, Series: []float64{x - 1, x, x + 1},
					Percentiles: map[string]float64{"50.000000": 900 / x, "99.000000": 5e3 / x, "99.900000": 8e3 / x}})
			}
		}
		row := r.row(Job{Name: j.name, Figure: IOPS}, Goal{Target: embedded, Base: qemu, Ratio: 1.3})
		r.Rows = append(r.Rows, row)
	}
	return r
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s differs (run with -update if it should): %v\n%s", name, err, got)
	}
}

// A machine that gives half as much in one round gives it to both: the ratio is that of the rounds, not of medians that
// come from different ones.
func TestRatiosArePaired(t *testing.T) {
	r := sampleRun()
	for i := range r.Cells {
		c := &r.Cells[i]
		if c.Job != coldRead {
			continue
		}
		c.IOPS = map[string][]float64{embedded: {90, 45, 30}, qemu: {60, 30, 100}}[c.Target][c.Round]
	}
	row := r.row(Job{Name: coldRead, Figure: IOPS}, Goal{Target: embedded, Base: qemu, Ratio: 1.3})
	if row.Ours != 45 || row.Peer != 60 || row.Ratio != 1.5 || !row.Met || math.Abs(row.RatioSpreadPercent-80) > 1e-9 {
		t.Errorf("%+v", row)
	}
	if _, rows := r.everything(); rows[0][2] != "45 (1.50x)" {
		t.Errorf("everything: %q", rows[0])
	}
}

// Rounds in which one of the two was disturbed are none: two of three that are disturbed on different sides leave one
// pair, which is luck, and no ratio. Of one round in which the other was disturbed there is none either, which is said.
func TestDisturbedPairs(t *testing.T) {
	j, g := Job{Name: coldRead, Figure: IOPS}, Goal{Target: embedded, Base: qemu, Ratio: 1.3}
	r := sampleRun()
	cell := func(target string, round int) *Cell {
		for i := range r.Cells {
			if c := &r.Cells[i]; c.Job == coldRead && c.Target == target && c.Round == round {
				return c
			}
		}
		t.Fatal("no such cell")
		return nil
	}
	cell(embedded, 0).Disturbed = true
	if row := r.row(j, g); row.Disturbed || row.Pairs != 2 || row.Ratio == 0 {
		t.Errorf("one of three: %+v", row)
	}
	cell(qemu, 2).Disturbed = true
	row := r.row(j, g)
	if !row.Disturbed || row.Ratio != 0 || row.Met {
		t.Errorf("two of three, on different sides: %+v", row)
	}
	if _, verdict := row.verdict(); verdict != "?" {
		t.Error(verdict)
	}
	r.Cells = slices.DeleteFunc(r.Cells, func(c Cell) bool { return c.Target == embedded && c.Round != 2 })
	if row := r.row(j, g); !row.Disturbed || row.Ratio != 0 {
		t.Errorf("one round: %+v", row)
	}
	cell(qemu, 2).Disturbed = false
	if row := r.row(j, g); row.Disturbed || row.Pairs != 1 {
		t.Errorf("one round: %+v", row)
	}
	r.Rows = []Row{r.row(j, g)}
	if got := r.table()[0][9]; got != "-" {
		t.Errorf("the spread of one round is %q", got)
	}
}

// A disturbed round is left out; where most are, there is no ratio and no verdict.
func TestDisturbedRatios(t *testing.T) {
	j, g := Job{Name: coldRead, Figure: IOPS}, Goal{Target: embedded, Base: qemu, Ratio: 1.3}
	r := sampleRun()
	disturb := func(target string, round int, iops float64) {
		for i := range r.Cells {
			if c := &r.Cells[i]; c.Job == coldRead && c.Target == target && c.Round == round {
				c.OtherLoad, c.Disturbed, c.IOPS = 0.5, true, iops
			}
		}
	}
	disturb(qemu, 0, 1)
	if row := r.row(j, g); row.Disturbed || row.Peer != 100.5 || !row.Met {
		t.Errorf("one of three: %+v", row)
	}
	disturb(qemu, 1, 1)
	row := r.row(j, g)
	if !row.Disturbed || row.Ratio != 0 || row.Met {
		t.Errorf("two of three: %+v", row)
	}
	if _, rows := r.everything(); rows[0][3] != "disturbed" || rows[0][2] != "150" || rows[1][2] != "120 (1.20x)" {
		t.Errorf("a ratio to what was disturbed: %q", rows)
	}
	r.Rows = []Row{row}
	var out bytes.Buffer
	if err := r.Print(&out); err != nil || !strings.Contains(out.String(), "disturbed") ||
		strings.Contains(out.String(), " met ") || !strings.Contains(out.String(), "in 2 of 12 cells") {
		t.Errorf("%v\n%s", err, out.String())
	}
	if s := r.tally(); s != "0 of 2 goals are met. 2 have no ratio: disturbed, or not measured." {
		t.Error(s)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good.json")
	if err := sampleRun().save(good); err != nil {
		t.Fatal(err)
	}
	r, err := Load(good)
	if err != nil || len(r.Cells) != 12 || len(r.Rows) != 3 || r.Cells[0].Percentiles["50.000000"] == 0 {
		t.Fatalf("%+v %v", r, err)
	}
	for text, want := range map[string]errs.Kind{
		"":                          errs.Invalid,
		"hello":                     errs.Invalid,
		"{}":                        errs.Invalid,
		"[1]":                       errs.Invalid,
		`{"cells": [{"job": "x"}]}`: errs.Version,
		`{"vstor_bench_format": 2, "cells": [{}]}`:          errs.Version,
		`{"vstor_bench_format": 1, "cells": []}`:            errs.Invalid,
		`{"vstor_bench_format": 1, "cells": [{"job": 1}]}`:  errs.Invalid,
		`{"vstor_bench_format": "1", "cells": [{"job": 1}]`: errs.Invalid,
	} {
		path := filepath.Join(dir, "bad.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); errs.Of(err) != want || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
	if _, err := Load(filepath.Join(dir, "none")); errs.Of(err) != errs.IO {
		t.Error(err)
	}
}

// What is published names no folder of this machine.
func TestCommand(t *testing.T) {
	got := commandLine([]string{"/home/x/bin/vstor", "bench", "--dir", "/home/x/var/bench", "--out=/tmp/a.json",
		"--rounds=3"})
	if got != "vstor bench --dir bench --out=a.json --rounds=3" {
		t.Error(got)
	}
	got = commandLine([]string{"vstor", "bench", "--only", "QD32.* on (vstor|qemu-nbd)$", "it's"})
	if want := `vstor bench --only 'QD32.* on (vstor|qemu-nbd)$' 'it'\''s'`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestBenchstatLines(t *testing.T) {
	var out bytes.Buffer
	if err := sampleRun().Benchstat(&out); err != nil {
		t.Fatal(err)
	}
	for want, n := range map[string]int{
		"\nBenchmarkVstor/job=70:30_4K_QD32/target=qemu_nbd 1000 10000 ns/op ": 3,
		" 149.0 iops ": 1, " 150.0 iops ": 1, " 151.0 iops ": 1, "\nBenchmarkVstor": 12, "\nUnit iops better=higher\n": 1} {
		if got := strings.Count(out.String(), want); got != n {
			t.Errorf("%q is there %d times, want %d:\n%s", want, got, n, out.String())
		}
	}
}

// A peer that fails is left out from then on, and everything says so; what is ours ends the run, and so does the user.
func TestLeaveOut(t *testing.T) {
	ceph := cephVolume{&cluster{}, cephRep, "image"}
	b := &bench{targets: []target{guest{ceph}, raw{}}, left: map[string]bool{}, progress: newProgress(io.Discard)}
	b.report = *sampleRun()
	ctx, cancel := context.WithCancel(t.Context())
	at := step{1, Job{Name: coldRead}, rawFile}
	if b.leaveOut(ctx, at, errs.New(errs.IO, "no")) || len(b.left) > 0 {
		t.Error("the raw file is left out")
	}
	at.target = cephRep
	if !b.leaveOut(ctx, at, errs.New(errs.IO, "it died")) || !b.left[cephRep] || ceph.begin(ctx, at.job) == nil {
		t.Error("it is not left out, or would go on")
	}
	const says = cephRep + " is left out from round 2 on: " + coldRead + ": it died"
	var out bytes.Buffer
	if err := b.report.Print(&out); err != nil || !strings.Contains(out.String(), says) ||
		!strings.Contains(string(b.report.HTML()), says) {
		t.Errorf("%v: %s", err, out.String())
	}
	cancel()
	if b.leaveOut(ctx, at, errs.New(errs.IO, "killed")) {
		t.Error("a run that is broken off goes on")
	}
}

// mortal is a target that is asked for its end.
type mortal struct {
	raw
	stopped *int
}

func (m mortal) stop() error { *m.stopped++; return nil }

// A peer that is left out is stopped: it may hang, and keep a core busy beside all cells that follow.
func TestLeftOutIsStopped(t *testing.T) {
	stopped := 0
	b := &bench{targets: []target{guest{mortal{stopped: &stopped}}}, left: map[string]bool{},
		progress: newProgress(io.Discard)}
	at := step{0, Job{Name: coldRead}, rawFile}
	if !b.leaveOut(t.Context(), at, errs.New(errs.IO, "it hangs")) || stopped != 1 {
		t.Errorf("stopped %d times", stopped)
	}
}

// A run that is broken off keeps its cells, says everywhere that it is not whole, and replaces no whole run.
func TestSalvage(t *testing.T) {
	dir := t.TempDir()
	opt := &Options{JSON: filepath.Join(dir, "run.json"), HTML: filepath.Join(dir, "run.html"),
		Markdown: filepath.Join(dir, "B.md")}
	var out bytes.Buffer
	if err := new(Report).salvage(opt, &out); err != nil || out.Len() > 0 {
		t.Fatalf("of nothing: %v, %s", err, out.String())
	}
	r := sampleRun()
	r.Planned = 99
	if err := r.salvage(opt, &out); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{opt.JSON, opt.HTML, opt.Markdown} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s was written", path)
		}
	}
	const says = "Broken off after 12 of 99 cells"
	page, _ := os.ReadFile(filepath.Join(dir, "run-cut.html"))
	if !strings.Contains(out.String(), says) || !strings.Contains(out.String(), "run-cut.json") ||
		!strings.Contains(string(page), says) {
		t.Errorf("it does not say so: %s", out.String())
	}
	stored, err := Load(filepath.Join(dir, "run-cut.json"))
	if err != nil || len(stored.Cells) != 12 {
		t.Fatalf("%+v, %v", stored, err)
	}
	c, err := Compare(stored, sampleRun())
	if err != nil || len(c.Doubts) != 1 || !strings.Contains(c.Doubts[0], "the first run: "+says) {
		t.Errorf("compared without a doubt: %+v, %v", c, err)
	}
}
