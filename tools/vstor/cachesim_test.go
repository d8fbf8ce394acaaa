package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCacheSim(t *testing.T) {
	dir := t.TempDir()
	trace := filepath.Join(dir, "trace.csv")
	if err := os.WriteFile(trace, []byte("1,R,0,65536,1\n1,R,0,65536,2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"--limit 500 --svg " + dir, 0, "fragment    vstor"},
		{"--json --trace " + trace + " --format ali", 0, `"unique_bytes": 65536`},
		{"--trace " + trace, exitUsage, "--trace and --format go together"},
		{"--trace " + trace + " --format msr", exitError, "is no msr trace"},
		{"--trace /nowhere --format msr", exitError, "cannot open the trace"},
	} {
		var out, errOut bytes.Buffer
		a := &app{stdout: &out, stderr: &errOut}
		code := a.run(append([]string{"bench", "cache-sim"}, strings.Fields(c.args)...))
		if code != c.code || !strings.Contains(out.String()+errOut.String(), c.says) {
			t.Errorf("%s: %d %q; want %d and %q", c.args, code, errOut.String(), c.code, c.says)
		}
	}
	if plots, _ := filepath.Glob(filepath.Join(dir, "*.svg")); len(plots) != 5 {
		t.Errorf("plots: %v", plots)
	}
}
