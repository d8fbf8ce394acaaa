package ring

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"vstor/dataplane/buf"
)

const canceled = -int32(syscall.ECANCELED)

// Whatever an Op is doing when the loop stops, it ends.
func TestStopWithOpsUnderWay(t *testing.T) { engines(t, testStopWithOpsUnderWay) }

func testStopWithOpsUnderWay(t *testing.T, io IO) {
	for _, entries := range []int{8, 1024} {
		l := startLoop(t, Options{IO: io, Entries: entries})
		a, _ := socketpair(t)
		fd := tempFile(t, 1<<20)
		v := pages(t, l, 1<<20, 1)
		const n = 100
		ends := 0
		count := funcDone(func(*Op, int32) { ends++ })
		var ops [3*n + 2]Op
		on(t, l, func() {
			for i := range ops {
				ops[i].Done = count
			}
			for i := range n {
				l.RecvSelect(&ops[i], a)
				l.RecvV(&ops[n+i], a, v)
				l.WriteV(&ops[2*n+i], fd, v, 0)
			}
			l.Hold(&ops[3*n])
			l.Defer(&ops[3*n+1], 0)
			var tm Timer
			tm.Fire = func() { t.Error("a timer fired while stopping") }
			l.After(&tm, time.Hour)
		})
		l.Stop()
		if ends != len(ops) {
			t.Fatalf("%d of %d ended", ends, len(ops))
		}
	}
}

// Whenever the loop stops, amid operations of all kinds and their cancellation, each of them ends once.
func TestStopAnytime(t *testing.T) { engines(t, testStopAnytime) }

func testStopAnytime(t *testing.T, io IO) {
	fd := tempFile(t, 1<<20)
	var pipe [2]int
	if err := syscall.Pipe2(pipe[:], syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer closeFd(&pipe[0])
	defer closeFd(&pipe[1])
	for round := range 30 {
		rng := rand.New(rand.NewPCG(uint64(round), 7))
		pool, err := buf.NewPool(8<<20, 0)
		if err != nil {
			t.Fatal(err)
		}
		span := time.Duration(rng.IntN(3000)) * time.Microsecond // from here on rng is the loop's
		l := startLoop(t, Options{IO: io, Pool: pool, Entries: 8 << (round % 4), RecvBufs: 2, RecvBufSize: 4096})
		a, b := socketpair(t)
		v := pages(t, l, 200<<10, 1)
		var ops [60]Op
		var under [len(ops)]bool
		start := func(op *Op) {
			under[op.Tag] = true
			switch rng.IntN(8) {
			case 0:
				l.RecvSelect(op, a)
			case 1:
				l.RecvV(op, b, v)
			case 2, 3:
				l.SendV(op, []int{a, b}[rng.IntN(2)], v)
			case 4:
				l.Datasync(op, fd)
			case 5:
				l.ReadV(op, pipe[0], v, 0)
			case 6:
				l.WriteV(op, pipe[1], v, 0)
			default:
				l.WriteV(op, fd, v, 0)
			}
			if rng.IntN(4) == 0 {
				l.Cancel(&ops[rng.IntN(len(ops))])
			}
		}
		stopping := false
		done := funcDone(func(op *Op, res int32) {
			if !under[op.Tag] {
				t.Errorf("round %d: Op %d ended twice", round, op.Tag)
			}
			under[op.Tag] = false
			if !stopping && l.stopping.Load() {
				stopping = true
			}
			if !stopping {
				start(op)
			}
		})
		on(t, l, func() {
			for i := range ops {
				ops[i].Done, ops[i].Tag = done, uint64(i)
			}
			for i := range ops {
				start(&ops[i])
			}
		})
		time.Sleep(span)
		l.Stop()
		for i, u := range under {
			if u || !ops[i].Idle() {
				t.Errorf("round %d: Op %d has not ended", round, i)
			}
		}
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	}
}

// What is started while the loop stops ends canceled.
func TestStartWhileStopping(t *testing.T) { engines(t, testStartWhileStopping) }

func testStartWhileStopping(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	a, _ := socketpair(t)
	v := pages(t, l, buf.PageSize, 1)
	var second, third int32
	op2 := &Op{Done: funcDone(func(_ *Op, res int32) { second = res })}
	op3 := &Op{Done: funcDone(func(_ *Op, res int32) { third = res })}
	op := &Op{Done: funcDone(func(_ *Op, res int32) {
		if res != canceled {
			t.Errorf("got %d, want ECANCELED", res)
		}
		l.SendV(op2, a, v)
		l.Hold(op3)
	})}
	on(t, l, func() { l.RecvSelect(op, a) })
	l.Stop()
	if second != canceled || third != canceled {
		t.Fatalf("got %d and %d, want ECANCELED", second, third)
	}
}

func TestCancel(t *testing.T) { engines(t, testCancel) }

func testCancel(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	a, b := socketpair(t)
	w := newWaiter(l)
	op := &Op{Done: w}
	// In the same pass, after it, twice, and when idle.
	on(t, l, func() { l.RecvSelect(op, a); l.Cancel(op); l.Cancel(op) })
	if r := w.wait(t); r != canceled {
		t.Fatalf("got %d", r)
	}
	on(t, l, func() { l.RecvSelect(op, a) })
	on(t, l, func() { l.Cancel(op) })
	if r := w.wait(t); r != canceled {
		t.Fatalf("got %d", r)
	}
	on(t, l, func() {
		if !op.Idle() {
			t.Error("an ended Op is not idle")
		}
		l.Cancel(op)
	})
	// The socket is none the worse.
	on(t, l, func() { l.RecvSelect(op, a) })
	syscall.Write(b, []byte("hello"))
	if r := w.wait(t); r != 5 || string(w.sel) != "hello" {
		t.Fatalf("got %d %q", r, w.sel)
	}
	on(t, l, func() { l.Hold(op); l.Cancel(op) })
	if r := w.wait(t); r != canceled {
		t.Fatalf("got %d", r)
	}
}

// Canceling reaches an Op that still stands in line because the table is full of idle receives.
func TestCancelQueued(t *testing.T) { engines(t, testCancelQueued) }

func testCancelQueued(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io, Entries: 8})
	a, b := socketpair(t)
	ops := make([]Op, 100)
	w := &waiter{l: l, got: make(chan int32, 200)}
	on(t, l, func() {
		for i := range ops {
			ops[i].Done = w
			l.RecvSelect(&ops[i], a)
		}
		l.Cancel(&ops[99])
		l.Cancel(&ops[50])
	})
	for range 2 {
		if r := w.wait(t); r != canceled {
			t.Fatalf("got %d", r)
		}
	}
	on(t, l, func() {
		for i := range ops {
			l.Cancel(&ops[i])
		}
	})
	for range 98 {
		if r := w.wait(t); r != canceled {
			t.Fatalf("got %d", r)
		}
	}
	on(t, l, func() { l.RecvSelect(&ops[0], a) })
	syscall.Write(b, []byte("x"))
	if r := w.wait(t); r != 1 {
		t.Fatalf("got %d", r)
	}
}

