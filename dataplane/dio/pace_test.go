package dio

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vstor/dataplane/ring"
)

// Files of one device share a lane, on which one bulk write at a time is under way while loops use the device, and a
// few while none does. Small writes wait for nobody.
func TestBulkLane(t *testing.T) {
	a, b := tempDisk(t, 1<<20), tempDisk(t, 1<<20)
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
		l := newLane()
		l.used.Store(test.used)
		var leave []func()
		for range test.most {
			leave = append(leave, l.enter(1<<20))
		}
		l.enter(bulkLength)()
		entered := make(chan struct{})
		go func() {
			defer close(entered)
			l.enter(1 << 20)()
		}()
		select {
		case <-entered:
			t.Errorf("more than %d are under way", test.most)
		case <-time.After(20 * time.Millisecond):
		}
		leave[0]()
		<-entered
		for _, f := range leave[1:] {
			f()
		}
	}
	var none *lane
	none.use(1)
	none.enter(1 << 20)()
}

// What a loop does is seen, so that bulk writes make room for it.
func TestLaneSeesLoops(t *testing.T) {
	d, l := tempDisk(t, 1<<20), startLoop(t)
	d.bulk = newLane()
	v := l.pages(t, make([]byte, BlockSize))
	l.do(t, func(r *ring.Loop, op *ring.Op) { d.WriteV(r, op, v, 0) })
	if d.bulk.used.Load() == 0 {
		t.Error("a write of a loop was not seen")
	}
	d.bulk = newLane()
	l.do(t, func(r *ring.Loop, op *ring.Op) { d.ReadV(r, op, v, 0) })
	if d.bulk.used.Load() == 0 {
		t.Error("a read of a loop was not seen")
	}
	l.release(v)
}
