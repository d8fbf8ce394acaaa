package volume

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/block"
	"vstor/dataplane/ids"
	"vstor/dataplane/volume/pagemap"
)

// The fuller the drives, the more live blocks a SCO may have and still be cleaned.
func TestSparse(t *testing.T) {
	for used, want := range map[int]int{0: 25, 49: 25, 50: 25, 60: 35, 75: 50, 80: 50, 81: 90, 100: 90} {
		c := NewCleaners(func() int { return used })
		limit, tight := c.sparse()
		if limit != want || tight != (used > 80) {
			t.Errorf("drives %d %% full: SCOs of up to %d %% live, tight %v", used, limit, tight)
		}
	}
}

// The last percents of garbage are left alone, unless drives run full; then none is.
func TestWorth(t *testing.T) {
	victim := func(n ids.SCONum, live int) pagemap.Victim {
		return pagemap.Victim{SCO: pagemap.SCO{Num: n, Blocks: 100}, Live: live}
	}
	victims := []pagemap.Victim{victim(1, 0), victim(2, 20), victim(3, 50), victim(4, 90), victim(5, 91)}
	for _, x := range []struct {
		blocks, live int
		used         int
		want         int
	}{
		{1000, 1000, 90, 0},
		{1000, 990, 10, 0},
		{1000, 990, 90, 3},
		{1000, 850, 10, 1},
		{1000, 850, 78, 2},
	} {
		limit, tight := NewCleaners(func() int { return x.used }).sparse()
		s := survey{blocks: x.blocks, live: x.live, victims: victims}
		if got := worth(&s, limit, tight); len(got) != x.want {
			t.Errorf("%d of %d blocks live, drives %d %% full: victims %v, %d are worth it", x.live, x.blocks,
				x.used, got, x.want)
		}
	}
}

// A vDisk to which nothing happens gives its garbage back all the same: what was emptied, and what is worth
// cleaning only now that others have filled the drives.
func TestIdleVDiskIsCleaned(t *testing.T) {
	r := newRig(t, 64<<20, 1<<20)
	var used atomic.Int64
	used.Store(10)
	c := NewCleaners(func() int { return int(used.Load()) })
	c.tick = 5 * time.Millisecond
	r.do(block.Put, 0, 100)
	r.seal()
	r.do(block.Put, 1000, 100)
	r.seal()
	r.do(block.Put, 0, 80) // a fifth of the first SCO lives
	r.do(block.Put, 1000, 60)
	r.seal()
	r.flush()
	r.v.StartCleaning(c)
	r.settle("what was emptied is deleted", func() bool { return r.v.Stats.Deleted.Load() == 1 })
	if n := r.v.Stats.CleanedBlocks.Load(); n != 20 {
		t.Errorf("%d blocks moved", n)
	}
	used.Store(90)
	r.settle("the other SCO is cleaned", func() bool { return r.v.Stats.Deleted.Load() == 2 })
	if n := r.v.Stats.CleanedBlocks.Load(); n != 60 {
		t.Errorf("%d blocks moved", n)
	}
}

// Fragments whose bytes were wrong when their checksums were computed are read without a complaint. Cleaning does
// not make that final: what fails its block's checksum, or the index's, is rebuilt from other fragments first, of which
// some may be wrong, too. What cannot be rebuilt now stays, and holds up no other SCO.
func TestCleaningMendsWhatIsWrong(t *testing.T) {
	r := newRig(t, 64<<20, 1<<20)
	c := NewCleaners(func() int { return 90 })
	c.tick, c.retry = 5*time.Millisecond, 20*time.Millisecond
	for _, at := range []ids.BlockAddr{0, 1000} {
		r.do(block.Put, at, 100)
		r.seal()
	}
	r.do(block.Put, 0, 80)
	r.do(block.Put, 1000, 70) // the first is the better victim
	r.seal()
	r.flush()
	set := func(lies ids.SCONum, bad int, down bool) {
		r.objects.mu.Lock()
		defer r.objects.mu.Unlock()
		r.objects.lies, r.objects.bad, r.objects.down = lies, bad, down
	}
	lies := r.objects.list[0].SCO
	deleted := func(n int64) func() bool { return func() bool { return r.v.Stats.Deleted.Load() == uint64(n) } }
	set(lies, 4, true) // too few ASDs
	r.v.StartCleaning(c)
	r.settle("the second SCO is cleaned beside the first", deleted(1))
	set(lies, 100, false) // no choice of fragments is right
	time.Sleep(100 * time.Millisecond)
	if !deleted(1)() {
		t.Fatal("what cannot be mended is deleted")
	}
	set(lies, 4, false)
	r.settle("the first is cleaned, too", deleted(2))
	r.loop.Call(func() {
		var x block.Resolution
		if !r.v.Resolve(80, 20, &x, nil) {
			t.Fatal("a page of the map is not in RAM")
		}
		for _, p := range x.Pieces {
			for i := range p.Count {
				at := (int(p.Off) + int(i)) * ids.BlockSize
				if b := r.objects.data[p.SCO][at : at+ids.BlockSize]; uint32(xxhash.Sum64(b)) != x.Sums[p.First+i] {
					t.Errorf("block %d is wrong for good", 80+p.First+i)
				}
			}
		}
	})
}
