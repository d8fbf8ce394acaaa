package journal

import (
	"math/rand/v2"
	"testing"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// seqsOf collects the sequences of a replay, per volume and in order.
func seqsOf(out map[ids.VolumeID][]ids.Seq) func(ReplayEntry) error {
	return func(e ReplayEntry) error {
		out[e.Vol] = append(out[e.Vol], e.Seq)
		return nil
	}
}

func TestAppendReplay(t *testing.T) {
	l := startLoop(t, 16<<20)
	d := create(t, 4, Options{})
	r := open(t, l, d, Options{MarkAfter: -1}, nil)
	var order []*testEntry
	r.on(func() {
		for i, k := range []Kind{Write, Trim, Zero, Snapshot, Rollback, Resize, Bypass, Write} {
			e := write(l, 7, ids.Seq(i+1), ids.BlockAddr(100*i), 1+i, uint64(1000*i))
			e.Kind, e.order = k, &order
			r.j.Append(&e.Entry)
			if e.ended != 0 {
				t.Error("ended inside Append")
			}
		}
	})
	r.settle()
	if len(order) != 8 || r.j.Stats().Records != 1 {
		t.Fatalf("%d ended in %d records, want 8 in 1", len(order), r.j.Stats().Records)
	}
	if k := r.close(); k != errs.OK {
		t.Fatal(k)
	}
	i := 0
	r = open(t, l, d, Options{MarkAfter: -1}, func(e ReplayEntry) error {
		want := order[i]
		if e.Kind != want.Kind || e.Seq != want.Seq || e.Addr != want.Addr || e.Blocks != want.Blocks || e.Vol != 7 ||
			e.Bad != 0 || e.Copied {
			t.Errorf("entry %d is %+v", i, e)
		}
		if e.Kind == Write {
			if e.Pos != want.Pos || len(e.Data) != int(e.Blocks)*BlockSize {
				t.Errorf("entry %d at %d with %d bytes", i, e.Pos, len(e.Data))
			}
			for b := range int(e.Blocks) {
				blk := d.mem[r.j.Offset(e.Pos+Pos(b)):][:BlockSize]
				if blockSum(blk) != want.Sums[b] || e.Sums[b] != want.Sums[b] {
					t.Errorf("entry %d block %d is not what was written", i, b)
				}
			}
		}
		i++
		return nil
	})
	if s := r.j.Replayed(); i != 8 || !s.Clean || s.Torn || s.BadBlocks != 0 {
		t.Fatalf("replayed %d: %+v", i, s)
	}
	r.close()
	if free := l.Pool().Free(); free != l.Pool().Pages() {
		t.Fatalf("%d pages leaked", l.Pool().Pages()-free)
	}
}

// A record that overtakes another in the drive is acknowledged behind it.
func TestOrder(t *testing.T) {
	l := startLoop(t, 16<<20)
	d := create(t, 4, Options{})
	r := open(t, l, d, Options{MarkAfter: -1, MaxInFlight: 3}, nil)
	d.hold = true
	var order []*testEntry
	for s := ids.Seq(1); s <= 5; s++ {
		r.on(func() {
			e := write(l, 1, s, 0, 1, uint64(s))
			e.order = &order
			r.j.Append(&e.Entry)
		})
		r.settle()
	}
	if len(d.flying) != 3 {
		t.Fatalf("%d in flight, want 3", len(d.flying))
	}
	for _, i := range []int{2, 1} {
		r.on(func() { d.land(d.flying[i]) })
		r.settle()
		if len(order) != 0 {
			t.Fatal("acknowledged before the record in front of it")
		}
	}
	r.on(func() { d.land(d.flying[0]) })
	r.settle()
	if len(order) != 3 || len(d.flying) != 1 {
		t.Fatalf("%d ended, %d in flight; want 3, and one record with the two that waited", len(order), len(d.flying))
	}
	r.on(func() { d.land(d.flying[0]) })
	r.settle()
	for i, e := range order {
		if e.Seq != ids.Seq(i+1) || e.Err != errs.OK {
			t.Fatalf("place %d has sequence %d, %s", i, e.Seq, e.Err)
		}
	}
	d.hold = false
	r.close()
}

func TestSyncSharing(t *testing.T) {
	l := startLoop(t, 16<<20)
	d := create(t, 4, Options{})
	r := open(t, l, d, Options{MarkAfter: -1}, nil)
	base := d.syncs
	r.put(1, 1, 1)
	d.hold = true
	a, b := r.sync(), r.sync()
	r.on(func() { d.hold = false })
	r.put(1, 2, 2) // ends while the fdatasync for a is in flight
	d.hold = true
	c, e := r.sync(), r.sync()
	if d.syncs != base+1 || a.ended+b.ended+c.ended != 0 {
		t.Fatalf("%d fdatasyncs begun, want 1", d.syncs-base)
	}
	r.on(func() { d.land(d.flying[0]) })
	r.settle()
	// When b came the first was in flight, and nothing had ended since it began.
	if a.ended != 1 || b.ended != 1 || c.ended != 0 || e.ended != 0 {
		t.Fatalf("ended %d %d %d %d: c must wait for an fdatasync that began after its write, b need not", a.ended,
			b.ended, c.ended, e.ended)
	}
	r.on(func() { d.land(d.flying[0]) })
	r.settle()
	if c.ended != 1 || e.ended != 1 || d.syncs != base+2 || d.peakS != 1 {
		t.Fatalf("ended %d %d after %d fdatasyncs", c.ended, e.ended, d.syncs-base)
	}
	if s := r.sync(); s.ended != 1 || d.syncs != base+2 {
		t.Fatal("nothing was written since: no fdatasync is needed")
	}
	d.hold = false
	r.close()
}

// FUA: a Sync that names an entry which is still under way.
func TestSyncEntry(t *testing.T) {
	l := startLoop(t, 16<<20)
	d := create(t, 4, Options{})
	r := open(t, l, d, Options{MarkAfter: -1}, nil)
	d.hold = true
	s := &testSync{}
	r.on(func() {
		e := write(l, 1, 1, 0, 1, 1)
		s.Sync.Done, s.Entry = s, &e.Entry
		r.j.Append(&e.Entry)
		r.j.Sync(&s.Sync)
	})
	r.settle()
	for step, want := range []int{0, 1} {
		if len(d.flying) != 1 || d.flying[0].sync != (step == 1) {
			t.Fatalf("step %d: %d in flight", step, len(d.flying))
		}
		r.on(func() { d.land(d.flying[0]) })
		r.settle()
		if s.ended != want {
			t.Fatalf("step %d: ended %d times", step, s.ended)
		}
	}
	d.hold = false
	r.close()
}

func TestNoSyncNeeded(t *testing.T) {
	l := startLoop(t, 16<<20)
	d := create(t, 4, Options{})
	r := open(t, l, d, Options{MarkAfter: -1, NoSyncNeeded: true}, nil)
	r.put(1, 1, 10)
	if s := r.sync(); s.ended != 1 || s.Err != errs.OK || d.syncs != 0 {
		t.Fatalf("sync ended %d times with %s after %d fdatasyncs", s.ended, s.Err, d.syncs)
	}
	r.close()
	if r.j.Root().Durable != 1 || !r.j.Root().Clean {
		t.Fatal(r.j.Root())
	}
}

func TestWraparound(t *testing.T) {
	l := startLoop(t, 16<<20)
	d := create(t, 5, Options{})
	r := open(t, l, d, Options{MarkAfter: -1}, nil)
	rnd := rand.New(rand.NewPCG(1, 2))
	seq := ids.Seq(0)
	for r.j.segs.state[r.j.segs.head].lap < 12 {
		n := ids.Seq(1 + rnd.IntN(40))
		r.put(1, seq+1, seq+n)
		seq += n
		if seq > 60 {
			r.commit(1, seq-60)
		}
		if rnd.IntN(10) == 0 {
			r.abandon()
			got := map[ids.VolumeID][]ids.Seq{}
			r = open(t, l, d.kill(rnd), Options{MarkAfter: -1}, seqsOf(got))
			d = r.d
			if n := len(got[1]); n == 0 || got[1][n-1] != seq || got[1][0] > max(seq, 60)-59 {
				t.Fatalf("replayed %d entries up to %d, want all to %d", n, got[1][n-1], seq)
			}
			r.commit(1, max(seq, 60)-60)
		}
	}
	if s := r.j.Stats(); s.Stalls != 0 {
		t.Fatalf("stalled %d times", s.Stalls)
	}
	r.close()
}

func TestStallAndResume(t *testing.T) {
	l := startLoop(t, 32<<20)
	d := create(t, 4, Options{})
	r := open(t, l, d, Options{MarkAfter: -1}, nil)
	var order []*testEntry
	const n = 400 // blocks; the journal takes less than 3 x 63 outside its reserve
	r.on(func() {
		for s := ids.Seq(1); s <= n; s++ {
			e := write(l, ids.VolumeID(1+s%2), s, ids.BlockAddr(s), 1, uint64(s))
			e.order = &order
			r.j.Append(&e.Entry)
		}
	})
	r.settle()
	p := r.j.Pressure()
	if len(order) == n || r.j.Stalled() == 0 || p.Free != p.Reserve || p.Pinned != 3 {
		t.Fatalf("%d ended, stalled %d, %+v", len(order), r.j.Stalled(), p)
	}
	// FLUSH of what is in the journal does not wait.
	if s := r.sync(); s.ended != 1 || s.Err != errs.OK {
		t.Fatal("FLUSH waits for space")
	}
	got := map[ids.VolumeID]ids.Seq{}
	r.on(func() {
		r.j.TailHolders(func(v ids.VolumeID, s ids.Seq, bytes int64) {
			if bytes <= 0 {
				t.Error("holds no bytes")
			}
			got[v] = s
		})
	})
	if len(got) != 2 {
		t.Fatalf("tail is held by %v", got)
	}
	bytes, segs := r.j.Usage(1)
	if bytes < 60*BlockSize || segs != 3 || r.j.Half() >= int64(p.Total)*testSegment/2 {
		t.Fatalf("volume 1 pins %d bytes in %d segments, half is %d", bytes, segs, r.j.Half())
	}
	r.commit(1, got[1])
	if before := len(order); before == n || r.j.Stalled() == 0 {
		t.Fatal("one of two holders let go: nothing may move")
	}
	for len(order) < n {
		before := len(order)
		r.commit(1, order[before-1].Seq)
		r.commit(2, order[before-1].Seq)
		if len(order) == before {
			t.Fatalf("committed up to %d: no progress, %+v", order[before-1].Seq, r.j.Pressure())
		}
	}
	for i, e := range order {
		if e.Seq != ids.Seq(i+1) {
			t.Fatalf("place %d has %d", i, e.Seq)
		}
	}
	if r.j.Stalled() != 0 {
		t.Fatal("still stalled")
	}
	r.close()
}

// fill writes blocks of volume 1 until the log is full, and gives what appends one more, or a trim.
func (r *rig) fill(order *[]*testEntry) (add func(trim bool) *testEntry) {
	r.t.Helper()
	seq := ids.Seq(0)
	add = func(trim bool) *testEntry {
		seq++
		e := write(r.l, 1, seq, ids.BlockAddr(seq), 1, uint64(seq))
		if trim {
			r.l.Pool().ReleaseVec(&e.Data)
			e.Kind, e.Blocks, e.Sums = Trim, 1<<20, nil
		}
		e.order = order
		r.j.Append(&e.Entry)
		return e
	}
	for r.j.Stalled() == 0 {
		r.on(func() { add(false) })
		r.settle()
	}
	r.on(func() { r.j.FailWaiting(errs.Full) })
	r.settle()
	return add
}

// Data does not fill the log to the last block: trims get in though data has to wait, and those behind data do when it
// has waited long enough. Once there is no room for trims either they end like data.
func TestTrimsEnterFullLog(t *testing.T) {
	l := startLoop(t, 32<<20)
	d := create(t, 4, Options{})
	r := open(t, l, d, Options{MarkAfter: -1}, nil)
	add := r.fill(nil)
	var trims, data []*testEntry
	r.on(func() { trims = append(trims, add(true)) })
	r.settle()
	r.on(func() {
		data = append(data, add(false))
		trims = append(trims, add(true))
		data = append(data, add(false))
	})
	r.settle()
	if trims[0].ended != 1 || trims[0].Err != errs.OK || trims[1].ended != 0 || r.j.Stalled() == 0 {
		t.Fatalf("%+v %+v", trims[0], trims[1])
	}
	r.on(func() { r.j.FailWaiting(errs.Full) })
	r.settle()
	for _, e := range append(data, trims[1]) {
		want := errs.Full
		if e.Kind == Trim {
			want = errs.OK
		}
		if e.ended != 1 || e.Err != want {
			t.Errorf("%d of kind %d ended %d times with %s, want %s", e.Seq, e.Kind, e.ended, e.Err, want)
		}
	}
	n := 0
	var last *testEntry
	for ; r.j.Stalled() == 0 && n < 1000; n++ {
		r.on(func() { last = add(true) })
		r.settle()
	}
	r.on(func() { r.j.FailWaiting(errs.Full) })
	r.settle()
	if n < 4 || n > 100 || last.ended != 1 || last.Err != errs.Full {
		t.Errorf("%d trims got in, the last ended %d times with %s", n-1, last.ended, last.Err)
	}
	r.close()
}

// What the end of an entry that waited too long has its owner append stands behind the trims that were let in: their
// sequences are lower, and a vDisk's entries enter in the order of theirs.
func TestGivingUpKeepsOrder(t *testing.T) {
	l := startLoop(t, 32<<20)
	d := create(t, 4, Options{})
	r := open(t, l, d, Options{MarkAfter: -1}, nil)
	var order []*testEntry
	add := r.fill(&order)
	order = order[:0]
	r.on(func() {
		first := add(false)
		release := first.then
		first.then = func(e *testEntry) { release(e); add(true) }
		add(true)
	})
	r.settle()
	r.on(func() { r.j.FailWaiting(errs.Full) })
	r.settle()
	last := ids.Seq(0)
	for _, e := range order {
		if e.Err != errs.OK {
			continue
		}
		if e.Seq < last {
			t.Errorf("%d ended behind %d", e.Seq, last)
		}
		last = e.Seq
	}
	if n := len(order); n != 3 || order[n-1].Seq != last || order[n-1].Kind != Trim {
		t.Errorf("%d ended, the last well is %d", n, last)
	}
	r.close()
}

// A laggard's blocks are copied forward out of a full journal, though its tail segment is all its own.
func TestCopyForward(t *testing.T) {
	for _, reserve := range []int{1, 2} {
		l := startLoop(t, 64<<20)
		d := create(t, 8, Options{})
		r := open(t, l, d, Options{MarkAfter: -1, Reserve: reserve}, nil)
		live := map[ids.Seq]*testEntry{}
		for s := ids.Seq(1); s <= 20; s++ {
			live[s] = r.put(9, s, s)[0] // an idle volume, at the tail
		}
		seq := ids.Seq(0)
		fill := func() {
			for r.j.Stalled() == 0 {
				seq++
				r.put(1, seq, seq)
			}
		}
		fill()
		for round := range 30 {
			committed := seq - 1
			r.commit(1, committed)
			tail, ok := r.j.Tail()
			if !ok {
				t.Fatal("no tail in a full journal")
			}
			moved := 0
			r.on(func() {
				for s, e := range live {
					if e.Pos < tail.Lo || e.Pos >= tail.Hi {
						continue
					}
					c := write(l, 9, s, e.Addr, 1, e.stamp)
					live[s] = c
					moved++
					r.j.AppendCopy(&c.Entry)
				}
			})
			r.settle()
			for s, e := range live {
				if e.ended != 1 || e.Err != errs.OK {
					t.Fatalf("round %d: copy of %d ended %d times with %s", round, s, e.ended, e.Err)
				}
			}
			r.on(func() { r.j.Moved(9, tail) })
			r.settle()
			if r.j.Stalled() != 0 {
				t.Fatalf("round %d: %d moved and still stalled: %+v", round, moved, r.j.Pressure())
			}
			stale := r.j.Pressure()
			r.on(func() { r.j.Moved(9, tail) })
			if r.j.Pressure() != stale {
				t.Fatal("a stale Moved changed something")
			}
			fill()
		}
		r.abandon()
		found := map[ids.Seq]bool{}
		r = open(t, l, d.kill(rand.New(rand.NewPCG(1, 1))), Options{MarkAfter: -1, Reserve: reserve},
			func(e ReplayEntry) error {
				if e.Vol == 9 {
					if want := live[e.Seq]; e.Addr != want.Addr || e.Sums[0] != want.Sums[0] || !e.Copied {
						t.Errorf("copy %d came back as %+v", e.Seq, e)
					}
					found[e.Seq] = true
				}
				return nil
			})
		if len(found) != len(live) {
			t.Fatalf("%d of %d copies are there", len(found), len(live))
		}
		r.close()
	}
}

func TestForgetVolume(t *testing.T) {
	l := startLoop(t, 16<<20)
	d := create(t, 6, Options{})
	r := open(t, l, d, Options{MarkAfter: -1}, nil)
	r.putEach(5, 1, 10)
	r.putEach(6, 1, 60)
	r.commit(6, 60)
	if p := r.j.Pressure(); p.Pinned < 2 {
		t.Fatalf("%+v", p)
	}
	r.on(func() { r.j.ForgetVolume(5); r.j.ForgetVolume(55) })
	r.settle()
	if p := r.j.Pressure(); p.Pinned != 1 || p.Pending != 0 {
		t.Fatalf("%+v", p)
	}
	if b, n := r.j.Usage(5); b != 0 || n != 0 {
		t.Fatal("a forgotten volume pins something")
	}
	r.close()
}
