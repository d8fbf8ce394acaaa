package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"vstor/dataplane/errs"
)

// usage is what a process has used so far, or several together.
type usage struct {
	cpu     time.Duration
	written int64 // bytes the process had written to drives
	rss     int64 // bytes
}

// usageOf is the sum over processes; each of them must be alive.
func usageOf(pids []int) (usage, error) {
	var sum usage
	for _, pid := range pids {
		u, err := processUsage(pid)
		if err != nil {
			return usage{}, err
		}
		sum.cpu += u.cpu
		sum.written += u.written
		sum.rss += u.rss
	}
	return sum, nil
}

// clockTick is the unit of /proc/PID/stat: 100 to the second on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

func processUsage(pid int) (usage, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, errs.Wrap(errs.Unreachable, err, "a server is gone")
	}
	// The name in parentheses may hold anything; fields are counted from behind it.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 22 {
		return usage{}, errs.New(errs.IO, "/proc/%d/stat is short", pid)
	}
	utime, _ := strconv.ParseInt(fields[11], 10, 64)
	stime, _ := strconv.ParseInt(fields[12], 10, 64)
	pages, _ := strconv.ParseInt(fields[21], 10, 64)
	u := usage{cpu: time.Duration(utime+stime) * clockTick, rss: pages * int64(os.Getpagesize())}
	if b, err = os.ReadFile(fmt.Sprintf("/proc/%d/io", pid)); err == nil {
		u.written = field(string(b), "write_bytes:")
	}
	return u, nil
}

// field finds the number behind a name.
func field(s, name string) int64 {
	_, rest, ok := strings.Cut("\n"+s, "\n"+name)
	if !ok {
		return 0
	}
	n, _ := strconv.ParseInt(strings.Fields(rest + " 0")[0], 10, 64)
	return n
}

// driveWritten is how many bytes were written to the drive below path, by anybody; 0 if it has none.
func driveWritten(path string) int64 {
	var st syscall.Stat_t
	if syscall.Stat(path, &st) != nil {
		return 0
	}
	major := st.Dev>>8&0xfff | st.Dev>>32&^0xfff
	minor := st.Dev&0xff | st.Dev>>12&0xffffff00
	b, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", major, minor))
	fields := strings.Fields(string(b))
	if err != nil || len(fields) < 7 {
		return 0
	}
	sectors, _ := strconv.ParseInt(fields[6], 10, 64)
	return sectors * 512
}

// otherLoad is the share of all cores, 0 to 1, that the machine spends now; asked while we are idle, it is
// what others take from the measurement.
func otherLoad(d time.Duration) float64 {
	busy1, all1 := cpuTicks()
	time.Sleep(d)
	busy2, all2 := cpuTicks()
	if all2 <= all1 {
		return 0
	}
	return float64(busy2-busy1) / float64(all2-all1)
}

func cpuTicks() (busy, all int64) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	for i, f := range strings.Fields(line)[1:] {
		if i >= 8 {
			break // guest time is in user time already
		}
		n, _ := strconv.ParseInt(f, 10, 64)
		all += n
		if i != 3 && i != 4 { // idle, iowait
			busy += n
		}
	}
	return busy, all
}

// machine describes where a run was made.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	RAM    int64  `json:"ram_bytes"`
	Fio    string `json:"fio"`
	Qemu   string `json:"qemu"`
}