func TestHold(t *testing.T) { engines(t, testHold) }

func testHold(t *testing.T, io IO) {
	l := startLoop(t, Options{IO: io})
	w := newWaiter(l)
	op := &Op{Done: w}
	var first, second uint64
	on(t, l, func() {
		first = l.Hold(op)
		if !l.Unhold(op, first) || l.Unhold(op, first) {
			t.Error("a holding ends once")
		}
		second = l.Hold(op)
		if l.Unhold(op, first) {
			t.Error("an old token ended a new holding")
		}
		if !l.Unhold(op, second) {
			t.Error("a holding did not end")
		}
		l.Defer(op, 7)
	})
	if r := w.wait(t); r != 7 {
		t.Fatalf("got %d", r)
	}
}

// An answer that means "ask again" is not asked for ever.
func TestAdvance(t *testing.T) {
	segs := []buf.Seg{{Page: 64, Len: 4096}, {Page: 80, Len: 8192}}
	type step struct {
		res, out int32
		again    bool
	}
	eintr, eagain, eio := -int32(syscall.EINTR), -int32(syscall.EAGAIN), -int32(syscall.EIO)
	einval, enobufs := -int32(syscall.EINVAL), -int32(syscall.ENOBUFS)
	cases := []struct {
		name  string
		code  opCode
		steps []step
	}{
		{"whole", codeRead, []step{{12288, 12288, false}}},
		{"parts", codeWrite, []step{
			{100, 100, true}, {eintr, eintr, true}, {3996, 4096, true}, {8192, 12288, false}}},
		{"end of file", codeRead, []step{{4096, 4096, true}, {0, eio, false}}},
		{"end within a sector", codeRead, []step{{100, 100, true}, {einval, eio, false}}},
		{"misaligned", codeRead, []step{{einval, einval, false}}},
		{"end of stream", codeRecv, []step{{5000, 5000, true}, {0, 5000, false}}},
		{"short send", codeSend, []step{{5000, 5000, false}}},
		{"no buffer", codeRecvSelect, []step{{enobufs, enobufs, true}, {5, 5, false}}},
		{"sync", codeDatasync, []step{{eagain, eagain, true}, {0, 0, false}}},
		{"failed sync", codeDatasync, []step{{eio, eio, false}}},
	}
	for _, c := range cases {
		op := &Op{code: c.code, segs: segs, want: 12288}
		for i, s := range c.steps {
			out, again := op.advance(s.res)
			if again != s.again || (!again && out != s.out) {
				t.Errorf("%s, step %d: %d %v, want %d %v", c.name, i, out, again, s.out, s.again)
			}
		}
	}
	op, n := &Op{code: codeRecv, segs: segs, want: 12288}, 0
	for {
		n++
		if _, again := op.advance(eagain); !again {
			break
		}
	}
	if n != triesMax {
		t.Errorf("gave up after %d tries", n)
	}
}
