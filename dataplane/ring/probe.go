package ring

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	iouring "github.com/iceber/iouring-go/syscall"
	"golang.org/x/sys/unix"

	"vstor/dataplane/errs"
)

// setupFlags is a rung of the ladder by which a ring comes down to what the kernel has. Asking a kernel
// for its version and concluding what it can do goes wrong with backports and with sandboxes; setting a
// ring up and seeing it refused does not.
type setupFlags struct {
	flags uint32
	lacks string // what the kernel lacks if it takes this rung and not the one before
}

func ladder() []setupFlags {
	base := uint32(iouring.IORING_SETUP_CQSIZE | iouring.IORING_SETUP_CLAMP)
	all := base | iouring.IORING_SETUP_SUBMIT_ALL
	return []setupFlags{
		{all | setupSingleIssuer | setupDeferTaskrun | setupNoSQArray, ""},
		{all | setupSingleIssuer | setupDeferTaskrun, "NO_SQARRAY (Linux 6.6)"},
		{all | setupSingleIssuer | iouring.IORING_SETUP_COOP_TASKRUN, "DEFER_TASKRUN (Linux 6.1)"},
		{all | iouring.IORING_SETUP_COOP_TASKRUN, "SINGLE_ISSUER (Linux 6.0)"},
		{all, "COOP_TASKRUN (Linux 5.19)"},
		{base, "SUBMIT_ALL (Linux 5.18)"},
	}
}

// needed are the features without which the loop does not work, with the kernel that brought them.
func needed() []struct {
	bit  uint32
	what string
} {
	return []struct {
		bit  uint32
		what string
	}{
		{iouring.IORING_FEAT_SINGLE_MMAP, "FEAT_SINGLE_MMAP (Linux 5.4)"},
		{iouring.IORING_FEAT_NODROP, "FEAT_NODROP (Linux 5.5)"},
		{iouring.IORING_FEAT_SUBMIT_STABLE, "FEAT_SUBMIT_STABLE (Linux 5.5)"},
		{iouring.IORING_FEAT_FAST_POLL, "FEAT_FAST_POLL (Linux 5.7)"},
		{featExtArg, "FEAT_EXT_ARG (Linux 5.11)"},
	}
}

// wanted is the kernel that we need, said the same way everywhere.
const wanted = "vstor needs Linux 5.19 or newer, 6.6 is best"

const allow = "allow io_uring_setup, io_uring_enter and io_uring_register"

func missing(what string) error {
	return errs.New(errs.Unsupported, "ring: this kernel (%s) lacks io_uring's %s; %s", kernelRelease(), what, wanted)
}

// Probe says whether loops can run here: nil, or an error that tells a kernel which is too old from
// one that forbids io_uring. It sets a small ring up and takes it down.
func Probe() error {
	opts := Options{Entries: 8, RecvBufs: 1, RecvBufSize: 4096}
	opts.ensureDefaults()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	u := newUring(&opts)
	if err := u.open(); err != nil {
		return err
	}
	u.shut()
	return nil
}

// setupError explains a refused io_uring_setup. disabled is the text of the sysctl
// kernel.io_uring_disabled, empty where there is none.
func setupError(errno syscall.Errno, release, disabled string) error {
	switch errno {
	case syscall.ENOSYS:
		if kernelAtLeast(release, 5, 1) {
			return errs.Wrap(errs.Unsupported, errno, "ring: io_uring is forbidden here: Linux %s has it, "+
				"but the call is hidden, as a container's seccomp filter does; %s", release, allow)
		}
		return errs.Wrap(errs.Unsupported, errno, "ring: Linux %s has no io_uring; %s", release, wanted)
	case syscall.EPERM, syscall.EACCES:
		if level := strings.TrimSpace(disabled); level == "1" || level == "2" {
			return errs.Wrap(errs.Unsupported, errno, "ring: io_uring is forbidden here: "+
				"sysctl kernel.io_uring_disabled is %s; set it to 0", level)
		}
		return errs.Wrap(errs.Unsupported, errno, "ring: io_uring is forbidden here, by a seccomp "+
			"filter (containers have one) or a security module; %s", allow)
	case syscall.ENOMEM:
		return errs.Wrap(errs.Unsupported, errno, "ring: no memory for the rings; "+
			"raise the locked-memory limit (ulimit -l)")
	case syscall.EMFILE, syscall.ENFILE:
		return errs.Wrap(errs.Busy, errno, "ring: no descriptor left for a ring; raise the limit (ulimit -n)")
	}
	return errs.Wrap(errs.Unsupported, errno, "ring: Linux %s refuses to set up an io_uring; %s", release, wanted)
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "of unknown version"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func ioUringDisabled() string {
	b, err := os.ReadFile("/proc/sys/kernel/io_uring_disabled")
	if err != nil {
		return ""
	}
	return string(b)
}

// kernelAtLeast compares the first two numbers of a release such as 6.1.0-13-amd64.
func kernelAtLeast(release string, major, minor int) bool {
	parts := strings.SplitN(release, ".", 3)
	if len(parts) < 2 {
		return false
	}
	digits := parts[1]
	if i := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		digits = digits[:i]
	}
	a, errA := strconv.Atoi(parts[0])
	b, errB := strconv.Atoi(digits)
	return errA == nil && errB == nil && (a > major || a == major && b >= minor)
}
