package blockcache

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/cespare/xxhash/v2"

	"vstor/blockcache/ssd"
	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
)

const (
	testRegion = 64 << 10
	testParts  = 8 // of a block of 32 KiB
)

// world is a loop with a Cache, a backend that knows every object, and perhaps a drive in memory.
type world struct {
	t     testing.TB
	pool  *buf.Pool
	pages int
	loop  *ring.Loop
	c     *Cache
	back  *backend
	mem   *dio.Mem
	file  dio.File
	opts  Options
	clock int64 // virtual, on the loop
}

// newWorld makes one; regions is the size of the SSD tier, 0 for none.
func newWorld(t testing.TB, ram int64, regions int, change func(*world)) *world {
	w := &world{t: t, opts: Options{BlockBytes: testParts * ids.BlockSize, RAMBytes: ram}}
	w.back = &backend{w: w}
	w.opts.Below = w.back
	w.opts.Now = func() int64 { return w.clock }
	w.clock = 1e9
	if regions > 0 {
		w.mem = dio.NewMem(4096 + int64(regions)*testRegion)
		w.file = w.mem
	}
	var err error
	if w.pool, err = buf.NewPool(ram+16<<20, 0); err != nil {
		t.Fatal(err)
	}
	w.pages = w.pool.Free()
	if w.loop, err = ring.New(ring.Options{Pool: w.pool, Entries: 256}); err != nil {
		t.Fatal(err)
	}
	if err := w.loop.Start(); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(w)
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
	w.opts.SSD = nil
	if w.file != nil {
		o := ssd.Options{UUID: [16]byte{1}, BlockBytes: w.opts.BlockBytes, RegionBytes: testRegion}
		w.opts.SSD, err = ssd.Open(w.file, o)
		if err != nil {
			w.t.Fatal(err)
		}
	}
	w.loop.Call(func() { w.c, err = New(w.loop, w.opts) })
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) close() {
	done := make(chan struct{})
	w.loop.Call(func() {
		for len(w.c.tenants) > 0 {
			w.c.tenants[0].Close()
		}
		w.c.Close(func() { close(done) })
	})
	<-done
	if w.c.flight.claims != 0 {
		w.t.Errorf("%d claims are left", w.c.flight.claims)
	}
}

func (w *world) tenant(id ids.VolumeID, q Quota) (t *Tenant) {
	w.loop.Call(func() { t = w.c.Open(id, q, false) })
	return t
}

var everything = Quota{RAM: Unlimited, SSD: Unlimited}

// at is a block of an object.
type at struct {
	ns  ids.NamespaceID
	sco ids.SCONum
	off uint32
}

func (a at) content(b []byte) {
	x := uint64(a.ns)<<48 ^ uint64(a.sco)<<24 ^ uint64(a.off) ^ 0x9e3779b97f4a7c15
	for i := 0; i < len(b); i += 8 {
		x = bits.RotateLeft64(x*0xa0761d6478bd642f, 23)
		binary.LittleEndian.PutUint64(b[i:], x)
	}
}

var sumCache = map[at]uint32{}

// sum is a block's checksum. Test goroutine only.
func (a at) sum() uint32 {
	s, ok := sumCache[a]
	if !ok {
		var b [ids.BlockSize]byte
		a.content(b[:])
		s = uint32(xxhash.Sum64(b[:]))
		sumCache[a] = s
	}
	return s
}

// sums are those of n blocks.
func (a at) sums(n int) (out []uint32) {
	for i := range n {
		out = append(out, at{a.ns, a.sco, a.off + uint32(i)}.sum())
	}
	return out
}

// backend is a Fetcher that has every block. On the loop.
type backend struct {
	w       *world
	hold    bool // keep what comes until release
	held    []*block.Fetch
	err     errs.Kind
	takes   int64 // on the virtual clock
	fetches int
	blocks  int
	free    []*answer
}

type answer struct {
	b  *backend
	f  *block.Fetch
	op ring.Op
}

func (b *backend) Fetch(f *block.Fetch) {
	b.fetches++
	b.blocks += int(f.Count)
	if b.hold {
		b.held = append(b.held, f)
		return
	}
	b.answer(f)
}

func (b *backend) answer(f *block.Fetch) {
	b.w.clock += b.takes
	var a *answer
	if n := len(b.free); n > 0 {
		a, b.free = b.free[n-1], b.free[:n-1]
	} else {
		a = &answer{b: b}
		a.op.Done = a
	}
	a.f = f
	b.w.loop.Defer(&a.op, 0)
}

