package ssd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"vstor/blockcache/policy"
	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
)

// world is a loop with a Tier over a drive in memory.
type world struct {
	t     *testing.T
	pool  *buf.Pool
	pages int
	loop  *ring.Loop
	mem   *dio.Mem
	file  dio.File
	tier  *Tier
	opts  Options
}

const testRegion = 64 << 10 // 1 header and 15 blocks

func newWorld(t *testing.T, regions int) *world {
	w := &world{t: t, mem: dio.NewMem(pageSize + int64(regions)*testRegion),
		opts: Options{UUID: [16]byte{7}, BlockBytes: 32 << 10, RegionBytes: testRegion}}
	w.file = w.mem
	var err error
	if w.pool, err = buf.NewPool(4<<20, 0); err != nil {
		t.Fatal(err)
	}
	w.pages = w.pool.Free()
	if w.loop, err = ring.New(ring.Options{Pool: w.pool, Entries: 64}); err != nil {
		t.Fatal(err)
	}
	if err := w.loop.Start(); err != nil {
		t.Fatal(err)
	}
	w.open()
	t.Cleanup(func() {
		w.close()
		w.loop.Stop()
		if n := w.pages - w.pool.Free(); n != 0 {
			t.Errorf("%d pages were not given back", n)
		}
		w.pool.Close()
	})
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	if w.tier, err = Open(w.file, w.opts); err != nil {
		w.t.Fatal(err)
	}
	w.loop.Call(func() { err = w.tier.Attach(w.loop) })
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) close() {
	done := make(chan struct{})
	w.loop.Call(func() { w.tier.Close(func() { close(done) }) })
	<-done
}

// content is what block off of SCO 1 is.
func content(b []byte, off int) {
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], uint64(off)<<32|uint64(i))
	}
}

func sumOf(off int) uint32 {
	var b [pageSize]byte
	content(b[:], off)
	return uint32(xxhash.Sum64(b[:]))
}

func (w *world) where(off int) (policy.Key, int) {
	return policy.Key{NS: 3, SCO: 1, Block: uint32(off / w.tier.shape.parts)}, off % w.tier.shape.parts
}

// put appends blocks and waits until nothing is being written.
func (w *world) put(acct policy.Account, offs ...int) (kept int) {
	for _, off := range offs {
		w.loop.Call(func() {
			var v buf.Vec
			if !w.pool.Alloc(&v, 1) {
				w.t.Error("no page")
				return
			}
			content(w.pool.Bytes(v.Segs[0].Page), off)
			k, part := w.where(off)
			if w.tier.Append(acct, k, part, v.Segs[0].Page, sumOf(off)) {
				kept++
			}
			w.pool.ReleaseVec(&v)
		})
		w.settle()
	}
	return kept
}

func (w *world) settle() {
	for busy := true; busy; {
		w.loop.Call(func() { busy = w.tier.flying != nil })
	}
}

type waiter chan int32

func (c waiter) RingDone(_ *ring.Op, res int32) { c <- res }

// read says whether a block is there, as it should be.
func (w *world) read(off int) (here, right bool) {
	done := make(waiter, 1)
	op := ring.Op{Done: done}
	var v buf.Vec
	staged := false
	w.loop.Call(func() {
		k, part := w.where(off)
		e := w.tier.Find(k)
		if e == 0 || w.tier.Mask(e)&(1<<part) == 0 {
			return
		}
		here = true
		s := w.tier.Slot(e, part)
		if p, sum, ok := w.tier.Staged(s); ok {
			staged = true
			right = sum == sumOf(off) && uint32(xxhash.Sum64(w.pool.Bytes(p))) == sum
			return
		}
		w.pool.Alloc(&v, 1)
		w.tier.Read(&op, &v, s)
	})
	if !here || staged {
		return here, right
	}
	res := <-done
	w.loop.Call(func() {
		right = res == pageSize && uint32(xxhash.Sum64(w.pool.Bytes(v.Segs[0].Page))) == sumOf(off)
		w.pool.ReleaseVec(&v)
	})
	return here, right
}

