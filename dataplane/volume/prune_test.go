package volume

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/block"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/volume/overlay"
	"vstor/dataplane/volume/sco"
)

// noClientRoom says that drives have room for nothing but what has room kept for it.
func noClientRoom(s PutSpec) bool { return s.Class == layout.ClassClient }

// tightCleaner cleans as on full drives, and soon.
func tightCleaner() *Cleaners {
	c := NewCleaners(func() int { return 95 })
	c.tick = 5 * time.Millisecond
	return c
}

// What was sealed long ago and is trimmed gives its room back though older batches of the vDisk find none; so does the
// SCO that brought the trims forward, and no trim is brought twice.
func TestTrimsPassWhatFindsNoRoom(t *testing.T) {
	r := newRig(t, 64<<20, 1<<20)
	r.do(block.Put, 0, 200)
	r.seal()
	r.objects.setFull(noClientRoom)
	for i := range ids.BlockAddr(3) {
		r.do(block.Put, 1000+1000*i, 200)
		r.loop.Call(r.v.Seal)
	}
	r.settle("SCOs find no room", func() bool { return r.v.Stats.SealRetries.Load() > 1 })
	r.v.StartCleaning(tightCleaner())
	r.do(block.Discard, 0, 100)
	r.do(block.ZeroFill, 100, 100)
	r.do(block.Put, 50, 1) // newer than the trim: it must stay
	r.settle("what was trimmed is gone", func() bool { return r.v.Stats.Deleted.Load() >= 2 })
	tries := r.v.Stats.SealRetries.Load()
	r.settle("some tries more", func() bool { return r.v.Stats.SealRetries.Load() > tries+1 })
	if n, commits := r.v.Stats.Sealed.Load(), r.objects.commits(); n != 1 || commits > 3 || r.objects.count() > 1 {
		t.Errorf("%d batches are sealed, %d commits, %d objects", n, commits, r.objects.count())
	}
	r.close()
	r.open()
	if sum := r.sum(50); sum == 0 || r.sum(49) != 0 || r.sum(100) != 0 {
		t.Errorf("after a restart, blocks 49, 50 and 100 are %x, %x, %x", r.sum(49), sum, r.sum(100))
	}
	r.objects.setFull(nil)
	r.seal()
	if r.sum(50) == 0 || r.sum(49) != 0 || r.sum(2100) == 0 {
		t.Errorf("sealed, blocks 49, 50 and 2100 are %x, %x, %x", r.sum(49), r.sum(50), r.sum(2100))
	}
}

// What a trim covers in a batch that commits after it was brought forward is live again until its turn comes: should
// another SCO find no room before that, it is brought forward once more.
func TestTrimsPassTwice(t *testing.T) {
	r := newRig(t, 64<<20, 1<<20)
	r.v.StartCleaning(tightCleaner())
	var third ids.Seq
	lacks := func(seqs ...ids.Seq) {
		r.objects.setFull(func(s PutSpec) bool { return slices.Contains(seqs, s.SeqLo) })
	}
	for i := range ids.BlockAddr(3) {
		r.do(block.Put, 1000*i, 200)
		if i == 0 {
			third = 2*r.v.seq + 1
			lacks(1, third)
		}
		r.loop.Call(r.v.Seal)
	}
	r.settle("the second is stored", func() bool { return r.objects.count() == 1 })
	second := r.objects.numbers()[0]
	r.do(block.Discard, 1000, 200) // of the second, which is stored and waits for the first
	commits := r.objects.commits()
	r.settle("the trim is brought forward", func() bool { return r.objects.commits() > commits })
	lacks(third)
	r.settle("two of three are sealed", func() bool { return r.v.Stats.Sealed.Load() == 2 })
	r.settle("the second is gone, too", func() bool { return !slices.Contains(r.objects.numbers(), second) })
	if n := r.v.Stats.Sealed.Load(); n != 2 || r.sum(1000) != 0 || r.sum(2000) == 0 {
		t.Errorf("%d batches are sealed, blocks 1000 and 2000 are %x and %x", n, r.sum(1000), r.sum(2000))
	}
}

// A SCO of trims that comes late, behind blocks written after them, takes away nothing: fsck does not know its place
// where it does not know its commit number.
func TestTrimsThatComeLate(t *testing.T) {
	r := newRig(t, 64<<20, 1<<20)
	r.do(block.Put, 20, 10)
	r.do(block.Discard, 0, 10) // sequence 2
	r.do(block.Put, 0, 10)
	r.seal()
	content := &cleanContent{v: r.v, holes: scoHoles([]overlay.Hole{{Addr: 0, Count: 10, Seq: 2, Kind: layout.OffTrimmed},
		{Addr: 20, Count: 10, Seq: 4, Kind: layout.OffTrimmed}})} // the second is not in the map yet
	r.must(r.v.commitCleaning(r.v.ctx, content))
	if r.sum(5) == 0 || r.sum(25) != 0 {
		t.Errorf("blocks 5 and 25 are %x and %x", r.sum(5), r.sum(25))
	}
}

// pruneModel is what each block is to be: its checksum, 0 for none.
type pruneModel struct {
	*rig
	rng  *rand.Rand
	sums []uint32
}

