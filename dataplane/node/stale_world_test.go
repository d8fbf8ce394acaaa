package node

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vstor/blockcache"
	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/edge"
	"vstor/dataplane/edge/proto"
	"vstor/dataplane/edge/remote"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/link"
	"vstor/dataplane/ring"
	"vstor/pracc"
)

// edgeWorld is a router on a machine in memory that can be killed, and edges that reach it by sockets that can be cut.
// Its drives serve the edges while no router runs, as daemons do. Its boot-time clock can be put forward.
type edgeWorld struct {
	t     testing.TB
	host  *memHost
	log   *slog.Logger
	seed  uint64
	model model // for its configuration

	mu      sync.RWMutex // held for writing while the router changes
	n       *Node
	wires   sync.Mutex
	conns   map[net.Conn]struct{}
	forward atomic.Int64
}

var edgeSecret = make([]byte, 32)

func (w *edgeWorld) clock() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return ts.Nano() + w.forward.Load()
}

// start brings a router up. The world's lock is held, or nobody is there yet.
func (w *edgeWorld) start(fresh bool, size int64) {
	if fresh {
		if err := w.host.fs.MkdirAll("/d", 0o755); err != nil {
			w.t.Fatal(err)
		}
	}
	cfg := w.model.config()
	cfg.StallTimeout = 0
	n, err := Start(Options{Config: cfg, Log: w.log, Host: w.host, Fresh: fresh, NoNBD: true, Grace: 10 * time.Minute,
		Edges: &EdgeOptions{Secret: edgeSecret, Clock: w.clock}})
	if err != nil {
		w.t.Fatalf("seed %d: start: %v", w.seed, err)
	}
	w.n = n
	if fresh {
		if _, err := n.CreateVDisk(context.Background(), "v", size); err != nil {
			w.t.Fatal(err)
		}
	}
}

// kill is the death of the router's process and its next life.
func (w *edgeWorld) kill(rng *rand.Rand) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old, n := w.host, w.n
	w.cut() // first: that its drives are dead must be told to nobody
	w.host = old.crash(rng, false)
	n.Close()
	w.start(false, 0)
}

func (w *edgeWorld) vdisk() *vdisk { return w.n.vdisks["v"] }

// poke has the router look at the clock.
func (w *edgeWorld) poke() {
	w.mu.RLock()
	defer w.mu.RUnlock()
	w.vdisk().door.Edges()
}

// dial connects an edge to the router, by way of a wire that cut tears.
func (w *edgeWorld) dial(context.Context, string) (net.Conn, error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.host.frozen.Load() {
		return nil, errs.Unreachable
	}
	near, a := w.pair()
	b, far := w.pair()
	w.wires.Lock()
	w.conns[a], w.conns[b] = struct{}{}, struct{}{}
	w.wires.Unlock()
	pump := func(to, from net.Conn) {
		io.Copy(to, from)
		to.Close()
		from.Close()
		w.wires.Lock()
		delete(w.conns, to)
		delete(w.conns, from)
		w.wires.Unlock()
	}
	go pump(a, b)
	go pump(b, a)
	w.n.edges.Attach(far)
	return near, nil
}

func (w *edgeWorld) pair() (net.Conn, net.Conn) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	conn := func(fd int) net.Conn {
		f := os.NewFile(uintptr(fd), "wire")
		defer f.Close()
		nc, err := net.FileConn(f)
		if err != nil {
			w.t.Fatal(err)
		}
		return nc
	}
	return conn(fds[0]), conn(fds[1])
}

// cut tears all wires.
func (w *edgeWorld) cut() {
	w.wires.Lock()
	defer w.wires.Unlock()
	for c := range w.conns {
		c.Close()
	}
}

// drive is an ASD's process as an edge reaches it (pracc.Remote).
type worldDrive struct {
	e  *testEdge
	id ids.ASDID
}

func (d *worldDrive) Ready() bool   { return true }
func (d *worldDrive) Cancel(uint64) {}

func (d *worldDrive) ReadRange(op *ring.Op, key layout.FragKey, off, n uint32, v *buf.Vec) uint64 {
	go func() {
		res := d.read(key, off, n, v)
		d.e.loop.PostFunc(func() { d.e.loop.Defer(op, res) })
	}()
	return 0
}

func (d *worldDrive) read(key layout.FragKey, off, n uint32, v *buf.Vec) int32 {
	w := d.e.w
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.host.frozen.Load() {
		return -int32(errs.Unreachable.Errno())
	}
	s := w.n.drives[d.id]
	extents, pin, k := s.store.Locate(key, off, n, nil)
	defer s.store.Unpin(pin)
	if k != errs.OK {
		return -int32(k.Errno())
	}
	b, err := buf.AlignedBytes(int(n))
	if err != nil {
		return -int32(errs.IO.Errno())
	}
	defer buf.FreeAligned(b)
	at := 0
	for _, x := range extents {
		if err := s.file.ReadAt(b[at:at+int(x.Len)], x.Off); err != nil {
			return -int32(errs.Unreachable.Errno()) // the machine has died meanwhile
		}
		at += int(x.Len)
	}
	d.e.pool.CopyIn(v, 0, b)
	return int32(n)
}

