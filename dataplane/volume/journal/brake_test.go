package journal

import (
	"testing"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// The brake holds the line of Append, and nothing else, and lets go when its driver stops.
func TestBrake(t *testing.T) {
	l := startLoop(t, 32<<20)
	d := create(t, 16, Options{})
	r := open(t, l, d, Options{MarkAfter: -1}, nil)
	r.holds = true
	seq, left := ids.Seq(0), 0
	put := func(n int) []*testEntry {
		seq += ids.Seq(n)
		return r.put(1, seq-ids.Seq(n)+1, seq)
	}
	look := func() (s Stats, filled float64) {
		r.on(func() { s, filled = r.j.Stats(), r.j.segs.filled() })
		return s, filled
	}
	r.on(func() { r.j.brake.mid = 24 * time.Hour })
	for _, x := look(); x < brakeFrom-0.05; _, x = look() {
		for _, e := range put(16) {
			left += 1 - e.ended
		}
	}
	if s, x := look(); s.Braked != 0 || left != 0 {
		t.Fatalf("%.2f filled: braked %d times, %d wait", x, s.Braked, left)
	}
	for s, _ := look(); s.Queued == 0; s, _ = look() {
		put(16)
	}
	r.on(func() {
		if tight := r.j.Tight(); tight != (r.j.segs.filled() >= tightFrom) || r.j.Stalled() != 0 {
			t.Errorf("%.2f filled: tight %v", r.j.segs.filled(), tight)
		}
	})
	waits := put(16)
	if s, x := look(); s.Braked != 1 || s.Stalls != 0 || s.Queued < 16 || x < brakeFrom {
		t.Fatalf("%.2f filled: braked %d times, stalled %d, %d wait", x, s.Braked, s.Stalls, s.Queued)
	}
	if s := r.sync(); s.ended != 1 || s.Err != errs.OK {
		t.Error("FLUSH of what was acknowledged waits with the line")
	}
	c := write(l, 1, 1, 1, 1, 1)
	r.on(func() { r.j.AppendCopy(&c.Entry) })
	r.settle()
	if c.ended != 1 || c.Err != errs.OK || waits[0].ended != 0 {
		t.Error("a copy waits, which gives space back, or took the line along")
	}
	// Once all has come back it need not wait on, and a stop has it go at once.
	r.commit(1, seq-32)
	if s, x := look(); s.Queued != 0 || waits[15].ended != 1 || waits[15].Err != errs.OK {
		t.Errorf("%.2f filled: %d wait", x, s.Queued)
	}
	for s, _ := look(); s.Queued == 0; s, _ = look() {
		put(16)
	}
	r.on(r.j.Hurry)
	r.settle()
	if s, _ := look(); s.Queued != 0 || s.Stalls != 0 {
		t.Errorf("in a hurry %d wait", s.Queued)
	}
	r.close()
}

// The curve begins with the last quarter, rises all the way, and has an end.
func TestBrakeCurve(t *testing.T) {
	b := brake{mid: brakeMid}
	last := time.Duration(0)
	for x := 0.0; x <= 1; x += 1.0 / 512 {
		w := b.wait(x)
		if w < last || (w > 0) != (x > brakeFrom) {
			t.Fatalf("%v filled a block waits %v, before that %v", x, w, last)
		}
		last = w
	}
	if w := b.wait((1 + brakeFrom) / 2); w != brakeMid || last != brakeMost*brakeMid {
		t.Errorf("in the middle %v, at the end %v", w, last)
	}
}

// What left while the log was emptier is not charged at the price of a fuller one.
func TestBrakeForgets(t *testing.T) {
	l := startLoop(t, 4<<20)
	r := open(t, l, create(t, 16, Options{}), Options{MarkAfter: -1}, nil)
	r.on(func() {
		j := r.j
		j.brake.mid = time.Hour
		for range 1000 { // of which each owes nothing, for the log is empty
			j.slow(10)
		}
		if j.brake.blocks != 10 || j.brake.since != l.Now() {
			t.Errorf("%d blocks count, from %d; the last 10 should, from %d", j.brake.blocks, j.brake.since, l.Now())
		}
		j.brake.since += 40 // which the last but one owe
		j.slow(3)
		j.slow(0) // a record of copies
		if j.brake.blocks != 3 || j.brake.since != l.Now()+40 {
			t.Errorf("%d blocks count, from %d; 3 should, from %d", j.brake.blocks, j.brake.since, l.Now()+40)
		}
	})
	r.close()
}
