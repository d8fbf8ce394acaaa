package volume

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/ring"
	"vstor/dataplane/volume/journal"
	"vstor/dataplane/volume/pagemap"
)

// memObjects is a backend in memory.
type memObjects struct {
	mu    sync.Mutex
	next  ids.SCONum
	data  map[ids.SCONum][]byte
	list  []*layout.Manifest
	hold  chan struct{}      // puts wait for it, if there
	full  func(PutSpec) bool // says that there is no room for it; guarded by mu
	last  func() error       // how a put ends that has copied everything, if there
	gone  bool               // nothing is stored, committed or deleted; guarded by mu
	trims int                // SCOs that brought trims ahead, ever; guarded by mu
	lies  ids.SCONum         // what Get gives of this is wrong, and what Rebuild gives is right; guarded by mu
	bad   int                // and so many choices for Rebuild are wrong, too
	down  bool               // Rebuild finds too few ASDs; guarded by mu
	late  chan struct{}      // some fragment of each SCO is written only when it is closed, if there
}

// freeze has nothing stored, committed or deleted from now on, or again.
func (o *memObjects) freeze(gone bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gone = gone
}

// setFull has puts find no room of which f, if any, says so.
func (o *memObjects) setFull(f func(PutSpec) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.full = f
}

func (o *memObjects) ReserveSCOs(_ context.Context, _ ids.NamespaceID, _ ids.Epoch, n int) (ids.SCONum, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next += ids.SCONum(n)
	return o.next - ids.SCONum(n) + 1, nil
}

// put is a stored object.
type put struct {
	m    *layout.Manifest
	done chan struct{}
}

func (p *put) Manifest() *layout.Manifest { return p.m }
func (p *put) Complete() <-chan struct{}  { return p.done }
func (p *put) Abandon()                   {}

func (o *memObjects) Put(ctx context.Context, s PutSpec) (Stored, error) {
	if o.hold != nil {
		select {
		case <-o.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	o.mu.Lock()
	full := o.full != nil && o.full(s)
	o.mu.Unlock()
	if full {
		return nil, errs.New(errs.Full, "no room")
	}
	b := make([]byte, s.Content.Size())
	const step = 192 << 10
	for off := 0; off < len(b); off += step {
		if err := s.Content.Fill(b[off:min(off+step, len(b))], int64(off)); err != nil {
			return nil, err
		}
		s.Content.Coded(int64(off + step))
	}
	if o.last != nil {
		if err := o.last(); err != nil {
			return nil, err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.gone {
		return nil, errs.New(errs.IO, "the backend is gone")
	}
	o.data[s.SCO] = b
	if bringsTrims(b) {
		o.trims++
	}
	p := &put{m: &layout.Manifest{Namespace: s.Namespace, SCO: s.SCO, Epoch: s.Epoch, Kind: s.Kind, SeqFirst: s.SeqLo,
		SeqLast: s.SeqHi, Size: int64(len(b)), Plain: int64(len(b)), Policy: layout.Policy{K: 4, M: 2, C: 5, X: 1},
		MaxFrag: 1 << 20}, done: make(chan struct{})}
	if o.late != nil {
		p.done = o.late
	} else {
		close(p.done)
	}
	return p, nil
}

func (o *memObjects) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.data)
}

func (o *memObjects) Commit(_ context.Context, s Stored, c ids.CommitNum) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.gone {
		return errs.New(errs.IO, "the backend is gone")
	}
	s.Manifest().Commit = c
	o.list = append(o.list, s.Manifest())
	return nil
}

func (o *memObjects) Committed(_ context.Context, _ ids.NamespaceID, after ids.CommitNum, limit int) (
	[]*layout.Manifest, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.list[after:min(int(after)+limit, len(o.list))], nil
}

func (o *memObjects) Get(_ context.Context, m *layout.Manifest, off int64, dst []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	copy(dst, o.data[m.SCO][off:])
	if o.lies == m.SCO {
		for i := 0; i < len(dst); i += ids.BlockSize {
			dst[i+100] ^= 1
		}
	}
	return nil
}

func (o *memObjects) Rebuild(_ context.Context, m *layout.Manifest, off int64, dst []byte, try int) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.down {
		return errs.New(errs.Unreachable, "too few ASDs")
	}
	if try < o.bad {
		return nil
	}
	copy(dst, o.data[m.SCO][off:])
	return nil
}

