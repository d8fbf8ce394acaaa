package blockcache

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// Random operations of several vDisks over both tiers, with flips and torn regions in the file, quotas that change,
// shrinking, restarts and crashes: every byte that is served is right, and the books are.
func TestRandomOperations(t *testing.T) {
	for _, regions := range []int{0, 12, 40} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("%d regions, seed %d", regions, seed), func(t *testing.T) {
				randomOperations(t, regions, rand.New(rand.NewPCG(seed, uint64(regions))))
			})
		}
	}
}

func randomOperations(t *testing.T, regions int, rng *rand.Rand) {
	w := newWorld(t, 1<<20, regions, nil)
	quota := func() Quota {
		pick := func() int64 {
			return [...]int64{0, 64 << 10, 200 << 10, 400 << 10, Unlimited, Unlimited}[rng.IntN(6)]
		}
		return Quota{RAM: pick(), SSD: pick()}
	}
	var tenants [4]*Tenant
	restart := func() {
		w.open()
		for i := range tenants {
			tenants[i] = w.tenant(ids.VolumeID(i+1), quota())
		}
	}
	w.close()
	restart()
	for range 250 {
		i := rng.IntN(len(tenants))
		switch n := rng.IntN(40); {
		case n == 0:
			w.loop.Call(func() { tenants[i].SetQuota(quota()) })
		case n == 1:
			w.loop.Call(func() { tenants[i].SetOff(rng.IntN(2) == 0) })
		case n == 2:
			w.loop.Call(func() { tenants[i].Close() })
			tenants[i] = w.tenant(ids.VolumeID(i+1), quota())
		case n == 3:
			w.loop.Call(func() { w.c.Shrink(rng.IntN(100)) })
		case n < 7 && w.mem != nil:
			spoil(w, rng)
		case n == 7:
			w.close()
			restart()
		case n == 8 && w.mem != nil:
			clone := w.mem.CrashClone(rng, dio.CrashOptions{})
			w.close()
			w.mem, w.file = clone, clone
			restart()
		default:
			batch(w, rng, tenants[:])
		}
		w.check()
	}
}

// batch starts several reads at once, of few objects, so that they meet; some read ahead, some fail.
func batch(w *world, rng *rand.Rand, tenants []*Tenant) {
	n := 1 + rng.IntN(12)
	fails := rng.IntN(10) == 0
	var list []*reader
	for range n {
		length := 1 + rng.IntN(20)
		if rng.IntN(10) == 0 {
			length = 300
		}
		list = append(list, w.reader(at{7, ids.SCONum(1 + rng.IntN(2)), uint32(rng.ExpFloat64() * 150)}, length))
	}
	w.loop.Call(func() {
		w.back.hold = true
		if fails {
			w.back.err = errs.Unreachable
		}
		for _, r := range list {
			r.start(tenants[rng.IntN(len(tenants))], rng.IntN(5) == 0)
		}
	})
	w.settle()
	for held := 1; held > 0; {
		w.loop.Call(func() { w.back.release(rng) })
		w.settle()
		w.loop.Call(func() { held = len(w.back.held) })
	}
	w.loop.Call(func() { w.back.hold = false; w.back.release(rng) })
	for _, r := range list {
		if k := r.finish(); k != errs.OK && !(fails && k == errs.Unreachable) {
			w.t.Fatalf("a read ended with %v", k)
		}
	}
	w.loop.Call(func() { w.back.err = errs.OK })
}

// spoil flips a bit of the file, or overwrites part of a region.
func spoil(w *world, rng *rand.Rand) {
	w.settle()
	b, err := dio.AlignedBuf(ids.BlockSize)
	if err != nil {
		w.t.Fatal(err)
	}
	defer dio.FreeBuf(b)
	off := 4096 + rng.Int64N((w.mem.Size()-4096)/ids.BlockSize)*ids.BlockSize
	w.mem.ReadAt(b, off)
	if rng.IntN(2) == 0 {
		b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
	} else {
		clear(b[:512*(1+rng.IntN(8))])
	}
	w.mem.WriteAt(b, off)
}