// release answers what is held, in an order of rng's.
func (b *backend) release(rng *rand.Rand) {
	held := b.held
	b.held = nil
	rng.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
	for _, f := range held {
		b.answer(f)
	}
}

func (a *answer) RingDone(*ring.Op, int32) {
	f, b := a.f, a.b
	b.free = append(b.free, a)
	f.Err = b.err
	if f.Err == errs.OK {
		i := 0
		for _, s := range f.Dst.Segs {
			for p := range s.Pages() {
				at{f.NS, f.SCO, f.Off + uint32(i)}.content(b.w.pool.Bytes(s.Page + buf.Page(p)))
				i++
			}
		}
	}
	f.Done.FetchDone(f)
}

// reader is a read as the edge does it: Get, then Fetch for the rest.
type reader struct {
	w    *world
	from at
	want []uint32
	got  int
	vec  buf.Vec
	dst  buf.Vec
	f    block.Fetch
	done chan struct{}
}

func (w *world) reader(from at, n int) *reader {
	r := &reader{w: w, from: from, want: from.sums(n), done: make(chan struct{}, 1)}
	return r
}

// start begins the read. On the loop.
func (r *reader) start(t *Tenant, ahead bool) {
	w := r.w
	if !ahead {
		r.got = w.c.Get(t, r.from.ns, r.from.sco, r.from.off, r.want, &r.vec)
	}
	if r.got == len(r.want) {
		r.done <- struct{}{}
		return
	}
	rest := len(r.want) - r.got
	if !w.pool.Alloc(&r.dst, rest) {
		w.t.Error("the pool is empty")
		r.done <- struct{}{}
		return
	}
	r.f = block.Fetch{NS: r.from.ns, SCO: r.from.sco, Off: r.from.off + uint32(r.got), Count: uint32(rest),
		Sums: r.want[r.got:], Dst: &r.dst, Done: r}
	if ahead {
		w.c.Prefetch(t, &r.f)
	} else {
		w.c.Fetch(t, &r.f)
	}
}

func (r *reader) FetchDone(*block.Fetch) { r.done <- struct{}{} }

// finish waits, verifies every byte, and gives the pages back. It returns how the read ended.
func (r *reader) finish() errs.Kind {
	<-r.done
	w := r.w
	w.loop.Call(func() {
		i := 0
		for _, v := range [2]*buf.Vec{&r.vec, &r.dst} {
			for _, s := range v.Segs {
				for p := range s.Pages() {
					b := w.pool.Bytes(s.Page + buf.Page(p))
					if r.f.Err == errs.OK && uint32(xxhash.Sum64(b)) != r.want[i] {
						w.t.Errorf("block %d of %+v is wrong", i, r.from)
					}
					i++
				}
			}
			w.pool.ReleaseVec(v)
		}
		if i != len(r.want) {
			w.t.Errorf("%d pages for %d blocks", i, len(r.want))
		}
	})
	return r.f.Err
}

// read reads n blocks and returns how many RAM served at once.
func (w *world) read(t *Tenant, from at, n int) int {
	w.t.Helper()
	r := w.reader(from, n)
	w.loop.Call(func() { r.start(t, false) })
	if k := r.finish(); k != errs.OK {
		w.t.Fatalf("read of %+v: %v", from, k)
	}
	return r.got
}

// settle waits until the SSD tier writes nothing.
func (w *world) settle() {
	for i := 0; i < 3; i++ {
		w.loop.Call(func() {})
	}
}

// check adds up what RAM holds.
func (w *world) check() {
	w.t.Helper()
	w.loop.Call(func() {
		c := w.c
		var used int64
		count := 0
		for e := range c.valid {
			if c.valid[e] == 0 {
				continue
			}
			count++
			used += c.opts.entryBytes() + int64(bits.OnesCount64(c.valid[e]))*ids.BlockSize
		}
		if used != c.pol.Used() || count != c.pol.Count() {
			w.t.Fatalf("RAM has %d bytes in %d entries; the policy says %d in %d", used, count, c.pol.Used(), c.pol.Count())
		}
		if used > c.opts.RAMBytes {
			w.t.Fatalf("%d bytes of %d", used, c.opts.RAMBytes)
		}
		for _, t := range c.tenants {
			if q := t.bound(); c.pol.AccountUsed(t.ram) > q.RAM || c.tier != nil && c.tier.Policy().AccountUsed(t.ssd) > q.SSD {
				w.t.Fatalf("vDisk %d is above its quota %+v: %d and %d", t.id, q, c.pol.AccountUsed(t.ram),
					c.tier.Policy().AccountUsed(t.ssd))
			}
		}
	})
}
