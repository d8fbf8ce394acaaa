package pracc

import (
	"bytes"
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
	"vstor/dataplane/erasure"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/ring"
)

// world is a loop with a Client, drives in memory, and the authority on manifests. Tests change drives
// between fetches, or on the loop.
type world struct {
	t      testing.TB
	pool   *buf.Pool
	pages  int // free before the Client was made
	loop   *ring.Loop
	c      *Client
	drives []*memDrive
	auth   *authority
	codecs erasure.Registry
	rng    *rand.Rand
	rots   []rotReport // on the loop
	stamp  byte        // of the last read that was held
}

type rotReport struct {
	key  layout.FragKey
	asd  ids.ASDID
	kind errs.Kind
}

func newWorld(t testing.TB, drives int, poolBytes int64, change func(*Options)) *world {
	w := &world{t: t, auth: &authority{m: map[objKey]*layout.Manifest{}}, rng: rand.New(rand.NewPCG(1, 2))}
	var err error
	if w.pool, err = buf.NewPool(poolBytes, 0); err != nil {
		t.Fatal(err)
	}
	w.pages = w.pool.Free()
	if w.loop, err = ring.New(ring.Options{Pool: w.pool, Entries: 256}); err != nil {
		t.Fatal(err)
	}
	for range drives {
		w.drives = append(w.drives, &memDrive{frags: map[layout.FragKey][]layout.Extent{}, file: &memFile{w: w}})
	}
	opt := Options{Manifests: w.auth, Codecs: &w.codecs,
		Drives: func(id ids.ASDID) Drive {
			if int(id) >= len(w.drives) || w.drives[id].gone {
				return nil
			}
			return w.drives[id]
		},
		OnRot: func(key layout.FragKey, asd ids.ASDID, kind errs.Kind) {
			w.rots = append(w.rots, rotReport{key, asd, kind})
		},
	}
	if change != nil {
		change(&opt)
	}
	if w.c, err = New(w.loop, opt); err != nil {
		t.Fatal(err)
	}
	w.c.prober.Fire = func() {} // tests change drives between fetches; with freeze they are probed as well
	if err := w.loop.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

// close ends everything and looks for what was not given back.
func (w *world) close() {
	closed := make(chan struct{})
	if w.loop.Call(func() { w.c.Close(func() { close(closed) }) }) {
		<-closed
	} else {
		w.c.Close(nil) // the test stopped the loop
	}
	w.loop.Stop()
	w.checkLeaks()
	if err := w.pool.Close(); err != nil {
		w.t.Error(err)
	}
}

func (w *world) checkLeaks() {
	w.t.Helper()
	if n := w.pool.Free(); n != w.pages {
		w.t.Errorf("%d pages of the pool were not given back", w.pages-n)
	}
	for i, d := range w.drives {
		if d.pins != 0 {
			w.t.Errorf("drive %d: %d pins are left", i, d.pins)
		}
	}
	c := w.c
	if c.live+c.flying+c.rebuild.going+c.rebuild.pages+c.jobs.busy+c.reading+c.shadows+c.shadowPages+c.stuckReads+
		c.stuckPages != 0 {
		w.t.Errorf("left over: live %d flying %d rebuilds %d pages %d jobs %d reads %d shadows %d of %d pages, stuck %d "+
			"of %d pages", c.live, c.flying, c.rebuild.going, c.rebuild.pages, c.jobs.busy, c.reading, c.shadows,
			c.shadowPages, c.stuckReads, c.stuckPages)
	}
}

// authority answers for manifests. gate, if set, holds every answer until it is closed.
type authority struct {
	mu    sync.Mutex
	m     map[objKey]*layout.Manifest
	err   error
	gate  chan struct{}
	asked int
}

func (a *authority) Manifest(ctx context.Context, ns ids.NamespaceID, sco ids.SCONum) (*layout.Manifest, error) {
	a.mu.Lock()
	a.asked++
	gate := a.gate
	a.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, errs.Wrap(errs.Canceled, ctx.Err(), "gave up")
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return nil, a.err
	}
	m := a.m[objKey{ns, sco}]
	if m == nil {
		return nil, errs.New(errs.Absent, "no object %d/%d", ns, sco)
	}
	return m, nil
}

