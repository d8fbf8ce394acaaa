package dio

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vstor/dataplane/ring"
)

// Files of one device share a lane, on which one bulk write at a time is under way while loops use the device, and a
// few while none does. Small writes wait for nobody.
func TestBulkLane(t *testing.T) {
	ctx := context.Background()
	a, b := tempDisk(t, 1<<20), tempDisk(t, 1<<20)
	defer a.Close()
	defer b.Close()
	if a.bulk != b.bulk {
		t.Error("two files of one folder, and each has a lane of its own")
	}
	monotonic := func() int64 {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
			t.Fatal(err)
		}
		return now.Nano()
	}
	for _, test := range []struct {
		used int64
		most int
	}{{0, bulkDepth}, {monotonic() + int64(time.Hour), 1}} {
		l := newLane(1, bulkDepth-1)
		l.used.Store(test.used)
		var leave []<-chan struct{}
		for range test.most {
			leave = append(leave, l.enter(ctx, 1<<20))
		}
		if l.enter(ctx, bulkLength) != nil {
			t.Error("a small write has to wait for its turn")
		}
		entered := make(chan struct{})
		go func() {
			defer close(entered)
			<-l.enter(ctx, 1<<20)
		}()
		select {
		case <-entered:
			t.Errorf("more than %d are under way", test.most)
		case <-time.After(20 * time.Millisecond):
		}
		<-leave[0]
		<-entered
		for _, c := range leave[1:] {
			<-c
		}
	}
	l := newLane(1, bulkDepth-1)
	l.use(monotonic(), 4096)
	l.enter(ctx, 1<<20)
	l.enter(ctx, 1<<20) // once no loop has used the drive for a while, though the first is still under way

	var none *lane
	none.use(1, 4096)
	if none.enter(ctx, 1<<20) != nil {
		t.Error("a lane that is none")
	}
}

// Loops that stream do not hold bulk writes back, and a root written now and then is no other matter; as soon as a
// quarter of their IO is short they do.
func TestBulkBesideAStream(t *testing.T) {
	l, now := newLane(1, bulkDepth-1), int64(time.Hour)
	is := func(what string, streams bool) {
		t.Helper()
		if l.streams() != streams {
			t.Errorf("%s: a stream: %v", what, !streams)
		}
	}
	is("nothing", false)
	for i := range 100 {
		l.use(now, 1<<20)
		if now += int64(time.Millisecond); i%10 == 0 {
			l.use(now, 4096)
		}
	}
	is("long ones", true)
	var leave []<-chan struct{}
	for range bulkDepth {
		leave = append(leave, l.enter(context.Background(), 1<<20))
	}
	for _, c := range leave {
		<-c
	}
	for range 100 {
		l.use(now, 1<<20)
		l.use(now, 4096)
		now += int64(time.Millisecond)
	}
	is("as many short ones", false)
	for range 200 {
		l.use(now, 1<<20)
		now += int64(time.Millisecond)
	}
	is("long ones again", true)
}

// Of the bulk writes that ASDs with processes of their own do on one drive two are under way at a time. One that hangs
// gives up its place.
func TestAway(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "data")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a, b := AwayTo(file), AwayTo(dir)
	if a == nil {
		t.Skip("SKIPPED: the folder for tests is on no single drive")
	}
	if a.lane != b.lane {
		t.Error("two paths of one drive, and each has a lane of its own")
	}
	ctx, cancel := context.WithCancel(context.Background())
	for range 2 {
		start := time.Now()
		one, two := a.Begin(ctx, 1<<20), b.Begin(ctx, 1<<20)
		a.Begin(ctx, awayLength)() // is not held up
		three := a.Begin(ctx, 1<<20)
		if d := time.Since(start); d < awayMost {
			t.Errorf("a third began after %v, and none had ended", d)
		}
		for _, end := range []func(){one, two, three} {
			end()
		}
		for end := time.Now().Add(10 * time.Second); len(a.lane.one) > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("all have ended, and %d hold a place", len(a.lane.one))
			}
		}
	}
	(*Away)(nil).Begin(ctx, 1<<20)()

	l := newLane(2, 0)
	l.enter(ctx, 1<<20)
	l.enter(ctx, 1<<20)
	gone := make(chan bool, 2)
	for range 2 { // one that is next, and one behind it
		go func() { gone <- l.enter(ctx, 1<<20) == nil }()
	}
	cancel()
	for range 2 {
		if !<-gone {
			t.Error("one whose time is over began")
		}
	}
}

// Partitions and what lies on one drive by way of others count as that drive; arrays, rotating drives and what the
// kernel tells nothing of have no lane. A virtual drive that says it rotates has one.
func TestOnlyDrive(t *testing.T) {
	sys := t.TempDir()
	device := func(name, rotates string, slaves ...string) string {
		dir := filepath.Join(sys, "devices", name)
		for _, d := range append([]string{"queue", "slaves"}, slaves...) {
			if d != "queue" && d != "slaves" {
				if err := os.Symlink(filepath.Join(sys, "devices", d), filepath.Join(dir, "slaves", filepath.Base(d))); err != nil {
					t.Fatal(err)
				}
			} else if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "queue/rotational"), []byte(rotates+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	nvme := device("pci/nvme0n1", "0")
	disk := device("pci/sda", "1")
	virtual := device("pci/virtio1/vda", "1")
	if err := os.MkdirAll(filepath.Join(virtual, "vda1"), 0o755); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{nvme: nvme, disk: "", virtual: virtual, "": "",
		device("virtual/dm-0", "1", "pci/virtio1/vda/vda1"):  virtual,
		device("virtual/md0", "0", "pci/nvme0n1", "pci/sda"): "",
		device("virtual/dm-1", "0", "virtual/dm-0"):          virtual,
		device("virtual/dm-2", "0", "pci/sda"):               "",
		device("virtual/dm-3", "0", "virtual/md0"):           "",
	} {
		if got := onlyDrive(dir); got != want {
			t.Errorf("%s is on %q, want %q", dir, got, want)
		}
	}
}

// What a loop does is seen, so that bulk writes make room for it.
func TestLaneSeesLoops(t *testing.T) {
	d, l := tempDisk(t, 1<<20), startLoop(t)
	defer d.Close()
	d.bulk = newLane(1, bulkDepth-1)
	v := l.pages(t, make([]byte, BlockSize))
	l.do(t, func(r *ring.Loop, op *ring.Op) { d.WriteV(r, op, v, 0) })
	if d.bulk.used.Load() == 0 {
		t.Error("a write of a loop was not seen")
	}
	d.bulk = newLane(1, bulkDepth-1)
	l.do(t, func(r *ring.Loop, op *ring.Op) { d.ReadV(r, op, v, 0) })
	if d.bulk.used.Load() == 0 {
		t.Error("a read of a loop was not seen")
	}
	l.release(v)
}
