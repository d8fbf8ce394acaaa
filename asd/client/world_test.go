package client

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/asd/server"
	"vstor/asd/store"
	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/leaktest"
	"vstor/dataplane/ring"
)

func TestMain(m *testing.M) { leaktest.Main(m, ring.Probe) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantKind fails unless err is of kind k.
func wantKind(t testing.TB, err error, k errs.Kind) {
	t.Helper()
	if errs.Of(err) != k {
		t.Fatalf("%v (%v), want %v", err, errs.Of(err), k)
	}
}

// until waits for something that is to come soon.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b := make([]byte, 1<<20)
			t.Fatalf("%s: did not come\n%s", what, b[:runtime.Stack(b, true)])
		}
	}
}

var (
	bg         = context.Background()
	testSecret = []byte("0123456789abcdef0123456789abcdef")
	testUUID   = [16]byte{1, 2, 3}
	testDeploy = [16]byte{9}
)

// world is a store with a server, a relay in front of it to make trouble, and a client of that.
type world struct {
	t     testing.TB
	drive *dio.Faulty
	mem   *dio.Mem
	store *store.Store
	srv   *server.Server
	done  chan error
	relay *relay
	a     *ASD
}

type settings struct {
	size    int64
	uuid    [16]byte // of the server; zeros: testUUID
	server  func(*server.Options)
	client  func(*Options)
	network string
}

func newWorld(t testing.TB, s settings) *world {
	t.Helper()
	if s.size == 0 {
		s.size = 64 << 20
	}
	if s.uuid == ([16]byte{}) {
		s.uuid = testUUID
	}
	w := &world{t: t, mem: dio.NewMem(s.size), done: make(chan error, 1)}
	w.drive = dio.NewFaulty(w.mem, 1)
	so := store.Options{Data: w.drive, FS: vfs.NewMem(), Dir: "index", ID: 3, UUID: s.uuid, Deployment: testDeploy}
	must(t, store.Format(so))
	var err error
	w.store, err = store.Open(so)
	must(t, err)
	o := server.Options{Store: w.store, Secret: testSecret, Log: slog.New(slog.DiscardHandler), PoolBytes: 8 << 20}
	if s.server != nil {
		s.server(&o)
	}
	w.srv, err = server.New(o)
	must(t, err)
	up := filepath.Join(t.TempDir(), "up")
	ln, err := net.Listen("unix", up)
	must(t, err)
	if s.network == "tcp" {
		ln.Close()
		ln, err = net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		w.relay = newRelay(t, "tcp", "127.0.0.1:0", "tcp", ln.Addr().String())
	} else {
		w.relay = newRelay(t, "unix", filepath.Join(t.TempDir(), "front"), "unix", up)
	}
	go func() { w.done <- w.srv.Serve(ln) }()
	t.Cleanup(w.close)
	co := patient(w.relay)
	if s.client != nil {
		s.client(&co)
	}
	w.a, err = New(co)
	must(t, err)
	t.Cleanup(func() { must(t, w.a.Close()) })
	return w
}

// patient are options that look often, and take no machine for dead because it is slow.
func patient(r *relay) Options {
	return Options{ID: 3, UUID: testUUID, Deployment: testDeploy, Secret: testSecret, Network: r.network,
		Addr: r.addr,
		Name: "test", StatEvery: 50 * time.Millisecond, AnswerWithin: time.Minute, Patience: time.Minute,
		DialTimeout: time.Minute, RetryRefused: 50 * time.Millisecond}
}

// hasty is for tests of what has stopped. Now and then a slow machine has, too: insist.
func hasty(o *Options) { o.AnswerWithin, o.Patience = 400*time.Millisecond, 5*time.Second }

// insist does a call until the ASD is not taken for dead.
func insist(t testing.TB, call func() error) {
	t.Helper()
	var err error
	until(t, "an answer", func() bool { err = call(); return errs.Of(err) != errs.Unreachable })
	must(t, err)
}

// up waits until the ASD is.
func (w *world) up() *ASD {
	w.t.Helper()
	until(w.t, "the ASD to come up", w.a.Up)
	return w.a
}

func (w *world) close() {
	ctx, cancel := context.WithTimeout(bg, time.Minute)
	defer cancel()
	w.drive.Set()
	w.drive.Release()
	w.relay.kill()
	if err := w.srv.Shutdown(ctx); err != nil {
		w.t.Error(err)
	}
	if err := <-w.done; err != nil {
		w.t.Error(err)
	}
	if err := w.store.Close(); err != nil {
		w.t.Error(err)
	}
}

// relay carries bytes between a client and a server, unless it is stopped or killed.
type relay struct {
	life              sync.Mutex // kill and listen, one at a time
	t                 testing.TB
	network, addr     string
	upNetwork, upAddr string
	mu                sync.Mutex
	cond              sync.Cond
	ln                net.Listener
	stopped           bool
	conns             map[net.Conn]struct{}
	work              sync.WaitGroup
	accepted          int
	cutAfter          int  // bytes from client to server after which all is killed; 0 = never
	garble            bool // flips a bit of each piece that comes from the server
}

