package pracc

import (
	"math/bits"
	"testing"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// Rot anywhere, at most m blocks of each stripe: every byte is right, and the rotten fragments are named.
func TestRotEverywhere(t *testing.T) {
	for _, pol := range []layout.Policy{pol42, {K: 2, M: 2, C: 3, X: 1}, {K: 8, M: 3, C: 9, X: 1},
		{K: 1, M: 2, C: 2, X: 1}} {
		t.Run(pol.String(), func(t *testing.T) {
			w := newWorld(t, pol.N(), 32<<20, nil)
			for sco := ids.SCONum(1); sco <= 12; sco++ {
				o := w.put(sco, int(pol.K)*48, pol, 48*4096, 7*4096)
				hit := map[int]bool{}
				for b := range 48 {
					for _, f := range w.rng.Perm(pol.N())[:w.rng.IntN(int(pol.M)+1)] {
						w.flip(o, 0, f, b)
						hit[f] = true
					}
				}
				w.loop.Call(func() { w.rots = nil })
				w.want(o, 0, o.blocks())
				w.loop.Call(func() {
					for _, r := range w.rots {
						if r.kind != errs.Corrupt || !hit[int(r.key.Frag)] {
							t.Errorf("a healthy fragment was reported: %v", r)
						}
					}
				})
			}
		})
	}
}

// A rotten data fragment whose rebuild meets a rotten source: the source is found out and reported, and
// later rebuilds leave it alone.
func TestRottenSourceIsNamed(t *testing.T) {
	w := newWorld(t, 6, 16<<20, nil)
	o := w.put(1, 256, pol42, 1<<20, 1<<20)
	w.hurt(o, 0, 0, "rot")
	w.hurt(o, 0, 1, "rot") // fragment 1 is next to 0, so it is the first source
	w.want(o, 0, 8)
	tries := w.c.stats.Corrupt.Load()
	w.loop.Call(func() {
		if len(w.rots) != 2 || w.rots[0].key.Frag != 0 || w.rots[1].key.Frag != 1 {
			t.Errorf("reports: %v", w.rots)
		}
	})
	w.want(o, 8, 8)
	if n := w.c.stats.Corrupt.Load() - tries; n != 8 {
		t.Errorf("%d blocks were found corrupt; a known rotten source was used again", n)
	}
}

// m+1 rotten blocks in a stripe: Corrupt, after at most Combinations tries, the manifest being
// asked for once more. Other stripes are not affected.
func TestRotBeyondRepair(t *testing.T) {
	w := newWorld(t, 20, 64<<20, func(o *Options) { o.Combinations = 50 })
	o := w.put(1, 160, layout.Policy{K: 16, M: 4, C: 17, X: 1}, 1<<20, 1<<20)
	for f := range 5 {
		w.flip(o, 0, f, 4)
	}
	if fl := w.fetch(o, 0, 10); fl.Err != errs.Corrupt {
		t.Fatal(fl.Err)
	}
	w.want(o, 0, 4)
	w.want(o, 5, 5)
}

// Mixed losses: some gone, some rotten, m in all.
func TestMixedLosses(t *testing.T) {
	modes := []string{"absent", "eio", "rot", "unwritten", "unreachable"}
	for _, a := range modes {
		for _, b := range modes {
			w := newWorld(t, 6, 16<<20, nil)
			o := w.put(1, 300, pol42, 128<<10, 20<<10)
			fa, fb := w.rng.IntN(6), w.rng.IntN(5)
			if fb >= fa {
				fb++
			}
			for chunk := range o.m.Geometry().Chunks {
				// The same slots in each chunk, so a drive that does not answer counts as one.
				n := 6
				w.hurt(o, chunk, (fa+n-chunk%n)%n, a)
				w.hurt(o, chunk, (fb+n-chunk%n)%n, b)
			}
			fl := w.fetch(o, 0, 300)
			if fl.Err != errs.OK {
				t.Errorf("%s at %d, %s at %d: %v", a, fa, b, fb, fl.Err)
				continue
			}
			w.same(fl, o)
		}
	}
}

// Not a page is free: rebuilds work block by block in the pages kept back, one after the other.
func TestRebuildWithoutPages(t *testing.T) {
	w := newWorld(t, 6, 8<<20, func(o *Options) { o.Rebuilds = 4 })
	o := w.put(1, 512, pol42, 1<<20, 1<<20)
	w.hurt(o, 0, 0, "absent")
	w.hurt(o, 0, 1, "rot")
	var hog buf.Vec
	var fls []*flight
	w.loop.Call(func() {
		for i := range 8 {
			fls = append(fls, w.start(o, i*30, 17, true))
		}
		// FetchDone releases pages; take those as well as they come.
		w.pool.AllocReserved(&hog, w.pool.Free())
	})
	for _, fl := range fls {
		<-fl.done
		w.same(fl, o)
		w.loop.Call(func() { w.pool.AllocReserved(&hog, w.pool.Free()) })
	}
	w.loop.Call(func() { w.pool.ReleaseVec(&hog) })
}

// Many rebuilds at once, few slots and little scratch: all end, and the bound holds.
func TestRebuildsWait(t *testing.T) {
	limit := 0
	w := newWorld(t, 6, 64<<20, func(o *Options) {
		o.Rebuilds, o.ScratchBytes, o.Ranges = 3, 1<<20, 20
		limit = int(o.ScratchBytes / 4096)
	})
	o := w.put(1, 2048, pol42, 1<<20, 64<<10)
	for chunk := range o.m.Geometry().Chunks {
		w.hurt(o, chunk, 2, "eio")
		w.hurt(o, chunk, 5, "absent")
	}
	var fls []*flight
	most := 0
	w.loop.Call(func() {
		for range 40 {
			off := w.rng.IntN(1900)
			fls = append(fls, w.start(o, off, 1+w.rng.IntN(148), true))
			most = max(most, w.c.rebuild.pages)
		}
	})
	for _, fl := range fls {
		<-fl.done
		w.same(fl, o)
		w.loop.Call(func() { most = max(most, w.c.rebuild.pages) })
	}
	if most > limit {
		t.Fatalf("%d scratch pages, the bound is %d", most, limit)
	}
	if w.c.stats.Waited.Load() == 0 {
		t.Error("nothing ever waited: the test shows nothing")
	}
}

// Rebuilds of more than 64 KiB are a worker's, smaller ones the loop's.
func TestInlineOrWorker(t *testing.T) {
	j := decode{want: 1<<16 - 1, triesMax: 1}
	if !j.inline() {
		t.Error("64 KiB are not done inline")
	}
	j.want = 1<<17 - 1
	if j.inline() {
		t.Error("68 KiB are done inline")
	}
	j.want, j.triesMax = 1, 1024
	if j.inline() {
		t.Error("a search is done inline")
	}
}

func TestDemote(t *testing.T) {
	for n := 1; n <= 8; n++ {
		for bad := uint64(0); bad < 1<<n; bad++ {
			j := decode{}
			for f := range n {
				j.add(f, nil)
			}
			j.demote(bad)
			count := bits.OnesCount64(bad)
			var seen uint64
			for i, f := range j.frags {
				seen |= 1 << f
				if isBad := bad>>f&1 == 1; isBad != (i >= n-count) {
					t.Fatalf("%b of %d: %v", bad, n, j.frags)
				}
			}
			if seen != 1<<n-1 {
				t.Fatalf("%b of %d: %v", bad, n, j.frags)
			}
		}
	}
}
