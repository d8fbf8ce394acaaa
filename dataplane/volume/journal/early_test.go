package journal

import (
	"testing"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
)

// habitual is a journal whose client is known to sync after each record; next is the next sequence.
func habitual(t *testing.T, opt Options) (l *ring.Loop, r *rig, next ids.Seq) {
	t.Helper()
	l = startLoop(t, 16<<20)
	r = open(t, l, create(t, 4, Options{}), opt, nil)
	for next = 1; next <= habitsMin+1; next++ {
		r.put(1, next, next)
		r.sync()
	}
	return l, r, next
}

// early begins the fdatasync that is expected behind one more write, and leaves it in flight.
func (r *rig) early(seq ids.Seq) *testEntry {
	r.t.Helper()
	r.on(func() { r.d.hold = true })
	e := r.put(1, seq, seq)[0]
	r.on(func() { r.d.land(r.d.flying[0]) })
	r.settle()
	if n := len(r.d.flying); n != 1 || !r.d.flying[0].sync || e.ended != 1 {
		r.t.Fatalf("%d operations in flight, and not the fdatasync", n)
	}
	return e
}

func (r *rig) landAll() {
	r.on(func() { r.d.hold = false })
	for len(r.d.flying) > 0 {
		r.on(func() { r.d.land(r.d.flying[0]) })
		r.settle()
	}
}

// A client breaks its habit. That costs one fdatasync, also where the keeper's mark follows: it stands where the next
// sync is expected, for it is no record of the client's.
func TestWrongGuessCostsOne(t *testing.T) {
	_, r, seq := habitual(t, Options{MarkAfter: time.Hour})
	begun := r.d.syncs
	r.put(1, seq, seq)
	r.on(func() { r.j.timer.fire() })
	r.settle()
	if n, marks := r.d.syncs-begun, r.j.Stats().Marks; n != 1 || marks != 1 {
		t.Errorf("%d fdatasyncs and %d marks, want one and one", n, marks)
	}
	if r.sync(); r.d.syncs != begun+2 { // the mark's, which no client's sync can be told from
		t.Errorf("%d fdatasyncs with the sync that came", r.d.syncs-begun)
	}
	r.close()
}

// One is begun early where a sync is expected and can be of use, and not otherwise.
func TestWhenEarly(t *testing.T) {
	l := startLoop(t, 16<<20)
	r := open(t, l, create(t, 4, Options{}), Options{MarkAfter: -1}, nil)
	r.put(1, 1, 1)
	r.sync()
	r.put(1, 2, 2)
	begun := r.d.syncs
	r.on(func() {
		j, y := r.j, &r.j.syncs
		y.habit.kept = habitsMin // it comes to be known only now
		if !y.expected() {
			t.Error("nothing is expected")
		}
		durable := j.durable
		queued := write(l, 1, 9, 0, 1, 1)
		for _, tc := range []struct {
			what     string
			do, undo func()
		}{
			{"is closing", func() { j.st = closing }, func() { j.st = running }},
			{"has failed", func() { j.failed = errs.IO }, func() { j.failed = nil }},
			{"has entries that wait", func() { j.queue.push(&queued.Entry) }, func() { j.queue.pop() }},
			{"has a record under way", func() { j.ended-- }, func() { j.ended++ }},
			{"has nothing to be made durable", func() { j.durable = j.ended }, func() { j.durable = durable }},
			{"has no such client", func() { y.habit.kept-- }, func() { y.habit.kept++ }},
		} {
			if tc.do(); y.expected() {
				t.Errorf("a sync is expected of a journal that %s", tc.what)
			}
			tc.undo()
		}
		l.Pool().ReleaseVec(&queued.Data)
		y.busy = true
		y.startEarly()
		if r.d.syncs != begun {
			t.Error("a second fdatasync was begun while one is in flight")
		}
		y.busy = false
		if y.startEarly(); r.d.syncs != begun+1 {
			t.Error("none was begun")
		}
	})
	r.settle()
	r.close()
}

// An fdatasync that was begun early and fails is as bad as another: what it was to cover may be gone, and the next one
// would not tell.
func TestEarlyFails(t *testing.T) {
	l, r, seq := habitual(t, Options{MarkAfter: -1})
	r.early(seq)
	r.on(func() { r.d.flying[0].fail = true })
	r.landAll()
	if r.j.Failed() == nil {
		t.Fatal("it goes on")
	}
	if s := r.sync(); s.ended != 1 || s.Err != errs.IO {
		t.Errorf("a sync behind it ended %d times with %v", s.ended, s.Err)
	}
	if e := r.put(1, seq+1, seq+1)[0]; e.ended != 1 || e.Err != errs.IO {
		t.Errorf("a write behind it ended %d times with %v", e.ended, e.Err)
	}
	if k := r.close(); k != errs.IO {
		t.Errorf("Close ended with %v", k)
	}
	if n := l.Pool().Pages() - l.Pool().Free(); n != 0 {
		t.Errorf("%d pages leaked", n)
	}
}

// A journal is closed while an fdatasync that nobody asked for is in flight, or is to be begun in the next pass.
func TestCloseWithEarly(t *testing.T) {
	for _, flying := range []bool{true, false} {
		_, r, seq := habitual(t, Options{MarkAfter: -1})
		var s testSync
		s.Sync.Done = &s
		if flying {
			r.early(seq)
			r.on(func() { r.j.Close(&s.Sync) })
			r.settle()
			if s.ended != 0 || r.d.peakS != 1 {
				t.Fatalf("closed %d times, and %d fdatasyncs in flight", s.ended, r.d.peakS)
			}
			r.landAll()
		} else {
			r.on(func() { r.d.hold = true })
			r.put(1, seq, seq)
			r.on(func() {
				r.d.hold = false
				r.j.syncs.early.Fire = func() { // it was armed before
					r.j.syncs.early.Fire = r.j.syncs.startEarly
					r.j.Close(&s.Sync)
					r.j.syncs.startEarly()
				}
				r.d.land(r.d.flying[0])
			})
			r.settle()
		}
		r.settle()
		if s.ended != 1 || s.Err != errs.OK || r.j.syncs.busy {
			t.Fatalf("closed %d times, %v", s.ended, s.Err)
		}
		seqs, _, stats, err := replayOf(t, r.d, Options{})
		if err != nil || len(seqs) != int(seq) || !stats.Clean {
			t.Fatalf("%d of %d entries are back, %+v, %v", len(seqs), seq, stats, err)
		}
	}
}

// Who needs an fdatasync that begins now, as for a root that was just written, takes no part in one that is in flight,
// though no record has ended since that one began.
func TestForcedSyncWaitsForItsOwn(t *testing.T) {
	l := startLoop(t, 16<<20)
	r := open(t, l, create(t, 4, Options{}), Options{MarkAfter: -1}, nil)
	r.put(1, 1, 1)
	r.on(func() { r.d.hold = true })
	asked, root := r.sync(), &testSync{}
	root.Sync.Done, root.force = root, true
	r.on(func() { r.j.syncs.add(&root.Sync) })
	r.settle()
	r.on(func() { r.d.land(r.d.flying[0]) })
	r.settle()
	if asked.ended != 1 || root.ended != 0 || len(r.d.flying) != 1 {
		t.Fatalf("ended: %d, and the root's %d; %d in flight", asked.ended, root.ended, len(r.d.flying))
	}
	r.landAll()
	if root.ended != 1 {
		t.Error("the root's did not end")
	}
	r.close()
}
