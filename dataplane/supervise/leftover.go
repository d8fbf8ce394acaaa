package supervise

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"vstor/dataplane/errs"
)

// leftoverWait is how long a killed process may take to be gone.
const leftoverWait = 10 * time.Second

// endLeftover kills the process of a pid file that an earlier parent left, if it still is that child: its
// arguments must be the same, since the number may belong to somebody else by now. It is killed and not
// asked: it lost its parent and did not end, so it hangs or is stopped.
func endLeftover(pidFile string, args []string) error {
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return nil // none was noted
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 || !sameArgs(pid, args) {
		os.Remove(pidFile)
		return nil
	}
	// It may be on its way out by itself.
	for begin := time.Now(); time.Since(begin) < time.Second; time.Sleep(10 * time.Millisecond) {
		if !sameArgs(pid, args) {
			return nil
		}
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		return errs.Wrap(errs.Busy, err, "process %d of an earlier start still runs and cannot be ended", pid)
	}
	for begin := time.Now(); time.Since(begin) < leftoverWait; time.Sleep(10 * time.Millisecond) {
		if !sameArgs(pid, args) {
			return nil
		}
	}
	return errs.New(errs.Busy, "process %d of an earlier start does not end: its drive may hang", pid)
}

// sameArgs reports whether a process runs, with these arguments.
func sameArgs(pid int, args []string) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return false
	}
	_, rest, ok := bytes.Cut(b, []byte{0})
	return ok && string(rest) == strings.Join(args, "\x00")+"\x00"
}
