package ringtest

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Again runs all tests of this binary again, but for the calling one, in a process without io_uring, where loops
// are plain. Its TestMain calls ForbidIfAsked. Skipped, with a word, where io_uring cannot be forbidden. Short runs
// leave out what the pattern brief names.
func Again(t *testing.T, brief string) {
	t.Helper()
	if os.Getenv(forbidEnv) != "" {
		t.Fatal("there is no io_uring already: -test.skip does not work")
	}
	args, skip := []string{"-test.count=1"}, "^"+t.Name()+"$"
	if testing.Short() {
		args, skip = append(args, "-test.short"), skip+"|"+brief
	}
	args = append(args, "-test.skip="+skip)
	if end, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout="+time.Until(end).String())
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), Env())
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == SkippedExit:
		t.Skipf("%s", out)
	case err != nil:
		t.Fatalf("without io_uring: %v\n%s", err, out)
	}
	t.Logf("without io_uring: %s", tail(string(out), 3))
}

func tail(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
