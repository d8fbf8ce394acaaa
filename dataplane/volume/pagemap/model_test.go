package pagemap

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

var (
	modelSeed  = flag.Int64("model.seed", 0, "run the model test with this seed alone")
	modelSeeds = flag.Int("model.seeds", 10, "seeds of the model test")
)

// step is one commit of the history, as its SCO's index would have it.
type step struct {
	sco     SCO
	trims   []trim
	entries []Entry
	moves   []Move
}

type trim struct {
	from  ids.BlockAddr
	count uint64
	kind  uint16
}

// model is a map as a Go map, and the history that made it.
type model struct {
	t      *testing.T
	rng    *rand.Rand
	blocks map[ids.BlockAddr]layout.Location
	hist   []step // commit i+1
	gone   map[ids.SCONum]bool
	next   ids.SCONum
	size   ids.BlockAddr
	opts   Options

	fs   *vfs.MemFS
	db   *DB
	loop *fakeLoop
	m    *Map
	held []Move // moves chosen earlier: what they saw may be old by now
}

func (o *model) open() {
	var err error
	if o.db == nil {
		if o.db, err = OpenDB("maps", DBOptions{FS: o.fs, Flushers: 1 + o.rng.IntN(2)}); err != nil {
			o.t.Fatal(err)
		}
	}
	o.loop = &fakeLoop{}
	opts := o.opts
	opts.Budget = NewBudget([]int64{0, 100 << 10, 300 << 10, 4 << 20}[o.rng.IntN(4)])
	opts.Poster, opts.Spawn = o.loop, o.loop.spawn
	m, ck, err := o.db.Open(opts)
	if err != nil {
		o.t.Fatal(err)
	}
	o.m = m
	if int(ck.Commit) > len(o.hist) {
		o.t.Fatalf("checkpoint %d, history has %d", ck.Commit, len(o.hist))
	}
	for c := int(ck.Commit); c < len(o.hist); c++ {
		s := &o.hist[c]
		if o.gone[s.sco.Num] {
			o.t.Fatalf("SCO %d of commit %d is deleted, checkpoint %d needs it", s.sco.Num, c+1, ck.Commit)
		}
		o.apply(ids.CommitNum(c+1), s)
	}
	o.m.check(o.t)
}

// apply hands a step to the map, in pieces, with other work in between.
func (o *model) apply(c ids.CommitNum, s *step) {
	o.m.AddSCO(s.sco)
	for _, t := range s.trims {
		o.m.ApplyTrim(c, t.from, t.count, t.kind)
		o.some()
	}
	for e := s.entries; len(e) > 0; {
		n := 1 + o.rng.IntN(len(e))
		o.m.Apply(c, s.sco.Num, e[:n])
		e = e[n:]
		o.some()
	}
	for v := s.moves; len(v) > 0; {
		n, need := o.m.ApplyMoves(c, s.sco.Num, v, make([]PageNo, 0, 1+o.rng.IntN(9)))
		v = v[n:]
		if len(v) > 0 && len(need) == 0 {
			o.t.Fatal("ApplyMoves stopped and needs nothing")
		}
		v = o.loadAndMove(c, s.sco.Num, v, need)
	}
	o.m.Commit(c, s.sco.Last)
}

// loadAndMove loads the pages, others too, and settles at least one move then.
func (o *model) loadAndMove(c ids.CommitNum, sco ids.SCONum, v []Move, need []PageNo) []Move {
	for round := 0; len(need) > 0; round++ {
		if round == 2 {
			o.t.Fatalf("pages %v were loaded twice and no move is settled", need)
		}
		o.loadAll(need)
		n := 0
		if n, need = o.m.ApplyMoves(c, sco, v, need[:0]); n > 0 {
			return v[n:]
		}
	}
	return v
}

func (o *model) loadAll(need []PageNo) {
	for _, p := range need {
		o.m.Load(p, func(err error) {
			if err != nil {
				o.t.Fatal(err)
			}
		})
		o.m.Load(PageOf(o.addr()), func(error) {})
	}
	o.loop.settle()
}

// some lets a little of the work under way happen.
func (o *model) some() {
	for o.rng.IntN(3) > 0 {
		if n := len(o.loop.tasks); n > 0 && o.rng.IntN(2) == 0 {
			o.loop.task(o.rng.IntN(n))
		} else if len(o.loop.posts) > 0 {
			o.loop.post()
		}
	}
}

// addr picks one of few places, so that things meet.
func (o *model) addr() ids.BlockAddr {
	places := []ids.BlockAddr{0, 3 * PageBlocks, 40 * PageBlocks, leafPages*PageBlocks*5 - 3,
		midPages*PageBlocks - 70, midPages * PageBlocks, midPages*PageBlocks + 900, 2*midPages*PageBlocks + 12345}
	return min(places[o.rng.IntN(len(places))]+ids.BlockAddr(o.rng.IntN(700)), o.size-1)
}

func (o *model) newSCO(blocks int) SCO {
	o.next++
	if o.rng.IntN(20) == 0 {
		o.next += 300 // a new range
	}
	first := ids.Seq(len(o.hist)*10 + 1)
	return SCO{Num: o.next, Commit: ids.CommitNum(len(o.hist) + 1), Blocks: uint32(blocks),
		First: first, Last: first + 9}
}

