package overlay

import (
	"math/rand/v2"
	"slices"
	"testing"

	"vstor/dataplane/buf"
	"vstor/dataplane/ids"
)

func testPool(t testing.TB) *buf.Pool {
	p, err := buf.NewPool(16<<20, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.Free() != p.Pages() {
			t.Errorf("%d pages leaked", p.Pages()-p.Free())
		}
		p.Close()
	})
	return p
}

func page(t testing.TB, p *buf.Pool) buf.Page {
	var v buf.Vec
	if !p.Alloc(&v, 1) {
		t.Fatal("pool empty")
	}
	return v.Segs[0].Page
}

type version struct {
	kind Kind
	seq  ids.Seq
}

// Random writes, holes, closes, drops and evictions against a plain map. A dropped batch's content goes
// to a second map, which stands for the vDisk's map: what the overlay does not know must be there.
func TestOverlayModel(t *testing.T) {
	for seed := range uint64(20) {
		runModel(t, seed)
	}
}

func runModel(t *testing.T, seed uint64) {
	const space = 600
	pool := testPool(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	o := New(pool)
	var want, base [space]version
	var seq ids.Seq
	for step := range 4000 {
		switch r := rng.IntN(100); {
		case r < 60:
			seq++
			a := ids.BlockAddr(rng.IntN(space))
			o.Put(Entry{Addr: a, Seq: seq, Page: page(t, pool), Pos: uint32(seq)}, 0)
			want[a] = version{Data, seq}
		case r < 75:
			seq++
			a := rng.IntN(space)
			n := 1 + rng.IntN(min(space-a, 1<<rng.IntN(10)))
			h := Hole{Addr: ids.BlockAddr(a), Count: uint64(n), Seq: seq, Kind: HoleKind(1 + rng.IntN(2))}
			o.PutHole(h, 0)
			for i := a; i < a+n; i++ {
				want[i] = version{h.kind(), seq}
			}
		case r < 80:
			o.Evict(rng.IntN(50))
		case r < 83 && !o.Open().Empty():
			o.Close()
		case r < 86 && len(o.Closed()) > 0:
			applyOldest(o, base[:])
		}
		if step%50 == 0 {
			checkModel(t, seed, o, want[:], base[:])
			for range 10 {
				checkLook(t, seed, o, ids.BlockAddr(rng.IntN(space+PageBlocks)), 1+rng.IntN(PageBlocks))
			}
		}
	}
	o.DropAll()
}

func applyOldest(o *Overlay, base []version) {
	b := o.Closed()[0]
	for _, h := range b.Holes() {
		for i := h.Addr; i < h.end(); i++ {
			base[i] = version{h.kind(), h.Seq}
		}
	}
	for _, e := range b.Entries() {
		if e.Live() {
			base[e.Addr] = version{Data, e.Seq}
		}
	}
	o.DropOldest(b)
}

func checkModel(t *testing.T, seed uint64, o *Overlay, want, base []version) {
	t.Helper()
	for a := range want {
		kind, e := o.Lookup(ids.BlockAddr(a))
		got := version{kind, want[a].seq}
		switch kind {
		case Data:
			got.seq = e.Seq
		case Unknown:
			got = base[a]
		}
		if got != want[a] {
			t.Fatalf("seed %d: block %d is %v, want %v", seed, a, got, want[a])
		}
	}
}

// checkLook compares a View with what look-ups of its blocks say.
func checkLook(t *testing.T, seed uint64, o *Overlay, from ids.BlockAddr, n int) {
	t.Helper()
	n = min(n, PageBlocks-int(from%PageBlocks))
	v := &View{}
	for i := range v.Kinds {
		v.Kinds[i] = 99 // left over from another page
	}
	k, uniform := o.Look(from, n, v)
	for i := range n {
		got := k
		if !uniform {
			got = v.Kinds[i]
		}
		if want, _ := o.Lookup(from + ids.BlockAddr(i)); got != want {
			t.Fatalf("seed %d: block %d of %d+%d is %d in the view, %d when looked up", seed, i, from, n, got, want)
		}
	}
}

// Where nothing was written a look costs a few steps, however much was written elsewhere; and it allocates nothing.
func TestLookSkips(t *testing.T) {
	pool := testPool(t)
	o := New(pool)
	rng := rand.New(rand.NewPCG(1, 1))
	const pages = 1 << 20
	held := map[ids.BlockAddr]bool{}
	var seq ids.Seq
	for range 4 {
		for range 12000 {
			seq++
			a := ids.BlockAddr(rng.IntN(pages * PageBlocks))
			held[a/PageBlocks] = true
			o.Put(Entry{Addr: a, Seq: seq}, 0)
		}
		o.Close()
	}
	v := &View{}
	empty, work := 0, 0
	allocs := testing.AllocsPerRun(1, func() {
		for p := range ids.BlockAddr(10000) {
			if k, uniform := o.Look(p*PageBlocks, PageBlocks, v); k == Unknown && uniform && !held[p] {
				empty++
				work += v.Work
			}
		}
	})
	per := work / empty
	t.Logf("a page without entries takes %d steps", per)
	if allocs != 0 || per > 6+4*PageBlocks*8/100 {
		t.Errorf("a page without entries takes %d steps and %.0f allocations", per, allocs)
	}
	o.DropAll()
}

func BenchmarkLookEmpty(b *testing.B) {
	o, v := New(testPool(b)), &View{}
	for i := range 8 {
		for j := range 12000 {
			o.Put(Entry{Addr: ids.BlockAddr(1<<30 + 777*j), Seq: ids.Seq(1 + i)}, 0)
		}
		o.Close()
	}
	for b.Loop() {
		for p := range ids.BlockAddr(4096) {
			o.Look(p*PageBlocks, PageBlocks, v)
		}
	}
	o.DropAll()
}

func TestMovedAndEvict(t *testing.T) {
	pool := testPool(t)
	o := New(pool)
	o.Put(Entry{Addr: 5, Seq: 1, Page: page(t, pool), Pos: 10}, 0)
	o.Put(Entry{Addr: 6, Seq: 2, Page: page(t, pool), Pos: 11}, 0)
	o.Moved(5, 1, 99)
	o.Moved(6, 1, 99) // an older version was copied: the newer one stays where it is
	if n := o.Evict(10); n != 2 || o.Open().resident != 0 || pool.Free() != pool.Pages() {
		t.Fatalf("evicted %d, resident %d", n, o.Open().resident)
	}
	if _, e := o.Lookup(5); e.Pos != 99 || e.Page != 0 {
		t.Errorf("block 5: %+v", e)
	}
	if _, e := o.Lookup(6); e.Pos != 11 {
		t.Errorf("block 6: %+v", e)
	}
	b := o.Close()
	b.Sealing = true
	o.DropOldest(b)
	if !o.Empty() {
		t.Error("not empty after the drop")
	}
}

// The batch that is sealed last leaves RAM first, and one that is being sealed not at all.
func TestEvictNewestFirst(t *testing.T) {
	pool := testPool(t)
	o := New(pool)
	var batches []*Batch
	for i := range 4 {
		o.Put(Entry{Addr: 1, Seq: ids.Seq(2*i + 1), Page: page(t, pool)}, 0)
		o.Put(Entry{Addr: 2, Seq: ids.Seq(2*i + 2), Page: page(t, pool)}, 0)
		batches = append(batches, o.Open())
		if i < 3 {
			o.Close()
		}
	}
	batches[0].Sealing = true
	for step, want := range [][]int{{2, 2, 2, 1}, {2, 2, 2, 0}, {2, 2, 1, 0}, {2, 2, 0, 0}, {2, 1, 0, 0}, {2, 0, 0, 0}} {
		if n := o.Evict(1); n != 1 {
			t.Fatalf("step %d: evicted %d", step, n)
		}
		for i, b := range batches {
			if b.resident != want[i] {
				t.Errorf("step %d: batch %d has %d pages in RAM, not %d", step, i, b.resident, want[i])
			}
		}
	}
	if n := o.Evict(1); n != 0 {
		t.Errorf("%d pages of a batch that is being sealed left RAM", n)
	}
	o.DropAll()
}

func TestLargeHoleIsOneElement(t *testing.T) {
	o := New(testPool(t))
	o.PutHole(Hole{Addr: 0, Count: 1 << 34, Seq: 1, Kind: 2}, 0)
	o.Put(Entry{Addr: 1 << 33, Seq: 2}, 0)
	o.PutHole(Hole{Addr: 100, Count: 1, Seq: 3, Kind: 1}, 0)
	if n := len(o.Open().Holes()); n != 3 {
		t.Errorf("%d holes", n)
	}
	if k, _ := o.Lookup(1 << 33); k != Data {
		t.Error("the write into the hole is lost")
	}
	if h := o.Open().holes.at(100); h == nil || h.Kind != 1 {
		t.Errorf("hole %+v", h)
	}
}

func TestPutAllocs(t *testing.T) {
	pool := testPool(t)
	o := New(pool)
	for a := range ids.BlockAddr(4096) {
		o.Put(Entry{Addr: a, Seq: 1}, 0)
	}
	var seq ids.Seq = 1
	if n := testing.AllocsPerRun(1000, func() {
		seq++
		o.Put(Entry{Addr: ids.BlockAddr(seq % 4096), Seq: seq}, 0)
		o.Lookup(ids.BlockAddr(seq*7) % 5000)
	}); n != 0 {
		t.Errorf("%v allocations per overwrite and lookup", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	pool, _ := buf.NewPool(1<<20, 0)
	o := New(pool)
	rng := rand.New(rand.NewPCG(1, 1))
	var seq ids.Seq
	for range 4 {
		for range 16000 {
			seq++
			o.Put(Entry{Addr: ids.BlockAddr(rng.IntN(1 << 19)), Seq: seq}, 0)
		}
		o.Close()
	}
	for b.Loop() {
		o.Lookup(ids.BlockAddr(rng.IntN(1 << 19)))
	}
}

// A hole that was copied is at its new place, in what a later one has left of it, and in no batch that is sealed.
func TestMovedHoles(t *testing.T) {
	o := New(nil)
	o.PutHole(Hole{Addr: 0, Count: 100, Seq: 1, Pos: 10}, 0)
	sealed := o.Close()
	sealed.Sealing = true
	o.PutHole(Hole{Addr: 0, Count: 100, Seq: 2, Pos: 20}, 0)
	o.PutHole(Hole{Addr: 40, Count: 10, Seq: 3, Pos: 50}, 0)
	o.MovedHoles(1, 0, 32, 70)
	o.MovedHoles(2, 0, 32, 71) // the oldest of its parts
	o.MovedHoles(2, 0, 32, 72)
	o.MovedHoles(3, 0, 32, 73) // not there
	var got []uint32
	for _, h := range o.Open().Holes() {
		got = append(got, h.Pos)
	}
	if sealed.Holes()[0].Pos != 10 || len(got) != 3 || got[0] != 71 || got[1] != 50 || got[2] != 71 {
		t.Fatalf("%d, %v", sealed.Holes()[0].Pos, got)
	}
}

// Holes of several batches make one list, of which newer ones cut older ones; those that were taken before stay out,
// and so do newer batches once there are enough.
func TestHolesAbove(t *testing.T) {
	o := New(testPool(t))
	for i, h := range []Hole{{Addr: 0, Count: 100, Kind: 1}, {Addr: 200, Count: 10, Kind: 2},
		{Addr: 50, Count: 10, Kind: 2}, {Addr: 90, Count: 20, Kind: 1}} {
		h.Seq = ids.Seq(i + 1)
		if o.PutHole(h, 0); i == 1 || i == 2 {
			o.Close()
		}
	}
	for _, x := range []struct {
		above  ids.Seq
		enough int
		want   []Hole
	}{
		{0, 10, []Hole{{Addr: 0, Count: 50, Seq: 1, Kind: 1}, {Addr: 50, Count: 10, Seq: 3, Kind: 2},
			{Addr: 60, Count: 30, Seq: 1, Kind: 1}, {Addr: 90, Count: 20, Seq: 4, Kind: 1},
			{Addr: 200, Count: 10, Seq: 2, Kind: 2}}},
		{1, 1, []Hole{{Addr: 200, Count: 10, Seq: 2, Kind: 2}}},
		{2, 2, []Hole{{Addr: 50, Count: 10, Seq: 3, Kind: 2}, {Addr: 90, Count: 20, Seq: 4, Kind: 1}}},
		{4, 10, nil},
	} {
		if got := Flatten(o.HolesAbove(x.above, x.enough)); !slices.Equal(got, x.want) {
			t.Errorf("%d holes above %d: %v, want %v", x.enough, x.above, got, x.want)
		}
	}
}