func (o *memObjects) Manifest(_ context.Context, _ ids.NamespaceID, n ids.SCONum) (*layout.Manifest, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, m := range o.list {
		if m.SCO == n {
			return m, nil
		}
	}
	return nil, errs.New(errs.Absent, "no SCO %d", n)
}

func (o *memObjects) Delete(_ context.Context, _ ids.NamespaceID, _ ids.Epoch, n ids.SCONum) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.gone {
		return errs.New(errs.IO, "the backend is gone")
	}
	delete(o.data, n)
	return nil
}

func (o *memObjects) SetFloor(context.Context, ids.NamespaceID, ids.CommitNum) error { return nil }
func (o *memObjects) Floor(context.Context, ids.NamespaceID) (ids.CommitNum, error)  { return 0, nil }

type noReader struct{}

func (noReader) Install(*layout.Manifest)           {}
func (noReader) Forget(ids.NamespaceID, ids.SCONum) {}

// countFile counts blocking reads.
type countFile struct {
	dio.File
	reads atomic.Int64
}

func (f *countFile) ReadAt(p []byte, off int64) error {
	f.reads.Add(1)
	return f.File.ReadAt(p, off)
}

// rig is one vDisk over a journal and a backend in memory.
type rig struct {
	t       testing.TB
	loop    *ring.Loop
	drive   *dio.Mem
	file    *dio.Faulty
	counter *countFile
	jrn     *journal.Journal
	keeper  *Keeper
	objects *memObjects
	fs      *vfs.MemFS
	db      *pagemap.DB
	m       *pagemap.Map
	budget  *pagemap.Budget
	sealer  *Sealer
	size    int64
	v       *Volume

	beforeAttach func() // called by open, if there
}

