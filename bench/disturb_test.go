package bench

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// What others took of the cores while a cell ran is what was busy and belongs to nobody measured.
func TestDisturbance(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		name   string
		before float64
		w      window
		want   bool
	}{
		{"all quiet", 0, window{all: 20 * s}, false},
		{"we use both cores", 0.02, window{all: 20 * s, busy: 19 * s, ours: 18 * s, tasks: s}, false},
		{"the kernel writes back for us", 0, window{all: 20 * s, busy: 12 * s, ours: 6 * s, tasks: 6 * s}, false},
		{"ticks count less than clocks", 0, window{all: 20 * s, busy: 9 * s, ours: 11 * s}, false},
		{"somebody builds beside us", 0, window{all: 20 * s, busy: 18 * s, ours: 12 * s, tasks: s}, true},
		{"somebody was at it before", 0.5, window{all: 20 * s, busy: 12 * s, ours: 12 * s}, true},
		{"a little of others", 0.1, window{all: 20 * s, busy: 14 * s, ours: 12 * s}, false},
		{"no time has passed", 0, window{}, false},
		{"we use the drive", 0, window{all: 20 * s, took: 10 * s, moved: 20 << 30, own: 20 << 30}, false},
		{"ours waits in the page cache", 0, window{all: 20 * s, took: 10 * s, moved: 1 << 30, own: 2 << 30}, false},
		{"others use the drive", 0, window{all: 20 * s, took: 10 * s, moved: 20 << 30, own: 10 << 30}, true},
		{"others log a line", 0, window{all: 20 * s, took: 10 * s, moved: 2 << 20, own: 0}, false},
		{"a little beside much", 0, window{all: 20 * s, took: 10 * s, moved: 20 << 30, own: 19 << 30}, false},
		{"nobody tells", 0, window{all: 20 * s, took: 10 * s, moved: 20 << 30, blind: true}, false},
	} {
		if got := isDisturbed(c.before, c.w.others(), c.w.driven()); got != c.want {
			t.Errorf("%s: disturbed %v, others had %.2f", c.name, got, c.w.others())
		}
	}
}

// A kernel thread that ends between two looks has taken nothing from anybody, and what the others did counts.
func TestKernelThreadsEnd(t *testing.T) {
	const s = time.Second
	from := window{kernel: map[string]time.Duration{"7": 60 * s, "8": s}}
	to := window{all: 20 * s, busy: 3 * s, kernel: map[string]time.Duration{"8": 3 * s, "9": s}}
	if w := to.since(from); w.tasks != 3*s || w.others() != 0 {
		t.Errorf("%+v, others %.2f", w, w.others())
	}
}

// Our own work is ours, whatever else the machine does.
func TestLook(t *testing.T) {
	from, err := look(nil, "/")
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
	}
	to, err := look(nil, "/")
	if err != nil {
		t.Fatal(err)
	}
	w := to.since(from)
	if w.ours < 20*time.Millisecond || w.all < 200*time.Millisecond || w.tasks < 0 || w.busy > w.all {
		t.Errorf("%+v", w)
	}
	if _, err := look([]int{1 << 30}, "/"); err == nil {
		t.Error("a server that is gone is looked at")
	}
	if len(statFields("/proc/self/stat")) < statShort || statFields("/proc/none/stat") != nil {
		t.Errorf("%d: %v", os.Getpid(), statFields("/proc/self/stat"))
	}
}

// What another process writes past the page cache is seen on the drive, and is ours once we have waited for it.
func TestDriveOfOthers(t *testing.T) {
	const size = 64 << 20
	dir := t.TempDir()
	from, err := look(nil, dir)
	if err != nil {
		t.Fatal(err)
	}
	if from.blind {
		t.Skip("SKIPPED: the system does not tell what a drive does")
	}
	dd := exec.Command("dd", "if=/dev/zero", "of="+filepath.Join(dir, "f"), "bs=1M", "count=64", "oflag=direct")
	out, err := dd.StderrPipe()
	if err == nil {
		err = dd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	said, _ := io.ReadAll(out)
	to, err := look(nil, dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := dd.Wait(); err != nil {
		t.Skipf("SKIPPED: no direct IO here: %s", said)
	}
	w := to.since(from)
	if others := w.moved - w.own; others < size-1<<20 { // we read a little
		t.Errorf("%d bytes were written by another, and %d seen", size, others)
	}
	after, err := look(nil, dir)
	if err != nil {
		t.Fatal(err)
	}
	if w := after.since(from); w.own < size {
		t.Errorf("a child wrote %d bytes, and %d are ours", size, w.own)
	}
}
