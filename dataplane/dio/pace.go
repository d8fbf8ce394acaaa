package dio

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Bulk writes share a drive with small IO that somebody waits for: a journal's record, a reader's block. A drive takes
// what it is given in about that order, so a record waits for all that was handed over before it, and a SCO's fragments
// are a megabyte at a time for each ASD. So where loops read and write a device, this process has one bulk write under
// way on it; where none does, a few. To cut them into shorter ones was tried and no better: it costs CPU.
//
// It goes by device and not by file: six ASDs on six drives share nothing, six files of one drive do. Nothing is held
// back of a rotating drive: its elevator wants to see much. A virtual drive says that it rotates whatever it lies on;
// that is not believed.
const (
	bulkLength = 64 << 10 // bytes; what is longer is bulk
	bulkDepth  = 4        // bulk writes under way on a device that no loop uses
	loopsUse   = 100 * time.Millisecond
)

// lane is the bulk writing of one device.
type lane struct {
	one  chan struct{} // the write that may always be under way
	more chan struct{} // the others
	used atomic.Int64  // when a loop last began an IO there, in nanoseconds of CLOCK_MONOTONIC
}

func newLane() *lane {
	return &lane{one: make(chan struct{}, 1), more: make(chan struct{}, bulkDepth-1)}
}

// lanes has a lane for each device that ever was written to; they are few.
var lanes struct {
	sync.Mutex
	of map[uint64]*lane
}

// laneOf finds the lane of the device that an open file lies on. nil: none is kept for it.
func laneOf(fd int) *lane {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return nil
	}
	dev := st.Dev
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		dev = st.Rdev
	}
	dev, rotates := wholeDevice(dev)
	if rotates {
		return nil
	}
	lanes.Lock()
	defer lanes.Unlock()
	l := lanes.of[dev]
	if l == nil {
		if lanes.of == nil {
			lanes.of = map[uint64]*lane{}
		}
		l = newLane()
		lanes.of[dev] = l
	}
	return l
}

// wholeDevice finds the drive of a partition, and whether it rotates. A device the kernel tells nothing of, as that of
// a file system over several, is a drive of its own that does not.
func wholeDevice(dev uint64) (drive uint64, rotates bool) {
	dir, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(dev), unix.Minor(dev)))
	if err != nil {
		return dev, false
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		dir = filepath.Dir(dir)
	}
	var major, minor uint32
	if b, err := os.ReadFile(filepath.Join(dir, "dev")); err == nil {
		if _, err := fmt.Sscanf(string(b), "%d:%d", &major, &minor); err == nil {
			dev = unix.Mkdev(major, minor)
		}
	}
	b, _ := os.ReadFile(filepath.Join(dir, "queue/rotational"))
	return dev, strings.TrimSpace(string(b)) == "1" && !strings.Contains(dir, "/virtio")
}

// use notes an IO of a loop.
func (l *lane) use(now int64) {
	if l != nil {
		l.used.Store(now)
	}
}

// enter waits until a write of n bytes may begin; leave is to be called after it.
func (l *lane) enter(n int) (leave func()) {
	if l == nil || n <= bulkLength {
		return func() {}
	}
	more := l.more
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) == nil && now.Nano()-l.used.Load() < int64(loopsUse) {
		more = nil // nobody can send there
	}
	select {
	case l.one <- struct{}{}:
		return func() { <-l.one }
	case more <- struct{}{}:
		return func() { <-l.more }
	}
}
