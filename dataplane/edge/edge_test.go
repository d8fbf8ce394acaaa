package edge

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
	"vstor/dataplane/stat"
)

// fakeDriver keeps blocks in pages and answers after a random delay, as journal, map and drives do. A
// block is a hole, a page of the overlay, or content that must be fetched.
type fakeDriver struct {
	loop   *ring.Loop
	rng    *rand.Rand
	size   int64
	blocks map[ids.BlockAddr]fakeBlock
	miss   int // every so many look-ups miss the map
	busy   int // so many look-ups miss it, and nobody more may wait
	fails  int // every so many fetches fail once
	calls  int
	lost   map[ids.BlockAddr]bool // blocks whose place the map cannot tell
	warmed int                    // blocks
}

type fakeBlock struct {
	kind block.PieceKind
	page buf.Page
	data []byte
	sum  uint32
	zero bool // allocated zeros
}

func (f *fakeDriver) Size() int64 { return f.size }

func (f *fakeDriver) later(fn func()) {
	t := &ring.Timer{Fire: fn}
	f.loop.After(t, time.Duration(f.rng.IntN(200))*time.Microsecond)
}

// Mutate applies changes in the order of the calls, at a random time: all that wait go together.
func (f *fakeDriver) Mutate(m *block.Mutation) {
	apply := f.prepare(m)
	f.later(func() {
		apply()
		m.Done.MutationDone(m)
	})
}

var seqOf = map[ids.BlockAddr]int{}
var seqNow int

func (f *fakeDriver) prepare(m *block.Mutation) func() {
	seqNow++
	seq, addr, count := seqNow, m.Addr, m.Count
	var data buf.Vec
	data.Segs = append(data.Segs, m.Data.Segs...)
	m.Data.Reset()
	sums := append([]uint32(nil), m.Sums...)
	op := m.Op
	return func() {
		for i := range ids.BlockAddr(count) {
			a := addr + i
			if op == block.Sync {
				return
			}
			b := fakeBlock{kind: block.Zeros, zero: op == block.ZeroFill}
			if op == block.Put {
				pg := data.PageAt(int(i) * ids.BlockSize)
				b = fakeBlock{kind: block.InRAM, page: pg, sum: sums[i]}
				if uint32(xxhash.Sum64(f.loop.Pool().Bytes(pg))) != b.sum {
					panic("a block came with a wrong checksum")
				}
			}
			if seqOf[a] > seq {
				f.drop(b)
				continue
			}
			seqOf[a] = seq
			f.drop(f.blocks[a])
			if op == block.Put && f.rng.IntN(2) == 0 {
				b.kind = block.Stored
				b.data = append([]byte(nil), f.loop.Pool().Bytes(b.page)...)
				f.loop.Pool().Release(b.page)
			}
			f.blocks[a] = b
		}
	}
}

func (f *fakeDriver) drop(b fakeBlock) {
	if b.kind == block.InRAM {
		f.loop.Pool().Release(b.page)
	}
}

func (f *fakeDriver) Resolve(addr ids.BlockAddr, n int, r *block.Resolution, l block.Loaded) bool {
	f.calls++
	if f.busy > 0 {
		f.busy--
		f.later(func() { l.MapLoaded(errs.Busy) })
		return false
	}
	for i := range ids.BlockAddr(n) {
		if f.miss > 0 && f.calls%f.miss == 0 && i == ids.BlockAddr(n/2) {
			f.later(func() { l.MapLoaded(errs.OK) })
			return false
		}
		b := f.blocks[addr+i]
		r.Add(block.Piece{Kind: b.kind, Page: b.page, SCO: 1, Off: uint16(addr + i)}, b.sum)
	}
	return true
}

func (f *fakeDriver) ReadLogged(*block.Fetch) { panic("nothing is in the journal only") }