// testEdge is an edge's process.
type testEdge struct {
	w      *edgeWorld
	name   string
	pool   *buf.Pool
	loop   *ring.Loop
	hub    *link.Hub
	cache  *remote.Cache
	client *pracc.Client
	source atomic.Pointer[remote.Remote]
	r      *remote.Remote
	disk   *edge.Disk
	fetch  *fetcher
	blocks *blockcache.Cache // goes on over takeovers: nothing in it can be out of date
	share  *blockCache
}

func (w *edgeWorld) newEdge(name string, cacheBytes int64) *testEdge {
	e := &testEdge{w: w, name: name}
	var err error
	must := func(err error) {
		if err != nil {
			w.t.Fatal(err)
		}
	}
	e.pool, err = buf.NewPool(64<<20, 8<<20)
	must(err)
	e.loop, err = ring.New(ring.Options{Pool: e.pool, RecvBufs: 4, RecvBufSize: 32 << 10})
	must(err)
	must(e.loop.Start())
	e.hub, e.cache = link.NewHub(e.loop, link.HubOptions{}), remote.NewCache(cacheBytes)
	drives := map[ids.ASDID]*worldDrive{}
	for i := range ids.ASDID(w.model.config().ASDs) {
		drives[i] = &worldDrive{e, i}
	}
	e.loop.Call(func() {
		e.client, err = pracc.New(e.loop, pracc.Options{Manifests: e, Patience: 10 * time.Millisecond,
			Remotes: func(id ids.ASDID) pracc.Remote {
				if d := drives[id]; d != nil {
					return d
				}
				return nil
			}})
	})
	must(err)
	e.fetch = &fetcher{client: e.client}
	e.loop.Call(func() {
		e.blocks, err = blockcache.New(e.loop, blockcache.Options{BlockBytes: 32 << 10, RAMBytes: max(1<<20, 4*cacheBytes),
			Below: e.fetch})
	})
	must(err)
	return e
}

// Manifest implements pracc.Manifests: the vDisk that is open knows the way.
func (e *testEdge) Manifest(ctx context.Context, ns ids.NamespaceID, n ids.SCONum) (*layout.Manifest, error) {
	if r := e.source.Load(); r != nil {
		return r.Manifest(ctx, ns, n)
	}
	return nil, errs.Unreachable
}

// open opens the vDisk anew.
func (e *testEdge) open(mode proto.Mode, takeover bool, opener byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	r, err := remote.Open(ctx, remote.Options{VDisk: "v", Edge: "edge " + e.name, Opener: proto.Opener{opener, e.name[0]},
		Secret: edgeSecret, Dial: e.w.dial, Mode: mode, Takeover: takeover, Loop: e.loop, Hub: e.hub, Cache: e.cache,
		Objects: e.client, Clock: e.w.clock, LookAgain: 1, BackOff: 20 * time.Millisecond, Log: e.w.log})
	if err != nil {
		return err
	}
	e.r = r
	e.source.Store(r)
	e.loop.Call(func() {
		q := blockcache.Quota{RAM: blockcache.Unlimited, SSD: blockcache.Unlimited}
		e.share = &blockCache{e.blocks, e.blocks.Open(1, q, false)}
		e.disk = edge.NewDisk(e.loop, r, e.fetch, e.share.cache())
	})
	return nil
}

// shut closes the vDisk, stop the process.
func (e *testEdge) shut() {
	if e.r != nil {
		e.r.Shut()
		e.r = nil
		done := make(chan struct{})
		e.loop.Call(func() { e.disk.Close(func() { e.share.t.Close(); close(done) }) })
		<-done
	}
}

func (e *testEdge) stop() {
	e.shut()
	done := make(chan struct{})
	e.loop.Call(func() { e.blocks.Close(func() { close(done) }) })
	<-done
	done = make(chan struct{})
	e.loop.Call(func() { e.client.Close(func() { close(done) }) })
	<-done
	e.loop.Call(func() {
		if free := e.pool.Free(); free != e.pool.Pages() {
			e.w.t.Errorf("edge %s: %d pages leaked", e.name, e.pool.Pages()-free)
		}
	})
	e.loop.Stop()
	e.pool.Close()
}

// edgeOp is one request at an edge.
type edgeOp struct {
	req  block.Request
	data []byte // of a write; what a read gave
	does op     // the same, for while it is under way and req is the edge's
	e    *testEdge
	done chan struct{}
}

// Completed implements block.Completer.
func (o *edgeOp) Completed(r *block.Request) {
	if r.Op == block.Read {
		o.data = o.data[:0]
		for _, s := range r.Data.Segs {
			o.data = append(o.data, o.e.pool.SegBytes(s)...)
		}
		o.e.pool.ReleaseVec(&r.Data)
	}
	close(o.done)
}

// submit hands a request to the edge's loop, in the order of the calls.
func (e *testEdge) submit(o *edgeOp) {
	o.e, o.done = e, make(chan struct{})
	o.req.Done = o
	o.does.req = block.Request{Op: o.req.Op, Off: o.req.Off, Len: o.req.Len}
	o.does.data = o.data
	disk := e.disk
	e.loop.PostFunc(func() {
		if o.req.Op == block.Write {
			if !e.pool.Alloc(&o.req.Data, int(ids.Blocks(o.req.Off%4096+int64(o.req.Len)))) {
				panic("the edge's pool is empty")
			}
			e.pool.CopyIn(&o.req.Data, int(o.req.Off%4096), o.data)
		}
		disk.Submit(&o.req)
	})
}
