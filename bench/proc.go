package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"vstor/dataplane/errs"
)

// usage is what a process has used so far, or several together.
type usage struct {
	cpu     time.Duration
	read    int64 // bytes that came from drives
	written int64 // bytes the process had written to drives
	hidden  bool  // the system does not tell of the two
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
		sum.read += u.read
		sum.written += u.written
		sum.hidden = sum.hidden || u.hidden
		sum.rss += u.rss
	}
	return sum, nil
}

// clockTick is the unit of /proc/PID/stat: 100 to the second on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

func processUsage(pid int) (usage, error) {
	fields := statFields(fmt.Sprintf("/proc/%d/stat", pid))
	if len(fields) < statShort {
		return usage{}, errs.New(errs.Unreachable, "a server, process %d, is gone", pid)
	}
	pages, _ := strconv.ParseInt(fields[21], 10, 64)
	u := usage{cpu: cpuOf(fields), rss: pages * int64(os.Getpagesize())}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	u.read, u.written, u.hidden = field(string(b), "read_bytes:"), field(string(b), "write_bytes:"), err != nil
	return u, nil
}

// statShort is how many fields of a stat file there are at least, as statFields counts.
const statShort = 22

// statFields are the fields of /proc/PID/stat from the third on; none if there is no such process. The name before
// them, in parentheses, may hold anything.
func statFields(path string) []string {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
}

// cpuOf is user and system time, of such fields.
func cpuOf(fields []string) time.Duration {
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick
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

// driveFolder is the folder in sysfs of the drive, or the partition, below path; there may be none.
func driveFolder(path string) string {
	var st syscall.Stat_t
	if syscall.Stat(path, &st) != nil {
		return ""
	}
	major := st.Dev>>8&0xfff | st.Dev>>32&^0xfff
	minor := st.Dev&0xff | st.Dev>>12&0xffffff00
	return fmt.Sprintf("/sys/dev/block/%d:%d", major, minor)
}

// driveWritten is how many bytes were written to the drive below path, by anybody; 0 if it has none.
func driveWritten(path string) int64 {
	b, err := os.ReadFile(filepath.Join(driveFolder(path), "stat"))
	fields := strings.Fields(string(b))
	if err != nil || len(fields) < 7 {
		return 0
	}
	sectors, _ := strconv.ParseInt(fields[6], 10, 64)
	return sectors * 512
}

// driveMoved is how many bytes were read from and written to the whole drive below path, by anybody; 0 if it has none.
func driveMoved(path string) int64 {
	dir, err := filepath.EvalSymlinks(driveFolder(path))
	if err != nil {
		return 0
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		dir = filepath.Dir(dir)
	}
	b, err := os.ReadFile(filepath.Join(dir, "stat"))
	fields := strings.Fields(string(b))
	if err != nil || len(fields) < 7 {
		return 0
	}
	read, _ := strconv.ParseInt(fields[2], 10, 64)
	written, _ := strconv.ParseInt(fields[6], 10, 64)
	return (read + written) * 512
}

// fileSystems are the names of those that a bench is likely to find, by what statfs says.
var fileSystems = map[int64]string{0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x2fc12fc1: "zfs",
	0x01021994: "tmpfs", 0x794c7630: "overlayfs"}

// driveOf names what lies below path: the drive, its scheduler and the file system; empty: not known.
func driveOf(path string) string {
	var out []string
	if dir, err := filepath.EvalSymlinks(driveFolder(path)); err == nil {
		if _, err := os.Stat(filepath.Join(dir, "queue")); err != nil {
			dir = filepath.Dir(dir) // a partition
		}
		word := func(name string) string {
			b, _ := os.ReadFile(filepath.Join(dir, name))
			return strings.TrimSpace(string(b))
		}
		name := filepath.Base(dir)
		if model := word("device/model"); model != "" {
			name += " (" + model + ")"
		}
		out = append(out, name)
		if _, rest, ok := strings.Cut(word("queue/scheduler"), "["); ok {
			in, _, _ := strings.Cut(rest, "]")
			out = append(out, "scheduler "+in)
		}
	}
	var st syscall.Statfs_t
	if syscall.Statfs(path, &st) == nil && fileSystems[int64(st.Type)] != "" {
		out = append(out, fileSystems[int64(st.Type)])
	}
	return strings.Join(out, ", ")
}

// machine describes where a run was made.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	RAM    int64  `json:"ram_bytes"`
	Drive  string `json:"drive,omitempty"`
	Fio    string `json:"fio"`
	Qemu   string `json:"qemu"`
}
