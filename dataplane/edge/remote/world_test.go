package remote

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/edge"
	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/leaktest"
	"vstor/dataplane/link"
	"vstor/dataplane/ring"
	"vstor/dataplane/router"
)

func TestMain(m *testing.M) { leaktest.Main(m, ring.Probe) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var secret = make([]byte, 32)

const blocks = 1024 // of the vDisk

// rig is a loop.
type rig struct {
	pool *buf.Pool
	loop *ring.Loop
	hub  *link.Hub
}

func newRig(t testing.TB) *rig {
	t.Helper()
	pool, err := buf.NewPool(64<<20, 8<<20)
	must(t, err)
	l, err := ring.New(ring.Options{Pool: pool, RecvBufs: 4, RecvBufSize: 32 << 10})
	must(t, err)
	must(t, l.Start())
	r := &rig{pool, l, link.NewHub(l, link.HubOptions{})}
	t.Cleanup(func() {
		l.Call(func() {
			if pool.Free() != pool.Pages() {
				t.Errorf("%d pages leaked", pool.Pages()-pool.Free())
			}
		})
		l.Stop()
		pool.Close()
	})
	return r
}

// volume is a Volume Driver whose blocks lie in memory: the router's end. Everything written is located at once.
type volume struct {
	*rig
	door     *router.VDisk
	mu       sync.Mutex
	data     []byte // also the object that locations name
	hole     []bool
	seq      ids.Seq
	hold     bool      // changes wait for release; loop
	dying    bool      // changes are lost; loop
	mute     bool      // no location is told; loop
	fail     errs.Kind // of changes; loop
	constant bool      // it was made read-only; loop
	held     []*block.Mutation
	puts     int // loop
	op       [64]ring.Op
	busy     [64]func()
}

// RingDone ends what was deferred.
func (v *volume) RingDone(op *ring.Op, _ int32) {
	for i := range v.op {
		if op == &v.op[i] {
			f := v.busy[i]
			v.busy[i] = nil
			f()
		}
	}
}

func (v *volume) later(f func()) {
	for i := range v.op {
		if v.busy[i] == nil {
			v.busy[i], v.op[i].Done = f, v
			v.loop.Defer(&v.op[i], 0)
			return
		}
	}
	panic("too much at once")
}

func (v *volume) Mutate(m *block.Mutation) {
	v.held = append(v.held, m)
	switch {
	case v.dying:
		v.later(v.lose)
	case !v.hold:
		v.later(v.release)
	}
}

// release carries out what waits.
func (v *volume) release() {
	list := v.held
	v.held = nil
	for _, m := range list {
		v.mu.Lock()
		at := 0
		for _, s := range m.Data.Segs {
			at += copy(v.data[int(m.Addr)*4096+at:], v.pool.SegBytes(s))
		}
		for i := range m.Count {
			v.hole[int(m.Addr)+int(i)] = m.Op != block.Put
			if m.Op != block.Put {
				clear(v.data[(int(m.Addr)+int(i))*4096:][:4096])
			}
		}
		v.mu.Unlock()
		if m.Op != block.Sync {
			v.puts++
			if v.fail == errs.OK {
				v.seq++
			}
		}
		v.pool.ReleaseVec(&m.Data)
		m.Err = v.fail
		m.Done.MutationDone(m)
	}
}

// lose ends what waits as a router that dies does.
func (v *volume) lose() {
	list := v.held
	v.held = nil
	for _, m := range list {
		v.pool.ReleaseVec(&m.Data)
		m.Err = errs.Closed
		m.Done.MutationDone(m)
	}
}

func (v *volume) sum(a ids.BlockAddr) uint32 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return uint32(xxhash.Sum64(v.data[a*4096:][:4096]))
}

func (v *volume) Locate(addr ids.BlockAddr, out []layout.Location, _ block.Loaded) bool {
	for i := range out {
		a := addr + ids.BlockAddr(i)
		out[i] = layout.Location{SCO: 1, Off: uint16(a), Sum: v.sum(a)}
		if v.hole[a] {
			out[i] = layout.Location{Off: layout.OffTrimmed}
		}
		if v.mute {
			out[i] = proto.Asked
		}
	}
	return true
}

func (v *volume) Namespace(layout.Location) ids.NamespaceID { return 7 }
func (v *volume) Sequence() ids.Seq                         { return v.seq }
func (v *volume) Info() block.Info                          { return block.Info{Size: int64(len(v.data))} }