func newRig(t testing.TB, size, budget int64) *rig {
	t.Helper()
	pool, err := buf.NewPool(32<<20, 4<<20)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ring.New(ring.Options{Name: "volume-test", Pool: pool})
	if err == nil {
		err = l.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	const segments, segment = 16, 1 << 20
	r := &rig{t: t, loop: l, drive: dio.NewMem(journal.DataStart + segments*segment), size: size,
		fs: vfs.NewCrashableMem(), objects: &memObjects{data: map[ids.SCONum][]byte{}}, budget: pagemap.NewBudget(budget)}
	if err := journal.Create(r.drive, journal.Options{SegmentSize: segment}); err != nil {
		t.Fatal(err)
	}
	r.open()
	t.Cleanup(func() {
		r.close()
		l.Stop()
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// open starts the vDisk from what journal, map and backend have.
func (r *rig) open() {
	r.t.Helper()
	r.file = dio.NewFaulty(r.drive, 1)
	r.counter = &countFile{File: r.file}
	var err error
	r.jrn, err = journal.Open(r.counter, journal.Options{})
	r.must(err)
	var log []LogEntry
	r.must(r.jrn.Replay(func(e journal.ReplayEntry) error {
		log = append(log, LogEntry{Seq: e.Seq, Kind: e.Kind, Addr: e.Addr, Blocks: e.Blocks, Pos: e.Pos,
			Sums: append([]uint32(nil), e.Sums...), Bad: e.Bad})
		return nil
	}))
	r.db, err = pagemap.OpenDB("map", pagemap.DBOptions{FS: r.fs})
	r.must(err)
	r.m, _, err = r.db.Open(pagemap.Options{ID: 1, Size: ids.BlockAddr(r.size / 4096), Budget: r.budget,
		Poster: r, LoadsMax: 64})
	r.must(err)
	r.sealer = NewSealer(2)
	r.loop.Call(func() { r.keeper = NewKeeper(r.loop, r.jrn, 0) })
	r.v = r.add(1, r.m, r.objects)
	r.must(r.v.Recover(context.Background(), log))
	if r.beforeAttach != nil {
		r.beforeAttach()
	}
	r.loop.Call(func() {
		r.must(r.jrn.Attach(r.loop))
		r.keeper.Start()
	})
}

// add makes a vDisk on the rig's loop and journal.
func (r *rig) add(id ids.VolumeID, m *pagemap.Map, objects *memObjects) (v *Volume) {
	r.loop.Call(func() {
		v = New(Options{ID: id, Name: "v", Size: r.size, Epoch: 1, SCOSize: 1 << 20, Loop: r.loop, Journal: r.jrn,
			Map: m, Objects: objects, Reader: noReader{}, Sealer: r.sealer,
			Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		r.keeper.Add(v)
	})
	return v
}

// PostFunc makes the rig the map's Poster.
func (r *rig) PostFunc(f func()) { r.loop.PostFunc(f) }

type closedSync chan errs.Kind

func (c closedSync) JournalSynced(s *journal.Sync) { c <- s.Err }

// close stops the vDisk as a process that ends in order; what is not sealed stays in the journal.
func (r *rig) close() {
	done := make(chan struct{})
	r.loop.Call(func() { r.v.Close(func() { close(done) }) })
	<-done
	r.sealer.Close()
	synced := make(closedSync, 1)
	r.loop.Call(func() { r.jrn.Close(&journal.Sync{Done: synced}) })
	if k := <-synced; k != errs.OK {
		r.t.Errorf("journal: %v", k)
	}
	r.must(r.db.Close())
}

// change is a mutation under way.
type change struct {
	block.Mutation
	done chan struct{}
}

func (c *change) MutationDone(*block.Mutation) { close(c.done) }

// start begins a change; a Put writes blocks that begin with first, first+1 and so on.
func (r *rig) start(op block.MutationOp, addr ids.BlockAddr, count uint64, first byte) *change {
	return r.startOn(r.v, op, addr, count, first)
}

func (r *rig) startOn(v *Volume, op block.MutationOp, addr ids.BlockAddr, count uint64, first byte) *change {
	c := &change{Mutation: block.Mutation{Op: op, Addr: addr, Count: count}, done: make(chan struct{})}
	c.Done = c
	r.loop.Call(func() {
		if op == block.Put {
			pool := r.loop.Pool()
			if !pool.Alloc(&c.Data, int(count)) {
				panic("the pool is too small for the test")
			}
			for i := range int(count) {
				b := pool.Bytes(c.Data.PageAt(i * ids.BlockSize))
				fillBlock(b, addr+ids.BlockAddr(i), first+byte(i))
				c.Sums = append(c.Sums, uint32(xxhash.Sum64(b)))
			}
		}
		v.Mutate(&c.Mutation)
	})
	return c
}

func fillBlock(b []byte, addr ids.BlockAddr, salt byte) {
	for i := range b {
		b[i] = byte(i>>3) ^ byte(addr) ^ salt
	}
}

func (r *rig) do(op block.MutationOp, addr ids.BlockAddr, count uint64) {
	r.t.Helper()
	c := r.start(op, addr, count, 1)
	<-c.done
	if c.Err != errs.OK {
		r.t.Fatalf("%d at %d+%d: %v", op, addr, count, c.Err)
	}
}

// settle waits until f, called on the loop, is true.
func (r *rig) settle(what string, f func() bool) {
	r.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		ok := false
		r.loop.Call(func() { ok = f() })
		if ok {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("%s: not after 30 s", what)
		}
	}
}

// seal brings all that was written into the map.
func (r *rig) seal() {
	r.t.Helper()
	r.loop.Call(r.v.Seal)
	r.settle("seal", func() bool { n, batches := r.v.Dirty(); return n == 0 && batches == 0 })
}

// flush writes the map back.
func (r *rig) flush() {
	r.t.Helper()
	done := make(chan error, 1)
	r.loop.Call(func() { r.m.FlushAll(func(err error) { done <- err }) })
	r.must(<-done)
}
