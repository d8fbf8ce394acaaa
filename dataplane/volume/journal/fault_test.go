package journal

import (
	"math/rand/v2"
	"testing"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
)

// After one failed write or fdatasync nothing is acknowledged any more, and everything ends, in order.
func TestFailure(t *testing.T) {
	for _, what := range []string{"write", "fdatasync"} {
		t.Run(what, func(t *testing.T) {
			l := startLoop(t, 16<<20)
			r := open(t, l, create(t, 5, Options{}), Options{MarkAfter: -1}, nil)
			d := r.d
			r.put(1, 1, 3)
			d.hold = true
			var order []*testEntry
			add := func(s ids.Seq) {
				r.on(func() {
					e := write(l, 1, s, 0, 1, uint64(s))
					e.order = &order
					r.j.Append(&e.Entry)
				})
				r.settle()
			}
			if what == "write" {
				d.failW = d.writes + 2
			} else {
				d.failS = d.syncs + 1
			}
			first := r.sync()
			for s := ids.Seq(4); s <= 9; s++ { // four in flight, the rest in line
				add(s)
			}
			second := r.sync()
			if what == "write" {
				r.on(func() { d.land(d.flying[1]) }) // record of 4, well
				r.settle()
				if len(order) != 1 || order[0].Err != errs.OK {
					t.Fatal("a write in front of the failed one is good")
				}
				r.on(func() { d.land(d.flying[3]) }) // of 7, well, but behind
				r.settle()
			}
			r.on(func() { d.land(d.flying[0]) })
			r.settle()
			if what == "write" {
				r.on(func() { d.land(d.flying[0]) }) // of 5: fails
				r.settle()
			}
			if r.j.Failed() == nil {
				t.Fatal("it goes on")
			}
			add(10)
			for len(d.flying) > 0 {
				r.on(func() { d.land(d.flying[0]) })
				r.settle()
			}
			for i, e := range order {
				wantErr := errs.IO
				if what == "write" && i == 0 {
					wantErr = errs.OK
				}
				if e.Seq != ids.Seq(4+i) || e.Err != wantErr || e.ended != 1 {
					t.Fatalf("place %d: %d with %s, ended %d times", i, e.Seq, e.Err, e.ended)
				}
			}
			if len(order) != 7 {
				t.Fatalf("%d ended, want 7", len(order))
			}
			if what == "fdatasync" && first.Err != errs.IO {
				t.Fatal("a FLUSH was acknowledged by a failed fdatasync")
			}
			if second.ended != 1 || second.Err != errs.IO {
				t.Fatalf("second sync ended %d times with %s", second.ended, second.Err)
			}
			if s := r.sync(); s.ended != 1 || s.Err == errs.OK {
				t.Fatal("a FLUSH after the failure was acknowledged")
			}
			if k := r.close(); k != errs.IO {
				t.Fatalf("Close ended with %s", k)
			}
			if n := l.Pool().Pages() - l.Pool().Free(); n != 0 {
				t.Fatalf("%d pages leaked", n)
			}
			d.failW, d.failS, d.hold = 0, 0, false
			r = open(t, l, d, Options{MarkAfter: -1}, nil)
			if e := r.put(1, 20, 20)[0]; e.Err != errs.OK {
				t.Fatal("reopened, and still failed")
			}
			r.close()
		})
	}
}