func (v *volume) Submit(r *block.Request) {
	switch r.Op {
	case block.Read:
		if !v.pool.AllocReserved(&r.Data, int(r.Len/4096)) {
			panic("no pages")
		}
		v.mu.Lock()
		v.pool.CopyIn(&r.Data, 0, v.data[r.Off:][:r.Len])
		v.mu.Unlock()
	case block.Extents:
		r.Extents = append(r.Extents[:0], block.Extent{Len: r.Len / 2 &^ 4095, State: block.Hole | block.ReadsZero})
	}
	v.later(func() { r.Done.Completed(r) })
}

func (v *volume) Manifest(context.Context, ids.NamespaceID, ids.SCONum) (*layout.Manifest, error) {
	return nil, errs.New(errs.Absent, "there are no objects")
}

// Fetch is an edge's PRACC: what a location names, if it has not changed meanwhile.
type fetcher struct {
	v *volume
	e *host
}

func (f fetcher) Fetch(x *block.Fetch) {
	f.v.mu.Lock()
	f.e.pool.CopyIn(x.Dst, 0, f.v.data[x.Off*4096:][:x.Count*4096])
	f.v.mu.Unlock()
	x.Err = errs.OK
	i := 0
	for _, s := range x.Dst.Segs {
		for b := f.e.pool.SegBytes(s); len(b) > 0; b = b[4096:] {
			if uint32(xxhash.Sum64(b[:4096])) != x.Sums[i] {
				x.Err = errs.Corrupt
			}
			i++
		}
	}
	f.e.ends = append(f.e.ends, x)
	f.e.loop.AtPassEnd(&f.e.hook)
}

// world is a router and the edges that reach it.
type world struct {
	t       testing.TB
	v       *volume
	srv     *router.Server
	forward atomic.Int64
	down    atomic.Bool // nobody answers
	spoil   atomic.Int64
	mu      sync.Mutex
	conns   map[net.Conn]struct{}
	kept    router.Record // under mu
	epoch   ids.Epoch
}

func (w *world) clock() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return ts.Nano() + w.forward.Load()
}

func newWorld(t testing.TB) *world { return newWorldOf(t, blocks) }

// newWorldOf is one with a vDisk of so many blocks.
func newWorldOf(t testing.TB, blocks int) *world {
	w := &world{t: t, conns: map[net.Conn]struct{}{}, epoch: 3}
	w.v = &volume{rig: newRig(t), data: make([]byte, blocks*4096), hole: make([]bool, blocks)}
	w.openDoor(7)
	w.srv = router.NewServer(router.ServerOptions{Secret: secret, Log: slog.New(slog.DiscardHandler), Find: w.find})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		w.srv.Shutdown(ctx)
		w.closeDoor()
	})
	return w
}

// dial connects by way of two pumps, which may be cut and may turn a bit.
func (w *world) dial(context.Context, string) (net.Conn, error) {
	if w.down.Load() {
		return nil, errs.Unreachable
	}
	near, a := pair(w.t)
	b, far := pair(w.t)
	w.mu.Lock()
	w.conns[a], w.conns[b] = struct{}{}, struct{}{}
	w.mu.Unlock()
	pump := func(to, from net.Conn) {
		io.Copy(&turner{w, to}, from)
		to.Close()
		from.Close()
		w.mu.Lock()
		delete(w.conns, to)
		delete(w.conns, from)
		w.mu.Unlock()
	}
	go pump(a, b)
	go pump(b, a)
	w.srv.Attach(far)
	return near, nil
}

// turner turns a bit of long pieces, as often as it is told.
type turner struct {
	w  *world
	to net.Conn
}

func (p *turner) Write(b []byte) (int, error) {
	if len(b) > 4000 && p.w.spoil.Load() > 0 {
		p.w.spoil.Add(-1)
		b = bytes.Clone(b)
		b[len(b)-1] ^= 1
	}
	return p.to.Write(b)
}

func pair(t testing.TB) (net.Conn, net.Conn) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	conn := func(fd int) net.Conn {
		f := os.NewFile(uintptr(fd), "wire")
		defer f.Close()
		nc, err := net.FileConn(f)
		must(t, err)
		return nc
	}
	return conn(fds[0]), conn(fds[1])
}

func (w *world) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		c.Close()
	}
}

// host is an edge's process.
type host struct {
	*rig
	w    *world
	r    *Remote
	disk *edge.Disk
	ends []*block.Fetch
	done []*block.Fetch
	hold bool // fetches do not end; loop
	hook ring.Hook
}

