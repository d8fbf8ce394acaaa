package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// disturbed is the share of all cores, 0 to 1, taken by others from which on a cell does not count.
const disturbed = 0.15

// A cell does not count either where others moved a share of driveShare of all that moved on the drive, and driveLeast
// bytes a second: whoever copies a file past the page cache takes no CPU, and half of the drive. What a file system
// writes into its journal is nobody's, and Ceph's files have it write 18 MB a second.
const (
	driveShare = 0.1
	driveLeast = 64 << 20
)

// calmFor is how long a cell waits for others to end, before it runs all the same.
const calmFor = 10 * time.Second

// window is what the machine did during a cell, in CPU time, and the drive.
type window struct {
	all   time.Duration // what all cores had to give
	busy  time.Duration // by tasks, and stolen by the hypervisor; without interrupts, which are on behalf of whoever
	ours  time.Duration // of the servers that are measured, of fio and of the bench
	tasks time.Duration // of the kernel's own threads: they write back and complete for those that are measured
	// kernel is what tasks is made of, by number: a thread that ends takes its time with it, and from a sum of all it
	// would be missed as if it had been negative.
	kernel map[string]time.Duration

	at    time.Time // of a look
	took  time.Duration
	moved int64 // bytes that were read from the drive and written to it
	own   int64 // by those that are measured, fio and the bench
	blind bool  // the system does not tell of all of them, or of the drive: btrfs has none of its own, nor has overlayfs
}

// others is the share of all cores that nothing measured has used. Busy time is counted in ticks and that of processes
// exactly, so it may come out a little below none.
func (w window) others() float64 {
	if w.all <= 0 {
		return 0
	}
	return max(0, float64(w.busy-w.ours-w.tasks)/float64(w.all))
}

// driven is how many bytes a second others moved on the drive, if they were enough to disturb; else 0. Bytes are the
// process's that asks for them, also where a thread of the kernel moves them, and as soon as they wait in the page
// cache, so others may come out as less than none.
func (w window) driven() float64 {
	others := float64(w.moved - w.own)
	if w.blind || w.took <= 0 || others < driveShare*float64(w.moved) || others < driveLeast*w.took.Seconds() {
		return 0
	}
	return others / w.took.Seconds()
}

// isDisturbed is whether a cell counts, by the share of the cores that others had just before and during it, and what
// they moved on the drive. Before it everything measured idles; a cell waits for that, so what is left then will hardly
// have ended.
func isDisturbed(before, during, driven float64) bool {
	return before > disturbed || during > disturbed || driven > 0
}

// look takes stock, also of the drive below a path; between two of them lies a window.
func look(servers []int, path string) (window, error) {
	w := window{at: time.Now(), moved: driveMoved(path)}
	w.busy, w.all = cpuTime()
	u, err := usageOf(servers)
	if err != nil {
		return w, err
	}
	self, err := processUsage(os.Getpid()) // with those that it has waited for, fio among them
	if err != nil {
		return w, err
	}
	w.ours, w.kernel = u.cpu+ownTime(), kernelTimes()
	w.own, w.blind = u.read+u.written+self.read+self.written, u.hidden || self.hidden || w.moved == 0
	return w, nil
}

// since is what lies between two looks.
func (w window) since(b window) window {
	out := window{all: w.all - b.all, busy: w.busy - b.busy, ours: w.ours - b.ours, took: w.at.Sub(b.at),
		moved: w.moved - b.moved, own: w.own - b.own, blind: w.blind || b.blind}
	for thread, now := range w.kernel {
		out.tasks += max(0, now-b.kernel[thread]) // a number may be another thread's by now
	}
	return out
}

// cpuTime is what all cores together have done so far, and what they could have.
func cpuTime() (busy, all time.Duration) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	const idle, ioWait, interrupts, softInterrupts, steal = 3, 4, 5, 6, 7
	line, _, _ := strings.Cut(string(b), "\n")
	for i, f := range strings.Fields(line)[1:] {
		if i > steal {
			break // guest time is in user time already
		}
		n, _ := strconv.ParseInt(f, 10, 64)
		all += time.Duration(n) * clockTick
		if i != idle && i != ioWait && i != interrupts && i != softInterrupts {
			busy += time.Duration(n) * clockTick
		}
	}
	return busy, all
}

// ownTime is the CPU time of this process and of those that it has waited for, fio among them.
func ownTime() (sum time.Duration) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}

// kernelTimes is the CPU time of each of the kernel's threads, by its number.
func kernelTimes() map[string]time.Duration {
	const kernelThread = 0x00200000 // PF_KTHREAD, among the flags in /proc/PID/stat
	times := map[string]time.Duration{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return times
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		fields := statFields("/proc/" + e.Name() + "/stat")
		if len(fields) < statShort {
			continue // it has just ended
		}
		if flags, _ := strconv.ParseUint(fields[6], 10, 64); flags&kernelThread != 0 {
			times[e.Name()] = cpuOf(fields)
		}
	}
	return times
}

// calm waits, at most calmFor, until others leave the machine alone, and is the share of the cores that they had
// last. Everything measured must idle.
func calm() (load float64) {
	for end := time.Now().Add(calmFor); ; {
		busy1, all1 := cpuTime()
		time.Sleep(300 * time.Millisecond)
		busy2, all2 := cpuTime()
		load = window{all: all2 - all1, busy: busy2 - busy1}.others()
		if load <= disturbed || time.Now().After(end) {
			return load
		}
	}
}

// disturbance says what disturbed a cell.
func (c Cell) disturbance() string {
	text := fmt.Sprintf("others had %.0f %% of the cores before and %.0f %% during it", c.OtherLoad*100,
		c.OtherDuring*100)
	if c.OtherDriveMBps > 0 {
		text += fmt.Sprintf(", and moved %.0f MB/s on the drive", c.OtherDriveMBps)
	}
	return text
}