// Each write and each fdatasync of attach, trim and close fails once: everything ends, nothing is
// acknowledged wrongly, and the journal opens again.
func TestFailureEverywhere(t *testing.T) {
	l := startLoop(t, 16<<20)
	for n := 1; n < 60; n++ {
		for _, syncs := range []bool{false, true} {
			d := create(t, 4, Options{})
			if syncs {
				d.failS = n
			} else {
				d.failW = n
			}
			r := open(t, l, d, Options{MarkAfter: -1}, nil)
			good := ids.Seq(0)
			for s := ids.Seq(1); s <= 120; s++ {
				e := r.put(1, s, s)[0]
				if e.ended != 1 {
					t.Fatalf("fault %d: entry %d ended %d times", n, s, e.ended)
				}
				if e.Err == errs.OK {
					if good != s-1 {
						t.Fatalf("fault %d: %d acknowledged behind a failed one", n, s)
					}
					good = s
				}
				if s%20 == 0 {
					r.commit(1, max(good, 5)-5)
					r.sync()
				}
			}
			kind := r.close()
			if (kind == errs.OK) != (r.j.Failed() == nil) {
				t.Fatalf("fault %d: Close said %s, Failed %v", n, kind, r.j.Failed())
			}
			d.failW, d.failS = 0, 0
			seqs, _, _, err := replayOf(t, d, Options{})
			if err != nil || good > 0 && (len(seqs) == 0 || seqs[len(seqs)-1] < good) {
				t.Fatalf("fault %d: acknowledged up to %d, %d entries back, %v", n, good, len(seqs), err)
			}
			if p := l.Pool().Pages() - l.Pool().Free(); p != 0 {
				t.Fatalf("fault %d: %d pages leaked", n, p)
			}
		}
	}
}

// Close writes what finds space, refuses what does not and what comes later.
func TestCloseUnderLoad(t *testing.T) {
	l := startLoop(t, 32<<20)
	r := open(t, l, create(t, 4, Options{}), Options{MarkAfter: -1}, nil)
	var order []*testEntry
	var s testSync
	s.Sync.Done = &s
	s.then = func(*testSync) {
		e := write(l, 1, 501, 0, 1, 1) // from inside the last callback
		e.order = &order
		r.j.Append(&e.Entry)
	}
	r.on(func() {
		for n := ids.Seq(1); n <= 500; n++ {
			e := write(l, 1, n, 0, 1, uint64(n))
			e.order = &order
			r.j.Append(&e.Entry)
			if n == 499 {
				r.j.Close(&s.Sync)
			}
		}
	})
	r.settle()
	if s.ended != 1 || s.Err != errs.OK || len(order) != 501 {
		t.Fatalf("Close ended %d times with %s, %d entries ended", s.ended, s.Err, len(order))
	}
	good := 0
	for _, e := range order {
		if e.Err == errs.OK {
			good++
		} else if e.Err != errs.Closed {
			t.Fatal(e.Err)
		}
	}
	seqs, _, stats, err := replayOf(t, r.d, Options{})
	if err != nil || good == 0 || good > 200 || len(seqs) != good || !stats.Clean {
		t.Fatalf("%d acknowledged, %d back, %+v, %v", good, len(seqs), stats, err)
	}
}

// A loop that stops under the journal ends everything, too.
func TestLoopStops(t *testing.T) {
	l := startLoop(t, 16<<20)
	r := open(t, l, create(t, 4, Options{}), Options{MarkAfter: -1}, nil)
	e := r.put(1, 1, 1)[0]
	l.Stop()
	if e.Err != errs.OK || e.ended != 1 {
		t.Fatal(e.Err)
	}
}

// The keeper frees what nobody needs and marks what nobody synced, by its timer, then sleeps.
func TestKeeperTimer(t *testing.T) {
	l := startLoop(t, 16<<20)
	r := open(t, l, create(t, 16, Options{}), Options{MarkAfter: 1}, nil)
	r.putEach(1, 1, 40)
	r.commit(1, 35)
	for range 10000 {
		done := false
		r.on(func() {
			s := r.j.Stats()
			done = s.Marks > 0 && r.j.Pressure().Pending == 0 && !r.j.timer.timer.Armed()
		})
		if done {
			break
		}
	}
	s := r.j.Stats()
	if s.Marks == 0 || s.Marks > 60 || r.j.timer.timer.Armed() {
		t.Fatalf("%+v", s)
	}
	if r.j.durable < 40 {
		t.Fatal("not synced")
	}
	img := r.d.powerLoss(rand.New(rand.NewPCG(1, 1)))
	r.abandon()
	if seqs, _, _, err := replayOf(t, img, Options{}); err != nil || seqs[len(seqs)-1] != 40 {
		t.Fatal(seqs, err)
	}
}

var _ ring.Completer = (*record)(nil)