// change makes a random mutation, most near the address 0, so that much is written over.
func (m *pruneModel) change() {
	addr := m.rng.IntN(1 + m.rng.IntN(len(m.sums)))
	n := 1 + m.rng.IntN(min(len(m.sums)-addr, 60))
	op := block.Put
	switch m.rng.IntN(4) {
	case 0:
		op, n = block.Discard, 1+m.rng.IntN(min(len(m.sums)-addr, 900))
	case 1:
		op = block.ZeroFill
	}
	c := m.start(op, ids.BlockAddr(addr), uint64(n), byte(m.rng.Uint32()))
	<-c.done
	if c.Err != errs.OK {
		m.t.Fatal(c.Err)
	}
	for i := range n {
		m.sums[addr+i] = 0
		if op == block.Put {
			m.sums[addr+i] = c.Sums[i]
		}
	}
}

func (m *pruneModel) check(when string) {
	m.t.Helper()
	for i, want := range m.sums {
		if got := m.sum(ids.BlockAddr(i)); got != want {
			m.t.Fatalf("%s, block %d is %x, want %x", when, i, got, want)
		}
	}
}

// sum is the checksum of a block, 0 of a hole, by overlay and map, and of what lies where these say.
func (r *rig) sum(addr ids.BlockAddr) (sum uint32) {
	r.t.Helper()
	w := &warmWait{done: make(chan errs.Kind, 1)}
	for known := false; !known; {
		ok := true
		r.loop.Call(func() {
			kind, e := r.v.ov.Lookup(addr)
			if known = true; kind == overlay.Data {
				sum = e.Sum
			}
			if kind != overlay.Unknown {
				return
			}
			loc, there := r.m.Lookup(addr)
			if known = there; !there {
				r.v.loadPage(addr, w)
				return
			}
			sum = loc.Sum
			ok = loc.Hole() || r.objects.holds(loc)
		})
		if !ok {
			r.t.Fatalf("block %d does not lie where the map says", addr)
		}
		if !known {
			<-w.done
		}
	}
	return sum
}

// holds reports whether the block of a location is there.
func (o *memObjects) holds(loc layout.Location) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.data[loc.SCO]
	at := int(loc.Off) * ids.BlockSize
	return at+ids.BlockSize <= len(b) && uint32(xxhash.Sum64(b[at:][:ids.BlockSize])) == loc.Sum
}

// numbers are those of the SCOs that are there.
func (o *memObjects) numbers() []ids.SCONum {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Collect(maps.Keys(o.data))
}

func (o *memObjects) commits() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.list)
}

// trimSCOs is how many SCOs of nothing but holes were committed ahead of their batches and are not deleted yet.
func (o *memObjects) trimSCOs() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, b := range o.data {
		if bringsTrims(b) {
			n++
		}
	}
	return n
}

// bringsTrims says whether a SCO is one of those.
func bringsTrims(b []byte) bool {
	h, err := sco.ParseHeader(b)
	return err == nil && h.Kind == sco.Cleaning && h.Holes > 0
}

// cutPower restarts the vDisk with what survives a power cut, or a kill.
func (m *pruneModel) cutPower() {
	m.do(block.Sync, 0, 0)
	m.objects.freeze(true) // first: what is deleted the map has forgotten, durably
	drive := m.drive.Clone()
	if m.rng.IntN(2) == 0 {
		drive = m.drive.CrashClone(m.rng, dio.CrashOptions{})
	}
	fs := m.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50 * m.rng.IntN(3), RNG: m.rng})
	m.close()
	m.drive, m.fs = drive, fs
	m.objects.freeze(false)
	m.open()
}

// Random writes, trims and zeros on drives that are full now and then, with a cleaner, restarts and power cuts: every
// block is what was last written, whenever trims come ahead of what was written before them.
func TestPruneModel(t *testing.T) {
	ahead := 0
	for seed := range uint64(6) {
		m := &pruneModel{rig: newRig(t, 16<<20, 1<<20), rng: rand.New(rand.NewPCG(seed, 7)), sums: make([]uint32, 4096)}
		m.v.StartCleaning(tightCleaner())
		for range 40 {
			full := m.rng.IntN(3) > 0
			if m.objects.setFull(nil); full {
				m.objects.setFull(noClientRoom)
			}
			for range 1 + m.rng.IntN(12) {
				m.change()
			}
			if full && m.rng.IntN(2) == 0 {
				m.loop.Call(m.v.Seal)
				time.Sleep(time.Duration(m.rng.IntN(100)) * time.Millisecond)
			}
			switch m.rng.IntN(12) {
			case 0, 1:
				m.cutPower()
				m.v.StartCleaning(tightCleaner())
				m.check("after a power cut")
			case 2:
				m.close()
				m.open()
				m.v.StartCleaning(tightCleaner())
				m.check("after a restart")
			case 3:
				m.objects.setFull(nil)
				m.seal()
				m.check("sealed")
			}
			dirty := 0
			if m.loop.Call(func() { dirty, _ = m.v.Dirty() }); dirty > 1500 { // the journal is small
				m.objects.setFull(nil)
				m.seal()
			}
		}
		m.objects.setFull(nil)
		m.seal()
		m.check("at the end")
		m.settle("the SCOs of trims are gone", func() bool { return m.objects.trimSCOs() == 0 })
		m.objects.mu.Lock()
		ahead += m.objects.trims // not those that are there at a moment: a quick machine has soon deleted them
		m.objects.mu.Unlock()
	}
	t.Logf("%d SCOs brought trims ahead", ahead)
	if ahead == 0 {
		t.Error("no trim ever came ahead")
	}
}
