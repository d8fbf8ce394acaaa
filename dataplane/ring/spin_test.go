package ring

import (
	"testing"
	"time"

	"vstor/dataplane/buf"
)

// A loop goes round without a sleep where completions come fast, and only there: not for one request at a time, not
// after a pause, not where drives are written, and not where somebody else wants the CPU.
func TestSpinIsWorth(t *testing.T) {
	const us = int64(1000)
	read, write := &Op{code: codeRead}, &Op{code: codeWrite}
	now := int64(1e9)
	s := spin{on: true, gap: spinCap}
	passes := func(n int, gap int64, ops ...*Op) {
		for range n {
			now += gap
			for _, op := range ops {
				s.count(op)
			}
			s.came(now)
		}
	}
	want := func(worth bool, why string) {
		t.Helper()
		if s.worth(now) != worth {
			t.Fatalf("%s: %v; mean gap %d us", why, !worth, s.gap/us)
		}
	}
	want(false, "at first")
	passes(1000, 35*us, read)
	want(false, "one request at a time of a drive that takes 60 us")
	passes(100, 60*us, read, read, read, read, read)
	want(true, "five in 60 us")
	passes(999, us)
	want(true, "rounds that bring nothing, up to a millisecond")
	passes(1, us)
	want(false, "nothing for longer")
	passes(1, 1, read)
	want(true, "the next burst")
	passes(1, 60*us, read, write, read)
	want(false, "a write")
	passes(300, 60*us, read, read, read, read)
	want(false, "soon after a write")
	passes(100, 60*us, read, read, read, read)
	want(true, "20 ms after a write")
	s.turned = now
	passes(1, spinTaken+1, read)
	want(false, "a round that somebody else took")
	passes(spinShare*8, 100*us, read)
	now += spinOff
	want(false, "a slow client")
	s = spin{gap: 0}
	passes(100, us, read)
	want(false, "switched off")
}

// reader reads one page again and again until told to stop.
type reader struct {
	l    *Loop
	fd   int
	v    *buf.Vec
	left int
	done chan struct{}
}

func (r *reader) RingDone(op *Op, _ int32) {
	if r.left--; r.left <= 0 {
		close(r.done)
		return
	}
	r.l.ReadV(op, r.fd, r.v, 0)
}

// A loop that went round all the time sleeps once nothing is read any more, and stops.
func TestSpinEnds(t *testing.T) {
	l := startLoop(t, Options{IO: IOUring, Spin: true})
	r := &reader{l: l, fd: tempFile(t, 1<<20), v: pages(t, l, 4096, 0), left: 20_000, done: make(chan struct{})}
	op := &Op{Done: r}
	on(t, l, func() { l.ReadV(op, r.fd, r.v, 0) })
	<-r.done
	on(t, l, func() {}) // the pass of the last read is over
	before := l.Stats()
	if before.Spins == 0 {
		t.Error("20,000 reads one after the other, and the loop slept between all of them")
	}
	time.Sleep(100 * time.Millisecond)
	if after := l.Stats(); after.Spins > before.Spins+1 {
		t.Errorf("%d spins with nothing to read", after.Spins-before.Spins)
	}
}
