package ring

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"vstor/dataplane/buf"
)

// moody is an engine as unhelpful as the interface allows: it has no room now and then, ends operations in
// any order, moves part of what it is asked to, and says EINTR and EAGAIN.
type moody struct {
	rng  *rand.Rand
	max  int
	out  []*Op
	gone map[*Op]bool // canceled

	wakes chan struct{}
}

func (m *moody) open() error  { return nil }
func (m *moody) shut()        {}
func (m *moody) flying() int  { return len(m.out) }
func (m *moody) reading() int { return 0 }

func (m *moody) start(op *Op) bool {
	if len(m.out) == m.max || m.rng.IntN(4) == 0 {
		return false
	}
	m.out = append(m.out, op)
	return true
}

func (m *moody) cancel(op *Op) bool {
	if m.rng.IntN(2) == 0 {
		return false
	}
	m.gone[op] = true
	return true
}

func (m *moody) each(f func(*Op)) {
	for _, op := range m.out {
		f(op)
	}
}

func (m *moody) enter(wait bool, nanos int64) {
	if !wait {
		return
	}
	// What refused to land may do so next time.
	if nanos < 0 || nanos > int64(time.Millisecond) {
		nanos = int64(time.Millisecond)
	}
	select {
	case <-m.wakes:
	case <-time.After(time.Duration(nanos)):
	}
}

func (m *moody) wake() {
	select {
	case m.wakes <- struct{}{}:
	default:
	}
}

func (m *moody) counters(*Stats) {}

func (m *moody) reap(landed func(*Op, int32, []byte)) {
	m.rng.Shuffle(len(m.out), func(i, j int) { m.out[i], m.out[j] = m.out[j], m.out[i] })
	n := m.rng.IntN(len(m.out) + 1)
	land := append([]*Op(nil), m.out[:n]...)
	m.out = append(m.out[:0], m.out[n:]...)
	for _, op := range land {
		landed(op, m.answer(op), nil)
	}
}

func (m *moody) answer(op *Op) int32 {
	if m.gone[op] {
		delete(m.gone, op)
		return canceled
	}
	left := int(op.want - op.got)
	switch m.rng.IntN(6) {
	case 0:
		return -int32(syscall.EINTR)
	case 1:
		return -int32(syscall.EAGAIN)
	case 2:
		return int32(left)
	}
	return int32(1 + m.rng.IntN(left))
}

// Over any engine each Op ends exactly once: with all it was to move, or canceled if somebody asked for it.
func TestLoopOverMoodyEngine(t *testing.T) {
	seeds := uint64(20)
	if raceEnabled {
		seeds = 8
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 1))
		pool, err := buf.NewPool(1<<20, 0)
		if err != nil {
			t.Fatal(err)
		}
		l, err := New(Options{Pool: pool, InboxMax: 4})
		if err != nil {
			t.Fatal(err)
		}
		l.eng = &moody{rng: rng, max: 10, gone: map[*Op]bool{}, wakes: make(chan struct{}, 1)}
		if err := l.Start(); err != nil {
			t.Fatal(err)
		}
		const n = 200
		var ops [n]Op
		var asked [n]bool
		var wg sync.WaitGroup
		wg.Add(n)
		done := funcDone(func(op *Op, res int32) {
			i := op.Tag
			if res != 3*buf.PageSize && !(res == canceled && asked[i]) {
				t.Errorf("seed %d: Op %d ended with %d, cancel asked: %v", seed, i, res, asked[i])
			}
			asked[i] = false
			wg.Done() // panics if it is one too many
		})
		v := pages(t, l, 3*buf.PageSize, 1)
		pg := v.Segs[0].Page
		v.Segs = []buf.Seg{{Page: pg, Len: 100}, {Page: pg, Off: 100, Len: 3*buf.PageSize - 100}}
		for i := range ops {
			ask := i%7 == 0
			l.PostFunc(func() {
				ops[i].Done, ops[i].Tag = done, uint64(i)
				l.WriteV(&ops[i], 0, v, 0)
				if ask {
					asked[i] = true
					l.Cancel(&ops[i])
				}
			})
		}
		if seed%2 == 0 {
			wg.Wait()
		} else {
			on(t, l, func() {
				for i := range asked {
					asked[i] = true
				}
			})
		}
		l.Stop()
		wg.Wait()
		pool.Close()
	}
}

// Every rung of the ladder that this kernel can stand on carries the whole path.
func TestLadder(t *testing.T) {
	for i, rung := range ladder() {
		t.Run(fmt.Sprintf("%#x", rung.flags), func(t *testing.T) {
			pool, err := buf.NewPool(4<<20, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			l, err := New(Options{Pool: pool, Entries: 8})
			if err != nil {
				t.Fatal(err)
			}
			l.eng.(*uring).rungs = ladder()[i:]
			if err := l.Start(); err != nil {
				t.Fatal(err)
			}
			defer l.Stop()
			a, b := socketpair(t)
			fd := tempFile(t, 1<<20)
			w := newWaiter(l)
			op := &Op{Done: w}
			out, in := scattered(t, l, 20, 9), scattered(t, l, 20, 0)
			on(t, l, func() { l.WriteV(op, fd, out, 0) })
			if r := w.wait(t); r != 20*buf.PageSize {
				t.Fatalf("write: %d", r)
			}
			on(t, l, func() { l.ReadV(op, fd, in, 0) })
			if r := w.wait(t); r != 20*buf.PageSize || !bytes.Equal(bytesOf(l, in), bytesOf(l, out)) {
				t.Fatalf("read: %d, or other bytes", r)
			}
			on(t, l, func() { l.RecvSelect(op, a) })
			syscall.Write(b, []byte("hello"))
			if r := w.wait(t); r != 5 || string(w.sel) != "hello" {
				t.Fatalf("receive: %d %q", r, w.sel)
			}
			on(t, l, func() { l.RecvSelect(op, a) })
			on(t, l, func() { l.Cancel(op) })
			if r := w.wait(t); r != canceled {
				t.Fatalf("cancel: %d", r)
			}
		})
	}
}
