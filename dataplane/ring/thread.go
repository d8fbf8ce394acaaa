package ring

import (
	"golang.org/x/sys/unix"

	"vstor/dataplane/errs"
)

// A loop and its client on one machine wake each other with every batch. The kernel takes such a wake-up for a
// hand-over and may put the sleeper on the waker's CPU; as both sleep half of the time nothing pulls them apart
// again, and they take turns for seconds while the next CPU idles. KVM guests see it most, as an idle virtual
// CPU looks taken there (measured on two CPUs: 4K reads at 30-42k a second instead of 43-62k). A loop that moved
// away by itself would be followed. So whoever measures, or has CPUs to give away, keeps loops and clients
// apart with Options.CPUs; by default the kernel decides.

// place holds the calling thread, which runs the loop, on Options.CPUs. restore takes that back.
func (l *Loop) place() (restore func(), err error) {
	if len(l.opts.CPUs) == 0 {
		return func() {}, nil
	}
	var before, want unix.CPUSet
	for _, c := range l.opts.CPUs {
		want.Set(c)
	}
	if err = unix.SchedGetaffinity(0, &before); err == nil {
		err = unix.SchedSetaffinity(0, &want)
	}
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "loop %s cannot run on CPU %v: name CPUs that this process may use",
			l.opts.Name, l.opts.CPUs)
	}
	return func() { unix.SchedSetaffinity(0, &before) }, nil
}

// favoured is by how much a loop's priority is raised above that of its process, where that is allowed.
//
// A loop runs for 40 us at a time, and then all its clients wait until it runs again. Among threads of equal
// priority it waits for its turn, while these read for the cleaner, write fragments and compact, and none of them
// is in a hurry: on two CPUs 20 us at each of 7,000 wakes a second, with a tail of milliseconds. The kernel's own
// means, a shorter slice, changed nothing. To lower all other threads instead would put the API and the metadata
// behind whatever else runs on the machine.
const favoured = 10

// favour raises the priority of the calling thread, which the workers of its io_uring inherit, and no thread of
// Go's: a locked one starts none. restore takes that back. It needs CAP_SYS_NICE or a limit that allows it:
// without, the loop is as before, and nothing is wrong.
func favour() (restore func()) {
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return func() {}
	}
	nice := 20 - raw // as the system call has it, so that it is never negative
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, nice-favoured)
	return func() { _ = unix.Setpriority(unix.PRIO_PROCESS, 0, nice) }
}
