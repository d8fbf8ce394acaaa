package journal

import (
	"encoding/binary"
	"testing"
	"time"

	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/leaktest"
	"vstor/dataplane/ring"
)

const testSegment = SegmentSizeMin

func TestMain(m *testing.M) { leaktest.Main(m, ring.Probe) }

// fataler is what testing.TB and rapid.T share.
type fataler interface {
	Helper()
	Fatalf(string, ...any)
	Errorf(string, ...any)
}

func startLoop(t testing.TB, poolSize int64) *ring.Loop {
	t.Helper()
	pool, err := buf.NewPool(poolSize, 0)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ring.New(ring.Options{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Stop()
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// rig is a journal on a loop and a drive.
type rig struct {
	t fataler
	l *ring.Loop
	d *drive
	j *Journal

	holds bool // rest is also where the brake holds the line
}

func create(t fataler, segments int, opt Options) *drive {
	t.Helper()
	opt.SegmentSize = testSegment
	d := newDrive(DataStart + int64(segments)*testSegment)
	if err := Create(d, opt); err != nil {
		t.Fatalf("create: %v", err)
	}
	return d
}

// open opens, replays and attaches; what was replayed goes to fn.
func open(t fataler, l *ring.Loop, d *drive, opt Options, fn func(ReplayEntry) error) *rig {
	t.Helper()
	if fn == nil {
		fn = func(ReplayEntry) error { return nil }
	}
	j, err := Open(d, opt)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	if err := j.Replay(fn); err != nil {
		t.Fatalf("replay: %v", err)
	}
	r := &rig{t: t, l: l, d: d, j: j}
	r.on(func() {
		if err := j.Attach(l); err != nil {
			t.Errorf("attach: %v", err)
		}
		j.brake.mid = time.Nanosecond // tests of the brake set it
	})
	r.settle()
	return r
}

func (r *rig) on(f func()) {
	r.t.Helper()
	if !r.l.Call(f) {
		r.t.Fatalf("the loop is stopped")
	}
}

// settle waits until nothing happens by itself any more.
func (r *rig) settle() {
	r.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		still := false
		r.on(func() { still = r.still() })
		if still {
			// Completions that were deferred in the pass of the look above.
			r.on(func() {})
			r.on(func() { still = r.still() })
			if still {
				return
			}
		}
	}
	r.t.Fatalf("the journal does not come to rest")
}

func (r *rig) still() bool {
	return !r.j.hook.Armed() && !r.j.syncs.early.Armed() && (r.holds || !r.j.brake.timer.Armed())
}

// abandon is what kill -9 does to the journal: nothing of it ends any more.
func (r *rig) abandon() {
	r.on(func() {
		r.d.dead = true
		r.d.flying = nil
		r.l.StopTimer(&r.j.timer.timer)
		r.l.StopTimer(&r.j.syncs.early)
		r.l.StopTimer(&r.j.brake.timer)
		r.l.Pool().ReleaseVec(&r.j.pages)
	})
}

func (r *rig) close() errs.Kind {
	r.t.Helper()
	var s testSync
	r.on(func() { s.Sync.Done = &s; r.j.Close(&s.Sync) })
	r.settle()
	if s.ended != 1 {
		r.t.Fatalf("Close ended %d times", s.ended)
	}
	return s.Err
}

// testEntry keeps what was appended, and what became of it.
type testEntry struct {
	Entry
	ended int
	order *[]*testEntry
	then  func(*testEntry)
	stamp uint64 // payload: block i is filled with stamp+i
}

func (e *testEntry) JournalDone(*Entry) {
	e.ended++
	if e.order != nil {
		*e.order = append(*e.order, e)
	}
	if e.then != nil {
		e.then(e)
	}
}

type testSync struct {
	Sync
	ended int
	then  func(*testSync)
}

func (s *testSync) JournalSynced(*Sync) {
	s.ended++
	if s.then != nil {
		s.then(s)
	}
}

func fillBlock(b []byte, v uint64) {
	for i := 0; i < BlockSize; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], v)
	}
}

// write makes a Write entry with payload; pages come from the loop's pool. Loop only.
func write(l *ring.Loop, vol ids.VolumeID, seq ids.Seq, addr ids.BlockAddr, blocks int, stamp uint64) *testEntry {
	e := &testEntry{stamp: stamp}
	e.Entry = Entry{Vol: vol, Seq: seq, Kind: Write, Addr: addr, Blocks: uint32(blocks), Done: e}
	if !l.Pool().Alloc(&e.Data, blocks) {
		panic("test pool is empty")
	}
	for i := range blocks {
		b := l.Pool().Bytes(e.Data.PageAt(i * BlockSize))
		fillBlock(b, stamp+uint64(i))
		e.Sums = append(e.Sums, blockSum(b))
	}
	e.then = func(e *testEntry) { l.Pool().ReleaseVec(&e.Data) }
	return e
}

// put appends writes of one block each, seqs from..to, and waits.
func (r *rig) put(vol ids.VolumeID, from, to ids.Seq) []*testEntry {
	r.t.Helper()
	var out []*testEntry
	r.on(func() {
		for s := from; s <= to; s++ {
			e := write(r.l, vol, s, ids.BlockAddr(s), 1, uint64(vol)<<32|uint64(s))
			out = append(out, e)
			r.j.Append(&e.Entry)
		}
	})
	r.settle()
	return out
}

// putEach is put with a record for each.
func (r *rig) putEach(vol ids.VolumeID, from, to ids.Seq) {
	for s := from; s <= to; s++ {
		r.put(vol, s, s)
	}
}

func (r *rig) sync() *testSync {
	s := &testSync{}
	s.Sync.Done = s
	r.on(func() { r.j.Sync(&s.Sync) })
	r.settle()
	return s
}

func (r *rig) commit(vol ids.VolumeID, seq ids.Seq) {
	r.on(func() { r.j.Committed(vol, seq) })
	r.settle()
}

var _ dio.File = (*drive)(nil)
