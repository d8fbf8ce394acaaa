package journal

import (
	"testing"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// halves is a log of which one volume pins more than half, with entries of two that wait.
type halves struct {
	*rig
	seqs  map[ids.VolumeID]ids.Seq
	order []*testEntry
}

func (h *halves) add(vol ids.VolumeID) *testEntry {
	h.seqs[vol]++
	e := write(h.l, vol, h.seqs[vol], ids.BlockAddr(h.seqs[vol]), 8, uint64(h.seqs[vol]))
	e.order = &h.order
	h.j.Append(&e.Entry)
	return e
}

// newHalves has volume 1 pin the first part of the log, and volume 2 the rest, so that data has no room.
func newHalves(t *testing.T, reserve int) *halves {
	h := &halves{seqs: map[ids.VolumeID]ids.Seq{}}
	h.rig = open(t, startLoop(t, 32<<20), create(t, 8, Options{}), Options{MarkAfter: -1, Reserve: reserve}, nil)
	pinned := func() (n int64) { h.on(func() { n, _ = h.j.Usage(1) }); return n }
	for pinned() <= h.j.Half()+2*testSegment {
		h.on(func() { h.add(1) })
		h.settle()
	}
	for h.j.Stalled() == 0 {
		h.on(func() { h.add(2) })
		h.settle()
	}
	h.order = h.order[:0]
	return h
}

// While others wait, a volume that pins more than half of the log does not get what comes back, though it came first;
// when they do not, it goes on. What it appended leaves in its order.
func TestMoreThanHalfWaitsForOthers(t *testing.T) {
	h := newHalves(t, 1)
	const n = 5
	h.on(func() {
		for range n {
			h.add(1)
		}
		for range n {
			h.add(2)
		}
	})
	h.settle()
	if len(h.order) != 0 || h.j.Aside() == 0 || h.j.Stats().Queued < 2*n {
		t.Fatalf("%d ended in a full log, aside since %d", len(h.order), h.j.Aside())
	}
	h.commit(1, 8) // a segment, and not enough to be below half
	if len(h.order) == 0 {
		t.Fatal("nothing goes though there is space")
	}
	for i, e := range h.order {
		if want := ids.VolumeID(2); i <= n && e.Vol != want { // one of 2 was in line when the log was full
			t.Errorf("place %d has volume %d, want %d", i, e.Vol, want)
		}
	}
	if n, _ := h.j.Usage(1); n <= h.j.Half() || h.j.Aside() == 0 {
		t.Fatalf("it pins %d bytes, half is %d, and it stands aside since %d", n, h.j.Half(), h.j.Aside())
	}
	h.commit(1, 30)
	last := map[ids.VolumeID]ids.Seq{}
	for _, e := range h.order {
		if e.Err != errs.OK || e.Seq <= last[e.Vol] {
			t.Errorf("%d of volume %d ended with %s behind %d", e.Seq, e.Vol, e.Err, last[e.Vol])
		}
		last[e.Vol] = e.Seq
	}
	if last[1] != h.seqs[1] || last[2] != h.seqs[2] || h.j.Aside() != 0 {
		t.Errorf("last %v of %v; aside since %d", last, h.seqs, h.j.Aside())
	}
	h.close()
}

// Once it pins less it stands in the line of all, before those who came later.
func TestLessThanHalfRejoins(t *testing.T) {
	h := newHalves(t, 1)
	mine := (*testEntry)(nil)
	h.on(func() { mine = h.add(1) })
	h.commit(1, h.seqs[1]-1)
	if mine.ended != 1 || mine.Err != errs.OK || h.j.Aside() != 0 {
		t.Errorf("ended %d times with %s; aside since %d", mine.ended, mine.Err, h.j.Aside())
	}
	h.close()
}

// It does not wait for ever.
func TestFailAside(t *testing.T) {
	h := newHalves(t, 1)
	var mine *testEntry
	h.on(func() { mine = h.add(1); h.add(2) })
	h.settle()
	h.on(func() { h.j.FailAside(errs.Full) })
	if mine.ended != 1 || mine.Err != errs.Full || h.j.Aside() != 0 || len(h.order) != 1 {
		t.Errorf("ended %d times with %s; aside since %d; %d ended", mine.ended, mine.Err, h.j.Aside(), len(h.order))
	}
	h.on(func() { h.j.FailWaiting(errs.Full) })
	h.on(func() { mine = h.add(1) })
	h.settle()
	h.on(func() { h.j.FailAside(errs.Full) })
	if mine.ended != 1 || h.j.Stalled() != 0 {
		t.Errorf("ended %d times; nobody waits, and the line stands since %d", mine.ended, h.j.Stalled())
	}
	h.close()
}

// Headers count, or whoever writes a block at a time would never pin more than half.
func TestHeadersCountForHalf(t *testing.T) {
	r := open(t, startLoop(t, 32<<20), create(t, 8, Options{}), Options{MarkAfter: -1}, nil)
	r.putEach(1, 1, 50)
	usage := func(j *Journal) (n int64) { n, _ = j.Usage(1); return n }
	if n := usage(r.j); n < 2*50*BlockSize || n > 2*51*BlockSize {
		t.Errorf("50 records of a block pin %d bytes", n)
	}
	n := usage(r.j)
	img := r.d
	r.abandon()
	j, err := Open(img, Options{})
	if err == nil {
		err = j.Replay(func(ReplayEntry) error { return nil })
	}
	if err != nil || usage(j) != n {
		t.Errorf("%d bytes, and %d when they were replayed: %v", n, usage(j), err)
	}
}