// check adds the tier's books up anew.
func (w *world) check() {
	w.t.Helper()
	w.loop.Call(func() {
		t := w.tier
		live := make([]uint32, t.shape.regions)
		blocks := 0
		for slot, e := range t.owner {
			if e == 0 {
				continue
			}
			r, _ := t.where(Slot(slot))
			live[r]++
			blocks++
			found := 0
			for part := range t.shape.parts {
				if t.mask[e]&(1<<part) != 0 && int(t.Slot(policy.Entry(e), part)) == slot {
					found++
				}
			}
			if found != 1 {
				w.t.Fatalf("slot %d belongs to entry %d, which names it %d times", slot, e, found)
			}
		}
		for r, n := range live {
			if n != t.live[r] {
				w.t.Fatalf("region %d has %d blocks, noted %d", r, n, t.live[r])
			}
		}
		if int64(blocks)*ids.BlockSize != t.pol.Used() {
			w.t.Fatalf("%d blocks, the policy has %d bytes", blocks, t.pol.Used())
		}
	})
}

func (w *world) account(id ids.VolumeID) (a policy.Account) {
	w.loop.Call(func() { a = w.tier.Policy().Open(id, policy.Unlimited) })
	return a
}

func span(from, n int) (out []int) {
	for i := range n {
		out = append(out, from+i)
	}
	return out
}

// What was kept is read back, while it waits, when it is on the drive, and after a restart.
func TestKeepAndRestart(t *testing.T) {
	w := newWorld(t, 12)
	a := w.account(5)
	if n := w.put(a, span(0, 50)...); n != 50 {
		t.Fatalf("%d of 50 kept", n)
	}
	all := func(when string) {
		t.Helper()
		w.check()
		for off := range 50 {
			if here, right := w.read(off); !here || !right {
				t.Fatalf("%s: block %d: here %v, right %v", when, off, here, right)
			}
		}
	}
	all("fresh")
	w.close()
	w.open()
	all("after a restart")
	if n := w.tier.Stats.Recovered.Load(); n != 50 {
		t.Errorf("%d blocks recovered", n)
	}
	if u := w.tier.Policy().AccountUsed(w.account(5)); u != 50*pageSize {
		t.Errorf("they are charged with %d bytes to who filled them", u)
	}
	if n := w.put(w.account(5), span(50, 30)...); n != 30 {
		t.Errorf("%d of 30 more kept", n)
	}
	all("after more")
}

// The default region has two header pages: blocks named by either are found again, and a page of another writing than
// the first is not believed.
func TestTwoHeaderPages(t *testing.T) {
	w := newWorld(t, 12*16)
	w.close()
	w.opts.RegionBytes = 1 << 20
	w.open()
	if w.tier.shape.headers != 2 || w.tier.shape.blocks != 254 {
		t.Fatalf("%d header pages and %d blocks", w.tier.shape.headers, w.tier.shape.blocks)
	}
	const n = 600
	w.put(w.account(5), span(0, n)...)
	w.close()
	b, err := dio.AlignedBuf(pageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer dio.FreeBuf(b)
	w.open()
	for off := range n {
		if here, right := w.read(off); !here || !right {
			t.Fatalf("block %d: here %v, right %v", off, here, right)
		}
	}
	w.close()
	page1 := w.tier.shape.offset(0) + pageSize
	w.mem.ReadAt(b, page1)
	var h Header
	if err := h.Decode(b); err != nil || h.Page != 1 {
		t.Fatalf("page %d: %v", h.Page, err)
	}
	h.Sequence--
	if h.Sequence == 0 {
		h.Sequence = 77
	}
	h.Encode(b)
	w.mem.WriteAt(b, page1)
	w.open()
	w.check()
	for off := range n {
		if here, _ := w.read(off); here == (off >= RecordsMax && off < 254) {
			t.Fatalf("block %d: here %v", off, here)
		}
	}
}

// A crash loses what was not written, tears what was being written, and never makes anything else of it.
func TestCrash(t *testing.T) {
	sum := 0
	for seed := range uint64(30) {
		w := newWorld(t, 12)
		a := w.account(5)
		w.put(a, span(0, 150)...)
		clone := w.mem.CrashClone(rand.New(rand.NewPCG(seed, 1)), dio.CrashOptions{})
		w.close()
		w.mem, w.file = clone, clone
		w.open()
		w.check()
		wrong, right := 0, 0
		for off := range 150 {
			switch here, ok := w.read(off); {
			case here && ok:
				right++
			case here:
				wrong++ // the reader finds out and drops it
			}
		}
		if n := w.tier.Stats.Recovered.Load(); int(n) < right || right+wrong > 150 {
			t.Fatalf("seed %d: %d recovered, %d right, %d wrong", seed, n, right, wrong)
		}
		sum += right
	}
	if sum < 500 {
		t.Errorf("of 30 times 150 blocks %d survived, of which half were never synced", sum)
	}
}

// Another deployment's, another shape's, or a damaged superblock: an empty cache, not an error.
func TestStartsEmpty(t *testing.T) {
	for name, spoil := range map[string]func(*world){
		"uuid":   func(w *world) { w.opts.UUID[3] = 1 },
		"block":  func(w *world) { w.opts.BlockBytes = 64 << 10 },
		"region": func(w *world) { w.opts.RegionBytes = 2 * testRegion },
		"rot": func(w *world) {
			b, _ := dio.AlignedBuf(pageSize)
			defer dio.FreeBuf(b)
			w.mem.ReadAt(b, 0)
			b[40] ^= 4
			w.mem.WriteAt(b, 0)
		},
	} {
		w := newWorld(t, 24)
		w.put(w.account(5), span(0, 60)...)
		w.close()
		spoil(w)
		w.open()
		w.check()
		if w.tier.Policy().Count() != 0 {
			t.Errorf("%s: %d entries", name, w.tier.Policy().Count())
		}
		w.close()
		w.open()
		if w.tier.Policy().Count() != 0 {
			t.Errorf("%s: blocks of an earlier life came back", name)
		}
	}
}

// Random appends of more than fits: the books are right, what is said to be here is, and the hot part stays.
func TestChurn(t *testing.T) {
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 2))
		w := newWorld(t, 12)
		a, b := w.account(1), w.account(2)
		for i := range 600 {
			acct, off := a, rng.IntN(300)
			if rng.IntN(3) == 0 {
				acct, off = b, 1000+rng.IntN(20)
			}
			w.put(acct, off)
			if i%50 == 0 {
				w.check()
				w.loop.Call(func() { w.tier.Policy().SetQuota(a, int64(20+rng.IntN(200))*pageSize); w.tier.Policy().Trim(a, 1000) })
				w.check()
			}
		}
		for off := range 1100 {
			if here, right := w.read(off); here && !right {
				t.Fatalf("seed %d: block %d is wrong", seed, off)
			}
		}
		if rng.IntN(2) == 0 {
			w.close()
			w.open()
			w.check()
		}
	}
}

