package volume

import (
	"slices"
	"testing"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// When RAM is low blocks leave it if sealing does not get on, or there is nothing to seal; else they stay: sealing
// brings pages, and would have to read back what has left.
func TestBlocksLeaveRAMOnlyWhileSealingStands(t *testing.T) {
	r := newRig(t, 64<<20, 1<<20)
	r.objects.hold = make(chan struct{})
	r.do(block.Put, 0, 200)
	r.loop.Call(r.v.Seal)
	r.settle("the sealer has begun", func() bool { return r.v.ov.Closed()[0].Sealing })
	r.do(block.Put, 1000, 200)
	var taken buf.Vec
	evicted := func(since time.Duration) int {
		before := r.v.Stats.Evicted.Load()
		r.loop.Call(func() {
			r.keeper.progress = r.loop.Now() - int64(since)
			r.v.keepRAM()
			r.keeper.keepRAM()
		})
		return int(r.v.Stats.Evicted.Load() - before)
	}
	if n := evicted(time.Hour); n != 0 {
		t.Errorf("%d blocks left RAM, which is not low", n)
	}
	evicted(-time.Hour) // the keeper's own clock must not come in between
	r.loop.Call(func() {
		pool := r.loop.Pool()
		if !pool.Alloc(&taken, pool.Free()-pool.Reserve()-pool.Pages()/16) {
			t.Error("no pages")
		}
	})
	if n := evicted(-time.Hour); n != 0 {
		t.Errorf("%d blocks left RAM while sealing gets on", n)
	}
	if n := evicted(sealPatience + time.Millisecond); n != 200 {
		t.Errorf("%d blocks left RAM while sealing stands, 200 may", n)
	}
	close(r.objects.hold)
	r.seal()
	r.do(block.Put, 2000, 100)
	evicted(0)
	r.loop.Call(func() {
		if r.keeper.jobs != 0 {
			t.Errorf("%d batches on their way", r.keeper.jobs)
		}
		for i := range ids.BlockAddr(100) {
			if _, e := r.v.ov.Lookup(2000 + i); e == nil || e.Page != 0 {
				t.Fatalf("block %d is still in RAM, and nothing is sealed: %v", i, e)
			}
		}
		r.loop.Pool().ReleaseVec(&taken)
	})
}

// Blocks that were coded leave RAM before their SCO is stored, if RAM is low, and its slot is free. Another try reads
// them from the journal, as readers do; it keeps them where RAM is low no more.
func TestCodedBlocksLeaveLowRAM(t *testing.T) {
	r := newRig(t, 64<<20, 1<<20)
	var taken buf.Vec
	lower := func() {
		pool := r.loop.Pool()
		if !pool.Alloc(&taken, pool.Free()-pool.Reserve()-pool.Pages()/16) {
			t.Error("no pages")
		}
	}
	tries := 0
	r.objects.last = func() (err error) {
		r.loop.Call(func() {
			s := r.v.opts.Sealer
			s.mu.Lock()
			if s.free != s.slots {
				t.Errorf("try %d is coded, and of %d slots %d are free", tries, s.slots, s.free)
			}
			s.mu.Unlock()
			resident := r.v.ov.Closed()[0].Resident()
			switch tries++; tries {
			case 1:
				if resident != 200 {
					t.Errorf("of 200 blocks %d are in RAM, which is not low", resident)
				}
				lower()
				err = errs.New(errs.Unreachable, "the ASDs are gone")
			case 2:
				if resident != 0 {
					t.Errorf("%d coded blocks are in RAM, which is low", resident)
				}
				r.loop.Pool().ReleaseVec(&taken)
				err = errs.New(errs.Unreachable, "once more")
			}
		})
		return err
	}
	r.do(block.Put, 0, 200)
	r.seal()
	blocks, right := r.sealedBlocks()
	if tries != 3 || len(blocks) != 200 || slices.Contains(right, false) {
		t.Errorf("%d tries, %d blocks, right: %v", tries, len(blocks), right)
	}
}

// A block that very many readers have not given back yet is read from the journal by the next: references to a page are
// counted in 16 bits, and a client that takes no answers must not end the process.
func TestManyReadersOfAPage(t *testing.T) {
	r := newRig(t, 64<<20, 1<<20)
	r.do(block.Put, 7, 1)
	r.loop.Call(func() {
		pool := r.loop.Pool()
		var first block.Resolution
		if !r.v.Resolve(7, 1, &first, nil) || first.Pieces[0].Kind != block.InRAM {
			t.Fatalf("%+v", first)
		}
		page, n := first.Pieces[0].Page, 0
		for ; n < 1<<16; n++ {
			var x block.Resolution
			if r.v.Resolve(7, 1, &x, nil); x.Pieces[0].Kind != block.InRAM {
				if x.Pieces[0].Kind != block.Logged || x.Sums[0] != first.Sums[0] {
					t.Errorf("%+v", x)
				}
				break
			}
			if pool.Refs(page) == 1<<16-1 {
				t.Error("one reader more ends the process")
				break
			}
			pool.Retain(page)
		}
		for range n {
			pool.Release(page)
		}
	})
}
