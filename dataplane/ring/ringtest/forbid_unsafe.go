// Package ringtest makes a process one of those machines where io_uring is forbidden, for tests.
package ringtest

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"vstor/dataplane/errs"
)

// Calls of io_uring; their numbers are the same on all machines.
const (
	Setup    = unix.SYS_IO_URING_SETUP
	Enter    = unix.SYS_IO_URING_ENTER
	Register = unix.SYS_IO_URING_REGISTER
)

// Forbid has calls fail with errno in this process and in all it will start, for good: by a seccomp filter, as
// containers have one. Unsupported where filters are forbidden too.
func Forbid(errno syscall.Errno, calls ...uint32) error {
	prog := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // seccomp_data.nr
	for i, c := range calls {
		prog = append(prog, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: c,
			Jt: uint8(len(calls) - i)})
	}
	prog = append(prog, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)})
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}

	// The thread that gives up its privileges must be the one that asks; all others follow it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return errs.Wrap(errs.Unsupported, err, "ringtest: cannot give up privileges")
	}
	_, _, e := syscall.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&fprog)))
	if e != 0 {
		return errs.Wrap(errs.Unsupported, e, "ringtest: cannot set a seccomp filter")
	}
	return nil
}

// forbidEnv tells a test binary, or what stands in its place, to do without io_uring.
const forbidEnv = "VSTOR_TEST_FORBID_URING"

// Env is what to add to the environment of a process for ForbidIfAsked.
func Env() string { return forbidEnv + "=1" }

// ForbidIfAsked forbids io_uring if the environment says so, or ends the process; it reports whether it did.
// TestMain calls it first.
func ForbidIfAsked() bool {
	if os.Getenv(forbidEnv) == "" {
		return false
	}
	if err := Forbid(syscall.EPERM, Setup); err != nil {
		fmt.Fprintln(os.Stderr, "SKIPPED, nothing is tested without io_uring:", err)
		os.Exit(SkippedExit)
	}
	return true
}

// SkippedExit is the exit code of a process that ForbidIfAsked ended.
const SkippedExit = 77
