package store

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const fragSpace = 101 * blockSize // of put(s, i, 100)

// rested opens stores one after the other on one drive, on a machine with a clock, and asks what rests.
type rested struct {
	t *testing.T
	c *clock
	o Options
	s *Store
}

func newRested(t *testing.T) *rested {
	r := &rested{t: t, c: newClock()}
	begin := r.c.now()
	r.s, r.o = newTestStore(t, 32<<20, func(o *Options) {
		o.FS = vfs.NewCrashableMem()
		o.Quarantine, o.Now = time.Minute, r.c.now
		o.BootID, o.BootNow = [16]byte{1}, func() int64 { return int64(r.c.now().Sub(begin)) }
	})
	for i := range 10 {
		must(t, put(r.s, i, 100))
	}
	return r
}

func (r *rested) restart() {
	r.t.Helper()
	must(r.t, r.s.Close())
	r.s = mustOpen(r.t, r.o)
	check(r.t, r.s)
}

// rests demands that n fragments rest, after whatever is over has ended.
func (r *rested) rests(n int64) {
	r.t.Helper()
	must(r.t, r.s.commits.do(&op{kind: opRelease}))
	if st := r.s.Stat(); st.Quarantined != n*fragSpace {
		r.t.Fatalf("%.1f fragments rest, not %d", float64(st.Quarantined)/fragSpace, n)
	}
	check(r.t, r.s)
}

// An ASD that is restarted all the time gives space back all the same, in the order in which it was deleted.
func TestRestGoesOn(t *testing.T) {
	r := newRested(t)
	for i := range 8 {
		must(t, del(r.s, 7-i))
		r.rests(int64(i + 1)) // this batch leaves the mark
		r.c.add(7 * time.Second)
		r.restart()
	}
	// The first was deleted 56 s ago, and the last 7 s ago: each leaves in its turn.
	for left := int64(7); left >= 0; left-- {
		r.c.add(4 * time.Second)
		r.restart()
		r.rests(left)
		r.c.add(3 * time.Second)
		r.rests(left)
	}
	if n := len(r.s.marks.list); n > 9 {
		t.Fatalf("%d marks are kept", n)
	}
}

// What counts is when nobody finds the fragment any more, and not when its delete began: leases are given out on it
// all the while that a commit takes.
func TestRestOfSlowCommit(t *testing.T) {
	r := newRested(t)
	must(t, del(r.s, 0))
	r.c.add(20 * time.Second) // nothing tells this from a commit that took so long
	r.restart()
	r.c.add(59 * time.Second)
	r.rests(1)
	r.restart()
	r.c.add(2 * time.Second)
	r.rests(0)
}

// Another boot has another clock: nothing that its number says is believed, neither now nor when it is the first again.
func TestRestOfOtherBoot(t *testing.T) {
	r := newRested(t)
	must(t, del(r.s, 0))
	r.c.add(30 * time.Second)
	r.restart()
	r.c.add(30 * time.Second)
	r.o.BootID[0] = 2
	r.restart()
	r.c.add(59 * time.Second)
	r.rests(1)
	r.c.add(2 * time.Second)
	r.rests(0)

	must(t, del(r.s, 1))
	r.restart()
	r.c.add(-time.Hour) // a virtual machine that goes back to a snapshot
	r.restart()
	r.c.add(59 * time.Second)
	r.rests(1)
	r.c.add(2 * time.Second)
	r.rests(0)

	must(t, del(r.s, 2))
	r.o.BootNow = nil // a build that knows of no boots
	r.restart()
	r.c.add(59 * time.Second)
	r.rests(1)
}

// A process that dies leaves the marks that its batches left, one a second at most: rests go on from there.
func TestRestAfterKill(t *testing.T) {
	r := newRested(t)
	for i := range 4 {
		must(t, del(r.s, i)) // the mark of each comes with the next
		r.c.add(10 * time.Second)
	}
	r.o.FS = r.o.FS.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	r.o.Data = r.o.Data.(*testDrive).killed()
	r.s = mustOpen(t, r.o)
	// Of the first it is 30 s ago that a mark told of it.
	r.c.add(29 * time.Second)
	for _, left := range []int64{4, 3, 2, 1} {
		r.rests(left)
		r.c.add(10 * time.Second)
	}
	r.rests(0)
}

// A process that is stopped while it opens the store, between one look at the clock and another, loses nothing of a
// rest: that time is not counted twice.
func TestRestOfSlowOpen(t *testing.T) {
	r := newRested(t)
	must(t, del(r.s, 0))
	r.rests(1)
	r.c.add(5 * time.Second)
	must(t, r.s.Close())
	boot := r.o.BootNow
	for stopped := range 4 {
		looks := 0
		r.o.BootNow = func() int64 {
			if looks++; looks == stopped+1 {
				r.c.add(10 * time.Second)
			}
			return boot()
		}
		r.s = mustOpen(t, r.o)
		must(t, r.s.Close())
	}
	r.o.BootNow = boot
	r.s = mustOpen(t, r.o)
	from := r.o.BootNow()
	r.c.add(time.Duration(int64(time.Minute)-from) - time.Second) // 59 s after the delete
	r.rests(1)
}

// An older build that was taken back for a while writes records without a commit beside marks that it does not know.
func TestRestAfterOlderBuild(t *testing.T) {
	r := newRested(t)
	must(t, del(r.s, 0))
	r.rests(1)
	r.c.add(2 * time.Minute)
	r.rests(0)
	boot := r.o.BootNow
	r.o.BootNow = nil // it leaves no marks and touches none
	r.restart()
	must(t, del(r.s, 1))
	b := r.s.ix.db.NewBatch()
	must(t, r.s.each(keyRest, func(k, v []byte) error {
		return b.Set(append([]byte{keyRest}, k...), append([]byte{recordVersion, v[1], 0, 0}, v[12:]...), nil)
	}))
	must(t, r.s.ix.commit(b, true))
	r.o.BootNow = boot
	r.restart()
	r.c.add(59 * time.Second)
	r.rests(1)
	r.c.add(time.Second)
	r.rests(0)
}