func (f *fakeDriver) Fetch(q *block.Fetch) {
	f.calls++
	if f.fails > 0 && f.calls%f.fails == 0 {
		f.later(func() { q.Err = errs.Absent; q.Done.FetchDone(q) })
		return
	}
	off := 0
	var datas [][]byte
	for i := range q.Count {
		datas = append(datas, f.blocks[ids.BlockAddr(q.Off+i)].data)
	}
	f.later(func() {
		for _, d := range datas {
			copy(f.loop.Pool().Bytes(q.Dst.PageAt(off)), d)
			off += ids.BlockSize
		}
		q.Via = block.FromDrive
		q.Done.FetchDone(q)
	})
}

type waiter struct{ done chan struct{} }

func (w waiter) Completed(*block.Request) { w.done <- struct{}{} }

type rig struct {
	t     *testing.T
	loop  *ring.Loop
	drv   *fakeDriver
	cache *fakeCache // nil: none
	disk  *Disk
}

func newRig(t *testing.T, seed uint64) *rig {
	t.Helper()
	pool, err := buf.NewPool(16<<20, 4<<20)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ring.New(ring.Options{Name: "edge-test", Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	clear(seqOf)
	r := &rig{t: t, loop: l, drv: &fakeDriver{loop: l, rng: rand.New(rand.NewPCG(seed, 7)), size: 1 << 20,
		blocks: map[ids.BlockAddr]fakeBlock{}, miss: 13, fails: 17}}
	var c Cache
	if seed%2 == 1 {
		r.cache = &fakeCache{pool: pool, rng: r.drv.rng, below: r.drv, pages: map[cachedAs]buf.Page{}}
		c = r.cache
	}
	r.disk = NewDisk(l, r.drv, r.drv, c)
	t.Cleanup(func() {
		closed := make(chan struct{})
		l.Call(func() { r.disk.Close(func() { close(closed) }) })
		<-closed
		l.Call(func() {
			for _, b := range r.drv.blocks {
				r.drv.drop(b)
			}
			if r.cache != nil {
				r.cache.Shrink(pool.Pages())
			}
		})
		if pool.Free() != pool.Pages() {
			t.Errorf("%d pages leaked", pool.Pages()-pool.Free())
		}
		l.Stop()
		pool.Close()
	})
	return r
}

// one is a request of the model test: what it writes, or what it must read.
type one struct {
	req  block.Request
	data []byte
}

func (r *rig) fill(o *one) {
	pages := int(ids.Blocks(o.req.Off%4096 + int64(o.req.Len)))
	if !r.loop.Pool().Alloc(&o.req.Data, pages) {
		panic("pool too small for the test")
	}
	at, rest := int(o.req.Off%4096), o.data
	for _, s := range o.req.Data.Segs {
		b := r.loop.Pool().SegBytes(s)
		n := copy(b[at:], rest)
		rest, at = rest[n:], 0
	}
}

func (r *rig) content(q *block.Request) []byte {
	var out []byte
	for _, s := range q.Data.Segs {
		out = append(out, r.loop.Pool().SegBytes(s)...)
	}
	r.loop.Pool().ReleaseVec(&q.Data)
	return out
}

// Random requests of all kinds and alignments, many at once: writes overlap in every way and must take
// effect in the order of their Submits; reads between rounds see exactly the flat array.
func TestModel(t *testing.T) {
	for seed := range uint64(6) {
		r := newRig(t, seed)
		rng := rand.New(rand.NewPCG(seed, 99))
		flat := make([]byte, r.drv.size)
		st := newStates(r.drv.size)
		for range 60 {
			r.round(rng, flat, st)
		}
		r.checkStats()
	}
}

// checkStats: every read is one rung's, and every byte came from one.
func (r *rig) checkStats() {
	s := &r.disk.Stats
	var all stat.Snapshot
	bytes := uint64(0)
	for i := range s.Rungs {
		s.Rungs[i].Latency.AddTo(&all)
		bytes += s.Rungs[i].Bytes.Load()
	}
	if all.Count != s.Reads.Load() || bytes != s.ReadBytes.Load() || bytes == 0 {
		r.t.Errorf("%d reads and %d bytes on the rungs, of %d reads and %d bytes", all.Count, bytes, s.Reads.Load(),
			s.ReadBytes.Load())
	}
	if n := s.Rungs[block.FromDrive].Bytes.Load(); n == 0 || n == bytes {
		r.t.Errorf("%d of %d bytes came from the drive", n, bytes)
	}
	if r.cache != nil && (r.cache.aheads == 0 || r.cache.gets == 0 || s.Rungs[block.FromBlockCache].Bytes.Load() == 0) {
		r.t.Error("nothing came from the cache")
	}
	var writes stat.Snapshot
	if s.WriteLatency.AddTo(&writes); writes.Count != s.Writes.Load() {
		r.t.Errorf("%d writes took their time, of %d", writes.Count, s.Writes.Load())
	}
}

func (r *rig) round(rng *rand.Rand, flat []byte, st *states) {
	done := make(chan struct{}, 64)
	var ops []*one
	st.settle()
	for range 1 + rng.IntN(24) {
		o := randomMutation(rng, flat)
		o.req.Done = waiter{done}
		st.apply(&o.req)
		ops = append(ops, o)
		if rng.IntN(4) == 0 { // while they are under way
			ops = append(ops, askExtents(rng, r.drv.size, done))
		}
	}
	r.run(ops, done)
	st.check(r.t, ops)
	st.settle()
	for i := range ops {
		ops[i] = askExtents(rng, r.drv.size, done)
	}
	r.run(ops, done)
	st.check(r.t, ops)
	ops = ops[:0]
	for range 8 {
		off := rng.Int64N(int64(len(flat)))
		n := 1 + rng.Int64N(min(int64(len(flat))-off, 64<<10))
		ops = append(ops, &one{req: block.Request{Op: block.Read, Off: off, Len: uint32(n), Done: waiter{done}}})
	}
	r.run(ops, done)
	r.loop.Call(func() {
		for _, o := range ops {
			got := r.content(&o.req)
			if want := flat[o.req.Off : o.req.Off+int64(o.req.Len)]; !bytes.Equal(got, want) {
				r.t.Fatalf("read at %d+%d differs", o.req.Off, o.req.Len)
			}
		}
	})
}

func (r *rig) run(ops []*one, done chan struct{}) {
	r.loop.Call(func() {
		for _, o := range ops {
			if o.req.Op == block.Write {
				r.fill(o)
			}
			r.disk.Submit(&o.req)
		}
	})
	for range ops {
		<-done
	}
	for _, o := range ops {
		if o.req.Err != errs.OK {
			r.t.Fatalf("op %d at %d+%d: %v", o.req.Op, o.req.Off, o.req.Len, o.req.Err)
		}
	}
}

// randomMutation makes a request near one place, so that many overlap, and applies it to flat.
func randomMutation(rng *rand.Rand, flat []byte) *one {
	off := rng.Int64N(64 << 10)
	n := 1 + rng.Int64N(1<<(1+rng.IntN(15)))
	if rng.IntN(3) == 0 {
		off, n = off&^4095, (n+4095)&^4095
	}
	o := &one{req: block.Request{Off: off, Len: uint32(n)}}
	span := flat[off : off+n]
	switch rng.IntN(8) {
	case 0:
		o.req.Op = block.WriteZeroes
		if rng.IntN(2) == 0 {
			o.req.Flags = block.NoHole
		}
		clear(span)
	case 1:
		o.req.Op = block.Trim
		from, to := (off+4095)&^4095, (off+n)&^4095
		if from < to {
			clear(flat[from:to])
		}
	case 2:
		o.req.Op, o.req.Off, o.req.Len = block.Flush, 0, 0
	default:
		o.req.Op = block.Write
		if rng.IntN(4) == 0 {
			o.req.Flags = block.FUA
		}
		for i := range span {
			span[i] = byte(rng.Uint32())
		}
		o.data = append([]byte(nil), span...)
	}
	return o
}
