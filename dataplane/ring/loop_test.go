package ring

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
)

func TestOptions(t *testing.T) {
	pool, err := buf.NewPool(1<<20, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	bad := []Options{
		{},
		{Pool: pool, Entries: -1},
		{Pool: pool, Entries: 1 << 20},
		{Pool: pool, RecvBufs: 1 << 20},
		{Pool: pool, RecvBufSize: 1 << 30},
		{Pool: pool, InboxMax: -1},
		{Pool: pool, IO: 7},
	}
	for _, o := range bad {
		if _, err := New(o); errs.Of(err) != errs.Invalid {
			t.Errorf("%+v: %v", o, err)
		}
	}
	o := Options{Pool: pool, Entries: 100, RecvBufs: 3}
	o.ensureDefaults()
	if o.Entries != 128 || o.RecvBufs != 4 || o.InboxMax != 4096 {
		t.Errorf("defaults: %+v", o)
	}
	if got := (Options{}).Memory(); got < 4<<20+buf.Spare || got > 5<<20+buf.Spare {
		t.Errorf("default loop maps %d bytes", got)
	}
}

func TestPostFromManyGoroutines(t *testing.T) { engines(t, testPostFromManyGoroutines) }

func testPostFromManyGoroutines(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io, InboxMax: 16})
	const workers, each = 8, 2000
	var ran, wrong int
	last := make([]int, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				if !l.PostFunc(func() {
					ran++
					if last[w] != i {
						wrong++
					}
					last[w] = i + 1
				}) {
					t.Error("refused")
				}
			}
		})
	}
	wg.Wait()
	on(t, l, func() {})
	if ran != workers*each || wrong != 0 {
		t.Fatalf("%d of %d ran, %d out of order", ran, workers*each, wrong)
	}
}

func TestPostOnTheLoopDoesNotDeadlock(t *testing.T) { engines(t, testPostOnTheLoopDoesNotDeadlock) }

func testPostOnTheLoopDoesNotDeadlock(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io, InboxMax: 4})
	n := 0
	on(t, l, func() {
		for range 100 {
			l.PostFunc(func() { n++ })
		}
		if !l.Call(func() { n++ }) {
			t.Error("Call on the loop was refused")
		}
	})
	on(t, l, func() {})
	if n != 101 {
		t.Fatalf("%d ran", n)
	}
}

func TestTryPost(t *testing.T) { engines(t, testTryPost) }

func testTryPost(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io, InboxMax: 2})
	block, in := make(chan struct{}), make(chan struct{})
	l.PostFunc(func() { close(in); <-block })
	<-in
	nop := funcMessage(func() {})
	for range 2 {
		if !l.TryPost(nop) {
			t.Fatal("refused with room")
		}
	}
	if l.TryPost(nop) {
		t.Fatal("accepted beyond the bound")
	}
	close(block)
	on(t, l, func() {})
	if !l.TryPost(nop) {
		t.Fatal("refused with room")
	}
	l.Stop()
	if l.TryPost(nop) || l.Post(nop) || l.Call(func() {}) {
		t.Fatal("accepted after Stop")
	}
}

func TestTimers(t *testing.T) { engines(t, testTimers) }

func testTimers(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	var order []int
	done := make(chan struct{})
	var timers [6]Timer
	var start int64
	on(t, l, func() {
		start = l.Now()
		for i := range timers {
			timers[i].Fire = func() {
				order = append(order, i)
				if i == 5 {
					close(done)
				}
			}
		}
		for i, ms := range []int{30, 10, 20, 1, 5, 40} {
			l.After(&timers[i], time.Duration(ms)*time.Millisecond)
		}
		l.StopTimer(&timers[4])
		l.StopTimer(&timers[4])
		l.After(&timers[0], 35*time.Millisecond)
	})
	<-done
	want := []int{3, 1, 2, 0, 5}
	on(t, l, func() {
		if len(order) != len(want) {
			t.Fatalf("fired %v, want %v", order, want)
		}
		for i := range want {
			if order[i] != want[i] {
				t.Errorf("fired %v, want %v", order, want)
			}
		}
		if passed := time.Duration(l.Now() - start); passed < 40*time.Millisecond {
			t.Errorf("the last timer fired after %v", passed)
		}
	})
}

// A timer that re-arms itself without a delay does not keep the loop from its other work.
func TestTimerStorm(t *testing.T) { engines(t, testTimerStorm) }

func testTimerStorm(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	n := 0
	var tm Timer
	on(t, l, func() {
		tm.Fire = func() { n++; l.After(&tm, 0) }
		l.After(&tm, 0)
	})
	for range 10 {
		on(t, l, func() {})
	}
	on(t, l, func() {
		l.StopTimer(&tm)
		if n == 0 || tm.Armed() {
			t.Error("it never fired, or is still armed")
		}
	})
}

func TestClocks(t *testing.T) { engines(t, testClocks) }

func testClocks(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	on(t, l, func() {
		now, boot := l.Now(), l.BootNow()
		if d := clockNanos(1) - now; d < -int64(time.Second) || d > int64(10*time.Second) {
			t.Errorf("Now is %d ns off CLOCK_MONOTONIC", d)
		}
		if d := clockNanos(7) - boot; d < 0 || d > int64(10*time.Second) {
			t.Errorf("BootNow is %d ns off CLOCK_BOOTTIME", d)
		}
		if l.Now() != now || l.BootNow() != boot {
			t.Error("time passed within a pass")
		}
	})
}

