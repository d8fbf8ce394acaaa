package store

import (
	"testing"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// What is deleted is named once, in order, to whoever looks, and found no more by then; who looks too seldom hears it.
func TestDeletedSince(t *testing.T) {
	s, _ := newTestStore(t, 64<<20, func(o *Options) { o.Quarantine = time.Minute })
	told := 0
	s.WatchDeletes(func() { told++ })
	for i := range 6 {
		must(t, put(s, i, 2))
	}
	dst := make([]layout.FragKey, 0, 2)
	if keys, next, more, lost := s.DeletedSince(0, dst); len(keys) != 0 || next != 0 || more || lost {
		t.Fatal(keys, next, more, lost)
	}
	must(t, del(s, 3, 1, 9, 4))
	must(t, del(s, 3))
	if told != 1 || s.Deleted() != 3 {
		t.Fatal(told, s.Deleted())
	}
	keys, next, more, lost := s.DeletedSince(0, dst)
	if len(keys) != 2 || keys[0] != fkey(3) || keys[1] != fkey(1) || next != 2 || !more || lost {
		t.Fatal(keys, next, more, lost)
	}
	keys, next, more, lost = s.DeletedSince(next, dst)
	if len(keys) != 1 || keys[0] != fkey(4) || next != 3 || more || lost {
		t.Fatal(keys, next, more, lost)
	}
	for _, k := range []int{1, 3, 4} {
		if _, kind := s.Extents(fkey(k), nil); kind != errs.Absent {
			t.Fatal(k, kind)
		}
	}
	for range deletedMax + 1 {
		s.deleted.add(packKey(fkey(7)))
	}
	if keys, next, more, lost := s.DeletedSince(3, dst); len(keys) != 0 || next != 3+deletedMax+1 || more || !lost {
		t.Fatal(keys, next, more, lost)
	}
}

// Extents is the whole payload where Locate finds it, also of a fragment in several pieces.
func TestExtents(t *testing.T) {
	s, _ := newTestStore(t, 16<<20, func(o *Options) { o.Reserve = 1 })
	n := 0
	for ; put(s, n, 20) == nil; n++ {
	}
	for i := 0; i < n; i += 2 { // holes of 21 blocks
		must(t, del(s, i))
	}
	must(t, put(s, 1000, 50))
	for _, k := range []int{1, 1000} {
		es, kind := s.Extents(fkey(k), nil)
		size := uint32(20)
		if k == 1000 {
			size = 50
		}
		want, pin, _ := s.Locate(fkey(k), 0, size*blockSize, nil)
		s.Unpin(pin)
		if kind != errs.OK || len(es) != len(want) || k == 1000 && len(es) < 2 {
			t.Fatal(k, es, want, kind)
		}
		for i := range es {
			if es[i] != want[i] {
				t.Fatal(k, es, want)
			}
		}
	}
}

// The rest of deleted space is counted from when the fragment is found no more, and not from when its batch began:
// somebody may have been told of it until then.
func TestRestBeginsWhenNobodyFindsIt(t *testing.T) {
	c := newClock()
	s, _ := newTestStore(t, 32<<20, func(o *Options) { o.Quarantine = time.Minute; o.Now = c.now })
	must(t, put(s, 1, 100))
	o := &op{kind: opDelete}
	sc, err := s.getScratch(bg)
	must(t, err)
	o.dels = s.kill([]layout.FragKey{fkey(1)}, sc, o.dels)
	s.putScratch(sc)
	b := &s.commits.batch
	s.commits.cycle.Lock()
	b.reset()
	must(t, b.add(o))
	must(t, b.commit())
	c.add(30 * time.Second) // a commit takes its time
	b.publish(o)
	s.commits.cycle.Unlock()
	c.add(59 * time.Second)
	must(t, s.commits.do(&op{kind: opRelease}))
	if st := s.Stat(); st.Quarantined != 101*blockSize {
		t.Fatalf("%d bytes rest", st.Quarantined)
	}
	c.add(time.Second)
	must(t, s.commits.do(&op{kind: opRelease}))
	if st := s.Stat(); st.Quarantined != 0 {
		t.Fatalf("%d bytes rest", st.Quarantined)
	}
}

// Space whose rest is ended early is used again, what was deleted later is not, and neither is what rested when the
// store was opened.
func TestEndRest(t *testing.T) {
	c := newClock()
	s, o := newTestStore(t, 32<<20, func(o *Options) { o.Quarantine = time.Minute; o.Now = c.now })
	for i := range 4 {
		must(t, put(s, i, 100))
	}
	rests := func(n int64) {
		t.Helper()
		must(t, s.commits.do(&op{kind: opRelease}))
		if st := s.Stat(); st.Quarantined != n*101*blockSize {
			t.Fatalf("%d bytes rest, not %d fragments", st.Quarantined, n)
		}
		check(t, s)
	}
	must(t, del(s, 0, 1))
	must(t, del(s, 2))
	rests(3)
	s.EndRest(2)
	rests(1)
	s.EndRest(1) // it only grows
	rests(1)
	must(t, s.Close())
	s = mustOpen(t, o)
	s.EndRest(9)
	rests(1)
	must(t, del(s, 3))
	rests(2) // behind what rested before
	c.add(time.Minute)
	rests(0)
}

func TestExtentsAllocateNothing(t *testing.T) {
	s, _ := newTestStore(t, 32<<20, nil)
	s.WatchDeletes(func() {})
	must(t, put(s, 1, 20))
	must(t, put(s, 2, 20))
	must(t, del(s, 2))
	es, keys := make([]layout.Extent, 0, 8), make([]layout.FragKey, 0, 8)
	if n := testing.AllocsPerRun(1000, func() {
		if es, k := s.Extents(fkey(1), es[:0]); k != errs.OK || len(es) != 1 {
			t.Fatal(es, k)
		}
		if keys, _, _, _ := s.DeletedSince(0, keys[:0]); len(keys) != 1 {
			t.Fatal(keys)
		}
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

// Only the first Open finds a store that nobody had open before.
func TestNew(t *testing.T) {
	s, d := newTestStore(t, 32<<20, nil)
	if !s.New() {
		t.Error("a store that was just made is not new")
	}
	must(t, s.Close())
	again, err := Open(d)
	must(t, err)
	defer again.Close()
	if again.New() {
		t.Error("a store that was opened twice is new")
	}
}
