package journal

import (
	"testing"
	"time"

	"vstor/dataplane/ids"
)

// Who syncs after each write finds the fdatasync begun, and done, before he asks; who stops doing so pays one too many.
func TestSyncHabit(t *testing.T) {
	for _, period := range []ids.Seq{1, 3} {
		l := startLoop(t, 16<<20)
		d := create(t, 4, Options{})
		r := open(t, l, d, Options{MarkAfter: -1}, nil)
		seq := ids.Seq(0)
		write := func(n ids.Seq) {
			r.putEach(1, seq+1, seq+n)
			seq += n
		}
		commit := func() (before, after int) {
			begun := d.syncs
			write(period)
			before = d.syncs - begun
			if s := r.sync(); s.ended != 1 {
				t.Fatalf("a sync ended %d times", s.ended)
			}
			return before, d.syncs - begun
		}
		for range habitsMin + 1 {
			if before, all := commit(); before != 0 || all != 1 {
				t.Fatalf("%d fdatasyncs, %d of them before anybody knows of a habit", all, before)
			}
		}
		for range 3 {
			if before, all := commit(); before != 1 || all != 1 {
				t.Fatalf("%d fdatasyncs, %d of them before the sync", all, before)
			}
		}
		begun := d.syncs
		write(10 * period)
		if d.syncs != begun+1 {
			t.Errorf("%d fdatasyncs that nobody asked for, want one", d.syncs-begun)
		}
		r.sync()
		begun = d.syncs
		write(period)
		if d.syncs != begun {
			t.Error("one irregular sync is no end of the habit")
		}
		r.close()
	}
}

// A sync that comes while the expected fdatasync is in flight waits for it and for no other; one behind a further write
// waits for its own.
func TestSyncTakesPart(t *testing.T) {
	l := startLoop(t, 16<<20)
	d := create(t, 4, Options{})
	r := open(t, l, d, Options{MarkAfter: -1}, nil)
	seq := ids.Seq(1)
	for ; seq <= habitsMin+1; seq++ {
		r.put(1, seq, seq)
		r.sync()
	}
	begun := d.syncs
	r.on(func() { d.hold = true })
	r.put(1, seq, seq)
	r.on(func() { d.land(d.flying[0]) })
	r.settle()
	if len(d.flying) != 1 || !d.flying[0].sync {
		t.Fatalf("%d operations in flight, and not the fdatasync", len(d.flying))
	}
	a := r.sync()
	r.put(1, seq+1, seq+1)
	r.on(func() { d.land(d.flying[1]) })
	r.settle()
	b := r.sync()
	if a.ended+b.ended != 0 || d.syncs != begun+1 {
		t.Fatalf("ended %d, %d with %d fdatasyncs begun and none done", a.ended, b.ended, d.syncs-begun)
	}
	r.on(func() { d.land(d.flying[0]) })
	r.settle()
	if a.ended != 1 || b.ended != 0 || d.syncs != begun+2 {
		t.Fatalf("ended %d, %d after the first; %d begun", a.ended, b.ended, d.syncs-begun)
	}
	r.on(func() { d.hold = false; d.land(d.flying[0]) })
	r.settle()
	if b.ended != 1 {
		t.Fatal("the second did not end")
	}
	r.close()
}

// The keeper's marks are no records of the client's: who commits a few times a second is known as well.
func TestHabitBesideMarks(t *testing.T) {
	l := startLoop(t, 16<<20)
	d := create(t, 4, Options{})
	r := open(t, l, d, Options{MarkAfter: time.Millisecond}, nil)
	var st Stats
	for seq := ids.Seq(1); seq <= habitsMin+1; seq++ {
		r.put(1, seq, seq)
		r.sync()
		for end := time.Now().Add(time.Minute); st.Marks < uint64(seq) && time.Now().Before(end); {
			r.on(func() { st = r.j.Stats() })
		}
		if st.Marks != uint64(seq) {
			t.Fatalf("%d marks behind write %d", st.Marks, seq)
		}
		r.settle()
	}
	var kept int
	r.on(func() { kept = r.j.syncs.habit.kept })
	if kept != habitsMin {
		t.Errorf("the habit was kept %d times, want %d", kept, habitsMin)
	}
	r.close()
}

// Writes that are to be durable themselves teach nothing.
func TestNoHabitOfFUA(t *testing.T) {
	l := startLoop(t, 16<<20)
	d := create(t, 4, Options{})
	r := open(t, l, d, Options{MarkAfter: -1}, nil)
	for seq := ids.Seq(1); seq <= 2*habitsMin; seq++ {
		var s testSync
		s.Sync.Done = &s
		r.on(func() {
			e := write(l, 1, seq, 0, 1, 1)
			give := e.then
			e.then = func(e *testEntry) { give(e); r.j.Sync(&s.Sync) }
			r.j.Append(&e.Entry)
		})
		r.settle()
		if s.ended != 1 {
			t.Fatal("a sync did not end")
		}
	}
	begun := d.syncs
	r.put(1, 100, 100)
	if d.syncs != begun {
		t.Error("an fdatasync was begun for a write that nobody is known to sync")
	}
	r.close()
}
