package store

import (
	"bytes"
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

func TestLocate(t *testing.T) {
	s, _ := newTestStore(t, 32<<20, nil)
	must(t, put(s, 1, 100))
	data := payload(1, 100)
	es, pin, k := s.Locate(fkey(1), 5000, 100, nil)
	if k != errs.OK || len(es) != 1 || es[0].Len != 100 {
		t.Fatal(es, k)
	}
	d := s.File().(*testDrive)
	if !bytes.Equal(d.bytes(es[0].Off, 100), data[5000:5100]) {
		t.Fatal("wrong place")
	}
	// Pinned space is not used again.
	must(t, del(s, 1))
	if _, _, k := s.Locate(fkey(1), 0, 1, nil); k != errs.Absent {
		t.Fatal(k)
	}
	st := s.Stat()
	if st.Quarantined != 101*blockSize {
		t.Fatalf("%+v", st)
	}
	for i := 2; put(s, i, 100) == nil; i++ {
	}
	if !bytes.Equal(d.bytes(es[0].Off, 100), data[5000:5100]) {
		t.Fatal("pinned bytes overwritten")
	}
	check(t, s)
	s.Unpin(pin)
	s.Unpin(Pin{})
	must(t, s.commits.do(&op{kind: opRelease}))
	if st := s.Stat(); st.Quarantined != 0 {
		t.Fatalf("%+v", st)
	}
	check(t, s)
	for off, k := range map[uint32]errs.Kind{
		0: errs.OK, 100*blockSize - 1: errs.OK, 100 * blockSize: errs.Invalid,
	} {
		_, pin, got := s.Locate(fkey(2), off, 1, nil)
		if got != k {
			t.Fatal(off, got)
		}
		s.Unpin(pin)
	}
	if _, _, k := s.Locate(fkey(2), 0, 0, nil); k != errs.Invalid {
		t.Fatal(k)
	}
}

func TestLocateAllocatesNothing(t *testing.T) {
	s, _ := newTestStore(t, 32<<20, nil)
	for i := range 20 {
		must(t, put(s, i, 20))
	}
	dst := make([]layout.Extent, 0, 8)
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		i++
		_, pin, k := s.Locate(fkey(i%20), 4096, 8192, dst[:0])
		if k != errs.OK {
			t.Fatal(k)
		}
		s.Unpin(pin)
	}); n != 0 {
		t.Fatalf("%v allocations per Locate", n)
	}
}

func TestQuarantine(t *testing.T) {
	c := newClock()
	s, o := newTestStore(t, 32<<20, func(o *Options) { o.Quarantine = time.Minute; o.Now = c.now })
	for i := range 4 {
		must(t, put(s, i, 100))
	}
	must(t, del(s, 0, 2))
	st := s.Stat()
	if st.Quarantined != 2*101*blockSize {
		t.Fatalf("%+v", st)
	}
	check(t, s)
	c.add(59 * time.Second)
	must(t, put(s, 10, 1))
	if st := s.Stat(); st.Quarantined != 2*101*blockSize {
		t.Fatalf("%+v", st)
	}
	must(t, s.Close())
	s = mustOpen(t, o) // the rest begins anew
	c.add(59 * time.Second)
	must(t, put(s, 11, 1))
	if st := s.Stat(); st.Quarantined != 2*101*blockSize {
		t.Fatalf("%+v", st)
	}
	check(t, s)
	c.add(2 * time.Second)
	_, pin, _ := s.Locate(fkey(1), 0, 1, nil)
	must(t, del(s, 1))
	c.add(2 * time.Minute)
	must(t, put(s, 12, 1))
	if st := s.Stat(); st.Quarantined != 101*blockSize {
		t.Fatalf("%+v", st)
	}
	s.Unpin(pin)
	must(t, put(s, 13, 1))
	if st := s.Stat(); st.Quarantined != 0 {
		t.Fatalf("%+v", st)
	}
	check(t, s)
}

// A full drive gives quarantined space back by itself once its time has come.
func TestFullReclaims(t *testing.T) {
	c := newClock()
	s, _ := newTestStore(t, 16<<20, func(o *Options) { o.Quarantine = time.Minute; o.Now = c.now })
	n := 0
	for ; put(s, n, 64) == nil; n++ {
	}
	for i := range n {
		must(t, del(s, i))
	}
	want(t, put(s, 1000, 64), errs.Full)
	c.add(time.Hour)
	for i := range n {
		must(t, put(s, 2000+i, 64))
	}
	want(t, put(s, 3000, 64), errs.Full)
	check(t, s)
}