func (o *model) write() step {
	set := map[ids.BlockAddr]bool{}
	if o.rng.IntN(3) == 0 { // a run
		a := o.addr()
		for i := range ids.BlockAddr(o.rng.IntN(900)) {
			set[min(a+i, o.size-1)] = true
		}
	}
	for range o.rng.IntN(60) {
		set[o.addr()] = true
	}
	s := step{}
	for i, a := range slices.Sorted(maps.Keys(set)) {
		s.entries = append(s.entries, Entry{Addr: a, Off: uint16(i), Sum: o.rng.Uint32()})
	}
	for range o.rng.IntN(3) {
		from := o.addr()
		if o.rng.IntN(2) == 0 {
			from &^= PageBlocks - 1
		}
		n := []int64{1, 300, 3 * PageBlocks, 50 * PageBlocks, 70 * PageBlocks * leafPages,
			midPages * PageBlocks, 3 * midPages * PageBlocks}[o.rng.IntN(7)]
		n = min(1+o.rng.Int64N(n), int64(o.size-from))
		if o.rng.IntN(4) == 0 {
			n = int64(o.size - from)
		}
		kind := uint16(o.rng.IntN(3))
		if n > 10000*PageBlocks && o.rng.IntN(20) > 0 {
			kind = layout.OffUnmapped // the others may cost a record per page: seldom so many
		}
		s.trims = append(s.trims, trim{from, uint64(n), kind})
	}
	s.sco = o.newSCO(len(s.entries))
	return s
}

func (o *model) clean() step {
	v := o.held
	o.held = nil
	for i := range v {
		v[i].Off = uint16(i)
	}
	return step{sco: o.newSCO(len(v)), moves: v}
}

// pickMoves remembers some blocks, to be moved later.
func (o *model) pickMoves() {
	for _, a := range o.sorted() {
		l := o.blocks[a]
		if l.SCO != 0 && o.rng.IntN(4) == 0 {
			o.held = append(o.held, Move{Addr: a, Old: l})
		}
		if len(o.held) > 400 {
			break
		}
	}
	slices.SortStableFunc(o.held, func(a, b Move) int { return int(int64(a.Addr) - int64(b.Addr)) })
	o.held = slices.CompactFunc(o.held, func(a, b Move) bool { return a.Addr == b.Addr })
}

// commit applies a step to the model and the map.
func (o *model) commit(s step) {
	o.hist = append(o.hist, s)
	for _, t := range s.trims {
		for a := range o.blocks {
			if a >= t.from && a < t.from+ids.BlockAddr(t.count) {
				delete(o.blocks, a)
			}
		}
		// Whatever is not in blocks is read as a hole of some kind: only pages with blocks are compared.
		for a := t.from; a < t.from+ids.BlockAddr(t.count) && a < t.from+2000; a++ {
			o.blocks[a] = layout.Location{Off: t.kind}
		}
	}
	for _, e := range s.entries {
		o.blocks[e.Addr] = layout.Location{SCO: s.sco.Num, Off: e.Off, Sum: e.Sum}
	}
	for _, v := range s.moves {
		if o.blocks[v.Addr] == v.Old {
			o.blocks[v.Addr] = layout.Location{SCO: s.sco.Num, Off: v.Off, Sum: v.Old.Sum}
		}
	}
	o.apply(ids.CommitNum(len(o.hist)), &o.hist[len(o.hist)-1])
}

func (o *model) crash() {
	fs := o.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: o.rng.IntN(101), RNG: o.rng})
	_, durable := o.m.Checkpoint()
	o.loop.tasks = nil // what was under way never happens
	o.db.Close()
	o.fs, o.db = fs, nil
	o.open()
	if ck, _ := o.m.Checkpoint(); ck.Commit < durable && len(o.hist) > 0 {
		o.t.Fatalf("checkpoint %d after a crash, %d was durable", ck.Commit, durable)
	}
}

func (o *model) same(got, want layout.Location) bool {
	if !o.opts.Tombstones && got.Hole() && want.Hole() {
		return (got.Off == layout.OffZero) == (want.Off == layout.OffZero)
	}
	return got == want
}

// compare reads every block of the model through the map.
func (o *model) compare(all bool) {
	for _, a := range o.sorted() {
		want := o.blocks[a]
		if !all && o.rng.IntN(50) > 0 {
			continue
		}
		got, ok := o.m.Lookup(a)
		if !ok {
			called := false
			o.m.Load(PageOf(a), func(err error) {
				called = true
				if err != nil {
					o.t.Fatal(err)
				}
				if got, ok = o.m.Lookup(a); !ok {
					o.t.Fatalf("block %d missing in the callback of its Load", a)
				}
			})
			for !called {
				o.step()
			}
		}
		if !o.same(got, want) {
			o.t.Fatalf("block %d (page %d): %v, want %v", a, PageOf(a), got, want)
		}
		o.compareRange(a)
	}
}

