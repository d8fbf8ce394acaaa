package pagemap

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"vstor/dataplane/errs"
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

func TestVictims(t *testing.T) {
	r := newRig(t, memDB(t), Options{Size: 1 << 20})
	a := r.put(0, 1, 2, 3)
	b := r.put(10, 11, 12, 13)
	c := r.put(20, 21)
	r.put(0, 1, 2, 10, 20)
	if v := r.Victims(nil, 3); len(v) != 0 {
		t.Fatalf("victims %v before the checkpoint", v)
	}
	r.mustFlush()
	var got []ids.SCONum
	for _, v := range r.Victims(nil, 5) {
		got = append(got, v.Num)
	}
	if !slices.Equal(got, []ids.SCONum{a, c, b}) {
		t.Fatalf("victims %v", got)
	}
	if v := r.Victims(nil, 1); len(v) != 1 || v[0].Num != a || v[0].Live != 1 {
		t.Fatalf("%v", v)
	}
}

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

// corrupt flips a bit of the stored page.
func corrupt(t testing.TB, db *DB, id MapID, p PageNo) (heal func()) {
	k := key(id, tablePage, uint64(p))
	v, c, err := db.p.Get(k)
	if err != nil {
		t.Fatal(err)
	}
	good, bad := slices.Clone(v), slices.Clone(v)
	c.Close()
	bad[40] ^= 4
	if err := db.p.Set(k, bad, pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := db.p.Set(k, good, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCorruptPage(t *testing.T) {
	db := memDB(t)
	r := newRig(t, db, Options{Size: 1 << 20})
	old := r.put(0, 1, 256, 512)
	r.mustFlush()
	heal := corrupt(t, db, 7, 1)
	r = newRig(t, db, Options{})
	if err := r.load(1); errs.Of(err) != errs.Corrupt {
		t.Fatalf("load: %v", err)
	}
	n := r.put(0, 257, 513)
	if err := r.flush(); errs.Of(err) != errs.Corrupt {
		t.Fatalf("flush: %v", err)
	}
	r.check(t)
	if r.Stats().Deltas != 1 {
		t.Fatalf("%d deltas left, want the one of the corrupt page", r.Stats().Deltas)
	}
	if ck, _ := r.Checkpoint(); ck.Commit != 1 {
		t.Fatalf("checkpoint %d passed a page that was not merged", ck.Commit)
	}
	if loc, ok := r.Lookup(257); !ok || loc.SCO != n {
		t.Fatal("delta over a corrupt base is lost")
	}
	var byName error
	r.FlushPages([]PageNo{1, 1}, func(err error) { byName = err })
	r.loop.settle()
	if errs.Of(byName) != errs.Corrupt {
		t.Fatalf("FlushPages: %v", byName)
	}
	heal()
	r.mustFlush()
	if r.live(old) != 3 || r.live(n) != 3 {
		t.Fatalf("live %d and %d", r.live(old), r.live(n))
	}
	if ck, durable := r.Checkpoint(); ck.Commit != 2 || durable != 2 {
		t.Fatalf("checkpoint %d, durable %d", ck.Commit, durable)
	}
}

// TestFlushFails: a batch that cannot be read for changes nothing, and the next attempt goes through.
func TestFlushFails(t *testing.T) {
	var broken sync.Map
	inj := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if _, on := broken.Load("reads"); on && op.Kind == errorfs.OpFileReadAt {
			return errorfs.ErrInjected
		}
		return nil
	})
	cache := pebble.NewCache(0)
	defer cache.Unref()
	db, err := OpenDB("maps", DBOptions{FS: errorfs.Wrap(vfs.NewMem(), inj), Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r := newRig(t, db, Options{Size: 1 << 20})
	a := r.put(0, 256, 512)
	r.mustFlush()
	r = newRig(t, db, Options{})
	b := r.put(0, 257)
	r.trim(512, 1, layout.OffZero)
	broken.Store("reads", true)
	if err := r.flush(); errs.Of(err) != errs.IO {
		t.Fatalf("flush: %v", err)
	}
	if err := r.load(2); errs.Of(err) != errs.IO {
		t.Fatalf("load: %v", err)
	}
	r.check(t)
	if ck, _ := r.Checkpoint(); ck.Commit != 1 || r.Stats().Deltas != 3 {
		t.Fatalf("checkpoint %d, %d deltas", ck.Commit, r.Stats().Deltas)
	}
	broken.Delete("reads")
	r.mustFlush()
	if r.live(a) != 1 || r.live(b) != 2 {
		t.Fatalf("live %d and %d", r.live(a), r.live(b))
	}
}

func TestLoadBounds(t *testing.T) {
	r := newRig(t, memDB(t), Options{Size: 1 << 20, LoadsMax: 3, Loaders: 1})
	r.put(0)
	r.mustFlush()
	r = newRig(t, r.db, Options{LoadsMax: 3, Loaders: 1})
	var got []errs.Kind
	for p := range PageNo(6) {
		r.Load(p, func(err error) { got = append(got, errs.Of(err)) })
		r.Load(p, func(err error) { got = append(got, errs.Of(err)) })
	}
	r.loop.settle()
	busy := 0
	for _, k := range got {
		if k == errs.Busy {
			busy++
		}
	}
	if len(got) != 12 || busy != 4 {
		t.Fatalf("answers %v", got)
	}
	if s := r.Stats(); s.PagesLoaded != 4 {
		t.Fatalf("%d pages read for 4 wanted twice", s.PagesLoaded)
	}
	got = nil
	r.Load(8, func(err error) { got = append(got, errs.Of(err)) })
	r.Close(func() { got = append(got, errs.OK) })
	r.loop.settle()
	if !slices.Equal(got, []errs.Kind{errs.Closed, errs.OK}) {
		t.Fatalf("answers at close %v", got)
	}
}

func TestOpenRefuses(t *testing.T) {
	db := memDB(t)
	for _, o := range []Options{{}, {ID: 1}, {ID: 1, Size: SizeMax + 1, Budget: NewBudget(1), Poster: &fakeLoop{}},
		{ID: 1, Budget: NewBudget(1), Poster: &fakeLoop{}, RedoMax: 1}} {
		if _, _, err := db.Open(o); errs.Of(err) != errs.Invalid {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := OpenDB("x", DBOptions{FS: vfs.NewMem(), MemTable: 5}); errs.Of(err) != errs.Invalid {
		t.Errorf("memtable of 5 bytes: %v", err)
	}
	newer := seal(appendFrame(nil, magicDB, 0, 0, 0))
	newer[8] = version + 1
	if err := db.p.Set(key(0, tableDB, 0), seal(newer), pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	if err := db.checkHeader(); errs.Of(err) != errs.Version {
		t.Errorf("a newer database: %v", err)
	}
}

func TestDropMap(t *testing.T) {
	db := memDB(t)
	for id := range MapID(3) {
		r := newRig(t, db, Options{ID: id + 1, Size: 1 << 20})
		r.put(5, 500)
		r.mustFlush()
	}
	if err := db.DropMap(2); err != nil {
		t.Fatal(err)
	}
	for id, want := range []int{1, 0, 1} {
		r := newRig(t, db, Options{ID: MapID(id + 1), Size: 1 << 20})
		if s := r.Stats(); s.SCOs != want {
			t.Errorf("map %d has %d SCOs, want %d", id+1, s.SCOs, want)
		}
	}
}

// TestTickets: with one batch at a time over two maps, both get through, also when one closes waiting.
func TestTickets(t *testing.T) {
	db, err := OpenDB("maps", DBOptions{FS: vfs.NewMem(), Flushers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	a := newRig(t, db, Options{ID: 1, Size: 1 << 20})
	b := newRig(t, db, Options{ID: 2, Size: 1 << 20})
	c := newRig(t, db, Options{ID: 3, Size: 1 << 20})
	done := 0
	for _, r := range []*rig{a, b, c} {
		r.put(1, 2, 3)
		r.FlushAll(func(err error) { done++ })
	}
	b.Close(func() { done += 10 })
	for range 5 {
		c.loop.settle()
		b.loop.settle()
		a.loop.settle()
	}
	if done != 13 {
		t.Fatalf("%d", done)
	}
	if db.tickets.free != 1 || len(db.tickets.waiting) != 0 {
		t.Fatalf("tickets: %d free, %d wait", db.tickets.free, len(db.tickets.waiting))
	}
}

// TestGoroutines runs a map on a loop of real goroutines, for the race detector.
func TestGoroutines(t *testing.T) {
	loop := make(chanLoop, 64)
	budget := NewBudget(600 << 10)
	m, _, err := memDB(t).Open(Options{ID: 1, Size: 1 << 20, Budget: budget, Poster: loop,
		RedoMax: 4, PagesPerFlush: 32})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 3))
	want := map[ids.BlockAddr]ids.SCONum{}
	for c := ids.CommitNum(1); c <= 60; c++ {
		e := make([]Entry, 0, 500)
		m.AddSCO(SCO{Num: ids.SCONum(c), Commit: c, Blocks: 500})
		for range 500 {
			a := ids.BlockAddr(rng.IntN(1 << 20))
			e = append(e, Entry{Addr: a})
			want[a] = ids.SCONum(c)
		}
		m.Apply(c, ids.SCONum(c), e)
		m.Commit(c, ids.Seq(c))
		m.Load(PageOf(e[0].Addr), func(error) {})
		loop.drain()
	}
	left := len(want)
	for a, n := range want {
		m.Load(PageOf(a), func(err error) {
			if loc, ok := m.Lookup(a); err != nil || !ok || loc.SCO != n {
				t.Errorf("block %d: %v %v %v, want SCO %d", a, loc, ok, err, n)
			}
			left--
		})
		loop.drain()
	}
	for left > 0 {
		(<-loop)()
	}
	closed := false
	m.FlushAll(func(err error) {
		if err != nil {
			t.Error(err)
		}
		m.Close(func() { closed = true })
	})
	for !closed {
		(<-loop)()
	}
}

type chanLoop chan func()

func (l chanLoop) PostFunc(f func()) { l <- f }

func (l chanLoop) drain() {
	for {
		select {
		case f := <-l:
			f()
		default:
			return
		}
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	r := newRig(t, memDB(t), Options{Size: 1 << 20})
	r.put(1, 2, 300)
	r.mustFlush()
	r.put(2, 70000)
	dst := make([]layout.Location, 700)
	if n := testing.AllocsPerRun(100, func() {
		r.Lookup(1)
		r.Lookup(2)
		r.Lookup(70000)
		r.Lookup(1<<20 - 1)
		r.LookupRange(0, dst)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestApplyAllocatesLittle: once nodes and slots exist, applying allocates nothing.
func TestApplyAllocatesLittle(t *testing.T) {
	r := newRig(t, memDB(t), Options{Size: 1 << 20})
	n := r.put(1, 2, 300)
	c := r.c + 1
	e := []Entry{{Addr: 1}, {Addr: 2, Off: 1}, {Addr: 300, Off: 2}}
	if a := testing.AllocsPerRun(100, func() { r.Apply(c, n, e) }); a != 0 {
		t.Errorf("%v allocations", a)
	}
}

func BenchmarkLookup(b *testing.B) {
	const size = 1 << 22 // 16 GiB
	r := newRig(b, memDB(b), Options{Size: size, Budget: NewBudget(256 << 20)})
	w := writer{m: r.Map, loop: r.loop, size: size, rng: rand.New(rand.NewPCG(1, 2)), perSCO: 16300}
	w.fill()
	for p := range PageNo(size / PageBlocks) {
		r.load(p)
	}
	for range 100 {
		w.write()
	}
	addrs := make([]ids.BlockAddr, 1<<16)
	for i := range addrs {
		addrs[i] = ids.BlockAddr(w.rng.IntN(size))
	}
	b.ReportAllocs()
	b.ResetTimer()
	hits := 0
	for i := range b.N {
		if _, ok := r.Lookup(addrs[i&(1<<16-1)]); ok {
			hits++
		}
	}
	b.ReportMetric(float64(hits)/float64(b.N), "hits")
}

// BenchmarkApply16k applies a SCO of random blocks of a 100 GiB vDisk; ns/block counts Apply and Commit
// alone, write back included where it falls on the loop.
func BenchmarkApply16k(b *testing.B) {
	const size = 100 << 30 / 4096
	r := newRig(b, memDB(b), Options{Size: size, Budget: NewBudget(64 << 20)})
	w := writer{m: r.Map, loop: r.loop, size: size, rng: rand.New(rand.NewPCG(1, 2)), perSCO: 16300}
	for range 200 {
		w.write()
	}
	w.total, w.n, w.slowest = 0, 0, 0
	b.ResetTimer()
	for range b.N {
		w.write()
	}
	b.ReportMetric(float64(w.total.Nanoseconds())/float64(w.n*w.perSCO), "ns/block")
	b.ReportMetric(float64(w.slowest)/float64(time.Millisecond), "slowest-ms")
}

func BenchmarkPage(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	var p Page
	for i := range p.Locs {
		p.Locs[i] = randomLocation(rng)
	}
	buf := p.Append(nil)
	b.Run("Append", func(b *testing.B) {
		for range b.N {
			buf = p.Append(buf[:0])
		}
	})
	b.Run("Parse", func(b *testing.B) {
		for range b.N {
			if err := ParsePage(buf, &p); err != nil {
				b.Fatal(err)
			}
		}
	})
}
