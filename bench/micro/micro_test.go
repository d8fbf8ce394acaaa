package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Every line of the list of hot paths finds a benchmark: one that was renamed would be left out without a word.
func TestHotPathsExist(t *testing.T) {
	list, err := os.ReadFile("hot")
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line := range strings.Lines(string(list)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		lines++
		words := strings.Fields(line)
		if len(words) != 2 {
			t.Errorf("%q is not a package and a pattern", line)
			continue
		}
		top, _, _ := strings.Cut(words[1], "/")
		if pattern := regexp.MustCompile(top); !hasBenchmark(t, words[0], pattern) {
			t.Errorf("%s has no benchmark %s", words[0], top)
		}
	}
	if lines < 10 {
		t.Errorf("%d hot paths", lines)
	}
}

var benchmark = regexp.MustCompile(`(?m)^func (Benchmark\w+)\(`)

func hasBenchmark(t *testing.T, pkg string, pattern *regexp.Regexp) bool {
	files, err := filepath.Glob(filepath.Join("../..", pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range benchmark.FindAllStringSubmatch(string(b), -1) {
			if pattern.MatchString(m[1]) {
				return true
			}
		}
	}
	return false
}

// What ISA-L's side measures has the names of ours, so that no line of the table stands alone.
func TestNamesAgree(t *testing.T) {
	us, err := ours(0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := os.ReadFile("isal/isal.c")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range us {
		name := regexp.MustCompile(`\d+\+\d+, \d+`).ReplaceAllString(f.name, "%d+%d, %d")
		if !strings.Contains(string(c), `"`+name+`"`) {
			t.Errorf("isal.c has no %q", name)
		}
		if f.gb <= 0 {
			t.Errorf("%+v", f)
		}
	}
}

func TestTable(t *testing.T) {
	them, err := parse("copy, 4 KiB\t8.0\nother\t3\n")
	if err != nil {
		t.Fatal(err)
	}
	var rounds [][]figure
	for _, gb := range []float64{1, 9, 4} {
		rounds = append(rounds, []figure{{"copy, 4 KiB", gb}, {"x", 7}})
	}
	us := medians(rounds)
	var out bytes.Buffer
	if err := table(&out, us, them); err != nil {
		t.Fatal(err)
	}
	squeezed := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{"copy, 4 KiB 4.00 8.00 0.50", "x 7.00 - -"} {
		if !strings.Contains(squeezed, want) {
			t.Errorf("%q is missing:\n%s", want, out.String())
		}
	}
	for _, bad := range []string{"x", "x\ty", "x 1\n"} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

func TestRun(t *testing.T) {
	fake := filepath.Join(t.TempDir(), "fake")
	if err := os.WriteFile(fake, []byte("#!/bin/sh\nprintf 'encode 4+2, 64 KiB\\t%s\\n' $1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(&out, fake, 1, time.Millisecond); err != nil || !strings.Contains(out.String(), "0.00") {
		t.Errorf("%v\n%s", err, out.String())
	}
	if err := run(&out, fake+"x", 1, 0); err == nil {
		t.Error("a program that is not there runs")
	}
}
