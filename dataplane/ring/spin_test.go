package ring

import "testing"

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