func (a *authority) set(m *layout.Manifest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.m[objKey{m.Namespace, m.SCO}] = m
}

func (a *authority) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked
}

// memDrive is a store: fragments in extents of a memFile.
type memDrive struct {
	frags  map[layout.FragKey][]layout.Extent
	file   *memFile
	over   dio.File  // read instead of file, if set
	gone   bool      // no drive
	answer errs.Kind // what Locate says, if not OK
	pins   int
	asked  int
}

func (d *memDrive) Locate(key layout.FragKey, off, n uint32, dst []layout.Extent) (
	[]layout.Extent, uint64, errs.Kind) {
	d.asked++
	if d.answer != errs.OK {
		return dst, 0, d.answer
	}
	exts, ok := d.frags[key]
	if !ok {
		return dst, 0, errs.Absent
	}
	for _, e := range exts {
		if off >= e.Len {
			off -= e.Len
			continue
		}
		run := min(e.Len-off, n)
		if run == 0 {
			break
		}
		dst = append(dst, layout.Extent{Off: e.Off + int64(off), Len: run})
		n -= run
		off = 0
	}
	if n > 0 {
		return dst, 0, errs.Invalid
	}
	d.pins++
	return dst, 7, errs.OK
}

func (d *memDrive) Unpin(pin uint64) bool {
	if pin != 7 || d.pins == 0 {
		panic("unpin of what was not pinned")
	}
	d.pins--
	return true
}

func (d *memDrive) File() dio.File {
	if d.over != nil {
		return d.over
	}
	return d.file
}

// put stores a fragment, cut into extents of at most cut bytes with gaps between them.
func (d *memDrive) put(key layout.FragKey, data []byte, cut int) {
	var exts []layout.Extent
	for len(data) > 0 {
		n := min(cut, len(data))
		d.file.mem = append(d.file.mem, make([]byte, 4096)...) // a header, or somebody else's
		exts = append(exts, layout.Extent{Off: int64(len(d.file.mem)), Len: uint32(n)})
		d.file.mem = append(d.file.mem, data[:n]...)
		data = data[n:]
	}
	d.frags[key] = exts
}

// at is the place on the drive of byte off of a fragment.
func (d *memDrive) at(key layout.FragKey, off int) int64 {
	for _, e := range d.frags[key] {
		if off < int(e.Len) {
			return e.Off + int64(off)
		}
		off -= int(e.Len)
	}
	panic("no such place")
}

// memFile is a drive's content. Reads come back in the same pass, or when a stall ends, or after a lag.
type memFile struct {
	w     *world
	mem   []byte
	eio   map[int64]bool // blocks (bytes / 4096) that cannot be read
	dead  bool           // nothing can be read
	stall bool
	deaf  bool         // what is held cannot be called off, as in a kernel
	lag   func() int64 // in the time of the Client; nil is none
	held  []*heldRead
	reads int
}

// heldRead is a read under way. Its pages bear a stamp meanwhile: if that is gone when the bytes come, somebody
// else has the pages. In builds with invariants a page that is free bears none.
type heldRead struct {
	op    *ring.Op
	token uint64
	res   int32
	due   int64
	v     *buf.Vec // of a Remote: the list that it was given, which must stay as it is
	segs  []buf.Seg
	data  []byte
	stamp byte
}

// hold keeps a read back that shall end with data.
func (w *world) hold(op *ring.Op, segs []buf.Seg, data []byte, res int32, deaf bool) *heldRead {
	w.stamp++
	h := &heldRead{op: op, res: res, due: math.MaxInt64, segs: slices.Clone(segs), data: data, stamp: w.stamp}
	for _, s := range h.segs {
		for p := w.pool.SegBytes(s); len(p) > 0; p = p[4096:] {
			p[0], p[4095] = h.stamp, ^h.stamp
		}
	}
	if !deaf {
		h.token = w.loop.Hold(op)
	}
	return h
}

