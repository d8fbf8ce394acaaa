package pracc

import (
	"testing"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// Fetches of an object that is not known yet wait for one answer together.
func TestMissesMerge(t *testing.T) {
	w := newWorld(t, 6, 16<<20, nil)
	o := w.put(1, 100, pol42, 1<<20, 1<<20)
	p := w.put(2, 100, pol42, 1<<20, 1<<20)
	w.auth.gate = make(chan struct{})
	var fls []*flight
	w.loop.Call(func() {
		for i := range 20 {
			fls = append(fls, w.start(o, i, 5, false), w.start(p, i, 5, false))
		}
	})
	for w.auth.count() < 2 {
		time.Sleep(time.Millisecond)
	}
	select {
	case <-fls[0].done:
		t.Fatal("a fetch ended before its manifest came")
	default:
	}
	close(w.auth.gate)
	for i, fl := range fls {
		<-fl.done
		w.same(fl, []*object{o, p}[i%2])
	}
	if n := w.auth.count(); n != 2 {
		t.Fatalf("asked %d times for two objects", n)
	}
}

// Never more than Lookups questions at a time, and all are answered.
func TestLookupsAreBounded(t *testing.T) {
	w := newWorld(t, 6, 32<<20, func(o *Options) { o.Lookups = 2 })
	var objs []*object
	for i := range 12 {
		objs = append(objs, w.put(ids.SCONum(i+1), 8, pol42, 1<<20, 1<<20))
	}
	w.auth.gate = make(chan struct{})
	var fls []*flight
	w.loop.Call(func() {
		for _, o := range objs {
			fls = append(fls, w.start(o, 0, 8, false))
		}
	})
	time.Sleep(20 * time.Millisecond)
	if n := w.auth.count(); n > 2 {
		t.Fatalf("%d questions at a time", n)
	}
	close(w.auth.gate)
	for i, fl := range fls {
		<-fl.done
		w.same(fl, objs[i])
	}
}

func TestManifestFailures(t *testing.T) {
	w := newWorld(t, 6, 16<<20, func(o *Options) { o.LookupTimeout = 20 * time.Millisecond })
	o := w.put(1, 8, pol42, 1<<20, 1<<20)
	w.auth.err = errs.New(errs.IO, "the metadata store is down")
	if fl := w.fetch(o, 0, 1); fl.Err != errs.Unreachable {
		t.Fatal(fl.Err)
	}
	w.auth.err = nil
	w.auth.gate = make(chan struct{})
	if fl := w.fetch(o, 0, 1); fl.Err != errs.Unreachable {
		t.Fatal(fl.Err)
	}
	close(w.auth.gate)
	inTime := func(o *object) *flight { // the 20 ms pass on a slow machine
		for {
			if fl := w.fetch(o, 0, 1); fl.Err != errs.Unreachable {
				return fl
			}
		}
	}
	w.same(inTime(o), o)
	gone := &object{m: &layout.Manifest{Namespace: 9, SCO: 77}, sums: o.sums}
	if fl := inTime(gone); fl.Err != errs.Absent {
		t.Fatal(fl.Err)
	}
}

// The fragments were repaired to other drives under new versions, and the old ones are gone: more than m of
// them, so only the new manifest helps.
func TestStaleManifest(t *testing.T) {
	w := newWorld(t, 9, 16<<20, nil)
	o := w.put(1, 100, pol42, 1<<20, 1<<20)
	w.want(o, 0, 100)
	shards := w.encode(o, 0)
	move := func(f int) {
		delete(w.drives[f].frags, o.m.FragKey(0, f))
		w.amend(o, func(m *layout.Manifest) {
			m.Targets[f] = layout.ASDTarget(ids.ASDID(f + 5))
			m.Frag(0, f).Version++
		})
		w.driveOf(o, 0, f).put(o.m.FragKey(0, f), shards[f], 1<<30)
	}
	move(1)
	move(2)
	move(3)
	w.want(o, 0, 100)
	if n := w.c.stats.Retries.Load(); n != 1 {
		t.Fatalf("%d retries", n)
	}
	n := w.c.stats.RebuiltBlocks.Load()
	w.want(o, 0, 100)
	if w.c.stats.RebuiltBlocks.Load() != n {
		t.Fatal("the new manifest was not kept")
	}
}

// One fragment was repaired: the rebuild serves, and the manifest is fetched anew in the background, so
// that reads do not go on rebuilding.
func TestStaleManifestInBackground(t *testing.T) {
	w := newWorld(t, 7, 16<<20, nil)
	o := w.put(1, 100, pol42, 1<<20, 1<<20)
	w.want(o, 0, 100)
	key := o.m.FragKey(0, 0)
	w.amend(o, func(m *layout.Manifest) {
		m.Targets[0] = layout.ASDTarget(6)
		m.Frag(0, 0).Version++
	})
	w.drives[6].put(o.m.FragKey(0, 0), w.encode(o, 0)[0], 1<<30)
	delete(w.drives[0].frags, key)
	w.want(o, 0, 10)
	for w.auth.count() < 2 {
		time.Sleep(time.Millisecond)
	}
	for rebuilt := uint64(1); rebuilt > 0; time.Sleep(time.Millisecond) {
		before := w.c.stats.Rebuilds.Load()
		w.want(o, 0, 10)
		rebuilt = w.c.stats.Rebuilds.Load() - before
	}
	if n := w.auth.count(); n != 2 {
		t.Fatalf("asked %d times", n)
	}
}

// The object was stored anew in another shape while a fetch was failing.
func TestStaleShape(t *testing.T) {
	w := newWorld(t, 6, 16<<20, nil)
	o := w.put(1, 500, pol42, 64<<10, 1<<20)
	w.want(o, 0, 500)
	for chunk := range o.m.Geometry().Chunks {
		for f := range 6 {
			w.hurt(o, chunk, f, "absent")
		}
	}
	n := w.put(1, 500, layout.Policy{K: 2, M: 2, C: 3, X: 1}, 1<<20, 1<<20)
	n.m.Put++
	for _, d := range w.drives {
		for key, exts := range d.frags {
			key.Put = n.m.Put
			d.frags[key] = exts
		}
	}
	w.want(n, 0, 500)
}

// A fragment is lost while the object is being deleted: the fetch says that the object is absent.
func TestDeletedMeanwhile(t *testing.T) {
	w := newWorld(t, 6, 16<<20, nil)
	o := w.put(1, 100, pol42, 1<<20, 1<<20)
	w.want(o, 0, 100)
	for f := range 6 {
		w.hurt(o, 0, f, "absent")
	}
	w.auth.mu.Lock()
	clear(w.auth.m)
	w.auth.mu.Unlock()
	if fl := w.fetch(o, 0, 100); fl.Err != errs.Absent {
		t.Fatal(fl.Err)
	}
	w.loop.Call(func() {
		if w.c.cache.table[objKey{9, 1}] != nil {
			t.Error("the manifest of an absent object is still cached")
		}
	})
}

func TestInstallAndForget(t *testing.T) {
	w := newWorld(t, 6, 16<<20, nil)
	o := w.put(1, 100, pol42, 1<<20, 1<<20)
	w.loop.Call(func() { w.c.Install(o.m) })
	w.want(o, 0, 100)
	if w.auth.count() != 0 || w.c.stats.Misses.Load() != 0 {
		t.Fatal("a manifest that was installed was asked for")
	}
	old := o.m.Clone()
	w.amend(o, func(m *layout.Manifest) { m.Frag(0, 5).State = layout.FragMissing })
	w.loop.Call(func() { w.c.Install(o.m); w.c.Install(old) })
	w.loop.Call(func() {
		if v := w.c.cache.table[objKey{9, 1}].version; v != o.m.Version {
			t.Errorf("an older manifest took the place of a newer one: %d", v)
		}
	})
	// An answer that was under way when the object was forgotten is not kept.
	w.auth.gate = make(chan struct{})
	var fl *flight
	w.loop.Call(func() {
		w.c.Forget(9, 1)
		fl = w.start(o, 0, 1, false)
		w.c.Forget(9, 1)
	})
	close(w.auth.gate)
	<-fl.done
	w.same(fl, o)
	w.loop.Call(func() {
		if len(w.c.cache.table) != 0 {
			t.Error("a forgotten manifest came back")
		}
	})
}

// The cache keeps within its bytes, and what is used often through a scan.
func TestCacheEviction(t *testing.T) {
	w := newWorld(t, 6, 16<<20, func(o *Options) { o.CacheBytes = 32 << 10 })
	o := w.put(1, 64, pol42, 1<<20, 1<<20)
	m := o.m.Clone()
	w.loop.Call(func() {
		for i := range 5000 {
			c := m.Clone()
			c.SCO = ids.SCONum(10 + i)
			w.c.Install(c)
			if i%20 == 0 {
				for hot := range 10 {
					if w.c.cache.get(objKey{9, ids.SCONum(10 + hot)}) == nil && i > 20 {
						t.Fatalf("hot object %d was dropped at %d", hot, i)
					}
				}
			}
			if w.c.cache.bytes > 32<<10 {
				t.Fatalf("%d bytes", w.c.cache.bytes)
			}
		}
		sum := int64(0)
		for _, e := range w.c.cache.table {
			sum += e.bytes()
		}
		if sum != w.c.cache.bytes || len(w.c.cache.table) < 60 {
			t.Errorf("%d entries of %d bytes, %d counted", len(w.c.cache.table), sum, w.c.cache.bytes)
		}
	})
	if w.c.stats.Evictions.Load() == 0 {
		t.Error("evictions are not counted")
	}
}
