package bench

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// played is a part whose process is a script.
func played(t *testing.T, script string) *part {
	t.Helper()
	dir := t.TempDir()
	cmd := filepath.Join(dir, "vstor")
	if err := os.WriteFile(cmd, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	us := newOurs(&Options{Vstor: cmd, Work: dir, Size: 1 << 20, Cell: time.Second, Settle: 100 * time.Millisecond}, false)
	p := &part{us: us, as: edgeAlone}
	t.Cleanup(func() { p.stop() })
	return p
}

// A part's process that does what it should not fails the job, and never hangs it; one that ended after it answered is
// not taken for one at rest.
func TestPartProcess(t *testing.T) {
	const answer = `read line; echo '{"IOs": 7, "Mean": 1.5}'; `
	j := Job{RW: "randread", Depth: 1}
	for name, tc := range map[string]struct{ script, begins, runs, rests string }{
		"good":              {"echo ready; " + answer + "read line", "", "", ""},
		"ends at once":      {"echo no such folder >&2; exit 1", "has ended: no such folder", "", ""},
		"says what is not":  {"echo hello; read line", `says "hello"`, "", ""},
		"dies in the job":   {"echo ready; read line; exit 1", "", "has ended", ""},
		"talks nonsense":    {"echo ready; read line; echo nonsense; read line", "", "answers nonsense", ""},
		"dies behind it":    {"echo ready; " + answer + "exit 1", "", "", "is gone"},
		"says more than it": {"echo ready; " + answer + "for i in 1 2 3 4; do echo x; done; read line", "", "", ""},
	} {
		p := played(t, tc.script)
		check := func(what string, err error, want string) bool {
			t.Helper()
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %s: %v, want %q", name, what, err, want)
			}
			return err == nil
		}
		if !check("begin", p.begin(t.Context(), j), tc.begins) {
			continue
		}
		r, err := p.run(t.Context(), j, time.Second)
		if !check("run", err, tc.runs) {
			continue
		}
		if r.IOs != 7 || r.Mean != 1.5 {
			t.Errorf("%s: %+v", name, r)
		}
		if tc.rests != "" {
			<-p.p.done
		}
		check("rest", p.rest(t.Context(), p.us.opt.Settle), tc.rests)
		for range 2 {
			if err := p.stop(); err != nil {
				t.Errorf("%s: stop: %v", name, err)
			}
		}
	}
}

// Whoever interrupts a run does not wait for a part that says nothing.
func TestPartInterrupted(t *testing.T) {
	p := played(t, "exec sleep 60")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.begin(ctx, Job{RW: "randread", Depth: 1}); err == nil || ctx.Err() == nil {
		t.Errorf("begin: %v", err)
	}
}