// end brings the bytes, into pages that are nobody else's, unless the read was called off.
func (h *heldRead) end(w *world) {
	if h.token != 0 && !w.loop.Unhold(h.op, h.token) {
		return
	}
	if h.v != nil && !slices.Equal(h.v.Segs, h.segs) {
		w.t.Error("the list of a read under way was changed")
	}
	for _, s := range h.segs {
		for p := w.pool.SegBytes(s); len(p) > 0; p = p[4096:] {
			if p[0] != h.stamp || p[4095] != ^h.stamp {
				w.t.Errorf("a late read writes into a page that somebody else has")
			}
		}
		if h.res > 0 {
			h.data = h.data[copy(w.pool.SegBytes(s), h.data):]
		}
	}
	w.loop.Defer(h.op, h.res)
}

func (f *memFile) ReadV(l *ring.Loop, op *ring.Op, v *buf.Vec, off int64) {
	f.reads++
	n := int64(v.Len())
	res := int32(n)
	for b := off / 4096; b < (off+n)/4096; b++ {
		if f.dead || f.eio[b] {
			res = -int32(syscall.EIO)
			break
		}
	}
	if f.stall || f.lag != nil {
		h := f.w.hold(op, v.Segs, bytes.Clone(f.mem[off:off+n]), res, f.deaf)
		if !f.stall {
			h.due = f.w.c.now() + f.lag()
		}
		f.held = append(f.held, h)
		return
	}
	if res > 0 {
		for _, s := range v.Segs {
			off += int64(copy(l.Pool().SegBytes(s), f.mem[off:]))
		}
	}
	l.Defer(op, res)
}

// resume ends a stall; on the loop.
func (f *memFile) resume() {
	f.stall = false
	for _, h := range f.held {
		h.end(f.w)
	}
	f.held = nil
}

// endDue ends the reads whose lag is over; on the loop.
func (f *memFile) endDue(now int64) {
	left := f.held[:0]
	for _, h := range f.held {
		if h.due <= now {
			h.end(f.w)
		} else {
			left = append(left, h)
		}
	}
	f.held = left
}

func (f *memFile) WriteV(*ring.Loop, *ring.Op, *buf.Vec, int64) { panic("read only") }
func (f *memFile) Datasync(*ring.Loop, *ring.Op)                { panic("read only") }
func (f *memFile) ReadAt([]byte, int64) error                   { panic("blocking") }
func (f *memFile) WriteAt([]byte, int64) error                  { panic("read only") }
func (f *memFile) Sync() error                                  { return nil }
func (f *memFile) Size() int64                                  { return int64(len(f.mem)) }
func (f *memFile) Close() error                                 { return nil }

// object is what a test knows of an object.
type object struct {
	m    *layout.Manifest
	data []byte
	sums []uint32
}

func (o *object) blocks() int { return len(o.sums) }

// put makes an object of random bytes, its fragment (chunk, f) on ASD Slot, and its manifest known.
func (w *world) put(sco ids.SCONum, blocks int, pol layout.Policy, maxFrag uint32, cut int) *object {
	w.t.Helper()
	size := int64(blocks) * ids.BlockSize
	m := &layout.Manifest{Namespace: 9, SCO: sco, Put: ids.PutID(sco) + 100, Epoch: 1, Commit: 1,
		Kind: layout.KindWrite, SeqFirst: 1, SeqLast: 2, Size: size, Plain: size,
		MaxFrag: maxFrag, Policy: pol, Version: 1}
	g := m.Geometry()
	o := &object{m: m, data: make([]byte, size)}
	for i := 0; i < len(o.data); i += 8 {
		v := w.rng.Uint64()
		for b := range 8 {
			o.data[i+b] = byte(v >> (8 * b))
		}
	}
	for i := range blocks {
		o.sums = append(o.sums, uint32(xxhash.Sum64(o.data[i*4096:(i+1)*4096])))
	}
	for s := range pol.N() {
		m.Targets = append(m.Targets, layout.ASDTarget(ids.ASDID(s)))
	}
	m.Frags = make([]layout.Frag, g.Chunks*pol.N())
	for chunk := range g.Chunks {
		for f, shard := range w.encode(o, chunk) {
			*m.Frag(chunk, f) = layout.Frag{Version: 1, State: layout.FragPresent}
			w.drives[m.Target(chunk, f).ASD].put(m.FragKey(chunk, f), shard, cut)
		}
	}
	if err := m.Validate(); err != nil {
		w.t.Fatal(err)
	}
	w.auth.set(m)
	return o
}

