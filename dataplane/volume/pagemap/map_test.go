package pagemap

import (
	"errors"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// rig is a map on a loop of the test's own.
type rig struct {
	*Map
	t    testing.TB
	db   *DB
	loop *fakeLoop
	c    ids.CommitNum
}

func newRig(t testing.TB, db *DB, o Options) *rig {
	t.Helper()
	r := &rig{t: t, db: db, loop: &fakeLoop{}}
	if o.Budget == nil {
		o.Budget = NewBudget(16 << 20)
	}
	if o.ID == 0 {
		o.ID = 7
	}
	o.Poster, o.Spawn = r.loop, r.loop.spawn
	m, ck, err := db.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	r.Map, r.c = m, ck.Commit
	return r
}

// put commits a SCO of the given blocks and returns its number.
func (r *rig) put(addrs ...ids.BlockAddr) ids.SCONum {
	r.c++
	n := ids.SCONum(r.c)
	var e []Entry
	for i, a := range addrs {
		e = append(e, Entry{Addr: a, Off: uint16(i), Sum: uint32(a)})
	}
	r.AddSCO(SCO{Num: n, Commit: r.c, Blocks: uint32(len(e)), First: ids.Seq(r.c), Last: ids.Seq(r.c)})
	r.Apply(r.c, n, e)
	r.Commit(r.c, ids.Seq(r.c))
	return n
}

func (r *rig) trim(from ids.BlockAddr, count uint64, kind uint16) {
	r.c++
	r.ApplyTrim(r.c, from, count, kind)
	r.Commit(r.c, ids.Seq(r.c))
}

func (r *rig) flush() error {
	err := errors.New("FlushAll did not answer")
	r.FlushAll(func(e error) { err = e })
	r.loop.settle()
	return err
}

func (r *rig) load(p PageNo) error {
	err := errors.New("Load did not answer")
	r.Load(p, func(e error) { err = e })
	r.loop.settle()
	return err
}

func (r *rig) mustFlush() {
	r.t.Helper()
	if err := r.flush(); err != nil {
		r.t.Fatal(err)
	}
	r.check(r.t)
}

func (r *rig) live(n ids.SCONum) int {
	l, _ := r.Live(n)
	return l
}

func TestReopenReplaysNothing(t *testing.T) {
	db := memDB(t)
	r := newRig(t, db, Options{Size: 1 << 20})
	if loc, ok := r.Lookup(5); !ok || !loc.Hole() {
		t.Fatal("a new map does not know that it is empty")
	}
	sco := r.put(1, 2, 1<<20-1)
	r.mustFlush()
	r = newRig(t, db, Options{})
	ck, durable := r.Checkpoint()
	if want := (Checkpoint{Commit: 1, Seq: 1, Size: 1 << 20}); ck != want || durable != 1 {
		t.Fatalf("checkpoint %+v durable %d, want %+v", ck, durable, want)
	}
	if _, ok := r.Lookup(1); ok {
		t.Fatal("Open has read pages")
	}
	if err := r.load(0); err != nil {
		t.Fatal(err)
	}
	if loc, ok := r.Lookup(2); !ok || loc != (layout.Location{SCO: sco, Off: 1, Sum: 2}) {
		t.Fatalf("%v %v", loc, ok)
	}
	if r.live(sco) != 3 {
		t.Fatalf("%d live", r.live(sco))
	}
}

// TestTrimTerabyte: a trim of 1 TiB of never-written and of written pages costs RAM by ranges.
func TestTrimTerabyte(t *testing.T) {
	db := memDB(t)
	r := newRig(t, db, Options{Size: 1 << 30}) // 4 TiB
	var addrs []ids.BlockAddr
	for i := range ids.BlockAddr(3000) {
		addrs = append(addrs, i*99991)
	}
	sco := r.put(addrs...)
	r.mustFlush()
	r = newRig(t, db, Options{}) // nothing in RAM
	before := r.Stats()
	r.trim(1000, 1<<28, layout.OffTrimmed)
	s := r.Stats()
	if grown := s.NodeBytes - before.NodeBytes; grown > 200<<10 || s.Deltas > 2*PageBlocks {
		t.Fatalf("1 TiB of trim takes %d bytes and %d deltas", grown, s.Deltas)
	}
	if loc, ok := r.Lookup(1000 + 1<<28 - 1); !ok || loc.Off != layout.OffTrimmed {
		t.Fatalf("last block %v %v", loc, ok)
	}
	if _, ok := r.Lookup(1000 + 1<<28); ok {
		t.Fatal("the block behind is said to be known")
	}
	over := r.put(77777) // into the range while it is not flushed
	r.mustFlush()
	want := 0
	for _, a := range addrs {
		if a < 1000 || a >= 1000+1<<28 {
			want++
		}
	}
	if r.live(sco) != want || r.live(over) != 1 {
		t.Fatalf("%d and %d blocks live, want %d and 1", r.live(sco), r.live(over), want)
	}
	s = r.Stats()
	r.trim(1000, 80000, layout.OffTrimmed) // holes already, but for one block
	if d := r.Stats(); d.DirtyUnits > 3 {
		t.Fatalf("trim of holes makes %d units dirty", d.DirtyUnits)
	}
	r.mustFlush()
	if r.live(over) != 0 {
		t.Fatal("trimmed block still counted")
	}
}

func TestEmptyOnlyWhenDurable(t *testing.T) {
	fs := vfs.NewCrashableMem()
	db, err := OpenDB("maps", DBOptions{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	called := 0
	r := newRig(t, db, Options{Size: 1 << 20, OnEmpty: func() { called++ }})
	a := r.put(1, 2, 300)
	r.mustFlush()
	b := r.put(1, 2, 300)
	if r.live(a) != 3 || r.live(b) != 3 {
		t.Fatalf("live %d and %d: hidden blocks must count until they are flushed", r.live(a), r.live(b))
	}
	if got := r.TakeEmpty(nil); len(got) > 0 {
		t.Fatalf("%v is empty before a flush", got)
	}
	r.FlushAll(func(error) {})
	for range 20 { // up to the batch, not the sync
		if len(r.loop.tasks) > 0 && r.Stats().Batches < 2 {
			r.loop.task(0)
		}
		if len(r.loop.posts) > 0 {
			r.loop.post()
		}
	}
	if r.live(a) != 0 {
		t.Fatalf("live %d after the batch", r.live(a))
	}
	if got := r.TakeEmpty(nil); len(got) > 0 {
		t.Fatalf("%v given away before the sync", got)
	}
	r.loop.settle()
	if got := r.TakeEmpty(nil); !slices.Equal(got, []ids.SCONum{a}) || called == 0 {
		t.Fatalf("empty %v, OnEmpty called %d times", got, called)
	}
	// Until RemoveSCO the next Open gives it again.
	clone, err := OpenDB("maps", DBOptions{FS: fs.CrashClone(vfs.CrashCloneCfg{})})
	if err != nil {
		t.Fatal(err)
	}
	defer clone.Close()
	if got := newRig(t, clone, Options{}).TakeEmpty(nil); !slices.Equal(got, []ids.SCONum{a}) {
		t.Fatalf("empty after a restart: %v", got)
	}
	r.RemoveSCO(a)
	r.mustFlush()
	if _, ok := newRig(t, db, Options{}).Live(a); ok {
		t.Fatal("removed SCO is back")
	}
}

func TestTrimOnlySCOIsEmpty(t *testing.T) {
	r := newRig(t, memDB(t), Options{Size: 1 << 20})
	n := r.put()
	r.mustFlush()
	if got := r.TakeEmpty(nil); !slices.Equal(got, []ids.SCONum{n}) {
		t.Fatalf("empty: %v", got)
	}
}

// TestFull: a budget that is too small says so, and lets go once write back made room.
func TestFull(t *testing.T) {
	r := newRig(t, memDB(t), Options{Size: 1 << 20, Budget: NewBudget(80 << 10)})
	var addrs []ids.BlockAddr
	for a := ids.BlockAddr(0); a < 20*PageBlocks; a++ {
		addrs = append(addrs, a)
	}
	r.put(addrs...)
	if !r.Full() {
		t.Fatalf("%d bytes used of %d, and not Full", r.opts.Budget.Used(), r.opts.Budget.Limit())
	}
	called := false
	r.WhenRoom(func() { called = !r.Full() })
	if called {
		t.Fatal("WhenRoom called back at once")
	}
	r.loop.settle()
	if !called || r.Full() {
		t.Fatalf("called %v, Full %v", called, r.Full())
	}
	r.check(t)
}

// TestIdleMapsMakeRoom: a map that has filled the budget with pages, and is idle since, does not keep another
// from taking commits, and gives the room back.
func TestIdleMapsMakeRoom(t *testing.T) {
	db, b := memDB(t), NewBudget(8<<20)
	idle := newRig(t, db, Options{ID: 1, Size: 1 << 22, Budget: b})
	for i := range ids.BlockAddr(3000) {
		idle.put(i * PageBlocks)
	}
	if err := idle.flush(); err != nil {
		t.Fatal(err)
	}
	for p := range PageNo(3000) {
		if err := idle.load(p); err != nil {
			t.Fatal(err)
		}
	}
	if b.Used() < b.Limit()-baseBytes {
		t.Fatalf("%d bytes of %d used", b.Used(), b.Limit())
	}
	r := newRig(t, db, Options{ID: 2, Size: 1 << 22, Budget: b})
	for i := range ids.BlockAddr(20000) {
		for n := 0; r.Full() && n < 1000; n++ {
			r.WhenRoom(func() {})
			for len(r.loop.tasks)+len(r.loop.posts) > 0 && r.Full() {
				for len(r.loop.posts) > 0 {
					r.loop.post()
				}
				if len(r.loop.tasks) > 0 {
					r.loop.task(0)
				}
				idle.loop.settle()
			}
		}
		if r.Full() {
			t.Fatalf("no room for commit %d: %+v of %d", i, r.Stats(), b.Used())
		}
		r.put(i * 64)
		if i%100 == 0 { // the loops run, now and then
			r.loop.settle()
			idle.loop.settle()
		}
	}
	r.loop.settle()
	idle.loop.settle()
	if b.Used() > b.Limit() {
		t.Errorf("%d bytes used of %d", b.Used(), b.Limit())
	}
}

func TestVictims(t *testing.T) {
	r := newRig(t, memDB(t), Options{Size: 1 << 20})
	a := r.put(0, 1, 2, 3)
	b := r.put(10, 11, 12, 13)
	c := r.put(20, 21)
	r.put(0, 1, 2, 10, 20)
	if v := r.Victims(nil, 3, noSkip); len(v) != 0 {
		t.Fatalf("victims %v before the checkpoint", v)
	}
	r.mustFlush()
	var got []ids.SCONum
	for _, v := range r.Victims(nil, 5, noSkip) {
		got = append(got, v.Num)
	}
	if !slices.Equal(got, []ids.SCONum{a, c, b}) {
		t.Fatalf("victims %v", got)
	}
	if v := r.Victims(nil, 1, noSkip); len(v) != 1 || v[0].Num != a || v[0].Live != 1 {
		t.Fatalf("%v", v)
	}
	if v := r.Victims(nil, 1, func(n ids.SCONum) bool { return n == a }); len(v) != 1 || v[0].Num != c {
		t.Fatalf("%v, though %d was to be skipped", v, a)
	}
}

func noSkip(ids.SCONum) bool { return false }

func TestForeignNamespaceIsNotCounted(t *testing.T) {
	r := newRig(t, memDB(t), Options{Size: 1 << 20, NS: 3})
	n := r.put(1)
	if loc, _ := r.Lookup(1); loc.NS != 3 {
		t.Fatalf("%v", loc)
	}
	r.mustFlush()
	if r.live(n) != 1 {
		t.Fatal("own namespace not counted")
	}
}

// TestAbsentRuns: one load tells of all pages up to the next that has a record, and HoleRun says so; what is
// written into the run while the load is under way is not taken for absent.
func TestAbsentRuns(t *testing.T) {
	const size = ids.BlockAddr(1) << 34 // 64 TiB
	db := memDB(t)
	r := newRig(t, db, Options{Size: size})
	far := 5*midPages + 40*leafPages + 7
	r.put(3, ids.BlockAddr(far)*PageBlocks)
	r.mustFlush()

	r = newRig(t, db, Options{})
	if err := r.load(1); err != nil {
		t.Fatal(err)
	}
	r.check(t)
	known := 0
	for p := PageNo(1); p < PageOf(size); {
		kind, pages, ok := r.HoleRun(p)
		if !ok {
			if p != 5*midPages && p < PageNo(far) {
				t.Fatalf("page %d of an empty stretch is not known", p)
			}
			break
		}
		if kind != layout.OffUnmapped {
			t.Fatalf("page %d is a hole of kind %d", p, kind)
		}
		p += PageNo(pages)
		known++
	}
	if err := r.load(PageNo(far) + 1); err != nil {
		t.Fatal(err)
	}
	if _, pages, ok := r.HoleRun(PageOf(size) - midPages); !ok || pages != midPages {
		t.Error("the end of the vDisk is not known after a load behind its last page")
	}
	if s := r.Stats(); s.PagesLoaded != 2 || s.NodeBytes > 200<<10 || known > 3*midLeaves {
		t.Errorf("%d pages loaded, %d bytes of nodes, %d runs", s.PagesLoaded, s.NodeBytes, known)
	}
	if r.Resident(0) || r.Resident(PageNo(far)) {
		t.Error("a page that is there is said to be known")
	}
}

// TestAbsentRace: a page is written back, and its node dropped, between the look into the database and the
// answer.
func TestAbsentRace(t *testing.T) {
	db := memDB(t)
	r := newRig(t, db, Options{Size: 1 << 20})
	r.put(3)
	r.mustFlush()
	r = newRig(t, db, Options{})
	r.Load(1, func(error) {})
	r.loop.task(0) // it has read: nothing behind page 1
	answer := r.loop.posts
	r.loop.posts = nil
	at := ids.BlockAddr(100*leafPages) * PageBlocks
	sco := r.put(at)
	r.mustFlush()
	if s, _ := r.find(PageOf(at)); s.n != nil {
		r.dropBase(s.n, s.ms)
	}
	for range 1000 {
		r.reclaimLeaves()
	}
	if r.Resident(PageOf(at)) {
		t.Fatal("the test is to drop the node")
	}
	r.loop.posts = append(r.loop.posts, answer...)
	r.loop.settle()
	r.check(t)
	if err := r.load(PageOf(at)); err != nil {
		t.Fatal(err)
	}
	if loc, ok := r.Lookup(at); !ok || loc.SCO != sco {
		t.Fatalf("%v %v", loc, ok)
	}
}