func TestClassesAndRefill(t *testing.T) {
	s, o := newTestStore(t, 64<<20, nil)
	next := 0
	fill := func(c layout.Class) (n int) {
		for ; ; n++ {
			err := putClass(s, next, 16, c)
			if err != nil {
				want(t, err, errs.Full)
				return n
			}
			next++
		}
	}
	for round := range 4 {
		first := next
		a, b, c := fill(layout.ClassClient), fill(layout.ClassCleaning), fill(layout.ClassRepair)
		if a == 0 || b == 0 || c == 0 || fill(layout.ClassClient) != 0 {
			t.Fatalf("round %d: %d client, %d cleaning, %d repair puts", round, a, b, c)
		}
		if st := s.Stat(); st.Free > st.Reserve/8+17*blockSize {
			t.Fatalf("%+v", st)
		}
		check(t, s)
		if round == 2 {
			must(t, s.Close())
			s = mustOpen(t, o)
		}
		for i := first; i < next; i++ {
			must(t, del(s, i))
		}
		if st := s.Stat(); st.Free != st.Capacity || st.FreeRuns != 1 {
			t.Fatalf("round %d leaks: %+v", round, st)
		}
	}
}

// A fragmented drive stores a fragment in pieces, and reads it back.
func TestSplit(t *testing.T) {
	s, o := newTestStore(t, 16<<20, func(o *Options) { o.Reserve = 1 })
	n := 0
	for ; put(s, n, 31) == nil; n++ {
	}
	for i := 0; i < n; i += 2 {
		must(t, del(s, i))
	}
	must(t, put(s, 1000, 150))
	_, rs, _ := s.lookup(packKey(fkey(1000)))
	if len(rs) < 5 {
		t.Fatalf("extents %v", rs)
	}
	want(t, put(s, 1001, 8*32), errs.Full)
	must(t, get(s, 1000, 150))
	check(t, s)
	must(t, s.Close())
	s = mustOpen(t, o)
	must(t, get(s, 1000, 150))
	data := payload(1000, 150)
	es, pin, k := s.Locate(fkey(1000), 1000, 500_000, nil)
	if k != errs.OK || len(es) < 4 {
		t.Fatal(es, k)
	}
	var got []byte
	for _, e := range es {
		got = append(got, o.Data.(*testDrive).bytes(e.Off, int(e.Len))...)
	}
	if !bytes.Equal(got, data[1000:501_000]) {
		t.Fatal("wrong bytes")
	}
	s.Unpin(pin)
	must(t, s.Close())
	rep := must2(RebuildIndex(bg, o, nil))
	s = mustOpen(t, o)
	if rep.Fragments != n/2+1 {
		t.Fatalf("%+v of %d", rep, n)
	}
	must(t, get(s, 1000, 150))
	check(t, s)
	must(t, del(s, 1000))
	check(t, s)
}

func TestCancel(t *testing.T) {
	s, o := newTestStore(t, 32<<20, nil)
	ctx, cancel := context.WithCancel(bg)
	d := o.Data.(*testDrive)
	n := 0
	d.hook = func(op string, off int64) error {
		if n++; n == 2 {
			cancel()
		}
		return nil
	}
	want(t, s.Put(ctx, fput(fkey(1), payload(1, 1024))), errs.Canceled)
	d.hook = nil
	want(t, get(s, 1, 1024), errs.Absent)
	if st := s.Stat(); st.Free != st.Capacity {
		t.Fatalf("%+v", st)
	}
	want(t, s.Get(ctx, fkey(1), 0, make([]byte, 1)), errs.Absent)
	must(t, put(s, 1, 1024))
	want(t, s.Get(ctx, fkey(1), 0, make([]byte, 1)), errs.Canceled)
}

func TestWriteFault(t *testing.T) {
	s, o := newTestStore(t, 32<<20, nil)
	d := o.Data.(*testDrive)
	d.hook = func(op string, off int64) error {
		if op == "write" {
			return errDrive
		}
		return nil
	}
	want(t, put(s, 1, 10), errs.IO)
	d.hook = nil
	st := s.Stat()
	if st.SetAside != 11*blockSize || st.Failed != "" {
		t.Fatalf("%+v", st)
	}
	must(t, put(s, 1, 10))
	check(t, s)
	must(t, s.Close())
	s = mustOpen(t, o)
	if st := s.Stat(); st.SetAside != 0 || st.Used != 11*blockSize {
		t.Fatalf("%+v", st)
	}
}

