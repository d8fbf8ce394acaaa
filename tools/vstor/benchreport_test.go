package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// storedRun is one as `vstor bench --out` writes it, cut to what these commands need.
const storedRun = `{"vstor_bench_format": 1, "rounds": 3,
"cells": [{"job": "16K random write QD8", "target": "vstor", "round": 0, "iops": 19, "mean_us": 5, "ios": 9},
 {"job": "16K random write QD8", "target": "vstor", "round": 1, "iops": 20, "mean_us": 5, "ios": 9},
 {"job": "16K random write QD8", "target": "vstor", "round": 2, "iops": 21, "mean_us": 5, "ios": 9},
 {"job": "16K random write QD8", "target": "qemu-nbd", "round": 1, "iops": 19, "mean_us": 5, "ios": 9}]}`

func TestBenchReport(t *testing.T) {
	dir := t.TempDir()
	at := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run, other := at("run.json", storedRun), at("other.json", strings.ReplaceAll(storedRun, `"iops": `, `"iops": 1`))
	none, old := at("none.json", `{"a": 1}`), at("old.json", `{"cells": []}`)
	page, summary := filepath.Join(dir, "p.html"), filepath.Join(dir, "s.md")
	for _, tc := range []struct {
		args string
		code int
		want string // in what it prints
	}{
		{"report " + run, 0, "MISSED"},
		{"report --json " + run, 0, `"vstor_bench_format": 1`},
		{"report " + run + " --benchstat", 0, "BenchmarkVstor/job=16K_random_write_QD8/target=vstor 9 5000 ns/op 19.0 iops"},
		{"report " + run + " --benchstat --json", exitUsage, "give one of them"},
		{"report " + run + " --html " + page + " --markdown " + summary, 0, ""},
		{"report " + none, exitError, "is no run"},
		{"report", exitUsage, "RUN.json"},
		{"compare " + run + " " + other, 0, "+500.0%"},
		{"compare --json " + run + " " + other, 0, `"word": "BETTER"`},
		{"compare " + run + " " + run, 0, "within the spread"},
		{"compare " + run + " " + none, exitError, "none.json is no run"},
		{"compare " + old + " " + run, exitError, "measure again"},
		{"compare " + run, exitUsage, "B.json"},
	} {
		var out bytes.Buffer
		a := &app{stdout: &out, stderr: &out}
		code := a.run(append([]string{"bench"}, strings.Fields(tc.args)...))
		if code != tc.code || !strings.Contains(out.String(), tc.want) || tc.want == "" && out.Len() > 0 {
			t.Errorf("%s: exit code %d, want %d and %q:\n%s", tc.args, code, tc.code, tc.want, out.String())
		}
	}
	for path, want := range map[string]string{page: "</html>", summary: "# Benchmarks"} {
		if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%v:\n%s", err, b)
		}
	}
}

// benchstat itself reads the lines: both runs, all units, and which change counts.
func TestBenchstatReadsIt(t *testing.T) {
	dir := t.TempDir()
	args := []string{"tool", "benchstat"}
	for name, text := range map[string]string{"a": storedRun,
		"b": strings.ReplaceAll(storedRun, `"iops": `, `"iops": 1`)} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".json", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		a := &app{stdout: &out, stderr: &out}
		if code := a.run([]string{"bench", "report", path + ".json", "--benchstat"}); code != 0 {
			t.Fatal(out.String())
		}
		if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("go", append(args, filepath.Join(dir, "a"), filepath.Join(dir, "b"))...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"Vstor/job=16K_random_write_QD8/target=vstor", "iops", "sec/op", "20.00", "120.0"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is missing:\n%s", want, out)
		}
	}
	if strings.Contains(string(out), "syntax") || strings.Contains(string(out), "error") {
		t.Errorf("%s", out)
	}
}
