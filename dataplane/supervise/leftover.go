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

// pidFileVar is the variable in a child's environment that names its pid file: by it a process is known to be that
// child, whose number may belong to somebody else by now. Its arguments would not do: the next parent may have been
// told of other settings, and would leave alone what holds its drive.
const pidFileVar = "SUPERVISE_PIDFILE"

// EndLeftovers ends what an earlier parent left running under the pid files ("*.pid") of a folder. For who works on
// what they hold without children of its own; it must have made sure that no parent lives. Errors: Busy.
func EndLeftovers(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.pid"))
	if err != nil {
		return errs.Wrap(errs.Invalid, err, "the folder of pid files")
	}
	for _, file := range files {
		if err := endLeftover(file); err != nil {
			return err
		}
	}
	return nil
}

// endLeftover kills the process of a pid file that an earlier parent left, if it still is that child, and waits until
// it has let go of its files. It is killed and not asked: it lost its parent and did not end, so it hangs or is
// stopped.
func endLeftover(pidFile string) error {
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return nil // none was noted
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 || gone(pid, pidFile) {
		os.Remove(pidFile)
		return nil
	}
	if goneWithin(time.Second, pid, pidFile) { // by itself
		return nil
	}
	if isChild(pid, pidFile) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
			return errs.Wrap(errs.Busy, err, "process %d of an earlier start still runs and cannot be ended", pid)
		}
	}
	if !goneWithin(leftoverWait, pid, pidFile) {
		return errs.New(errs.Busy, "process %d of an earlier start does not end: its drive may hang", pid)
	}
	return nil
}

func goneWithin(wait time.Duration, pid int, pidFile string) bool {
	for begin := time.Now(); time.Since(begin) < wait; time.Sleep(10 * time.Millisecond) {
		if gone(pid, pidFile) {
			return true
		}
	}
	return false
}

// isChild reports whether a process runs that is the child of this pid file.
func isChild(pid int, pidFile string) bool { return ours(environ(pid), pidFile) }

func environ(pid int) []byte {
	b, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	return b
}

func ours(environ []byte, pidFile string) bool {
	return bytes.Contains(append([]byte{0}, environ...), []byte("\x00"+pidFileVar+"="+pidFile+"\x00"))
}

// gone reports whether there is no such child, or no more of it than its number. A process that ends has no
// environment any more some time before it has closed its files, and until then their locks hold.
func gone(pid int, pidFile string) bool {
	if env := environ(pid); len(env) > 0 {
		return !ours(env, pidFile)
	}
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	b, err := os.ReadFile(filepath.Join(dir, "stat"))
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if err != nil || len(fields) < 7 {
		return true
	}
	const kernelThread = 0x00200000 // PF_KTHREAD: the number is another's, which has no environment either
	if flags, _ := strconv.ParseUint(fields[6], 10, 64); flags&kernelThread != 0 {
		return true
	}
	threads, _ := os.ReadDir(filepath.Join(dir, "task"))
	return (fields[0] == "Z" || fields[0] == "X") && len(threads) <= 1 // the last to go closes what they share
}