// A drive that fails its writes loses blocks, counts, and is left alone after a few.
func TestWriteErrors(t *testing.T) {
	w := newWorld(t, 12)
	faulty := dio.NewFaulty(w.mem, 1)
	w.close()
	w.file = faulty
	w.open()
	a := w.account(1)
	w.put(a, span(0, 15)...)
	faulty.Set(dio.Rule{On: dio.Writes, Do: dio.FailIO, Chance: 1})
	w.put(a, span(15, 30)...)
	w.check()
	if n := w.tier.Stats.WriteErrors.Load(); n != 2 {
		t.Errorf("%d errors", n)
	}
	for off := range 45 {
		if here, right := w.read(off); here != (off < 15) || here && !right {
			t.Fatalf("block %d: here %v, right %v", off, here, right)
		}
	}
	if n := w.put(a, span(100, 100)...); n >= 100 || w.tier.Usable() {
		t.Errorf("%d blocks kept by a drive that fails all writes", n)
	}
}

// Dump tells every block, and names damage.
func TestDump(t *testing.T) {
	w := newWorld(t, 12)
	w.put(w.account(5), span(0, 40)...)
	w.close()
	var out bytes.Buffer
	if err := Dump(&out, readerAt{w.mem}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"12 regions of 65536 bytes", "region 2 page 0: sequence 3, 10 blocks",
		fmt.Sprintf("3/1 block 39, owner 5, checksum %08x", sumOf(39))} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the dump lacks %q:\n%s", want, out.String())
		}
	}
	w.open()
}

// readerAt lets a reader of any buffer read a drive.
type readerAt struct{ f dio.File }

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	b, err := dio.AlignedBuf(len(p))
	if err != nil {
		return 0, err
	}
	defer dio.FreeBuf(b)
	if err := r.f.ReadAt(b, off); err != nil {
		return 0, err
	}
	return copy(p, b), nil
}

func TestOptionsAreChecked(t *testing.T) {
	for _, c := range []struct {
		size int64
		o    Options
	}{
		{1 << 20, Options{BlockBytes: 48 << 10, RegionBytes: testRegion}},
		{1 << 20, Options{BlockBytes: 512 << 10, RegionBytes: testRegion}},
		{1 << 20, Options{BlockBytes: 64 << 10, RegionBytes: 1000}},
		{1 << 20, Options{BlockBytes: 64 << 10}},
	} {
		if _, err := Open(dio.NewMem(c.size), c.o); errs.Of(err) != errs.Invalid {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
