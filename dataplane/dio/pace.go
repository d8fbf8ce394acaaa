package dio

import (
	"context"
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
// are a megabyte at a time for each ASD. So where loops read and write a drive, this process has one bulk write under
// way on it; where none does, a few. To cut them into shorter ones was tried and no better: it costs CPU. A loop whose
// own IO is as long waits for nothing that it would notice, but for what the drive does in all, and that is more with a
// few under way: then they are let in as well.
//
// It goes by drive and not by file: six ASDs on six drives share nothing, six files of one drive do. Nothing is held
// back of a rotating drive, whose elevator wants to see much, nor of an array, which wants depth. A virtual drive says
// that it rotates whatever it lies on; that is not believed. Of what other processes write there, see Away.
//
// A write that hangs holds up the bulk writes of all files of its drive, and of no other: it is the same drive.
const (
	bulkLength = 64 << 10 // bytes; what is longer is bulk
	bulkDepth  = 4        // bulk writes under way on a drive that no loop uses
	// A loop that began nothing for so long does not use the drive. It is more than bulkDepth of them take, so that one
	// which waits for an IO behind them still does.
	loopsUse = 50 * time.Millisecond
	// Loops stream where of their IOs of late fewer than one in streamShare is shorter than longIO.
	longIO      = 256 << 10 // bytes
	streamShare = 4
)

// lane is the bulk writing of one drive.
type lane struct {
	turn chan struct{} // first come, first served; who has it waits for one or more
	one  chan struct{} // the write that may always be under way, or those
	more chan struct{} // the others
	used atomic.Int64  // when a loop last began an IO there, in nanoseconds of CLOCK_MONOTONIC

	began      atomic.Int64 // when late did, as used
	late, past ios          // since then, and for loopsUse or so before
}

// ios counts what loops began.
type ios struct{ short, long atomic.Int32 }

func newLane(always, more int) *lane {
	return &lane{turn: make(chan struct{}, 1), one: make(chan struct{}, always), more: make(chan struct{}, more)}
}

// lanes has a lane of each kind for each drive of which ever a file was opened, by its folder in sysfs; they are few.
var lanes struct {
	sync.Mutex
	of map[string]*lane
}

// laneOf finds the lane of the drive that an open file lies on. nil: none is kept for it.
func laneOf(fd int) *lane {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return nil
	}
	return keptLane("", &st, 1, bulkDepth-1)
}

// keptLane finds or makes the lane of a kind for the drive of st.
func keptLane(kind string, st *unix.Stat_t, always, more int) *lane {
	drive := onlyDrive(blockDir("/sys", st))
	if drive == "" {
		return nil
	}
	lanes.Lock()
	defer lanes.Unlock()
	l := lanes.of[kind+drive]
	if l == nil {
		if lanes.of == nil {
			lanes.of = map[string]*lane{}
		}
		l = newLane(always, more)
		lanes.of[kind+drive] = l
	}
	return l
}

// onlyDrive is the folder of the one drive, not rotating, that a block device is or lies on by way of others, as a
// volume of LVM does. Empty: there is none, or there are several.
func onlyDrive(dir string) string {
	for dir != "" {
		below, _ := os.ReadDir(filepath.Join(dir, "slaves"))
		if len(below) == 0 {
			break
		}
		next, err := filepath.EvalSymlinks(filepath.Join(dir, "slaves", below[0].Name()))
		if err != nil || len(below) > 1 {
			return ""
		}
		if _, err := os.Stat(filepath.Join(next, "queue")); err != nil { // a partition
			next = filepath.Dir(next)
		}
		dir = next
	}
	if readWord(dir, "queue/rotational") == "1" && !strings.Contains(dir, "/virtio") {
		return ""
	}
	return dir
}

// use notes an IO of a loop, of n bytes.
func (l *lane) use(now int64, n int) {
	if l == nil {
		return
	}
	l.used.Store(now)
	if at := l.began.Load(); now-at >= int64(loopsUse) && l.began.CompareAndSwap(at, now) {
		l.past.short.Store(l.late.short.Swap(0))
		l.past.long.Store(l.late.long.Swap(0))
	}
	if n < longIO {
		l.late.short.Add(1)
	} else {
		l.late.long.Add(1)
	}
}

// streams reports whether loops move so much that each IO of theirs takes long by itself.
func (l *lane) streams() bool {
	short := l.past.short.Load() + l.late.short.Load()
	long := l.past.long.Load() + l.late.long.Load()
	return long > 0 && streamShare*short <= long
}

// enter waits until a write of n bytes may begin, or ctx ends. What it returns is to be received from at its end; nil:
// nothing.
//
// Who is next looks again whether loops still use the drive. They may have stopped because they wait for him: a loop
// takes no writes while RAM is full, until a SCO is on the drives.
func (l *lane) enter(ctx context.Context, n int) <-chan struct{} {
	if l == nil || n <= bulkLength {
		return nil
	}
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return nil
	}
	for {
		more, idle := l.more, (<-chan time.Time)(nil)
		if left := l.quiet(); left > 0 {
			more, idle = nil, time.After(left) // nobody can send there
		}
		select {
		case l.one <- struct{}{}:
			return l.one
		case more <- struct{}{}:
			return l.more
		case <-idle:
		case <-ctx.Done():
			return nil
		}
	}
}

// quiet is how long loops must begin nothing for more than one bulk write to be let in.
func (l *lane) quiet() time.Duration {
	if l.streams() {
		return 0
	}
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return 0
	}
	return loopsUse - time.Duration(now.Nano()-l.used.Load())
}