func (w *world) options(e *host, name byte) Options {
	return Options{VDisk: "v", Edge: "edge " + string(name), Opener: proto.Opener{name}, Secret: secret, Dial: w.dial,
		Mode: proto.Exclusive, Loop: e.loop, Hub: e.hub, Cache: NewCache(1 << 20), Clock: w.clock,
		RenewEvery: 50 * time.Millisecond, BackOff: 5 * time.Millisecond, Log: slog.New(slog.DiscardHandler)}
}

func (w *world) host() *host {
	e := &host{rig: newRig(w.t), w: w}
	e.hook = ring.Hook{Stage: ring.StageDevice, Run: func() {
		if e.hold {
			return
		}
		list := e.ends
		e.ends = e.done[:0]
		for _, x := range list {
			x.Done.FetchDone(x)
		}
		e.done = list
	}}
	return e
}

// open opens the vDisk at a new edge.
func (w *world) open(name byte, change func(*Options)) (*host, error) {
	e := w.host()
	o := w.options(e, name)
	change(&o)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	r, err := Open(ctx, o)
	if err != nil {
		return nil, err
	}
	e.r = r
	e.loop.Call(func() { e.disk = edge.NewDisk(e.loop, r, fetcher{w.v, e}, nil) })
	w.t.Cleanup(r.Shut)
	return e, nil
}

func (w *world) mustOpen(name byte) *host {
	w.t.Helper()
	e, err := w.open(name, func(*Options) {})
	must(w.t, err)
	return e
}

// request is one under way.
type request struct {
	block.Request
	e    *host
	data []byte
	done chan struct{}
	then func() // on the loop, at its end
}

func (q *request) Completed(r *block.Request) {
	if r.Op == block.Read {
		for _, s := range r.Data.Segs {
			q.data = append(q.data, q.e.pool.SegBytes(s)...)
		}
		q.e.pool.ReleaseVec(&r.Data)
	}
	if q.then != nil {
		q.then()
	}
	close(q.done)
}

// start submits a request.
func (e *host) start(op block.Op, addr, n int, fill byte) *request {
	q := e.make(op, addr, n)
	e.loop.PostFunc(func() { q.submit(fill) })
	return q
}

func (e *host) make(op block.Op, addr, n int) *request {
	q := &request{Request: block.Request{Op: op, Off: int64(addr) * 4096, Len: uint32(n) * 4096}, e: e,
		done: make(chan struct{})}
	q.Done = q
	q.Extents = make([]block.Extent, 0, 4)
	return q
}

// submit submits a request on the loop; what it writes is fill.
func (q *request) submit(fill byte) {
	e := q.e
	if q.Op == block.Write {
		if !e.pool.Alloc(&q.Data, int(q.Len/4096)) {
			panic("no pages")
		}
		for _, s := range q.Data.Segs {
			for i := range e.pool.SegBytes(s) {
				e.pool.SegBytes(s)[i] = fill
			}
		}
	}
	e.disk.Submit(&q.Request)
}

func (q *request) wait() errs.Kind {
	select {
	case <-q.done:
	case <-time.After(60 * time.Second):
		q.e.w.t.Fatalf("operation %d at %d does not end", q.Op, q.Off)
	}
	return q.Err
}

func (e *host) do(op block.Op, addr, n int, fill byte) *request {
	e.w.t.Helper()
	q := e.start(op, addr, n, fill)
	if k := q.wait(); k != errs.OK {
		e.w.t.Fatalf("operation %d at %d: %v", op, addr, k)
	}
	return q
}

// reads checks that all of a range is fill.
func (e *host) reads(addr, n int, fill byte) {
	e.w.t.Helper()
	q := e.do(block.Read, addr, n, 0)
	if len(q.data) != n*4096 {
		e.w.t.Fatalf("%d bytes", len(q.data))
	}
	for i, b := range q.data {
		if b != fill {
			e.w.t.Fatalf("byte %d is %d, want %d", i, b, fill)
		}
	}
}

// know reads a range until the edge knows where all of it lies.
func (e *host) know(addr, n int, fill byte) {
	e.w.t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		asked := e.r.Stats.Asked.Load()
		e.reads(addr, n, fill)
		if e.r.Stats.Asked.Load() == asked {
			return
		}
	}
	e.w.t.Fatal("the edge does not learn where blocks lie")
}

// eventually waits for a condition.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if ok() {
			return
		}
	}
	w.t.Fatal(what)
}