// encode is the fragments of a chunk.
func (w *world) encode(o *object, chunk int) [][]byte {
	g := o.m.Geometry()
	codec, err := w.codecs.Codec(int(o.m.Policy.K), int(o.m.Policy.M))
	if err != nil {
		w.t.Fatal(err)
	}
	shards := make([][]byte, o.m.Policy.N())
	for f := range shards {
		shards[f] = make([]byte, g.FragLen)
		at := int64(chunk)*g.ChunkLen + int64(f)*g.FragLen
		if f < g.K && at < int64(len(o.data)) {
			copy(shards[f], o.data[at:])
		}
	}
	if err := codec.Encode(shards); err != nil {
		w.t.Fatal(err)
	}
	return shards
}

// amend makes a newer manifest of o, changed by f, known to the authority.
func (w *world) amend(o *object, f func(m *layout.Manifest)) {
	o.m = o.m.Clone()
	o.m.Version++
	f(o.m)
	w.auth.set(o.m)
}

func (w *world) driveOf(o *object, chunk, frag int) *memDrive {
	return w.drives[o.m.Target(chunk, frag).ASD]
}

// flip rots one bit of block b of a fragment.
func (w *world) flip(o *object, chunk, frag, b int) {
	d, key := w.driveOf(o, chunk, frag), o.m.FragKey(chunk, frag)
	d.file.mem[d.at(key, b*4096)+int64(w.rng.IntN(4096))] ^= 1 << w.rng.IntN(8)
}

// flight is one fetch of a test.
type flight struct {
	Fetch
	w    *world
	done chan struct{}
	got  []byte
	ends int
}

func (fl *flight) FetchDone(f *Fetch) {
	fl.ends++
	if f.Err == errs.OK {
		for _, s := range f.Dst.Segs {
			fl.got = append(fl.got, fl.w.pool.SegBytes(s)...)
		}
	}
	fl.w.pool.ReleaseVec(&f.Dst)
	close(fl.done)
}

// start begins to fetch blocks of o, into pages that are scattered if scatter; on the loop.
func (w *world) start(o *object, off, n int, scatter bool) *flight {
	fl := &flight{w: w, done: make(chan struct{})}
	var spare buf.Vec
	for left := n; left > 0; {
		run := left
		if scatter {
			run = min(left, 1+w.rng.IntN(3))
		}
		if !w.pool.Alloc(&fl.Dst, run) || scatter && left > run && !w.pool.Alloc(&spare, 1) {
			panic("pool too small for the test")
		}
		left -= run
	}
	w.pool.ReleaseVec(&spare)
	fl.NS, fl.SCO, fl.Off, fl.Blocks = o.m.Namespace, o.m.SCO, uint32(off), uint32(n)
	fl.Sums = o.sums[off : off+n]
	fl.Done = fl
	w.c.Fetch(&fl.Fetch)
	if fl.ends != 0 {
		panic("FetchDone inside Fetch")
	}
	return fl
}

// fetch reads blocks of o and waits.
func (w *world) fetch(o *object, off, n int) *flight {
	w.t.Helper()
	var fl *flight
	if !w.loop.Call(func() { fl = w.start(o, off, n, false) }) {
		w.t.Fatal("the loop has stopped")
	}
	<-fl.done
	return fl
}

// want fetches and compares.
func (w *world) want(o *object, off, n int) {
	w.t.Helper()
	w.same(w.fetch(o, off, n), o)
}

func (w *world) same(fl *flight, o *object) {
	w.t.Helper()
	off, n := int(fl.Off), int(fl.Blocks)
	if fl.Err != errs.OK {
		w.t.Fatalf("blocks %d+%d: %v", off, n, fl.Err)
	}
	if string(fl.got) != string(o.data[off*4096:(off+n)*4096]) {
		w.t.Fatalf("blocks %d+%d: wrong bytes", off, n)
	}
}
