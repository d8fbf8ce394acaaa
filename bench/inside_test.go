package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vstor/dataplane/config"
	"vstor/dataplane/errs"
	"vstor/dataplane/node"
)

var quiet = slog.New(slog.DiscardHandler)

// small makes a deployment whose vDisk, if it is to have one, was written through once. It gives the settings of a
// start.
func small(t *testing.T, size int64) config.Config {
	t.Helper()
	d, err := config.OpenDir(filepath.Join(t.TempDir(), "d"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	m, err := config.ThisMachine(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	says := config.Source{Name: "the test", Values: map[string][]string{"asd-size": {"64M"}, "journal": {"64M"},
		"memory": {"512M"}, "sco-size": {"1M"}, "fragment-size": {"256k"}, "loops": {"1"}, "policy": {"4,2,5,1"},
		"block-cache": {"0"}}}
	cfg, keep, err := d.Resolve(config.Source{}, config.Source{}, says, m)
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.Start(node.Options{Config: cfg, Fresh: true, NoNBD: true, Log: quiet})
	if errs.Of(err) == errs.Unsupported {
		t.Skip("SKIPPED:", err)
	} else if err != nil {
		t.Fatal(err)
	}
	if size > 0 {
		if _, err := n.CreateVDisk(t.Context(), volume, size); err != nil {
			t.Fatal(err)
		}
		v, err := n.OpenBare(volume)
		if err != nil {
			t.Fatal(err)
		}
		(&inside{n, v}).writeThrough(t, size)
		v.Close()
	}
	if err := errors.Join(d.Keep(keep), d.FinishCreate(), n.Close()); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// writeThrough writes every block once, and waits until some are in objects.
func (in *inside) writeThrough(t *testing.T, size int64) {
	t.Helper()
	if err := in.writeAnew(t.Context(), size); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if places, err := in.find(size); err == nil && len(places) > 0 || time.Now().After(end) {
			return
		}
	}
}

// drive is RunPart as the bench has it done.
func drive(ctx context.Context, p Part) (r result, err error) {
	in, begin := io.Pipe()
	says, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := RunPart(ctx, p, in, out)
		out.Close()
		ended <- err
	}()
	s := bufio.NewScanner(says)
	if s.Scan() && s.Text() == partReady {
		fmt.Fprintln(begin)
		if s.Scan() {
			err = json.Unmarshal(s.Bytes(), &r)
		}
	}
	begin.Close()
	return r, errors.Join(err, <-ended)
}

// Every part is driven, on a deployment that was closed before and that opens again after.
func TestRunPart(t *testing.T) {
	const size = 16 << 20
	cfg := small(t, size)
	file := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(file, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	part := Part{Config: cfg, Log: quiet, Bytes: size, Block: 4096, Depth: 4, For: 200 * time.Millisecond, File: file}
	none := func(*Part) {}
	for _, tc := range []struct {
		name   string
		change func(*Part)
	}{ // what writes comes last: what was written is in no object for a while
		{praccAlone, none},
		{edgeAlone, none},
		{edgeAlone + ", cached", func(p *Part) { p.Config.BlockCache = 32 << 20 }},
		{ramAlone, func(p *Part) { p.Config.BlockCache = 32 << 20 }},
		{ssdAlone, func(p *Part) { p.Config.BlockCache, p.Config.BlockCacheSSD = 1<<20, 64<<20 }},
		{driveAlone, none},
		{driveAlone + ", writes", func(p *Part) { p.Write = true }},
		{driveAlone + ", in order", func(p *Part) { p.Sequential, p.Block = true, 1<<20 }},
		{logAlone + ", writes", func(p *Part) { p.Write = true }},
		{logAlone + ", large writes", func(p *Part) { p.Write, p.Block = true, 1<<20 }},
		{fragsAlone, func(p *Part) { p.Config.FragmentCache = 64 << 20 }},
		{edgeAlone + ", writes", func(p *Part) { p.Write = true }},
		{edgeAlone + ", writes of 16K", func(p *Part) { p.Write, p.Block = true, 16<<10 }},
		{edgeAlone + ", in order", func(p *Part) { p.Write, p.Sequential, p.Block = true, true, 1<<20 }},
	} {
		p := part
		p.Name, _, _ = strings.Cut(tc.name, ", ")
		tc.change(&p)
		r, err := drive(t.Context(), p)
		if err != nil || r.IOs < 4 || r.Mean <= 0 || r.IOPS <= 0 || r.P99 <= 0 || r.Bytes != r.IOs*int64(p.Block) {
			t.Errorf("%s: %+v, %v", tc.name, r, err)
		}
		if _, isCache := tiers[p.Name]; isCache != (r.FromCache > 0) {
			t.Errorf("%s: %.2f came from the cache", tc.name, r.FromCache)
		}
	}
}

// A log writes each IO once into itself, and half as much again behind: no IO is answered that is in no record.
func TestLogAlone(t *testing.T) {
	const size = 64 << 20
	cfg := small(t, 1<<20)
	file := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(file, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	before := driveWritten(filepath.Dir(file))
	r, err := drive(t.Context(), Part{Config: cfg, Log: quiet, Name: logAlone, Write: true, Bytes: size, Block: 16 << 10,
		Depth: 8, For: time.Second, File: file})
	if err != nil {
		t.Fatal(err)
	}
	wrote, owed := driveWritten(filepath.Dir(file))-before, r.Bytes*5/2
	if before > 0 && wrote < owed-logRoom-16<<20 {
		t.Errorf("%d bytes were answered, and %d written", r.Bytes, wrote)
	}
}

// What cannot be done says so and ends, and the deployment opens again behind it.
func TestRunPartRefuses(t *testing.T) {
	cfg := small(t, 0)
	file := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	part := Part{Config: cfg, Log: quiet, Name: edgeAlone, Bytes: 1 << 20, Block: 4096, Depth: 4, For: time.Minute,
		File: file}
	if _, err := drive(t.Context(), part); errs.Of(err) != errs.Absent {
		t.Errorf("without a vDisk: %v", err)
	}
	n, err := node.Start(node.Options{Config: cfg, NoNBD: true, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = n.CreateVDisk(t.Context(), volume, 1<<20); err == nil {
		err = n.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		want   errs.Kind
		change func(*Part)
	}{
		{"no depth", errs.Invalid, func(p *Part) { p.Depth = 0 }},
		{"no such part", errs.Invalid, func(p *Part) { p.Name = "the moon" }},
		{"beyond the vDisk", errs.Invalid, func(p *Part) { p.Bytes = 2 << 20 }},
		{"PRACC writes", errs.Invalid, func(p *Part) { p.Name, p.Write = praccAlone, true }},
		{"PRACC reads much", errs.Invalid, func(p *Part) { p.Name, p.Block = praccAlone, 8192 }},
		{"a log reads", errs.Invalid, func(p *Part) { p.Name = logAlone }},
		{"half a block", errs.Invalid, func(p *Part) { p.Block = 2048 }},
		{"more than all", errs.Invalid, func(p *Part) { p.Block = 2 << 20 }},
		{"nothing was written", errs.Absent, func(p *Part) { p.Name = praccAlone }},
		{"beyond the file", errs.IO, func(p *Part) { p.Name, p.Bytes = driveAlone, 2<<20 }},
	} {
		p := part
		tc.change(&p)
		if _, err := drive(t.Context(), p); errs.Of(err) != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := drive(ctx, part); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stopped: %v", err)
	}
}

// A line costs what it is more than the one above, but for that of fio's clock. Parts that were not measured are passed
// over, and what is disturbed says nothing of the next.
func TestHops(t *testing.T) {
	r := &Report{}
	job := hopReads()[0].Name
	for target, us := range map[string]float64{rawFile: 75, driveAlone: 60, edgeAlone: 71.5,
		embedded: 100} {
		r.Cells = append(r.Cells, Cell{Job: job, Target: target, MeanUs: us})
	}
	said := func() (out []string) {
		for _, row := range r.hops() {
			out = append(out, row[1]+" "+row[4])
		}
		return out
	}
	want := []string{rawFile + " -", driveAlone + " -", edgeAlone + " +11.5", embedded + " +28.5"}
	if got := said(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for i := range r.Cells {
		r.Cells[i].Disturbed = r.Cells[i].Target == edgeAlone
	}
	want = []string{rawFile + " -", driveAlone + " -", edgeAlone + " disturbed", embedded + " -"}
	if got := said(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
