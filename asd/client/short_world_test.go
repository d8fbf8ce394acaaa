package client

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/asd/handshake"
	"vstor/asd/server"
	"vstor/asd/store"
	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/ring"
)

// shortWorld is an ASD on a real file, whose descriptor it hands out, and a client without anything between.
type shortWorld struct {
	t     testing.TB
	path  string // of the drive
	addr  string
	opts  store.Options
	lease time.Duration
	share func(*dio.Disk) handshake.Sharer

	disk  *dio.Disk
	store *store.Store
	srv   *server.Server
	done  chan error
	a     *ASD
}

type shortSettings struct {
	size, reserve int64
	lease         time.Duration
	rest          time.Duration // of deleted space; 0: as long as a lease
	share         func(*dio.Disk) handshake.Sharer
	client        func(*Options)
}

func newShortWorld(t testing.TB, s shortSettings) *shortWorld {
	t.Helper()
	dir := t.TempDir()
	w := &shortWorld{t: t, path: filepath.Join(dir, "data"), addr: filepath.Join(dir, "sock"), lease: s.lease,
		share: s.share}
	if s.size == 0 {
		s.size = 64 << 20
	}
	disk, err := dio.Create(w.path, s.size, dio.Options{})
	if errs.Of(err) == errs.Unsupported {
		t.Skip("SKIPPED: ", err)
	}
	must(t, err)
	w.opts = store.Options{Data: disk, FS: vfs.NewMem(), Dir: "index", ID: 3, UUID: testUUID, Deployment: testDeploy,
		Quarantine: max(s.lease, s.rest), Reserve: s.reserve}
	must(t, store.Format(w.opts))
	must(t, disk.Close())
	w.start()
	t.Cleanup(func() { w.stop() })
	co := Options{ID: 3, UUID: testUUID, Deployment: testDeploy, Secret: testSecret, Network: "unix", Addr: w.addr,
		Name: "test", StatEvery: 50 * time.Millisecond, AnswerWithin: 20 * time.Second, ShortCircuit: true}
	if s.client != nil {
		s.client(&co)
	}
	w.a, err = New(co)
	must(t, err)
	t.Cleanup(func() { must(t, w.a.Close()) })
	until(t, "the ASD to come up", w.a.Up)
	return w
}

// start is the start of the ASD's process.
func (w *shortWorld) start() {
	w.t.Helper()
	var err error
	w.disk, err = dio.Open(w.path, dio.Options{})
	must(w.t, err)
	w.opts.Data = w.disk
	w.store, err = store.Open(w.opts)
	must(w.t, err)
	o := server.Options{Store: w.store, Secret: testSecret, Log: slog.New(slog.DiscardHandler), PoolBytes: 8 << 20,
		Share: w.disk.Share, Lease: w.lease}
	if w.share != nil {
		o.Share = w.share(w.disk)
	}
	w.srv, err = server.New(o)
	must(w.t, err)
	ln, err := net.Listen("unix", w.addr)
	must(w.t, err)
	w.done = make(chan error, 1)
	go func() { w.done <- w.srv.Serve(ln) }()
}

// stop is its end.
func (w *shortWorld) stop() {
	w.t.Helper()
	if w.srv == nil {
		return
	}
	ctx, cancel := context.WithTimeout(bg, 20*time.Second)
	defer cancel()
	must(w.t, w.srv.Shutdown(ctx))
	must(w.t, <-w.done)
	must(w.t, w.store.Close())
	must(w.t, w.disk.Close())
	w.srv = nil
}

// put keeps fragment i of n bytes.
func (w *shortWorld) put(i, n int) error {
	p := fput(w.t, i, n)
	return w.store.Put(bg, p)
}

// direct waits until the drive can be read.
func (g *rig) direct(r *Reader) (d *Direct) {
	g.t.Helper()
	until(g.t, "the drive to be readable", func() bool {
		g.loop.Call(func() { d = r.Direct() })
		return d != nil
	})
	return d
}

// known waits until a fragment's place is known.
func (g *rig) known(r *Reader, i int) {
	g.t.Helper()
	until(g.t, "a fragment to be located", func() (ok bool) {
		g.loop.Call(func() {
			if d := r.Direct(); d != nil {
				_, pin, k := d.Locate(key(i), 0, ids.BlockSize, nil)
				if ok = k == errs.OK; ok {
					d.Unpin(pin)
				}
			}
		})
		return ok
	})
}

// directRead is one read of the drive, as PRACC does it.
type directRead struct {
	g     *rig
	d     *Direct
	ops   [8]ring.Op
	v     [8]buf.Vec
	left  int
	pin   uint64
	kind  errs.Kind
	good  bool // what Unpin said
	res   int32
	bytes []byte
	wait  time.Duration // before the drive is read
	timer ring.Timer
	exts  []layout.Extent
	done  chan struct{}
}

// locate begins a read: false, and what Locate said, if there is none. On the loop.
func (q *directRead) locate(g *rig, r *Reader, i int, off, n uint32) errs.Kind {
	q.g, q.done, q.d = g, make(chan struct{}), r.Direct()
	if q.d == nil {
		return errs.Unreachable
	}
	q.exts, q.pin, q.kind = q.d.Locate(key(i), off, n, nil)
	if q.kind != errs.OK {
		return q.kind
	}
	q.timer.Fire = q.read
	if q.wait > 0 {
		g.loop.After(&q.timer, q.wait)
	} else {
		q.read()
	}
	return errs.OK
}

func (q *directRead) read() {
	q.left = len(q.exts)
	for i, e := range q.exts {
		q.ops[i].Done = q
		if !q.g.pool.Alloc(&q.v[i], int(e.Len/ids.BlockSize)) {
			panic("pool too small for the test")
		}
		q.d.File().ReadV(q.g.loop, &q.ops[i], &q.v[i], e.Off)
	}
}

func (q *directRead) RingDone(_ *ring.Op, res int32) {
	if res < 0 {
		q.res = res
	}
	if q.left--; q.left > 0 {
		return
	}
	q.good = q.d.Unpin(q.pin)
	for i := range q.exts {
		for _, s := range q.v[i].Segs {
			q.bytes = append(q.bytes, q.g.pool.SegBytes(s)...)
		}
		q.g.pool.ReleaseVec(&q.v[i])
	}
	close(q.done)
}

// readDirect reads a range of a fragment whose place is known.
func (g *rig) readDirect(r *Reader, i int, off, n uint32) *directRead {
	g.t.Helper()
	q := new(directRead)
	var k errs.Kind
	g.loop.Call(func() { k = q.locate(g, r, i, off, n) })
	if k != errs.OK {
		g.t.Fatalf("fragment %d: %v", i, k)
	}
	<-q.done
	if q.res < 0 {
		g.t.Fatalf("fragment %d: the drive says %d", i, q.res)
	}
	return q
}

// fakeClock is a boot-time clock that stands still.
type fakeClock struct{ ns atomic.Int64 }

// on has a Reader count its leases by a clock of the test's. Before the first lease, or with all granted anew.
func (c *fakeClock) on(g *rig, r *Reader) {
	c.ns.Store(1e15)
	g.loop.Call(func() {
		r.short.boot = c.ns.Load
		if r.short.d != nil {
			r.short.d.until = 0
		}
	})
}