func (o *model) step() {
	if len(o.loop.posts) > 0 {
		o.loop.post()
	} else {
		o.loop.task(o.rng.IntN(len(o.loop.tasks)))
	}
}

func (o *model) compareRange(a ids.BlockAddr) {
	dst := make([]layout.Location, 1+o.rng.IntN(600))
	n := o.m.LookupRange(a, dst)
	for i, got := range dst[:n] {
		if one, ok := o.m.Lookup(a + ids.BlockAddr(i)); !ok || one != got {
			o.t.Fatalf("block %d+%d: range says %v, Lookup %v %v", a, i, got, one, ok)
		}
	}
	if n < len(dst) {
		if _, ok := o.m.Lookup(a + ids.BlockAddr(n)); ok {
			o.t.Fatalf("range from %d stopped at %d, which is there", a, n)
		}
	}
}

// sorted makes a seed replay the same run; what Pebble does in the background differs all the same.
func (o *model) sorted() []ids.BlockAddr { return slices.Sorted(maps.Keys(o.blocks)) }

func (o *model) counts() map[ids.SCONum]int {
	c := map[ids.SCONum]int{}
	for _, l := range o.blocks {
		if l.SCO != 0 {
			c[l.SCO]++
		}
	}
	return c
}

// empty takes dead SCOs and deletes them, as a cleaner would.
func (o *model) empty() {
	c := o.counts()
	_, durable := o.m.Checkpoint()
	for _, n := range o.m.TakeEmpty(nil) {
		if c[n] != 0 {
			o.t.Fatalf("SCO %d is said to be empty and has %d blocks", n, c[n])
		}
		i := slices.IndexFunc(o.hist, func(s step) bool { return s.sco.Num == n })
		if o.hist[i].sco.Commit > durable {
			o.t.Fatalf("SCO %d of commit %d is given away, durable is %d", n, o.hist[i].sco.Commit, durable)
		}
		o.gone[n] = true
		if o.rng.IntN(4) > 0 { // else: crash before RemoveSCO
			o.m.RemoveSCO(n)
		}
	}
}

func (o *model) flushAll() {
	var result error = fmt.Errorf("not called")
	o.m.FlushAll(func(err error) { result = err })
	o.loop.settle()
	if result != nil {
		o.t.Fatal(result)
	}
	o.m.check(o.t)
	if o.m.deltas != 0 || o.m.dirtyUnits != 0 {
		o.t.Fatalf("%d deltas and %d dirty units after FlushAll", o.m.deltas, o.m.dirtyUnits)
	}
	want := o.counts()
	o.m.EachSCO(func(s SCO, live int) bool {
		if live != want[s.Num] {
			o.t.Fatalf("SCO %d has %d live blocks, want %d", s.Num, live, want[s.Num])
		}
		delete(want, s.Num)
		return true
	})
	if len(want) > 0 {
		o.t.Fatalf("SCOs the map does not know: %v", want)
	}
}

func (o *model) act() {
	switch r := o.rng.IntN(100); {
	case r < 45:
		o.commit(o.write())
	case r < 50:
		o.pickMoves()
	case r < 56:
		o.commit(o.clean())
	case r < 70:
		o.some()
	case r < 80:
		o.compare(false)
	case r < 84:
		o.loop.settle()
	case r < 88:
		o.empty()
	case r < 91:
		o.m.FlushPages([]PageNo{PageOf(o.addr()), PageOf(o.addr())}, func(error) {})
	case r < 93:
		o.m.Sync(func(error) {})
	case r < 95:
		o.flushAll()
	case r < 97:
		closed := false
		o.m.Close(func() { closed = true })
		o.loop.settle()
		if !closed || o.m.opts.Budget.Used() != 0 {
			o.t.Fatalf("closed %v, %d bytes still counted", closed, o.m.opts.Budget.Used())
		}
		o.open()
	default:
		o.crash()
	}
	o.m.check(o.t)
}

func runModel(t *testing.T, seed int64, steps int) {
	rng := rand.New(rand.NewPCG(uint64(seed), 1))
	o := &model{t: t, rng: rng, blocks: map[ids.BlockAddr]layout.Location{}, gone: map[ids.SCONum]bool{},
		size: 3*midPages*PageBlocks - 555, fs: vfs.NewCrashableMem()}
	o.opts = Options{ID: 7, Size: o.size, Tombstones: seed%3 == 0, RedoMax: 2 + rng.IntN(30),
		PagesPerFlush: 1 + rng.IntN(40), Loaders: 1 + rng.IntN(3)}
	o.open()
	for i := range steps {
		if o.act(); t.Failed() {
			t.Fatalf("step %d", i)
		}
	}
	o.compare(true)
	o.flushAll()
	o.compare(true)
	o.crash()
	o.compare(true)
	o.flushAll()
	o.db.Close()
}

// TestModel runs random commits, loads, evictions, flushes, crashes and replays against a Go map.
func TestModel(t *testing.T) {
	if *modelSeed != 0 {
		runModel(t, *modelSeed, 300)
		return
	}
	seeds := int64(*modelSeeds)
	if testing.Short() {
		seeds = min(seeds, 2)
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed+1), func(t *testing.T) { runModel(t, seed+1, 300) })
	}
}
