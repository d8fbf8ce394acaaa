package pracc

import (
	"bytes"
	"testing"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// memCache is a Cache in memory that notes what it is told.
type memCache struct {
	memDrive
	served []errs.Kind
	passed []layout.FragKey
}

func (m *memCache) Served(key layout.FragKey, n uint32, nanos int64, kind errs.Kind) {
	if n == 0 || nanos < 0 {
		panic("told of a read that cannot be")
	}
	m.served = append(m.served, kind)
	if kind != errs.OK {
		delete(m.frags, key)
	}
}

func (m *memCache) Passed(key layout.FragKey, n uint32, nanos int64) {
	if n == 0 || nanos < 0 {
		panic("told of a read that cannot be")
	}
	m.passed = append(m.passed, key)
}

// newCachedWorld is a world with a Cache that holds every data fragment of one object of 256 blocks.
func newCachedWorld(t testing.TB, cut int) (*world, *memCache, *object) {
	m := &memCache{memDrive: memDrive{frags: map[layout.FragKey][]layout.Extent{}, file: &memFile{}}}
	w := newWorld(t, 6, 16<<20, func(o *Options) { o.Cache = m })
	m.file.w = w
	o := w.put(1, 256, pol42, 1<<20, 1<<20)
	for f, shard := range w.encode(o, 0)[:4] {
		m.put(o.m.FragKey(0, f), shard, cut)
	}
	t.Cleanup(func() {
		if m.pins != 0 {
			t.Errorf("%d pins of the cache are left", m.pins)
		}
	})
	return w, m, o
}

// on runs f on the loop.
func (w *world) on(f func()) { w.loop.Call(f) }

// What is cached is read without any ASD, and those that are gone are not missed.
func TestCacheServesForDeadASDs(t *testing.T) {
	for _, cut := range []int{1 << 20, 12 << 10} {
		w, m, o := newCachedWorld(t, cut)
		w.on(func() {
			for _, d := range w.drives {
				d.gone = true
			}
		})
		w.want(o, 0, 256)
		w.want(o, 70, 1)
		w.amend(o, func(m *layout.Manifest) { m.Frag(0, 0).State = layout.FragMissing })
		w.on(func() { w.c.Install(o.m) })
		w.want(o, 1, 3) // of a fragment that was never written to its ASD
		w.on(func() {
			s := w.c.Stats()
			if len(m.passed) != 0 || len(m.served) != 6 || s.Cached.Load() != 6 || s.CacheFailed.Load() != 0 ||
				s.Rebuilds.Load() != 0 || len(w.rots) != 0 {
				t.Errorf("passed %v, served %v, %d rebuilds, reports %v", m.passed, m.served, s.Rebuilds.Load(), w.rots)
			}
			for _, d := range w.drives {
				if d.asked != 0 {
					t.Errorf("an ASD was asked %d times", d.asked)
				}
			}
		})
	}
}

// What the cache gives and does not match, or cannot read, comes from the ASD: no error, no rebuild, and no word about
// the ASD's fragment.
func TestCacheThatIsRotten(t *testing.T) {
	for _, want := range []errs.Kind{errs.Corrupt, errs.IO} {
		w, m, o := newCachedWorld(t, 1<<20)
		w.on(func() {
			at := m.at(o.m.FragKey(0, 1), 5*4096)
			if want == errs.IO {
				m.file.eio = map[int64]bool{at / 4096: true}
			} else {
				m.file.mem[at+77] ^= 8
			}
		})
		for range 2 {
			w.want(o, 64, 64)
		}
		w.want(o, 0, 64)
		w.on(func() {
			s := w.c.Stats()
			if len(m.served) != 2 || m.served[0] != want || m.served[1] != errs.OK || len(m.passed) != 2 ||
				s.CacheFailed.Load() != 1 || s.Cached.Load() != 1 {
				t.Errorf("%v: served %v, passed %v", want, m.served, m.passed)
			}
			if s.Rebuilds.Load() != 0 || s.Corrupt.Load() != 0 || s.Failed.Load() != 0 || len(w.rots) != 0 {
				t.Errorf("%v: %d rebuilds, %d corrupt, %d failed, reports %v", want, s.Rebuilds.Load(), s.Corrupt.Load(),
					s.Failed.Load(), w.rots)
			}
		})
	}
}

// The cache is rotten and the ASD is gone: rebuilt as ever.
func TestCacheThatIsRottenAndDeadASD(t *testing.T) {
	w, m, o := newCachedWorld(t, 1<<20)
	w.on(func() {
		m.file.dead = true
		w.driveOf(o, 0, 2).gone = true
	})
	fl := w.fetch(o, 128, 64)
	if fl.Err != errs.OK || !bytes.Equal(fl.got, o.data[128*4096:192*4096]) {
		t.Fatal(fl.Err)
	}
	w.on(func() {
		if len(m.served) != 1 || m.served[0] != errs.IO || w.c.Stats().Rebuilds.Load() != 1 {
			t.Errorf("served %v, %d rebuilds", m.served, w.c.Stats().Rebuilds.Load())
		}
	})
}

// The cache hangs: the hedge wins, nothing is held against an ASD, and the cache learns how long it took when it ends.
func TestHedgeBeatsTheCache(t *testing.T) {
	w, m, o := newCachedWorld(t, 1<<20)
	w.want(o, 0, 1)
	ft := w.freeze()
	w.rich()
	var k *keeper
	w.on(func() {
		m.served, m.file.stall = nil, true
		k = w.keep(o, 0, 8)
	})
	if ft.pass(10 * time.Millisecond); k.isDone() {
		t.Fatal("hedged after 10 ms")
	}
	for range 5 {
		ft.pass(10 * time.Millisecond)
	}
	k.check()
	w.on(func() {
		s := w.c.Stats()
		if s.HedgeWins.Load() != 1 || s.StuckReads.Load() != 1 || len(m.served) != 0 {
			t.Errorf("%d hedges won, %d reads stuck, served %v", s.HedgeWins.Load(), s.StuckReads.Load(), m.served)
		}
		m.file.resume()
	})
	k.check()
	w.on(func() {
		if w.c.Stats().StuckReads.Load() != 0 || len(m.served) != 1 || m.pins != 0 {
			t.Errorf("%d reads stuck, served %v, %d pins", w.c.Stats().StuckReads.Load(), m.served, m.pins)
		}
	})
	k.release()
}

// The cache fails under a hedge whose sources fail, too: the ASD's own fragment is read after all.
func TestCacheFailsUnderHedge(t *testing.T) {
	w, m, o := newCachedWorld(t, 1<<20)
	w.want(o, 0, 1)
	ft := w.freeze()
	w.rich()
	var k *keeper
	w.on(func() {
		m.file.stall = true
		for f := 1; f < 6; f++ {
			w.driveOf(o, 0, f).file.stall = true
		}
		k = w.keep(o, 0, 8)
	})
	for range 3 {
		ft.pass(10 * time.Millisecond)
	}
	w.on(func() {
		if w.c.Stats().Hedges.Load() == 0 {
			t.Errorf("%d hedges: the test shows nothing", w.c.Stats().Hedges.Load())
		}
		for i := range m.file.held[0].data {
			m.file.held[0].data[i] ^= 0x55
		}
		m.file.resume()
		for f := 1; f < 6; f++ {
			d := w.driveOf(o, 0, f)
			d.gone = true
			for _, h := range d.file.held {
				for i := range h.data {
					h.data[i] ^= 0x55
				}
			}
			d.file.resume()
		}
	})
	<-k.done
	k.check()
	k.release()
}

// A loop that stops with a read of the cache under way takes nobody's pin along.
func TestStopUnderCachedRead(t *testing.T) {
	w, m, o := newCachedWorld(t, 1<<20)
	w.want(o, 0, 1)
	var fl *flight
	w.on(func() {
		m.file.stall = true
		fl = w.start(o, 0, 8, false)
	})
	w.loop.Stop()
	<-fl.done
	if fl.Err != errs.Closed || m.pins != 0 {
		t.Fatalf("%v, %d pins", fl.Err, m.pins)
	}
}

// A 4 KiB fetch that the cache serves allocates nothing.
func TestCachedFetchAllocatesNothing(t *testing.T) {
	w, m, o := newCachedWorld(t, 1<<20)
	m.served = make([]errs.Kind, 0, 1<<20)
	w.want(o, 0, 256)
	p := &pump{c: w.c, done: make(chan struct{}, 1)}
	run := func() {
		p.left = 1000
		w.on(func() { w.c.Fetch(&p.f) })
		<-p.done
	}
	w.on(func() {
		w.pool.Alloc(&p.f.Dst, 1)
		p.f.NS, p.f.SCO, p.f.Off, p.f.Blocks, p.f.Sums, p.f.Done = 9, 1, 7, 1, o.sums[7:8], p
	})
	run()
	if n := testing.AllocsPerRun(10, run); n > 20 {
		t.Errorf("a thousand fetches allocate %v times", n)
	}
	w.on(func() { w.pool.ReleaseVec(&p.f.Dst) })
}