func newRelay(t testing.TB, network, addr, upNetwork, upAddr string) *relay {
	r := &relay{t: t, network: network, addr: addr, upNetwork: upNetwork, upAddr: upAddr,
		conns: map[net.Conn]struct{}{}}
	r.cond.L = &r.mu
	r.listen()
	return r
}

func (r *relay) listen() {
	r.life.Lock()
	defer r.life.Unlock()
	ln, err := net.Listen(r.network, r.addr)
	must(r.t, err)
	r.mu.Lock()
	r.ln, r.addr = ln, ln.Addr().String()
	r.mu.Unlock()
	r.work.Add(1)
	go func() {
		defer r.work.Done()
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			r.work.Add(1)
			go r.serve(c, ln)
		}
	}()
}

// gate waits while the relay is stopped.
func (r *relay) gate() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.stopped {
		r.cond.Wait()
	}
}

func (r *relay) serve(c net.Conn, ln net.Listener) {
	defer r.work.Done()
	defer c.Close()
	r.gate()
	up, err := net.Dial(r.upNetwork, r.upAddr)
	if err != nil {
		return
	}
	defer up.Close()
	r.mu.Lock()
	if r.ln != ln {
		r.mu.Unlock()
		return
	}
	r.accepted++
	r.conns[c], r.conns[up] = struct{}{}, struct{}{}
	r.mu.Unlock()
	back := make(chan struct{})
	go func() { r.copy(c, up, false); close(back) }()
	r.copy(up, c, true)
	<-back
	r.mu.Lock()
	delete(r.conns, c)
	delete(r.conns, up)
	r.mu.Unlock()
}

func (r *relay) copy(dst, src net.Conn, forth bool) {
	b := make([]byte, 64<<10)
	for {
		n, err := src.Read(b)
		r.gate()
		r.mu.Lock()
		cut := false
		if forth && r.cutAfter > 0 && n > 0 {
			r.cutAfter -= min(n, r.cutAfter)
			cut = r.cutAfter == 0
		}
		if !forth && r.garble && n > 100 {
			b[rand.IntN(n)] ^= 1
		}
		r.mu.Unlock()
		if cut {
			go r.kill()
			return
		}
		if n > 0 {
			if _, werr := dst.Write(b[:n]); werr != nil {
				err = werr
			}
		}
		if err != nil {
			dst.Close()
			src.Close()
			return
		}
	}
}

// stop is SIGSTOP, goOn SIGCONT, kill SIGKILL of the server, as far as its clients can see. After kill, listen
// is a new start.
func (r *relay) stop() { r.set(true) }
func (r *relay) goOn() { r.set(false) }

func (r *relay) set(stopped bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = stopped
	r.cond.Broadcast()
}

func (r *relay) kill() {
	r.life.Lock()
	defer r.life.Unlock()
	r.mu.Lock()
	r.stopped, r.cutAfter = false, 0
	r.cond.Broadcast()
	if r.ln != nil {
		r.ln.Close()
		r.ln = nil
	}
	for c := range r.conns {
		c.Close()
	}
	r.mu.Unlock()
	r.work.Wait()
}

func (r *relay) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted
}

func key(i int) layout.FragKey {
	return layout.FragKey{Namespace: ids.NamespaceID(1 + i%3), SCO: ids.SCONum(1 + i), Put: 7, Frag: uint8(i % 6)}
}

var payloads sync.Map

// payload is what fragment i holds; not to be changed.
func payload(i, n int) []byte {
	if b, ok := payloads.Load([2]int{i, n}); ok {
		return b.([]byte)
	}
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), byte(n), byte(n >> 8), byte(n >> 16)})
	io.ReadFull(r, b)
	payloads.Store([2]int{i, n}, b)
	return b
}

// fput is the put of fragment i.
func fput(t testing.TB, i, n int) *layout.FragPut {
	b, err := buf.AlignedBytes(layout.FragHeaderSize + n)
	must(t, err)
	t.Cleanup(func() { buf.FreeAligned(b) })
	b = b[:layout.FragHeaderSize+n]
	copy(b[layout.FragHeaderSize:], payload(i, n))
	p := &layout.FragPut{Key: key(i), Epoch: 1, Buf: b, Desc: []byte(fmt.Sprintf("descriptor of %d", i))}
	for at := layout.FragHeaderSize; at < len(b); at += layout.RegionSize {
		p.Sums = append(p.Sums, xxhash.Sum64(b[at:min(at+layout.RegionSize, len(b))]))
	}
	return p
}

// timed is a context that ends a hanging test.
func timed(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(bg, 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}