func TestFailedSync(t *testing.T) {
	s, o := newTestStore(t, 32<<20, nil)
	must(t, put(s, 1, 10))
	d := o.Data.(*testDrive)
	d.hook = func(op string, off int64) error {
		if op == "sync" {
			return errDrive
		}
		return nil
	}
	want(t, put(s, 2, 10), errs.IO)
	d.hook = nil
	want(t, put(s, 3, 10), errs.IO)
	want(t, del(s, 1), errs.IO)
	want(t, s.Fence(1, 1), errs.IO)
	want(t, get(s, 2, 10), errs.Absent)
	must(t, get(s, 1, 10))
	if st := s.Stat(); !strings.Contains(st.Failed, "reopened") {
		t.Fatalf("%+v", st)
	}
	s.Close()
	s = mustOpen(t, o)
	must(t, put(s, 3, 10))
	must(t, get(s, 1, 10))
	check(t, s)
}

func TestConcurrent(t *testing.T) {
	c := newClock()
	s, _ := newTestStore(t, 64<<20, func(o *Options) { o.Now = c.now; o.Quarantine = time.Second })
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			have := map[int]int{}
			for n := range 60 {
				c.add(50 * time.Millisecond)
				i := g*1000 + n
				blocks := 1 + rng.IntN(100)
				if err := put(s, i, blocks); err != nil {
					t.Error(err)
					return
				}
				have[i] = blocks
				for j, b := range have {
					if err := get(s, j, b); err != nil {
						t.Error(err)
						return
					}
					if rng.IntN(2) == 0 {
						_, pin, k := s.Locate(fkey(j), 0, 1, nil)
						if k != errs.OK {
							t.Error(k)
							return
						}
						if err := del(s, j, i+500000); err != nil {
							t.Error(err)
							return
						}
						s.Unpin(pin)
						delete(have, j)
					}
					break
				}
				// All together on one key.
				if err := put(s, 100000+n%5, 9); err != nil {
					t.Error(err)
				}
				if rng.IntN(4) == 0 {
					if err := del(s, 100000+n%5); err != nil {
						t.Error(err)
					}
				}
				if n%20 == 0 {
					s.Stat()
					s.List(layout.FragKey{}, 10)
					if r, err := s.Check(bg, false); err != nil || !r.OK() {
						t.Error(r, err)
					}
				}
			}
		}()
	}
	wg.Wait()
	check(t, s)
	if st := s.Stat(); st.Syncs >= st.Puts+st.Deletes {
		t.Errorf("no group commit: %+v", st)
	}
}

// Headers of fragments that are deleted together are overwritten at a time, each with a dead one, and no more of them
// than that.
func TestDeletesTogether(t *testing.T) {
	s, o := newTestStore(t, 16<<20, nil)
	d := o.Data.(*testDrive)
	const n = 2*killsTogether + 1
	var starts []uint64
	var is []int
	for i := range n {
		must(t, put(s, i, 1))
		starts, is = append(starts, s.startOf(fkey(i))), append(is, i)
	}
	var all sync.WaitGroup
	all.Add(killsTogether)
	var mu sync.Mutex
	under, most, seen := 0, 0, 0
	d.hook = func(op string, off int64) error {
		if op != "write" || off < dataStart {
			return nil
		}
		mu.Lock()
		seen++
		under++
		most = max(most, under)
		if seen <= killsTogether {
			all.Done()
		}
		mu.Unlock()
		all.Wait() // for ever, if they come one by one
		mu.Lock()
		under--
		mu.Unlock()
		return nil
	}
	must(t, del(s, is...))
	d.hook = nil
	if seen != n || most != killsTogether {
		t.Errorf("%d headers were written, at most %d at a time", seen, most)
	}
	var h Header
	for i, start := range starts {
		must(t, h.Decode(d.bytes(int64(start)<<blockShift, blockSize)))
		if !h.Dead || h.Key != fkey(i) {
			t.Errorf("after its delete fragment %v has %v", fkey(i), &h)
		}
	}
	must(t, s.Close())
}