// A hit is the page that was filled, retained: nothing is copied, and nothing allocated.
func TestHitsShareThePage(t *testing.T) {
	w := newWorld(t, 1<<20, 0, nil)
	v := w.tenant(1, everything)
	r := w.reader(at{1, 1, 5}, 4)
	w.loop.Call(func() { r.start(v, false) })
	<-r.done
	w.loop.Call(func() {
		var out buf.Vec
		if n := w.c.Get(v, 1, 1, 5, r.want, &out); n != 4 {
			t.Errorf("%d of 4 blocks served", n)
		}
		for i := range 4 {
			if a, b := out.PageAt(i*ids.BlockSize), r.dst.PageAt(i*ids.BlockSize); a != b {
				t.Errorf("block %d was read into page %d and is served from %d", i, b, a)
			} else if w.pool.Refs(a) != 3 {
				t.Errorf("page %d has %d references; the reader, the cache and this hit are 3", a, w.pool.Refs(a))
			}
		}
		w.pool.ReleaseVec(&out)
	})
	r.done <- struct{}{}
	r.finish()
}

// Readers of blocks that are being read wait for that read, whoever's it is; and its failure is theirs.
func TestMissesMerge(t *testing.T) {
	w := newWorld(t, 1<<20, 0, nil)
	a, b := w.tenant(1, everything), w.tenant(2, everything)
	r1, r2, r3 := w.reader(at{1, 1, 0}, 20), w.reader(at{1, 1, 10}, 20), w.reader(at{1, 1, 12}, 3)
	for _, k := range []errs.Kind{errs.Unreachable, errs.OK} {
		before := w.back.blocks
		w.loop.Call(func() {
			w.back.hold, w.back.err = true, k
			r1.start(a, false)
			r2.start(b, false)
			r3.start(b, false)
			if n := w.back.blocks - before; n != 30 {
				t.Errorf("%d blocks asked of the backend, 30 are wanted", n)
			}
			w.back.hold = false
			w.back.release(rand.New(rand.NewPCG(1, 1)))
		})
		for _, r := range []*reader{r1, r2, r3} {
			if got := r.finish(); got != k {
				t.Errorf("ended with %v, want %v", got, k)
			}
		}
	}
	if n := b.Stats.Merged.Load(); n != 2*13 {
		t.Errorf("%d blocks merged", n)
	}
}

// Another checksum than the one a block was read under: not served, dropped, counted.
func TestMismatch(t *testing.T) {
	w := newWorld(t, 1<<20, 0, nil)
	v := w.tenant(1, everything)
	w.read(v, at{1, 1, 0}, 4)
	w.loop.Call(func() {
		sums := at{1, 1, 0}.sums(4)
		sums[2]++
		var out buf.Vec
		if n := w.c.Get(v, 1, 1, 0, sums, &out); n != 2 {
			t.Errorf("%d blocks served", n)
		}
		w.pool.ReleaseVec(&out)
	})
	if n := w.c.Stats.Mismatches.Load(); n != 1 {
		t.Errorf("%d mismatches", n)
	}
	if n := w.read(v, at{1, 1, 0}, 4); n != 2 {
		t.Errorf("then %d served: block 2 is to come from the backend", n)
	}
	w.check()
}

// Off: nothing is kept or served. On again: it fills anew.
func TestOff(t *testing.T) {
	w := newWorld(t, 1<<20, 12, nil)
	v := w.tenant(1, everything)
	w.read(v, at{1, 1, 0}, 8)
	w.loop.Call(func() { v.SetOff(true) })
	for range 2 {
		if w.read(v, at{1, 1, 0}, 8) != 0 {
			t.Error("served although it is off")
		}
	}
	w.check()
	w.loop.Call(func() { v.SetOff(false) })
	w.read(v, at{1, 1, 0}, 8)
	if w.read(v, at{1, 1, 0}, 8) != 8 {
		t.Error("not served although it is on again")
	}
}

// Shrink gives pages back at once.
func TestShrink(t *testing.T) {
	w := newWorld(t, 4<<20, 12, nil)
	v := w.tenant(1, everything)
	w.read(v, at{1, 1, 0}, 800)
	w.loop.Call(func() {
		free := w.pool.Free()
		if n := w.c.Shrink(100); n < 100 || n > 100+testParts || w.pool.Free() != free+n {
			t.Errorf("%d pages came free of 100", n)
		}
		if n := w.c.Shrink(1 << 20); w.c.pol.Count() != 0 || n < 690 {
			t.Errorf("%d pages came free in the end", n)
		}
	})
	w.check()
}