type funcDone func(*Op, int32)

func (f funcDone) RingDone(op *Op, res int32) { f(op, res) }

// A pass is: completions, then what they deferred, then device hooks and what those deferred, then
// socket hooks.
func TestPassOrder(t *testing.T) { engines(t, testPassOrder) }

func testPassOrder(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	var got []string
	say := func(s string) { got = append(got, s) }
	device, socket := &Hook{Stage: StageDevice}, &Hook{Stage: StageSocket}
	op1 := &Op{Done: funcDone(func(*Op, int32) { say("deferred"); l.AtPassEnd(device) })}
	op2 := &Op{Done: funcDone(func(_ *Op, res int32) { say("deferred by hook") })}
	socket.Run = func() { say("socket") }
	device.Run = func() { say("device"); l.Defer(op2, 5) }
	on(t, l, func() {
		l.AtPassEnd(socket)
		l.AtPassEnd(socket)
		l.Defer(op1, 1)
		say("call")
	})
	on(t, l, func() {})
	want := []string{"call", "deferred", "device", "deferred by hook", "socket"}
	if len(got) != len(want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// Operations that end at once and start again do not starve timers, posts and sockets.
func TestDeferStorm(t *testing.T) { engines(t, testDeferStorm) }

func testDeferStorm(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	var stop atomic.Bool
	n := 0
	op := new(Op)
	op.Done = funcDone(func(*Op, int32) {
		n++
		if !stop.Load() {
			l.Defer(op, 0)
		}
	})
	on(t, l, func() { l.Defer(op, 0) })
	a, b := socketpair(t)
	w := newWaiter(l)
	recv := &Op{Done: w}
	on(t, l, func() { l.RecvSelect(recv, a) })
	syscall.Write(b, []byte("x"))
	w.wait(t)
	stop.Store(true)
	on(t, l, func() {
		if n < 2 {
			t.Error("the storm did not blow")
		}
	})
}

func TestStartErrors(t *testing.T) { engines(t, testStartErrors) }

func testStartErrors(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	if err := l.Start(); errs.Of(err) != errs.Closed {
		t.Fatalf("second start: %v", err)
	}
	l.Stop()
	l.Stop()
	m, err := New(Options{IO: io, Pool: l.Pool()})
	if err != nil {
		t.Fatal(err)
	}
	m.Stop()
	m.Stop()
	if err := m.Start(); errs.Of(err) != errs.Closed {
		t.Fatalf("start after stop: %v", err)
	}
	if m.Call(func() {}) {
		t.Fatal("a loop that never ran took a call")
	}
}

func TestStopFromTheLoop(t *testing.T) { engines(t, testStopFromTheLoop) }

func testStopFromTheLoop(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	l.PostFunc(l.Stop)
	<-l.ended
	l.Stop()
}

// Stop races with posters: each message is refused or runs.
func TestStopWhilePosting(t *testing.T) { engines(t, testStopWhilePosting) }

func testStopWhilePosting(t *testing.T, io IO) {
	for range 30 {
		l := startLoop(t, Options{IO: io, InboxMax: 8})
		var accepted atomic.Int64
		ran := 0
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for l.PostFunc(func() { ran++ }) {
					accepted.Add(1)
				}
			})
		}
		time.Sleep(time.Millisecond)
		l.Stop()
		wg.Wait()
		if int64(ran) != accepted.Load() {
			t.Fatalf("%d accepted, %d ran", accepted.Load(), ran)
		}
	}
}

func TestIdleLoopSleeps(t *testing.T) { engines(t, testIdleLoopSleeps) }

func testIdleLoopSleeps(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	on(t, l, func() {})
	before := l.Stats().Passes
	time.Sleep(50 * time.Millisecond)
	if n := l.Stats().Passes - before; n > 3 {
		t.Fatalf("an idle loop went round %d times", n)
	}
}

func TestSetupErrors(t *testing.T) {
	cases := []struct {
		errno             syscall.Errno
		release, disabled string
		kind              errs.Kind
		says              string
	}{
		{syscall.ENOSYS, "4.19.0-21-amd64", "", errs.Unsupported, "Linux 4.19.0-21-amd64 has no io_uring"},
		{syscall.ENOSYS, "6.1.0-13-amd64", "", errs.Unsupported, "seccomp"},
		{syscall.EPERM, "6.6.1", "2\n", errs.Unsupported, "kernel.io_uring_disabled is 2; set it to 0"},
		{syscall.EPERM, "6.6.1", "0\n", errs.Unsupported, "seccomp"},
		{syscall.EINVAL, "5.0.1", "", errs.Unsupported, "5.19"},
		{syscall.ENOMEM, "5.10", "", errs.Unsupported, "ulimit -l"},
		{syscall.EMFILE, "6.1", "", errs.Busy, "ulimit -n"},
	}
	for _, c := range cases {
		err := setupError(c.errno, c.release, c.disabled)
		if errs.Of(err) != c.kind || !errors.Is(err, c.errno) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v on %s: %v", c.errno, c.release, err)
		}
	}
	releases := map[string]bool{"5.19.0": true, "6.1-rc2": true, "5.18.19": false, "x": false, "5.x": false}
	for release, want := range releases {
		if kernelAtLeast(release, 5, 19) != want {
			t.Errorf("kernelAtLeast(%q)", release)
		}
	}
}
