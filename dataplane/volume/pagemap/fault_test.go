package pagemap

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

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
	r.put(0, 8*PageBlocks)
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