// The bar of the quotas: while vDisk A scans ten times the cache, B rereads its working set inside its quota and hits
// for more than 95 of 100; with each of the ways to set quotas.
func TestScanBesideWorkingSet(t *testing.T) {
	const ram = 8 << 20 // 2000 blocks or so
	for name, q := range map[string][2]int64{
		"each a part":           {ram * 6 / 10, ram * 4 / 10},
		"oversubscribed, share": {Unlimited, Unlimited},
		"scanner small":         {256 << 10, Unlimited},
	} {
		w := newWorld(t, ram, 0, nil)
		a, b := w.tenant(1, Quota{RAM: q[0]}), w.tenant(2, Quota{RAM: q[1]})
		set := 700 // blocks, in quota and share with what is noted about them
		rng := rand.New(rand.NewPCG(1, 1))
		w.read(b, at{2, 1, 0}, set)
		for range 3 {
			w.read(b, at{2, 1, 0}, set)
		}
		hits, n := 0, 0
		for off := 0; off < 10*ram/ids.BlockSize; off += 16 {
			w.read(a, at{1, 1, uint32(off)}, 16)
			for range 4 {
				hits += w.read(b, at{2, 1, uint32(rng.IntN(set))}, 1)
				n++
			}
		}
		if hits*100 <= n*95 {
			t.Errorf("%s: B hits %d of %d", name, hits, n)
		}
		w.check()
		w.loop.Call(w.c.Publish)
		if s := &b.Stats.RAM; s.Hits.Load() < uint64(hits) || s.Used.Load() < int64(set)*ids.BlockSize ||
			s.Size.Load() != ram || s.Quota.Load() != q[1] {
			t.Errorf("%s: statistics say hits %d, used %d, size %d, quota %d", name, s.Hits.Load(), s.Used.Load(),
				s.Size.Load(), s.Quota.Load())
		}
	}
}

// A quota that shrinks while IO runs holds within the call for few entries, and within a few passes for many.
func TestQuotaAtOnce(t *testing.T) {
	w := newWorld(t, 16<<20, 0, nil)
	v := w.tenant(1, everything)
	for off := range 3000 {
		w.read(v, at{1, 1, uint32(off * testParts)}, 1)
	}
	w.loop.Call(func() { v.SetQuota(Quota{RAM: 100 << 10}) })
	for over, i := true, 0; over; i++ {
		if i > 100 {
			t.Fatal("still above the quota after 100 turns")
		}
		w.loop.Call(func() { over = w.c.pol.AccountUsed(v.ram) > 100<<10 })
	}
	w.check()
}

// Clones share what they have in common, and it is charged to who filled it.
func TestClonesShare(t *testing.T) {
	w := newWorld(t, 1<<20, 0, nil)
	a, b := w.tenant(1, everything), w.tenant(2, everything)
	w.read(a, at{1, 1, 0}, 16)
	if w.read(b, at{1, 1, 0}, 16) != 16 {
		t.Error("the clone reads what is there")
	}
	w.loop.Call(func() {
		if ua, ub := w.c.pol.AccountUsed(a.ram), w.c.pol.AccountUsed(b.ram); ua == 0 || ub != 0 {
			t.Errorf("charged %d to who filled it and %d to who shares it", ua, ub)
		}
	})
}

// A page that very many replies hold is not shared further, but its content is served all the same.
func TestPageWithManyReferences(t *testing.T) {
	w := newWorld(t, 1<<20, 0, nil)
	v := w.tenant(1, everything)
	w.read(v, at{1, 1, 0}, 1)
	var out buf.Vec
	w.loop.Call(func() {
		sums := at{1, 1, 0}.sums(1)
		n := 0
		for n < 70000 && w.c.Get(v, 1, 1, 0, sums, &out) == 1 {
			n++
		}
		if n != buf.RefsMost-1 {
			t.Errorf("shared %d times", n)
		}
	})
	if w.read(v, at{1, 1, 0}, 1) != 0 {
		t.Error("shared once more")
	}
	w.loop.Call(func() { w.pool.ReleaseVec(&out) })
}

// Who wants another checksum than the one being read does not wait for it: the backend decides who is right.
func TestMissesOfOtherContentDoNotMerge(t *testing.T) {
	w := newWorld(t, 1<<20, 0, nil)
	v := w.tenant(1, everything)
	r1, r2 := w.reader(at{1, 1, 0}, 4), w.reader(at{1, 1, 0}, 4)
	r2.want[2]++
	w.loop.Call(func() {
		w.back.hold = true
		r1.start(v, false)
		r2.start(v, false)
		if w.back.blocks != 5 {
			t.Errorf("%d blocks asked of the backend, 5 are different", w.back.blocks)
		}
		w.back.hold = false
		w.back.release(rand.New(rand.NewPCG(1, 1)))
	})
	r1.finish()
	<-r2.done
	w.loop.Call(func() { w.pool.ReleaseVec(&r2.dst) })
}
