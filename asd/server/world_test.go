package server

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/asd/handshake"
	"vstor/asd/proto"
	"vstor/asd/store"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/leaktest"
	"vstor/dataplane/ring"
	"vstor/dataplane/wire"
)

func TestMain(m *testing.M) { leaktest.Main(m, ring.Probe) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var (
	bg         = context.Background()
	testSecret = []byte("0123456789abcdef0123456789abcdef")
	testUUID   = [16]byte{1, 2, 3}
	testDeploy = [16]byte{9}
)

// world is a store with a server in front of it.
type world struct {
	t     testing.TB
	drive *dio.Faulty
	store *store.Store
	srv   *Server
	path  string
	ln    net.Listener
	done  chan error
	down  bool
}

func newWorld(t testing.TB, edit func(*Options)) *world { return newWorldOn(t, 0, edit) }

// newWorldOn is a world on a store where deleted space rests.
func newWorldOn(t testing.TB, rest time.Duration, edit func(*Options)) *world {
	t.Helper()
	w := &world{t: t, drive: dio.NewFaulty(dio.NewMem(64<<20), 1), done: make(chan error, 4)}
	so := store.Options{Data: w.drive, FS: vfs.NewMem(), Dir: "index", ID: 3, UUID: testUUID, Deployment: testDeploy,
		Quarantine: rest}
	must(t, store.Format(so))
	var err error
	w.store, err = store.Open(so)
	must(t, err)
	o := Options{Store: w.store, Secret: testSecret, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		PoolBytes: 4 << 20, MaxFragment: 1 << 20, PutBuffers: 3}
	if edit != nil {
		edit(&o)
	}
	w.srv, err = New(o)
	must(t, err)
	w.path = filepath.Join(t.TempDir(), "s")
	w.ln, err = net.Listen("unix", w.path)
	must(t, err)
	go func() { w.done <- w.srv.Serve(w.ln) }()
	t.Cleanup(w.shutdown)
	return w
}

// shutdown checks that nothing is left of what the server gave out.
func (w *world) shutdown() {
	if w.down {
		return
	}
	w.down = true
	ctx, cancel := context.WithTimeout(bg, time.Minute)
	defer cancel()
	w.heal()
	if err := w.srv.quiesce(ctx); err != nil {
		w.t.Error(err)
	}
	w.srv.loop.Call(func() {
		k := w.srv.core
		if k.pages != int(k.opts.PoolBytes/4096) || !k.puts.whole() ||
			len(k.gets.free) != getBuffers ||
			k.requests != 0 || k.conns != nil || k.waiting() || k.hub.Stashed() != 0 {
			w.t.Errorf("left over: %d of %d pages free, %d puts, %d get buffers, %d requests, %v stashed", k.pages,
				k.opts.PoolBytes/4096, k.puts.taken, len(k.gets.free), k.requests, k.hub.Stashed())
		}
		used := k.pool.Pages() - k.pool.Free()
		if want := int((int64(k.opts.PutBuffers)*k.opts.putRun() + getBuffers*k.opts.getRun()) / 4096); used != want {
			w.t.Errorf("%d pages of the pool are in use; %d would be right", used, want)
		}
	})
	if err := w.srv.Shutdown(ctx); err != nil {
		w.t.Error(err)
	}
	if err := <-w.done; err != nil && errs.Of(err) != errs.Closed {
		w.t.Error(err)
	}
	if w.store.Close() != nil {
		w.t.Error("the store does not close")
	}
}

// peer is a blocking client.
type peer struct {
	t  testing.TB
	nc net.Conn
	id uint64
	p  *handshake.Peer

	forgot uint64 // deletes, as it says when it asks for a lease
}

func askOptions() handshake.AskOptions {
	return handshake.AskOptions{Secret: testSecret, Deployment: testDeploy, UUID: testUUID, ID: 3, Name: "test"}
}

func (w *world) dial() *peer {
	w.t.Helper()
	nc, err := net.Dial("unix", w.path)
	must(w.t, err)
	return w.join(nc)
}

func (w *world) join(nc net.Conn) *peer { return w.joinAs(nc, askOptions()) }

func (w *world) joinAs(nc net.Conn, o handshake.AskOptions) *peer {
	w.t.Helper()
	w.t.Cleanup(func() { nc.Close() })
	p, err := handshake.Ask(nc, o)
	must(w.t, err)
	nc.SetDeadline(time.Now().Add(60 * time.Second))
	return &peer{t: w.t, nc: nc, p: p}
}

// send sends a request and returns its id.
func (p *peer) send(t uint8, arg uint32, body, data []byte) uint64 {
	p.t.Helper()
	p.id++
	_, err := p.nc.Write(message(t, p.id, arg, body, data))
	must(p.t, err)
	return p.id
}

func message(t uint8, id uint64, arg uint32, body, data []byte) []byte {
	b := make([]byte, wire.HeaderSize+len(body), wire.HeaderSize+len(body)+len(data))
	copy(b[wire.HeaderSize:], body)
	h := wire.Header{Type: t, ID: id, Arg: arg, Body: uint32(len(body)), Data: uint32(len(data))}
	h.Seal(b)
	return append(b, data...)
}

type answer struct {
	wire.Header
	body, data []byte
}

func (a answer) err() error {
	if a.Kind() == errs.OK {
		return nil
	}
	return errs.New(a.Kind(), "%s", a.body)
}

func (p *peer) recv() (a answer, err error) {
	b := make([]byte, wire.HeaderSize)
	if _, err = io.ReadFull(p.nc, b); err != nil {
		return
	}
	if err = a.Decode(b); err != nil {
		return
	}
	b = append(b, make([]byte, int(a.Body)+int(a.Data))...)
	if _, err = io.ReadFull(p.nc, b[wire.HeaderSize:]); err != nil {
		return
	}
	err = a.Verify(b)
	a.body, a.data = b[wire.HeaderSize:wire.HeaderSize+a.Body], b[wire.HeaderSize+a.Body:]
	return a, err
}

// call sends a request and waits for its reply, the only one that may come.
func (p *peer) call(t uint8, body, data []byte) answer {
	p.t.Helper()
	id := p.send(t, 0, body, data)
	a, err := p.recv()
	must(p.t, err)
	if a.Type != t|wire.Reply || a.ID != id {
		p.t.Fatalf("%s id %d answered %s id %d", proto.TypeName(a.Type), a.ID, proto.TypeName(t), id)
	}
	return a
}

func key(i int) layout.FragKey {
	return layout.FragKey{Namespace: ids.NamespaceID(1 + i%3), SCO: ids.SCONum(1 + i), Put: 7, Frag: uint8(i % 6)}
}

// payload is what fragment i holds.
func payload(i, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), byte(n), byte(n >> 8), byte(n >> 16)})
	r.Read(b)
	return b
}

func putBody(i int, data, desc []byte) []byte {
	p := proto.Put{Key: key(i), Epoch: 1, Desc: desc}
	for at := 0; at < len(data); at += layout.RegionSize {
		p.Sums = append(p.Sums, xxhash.Sum64(data[at:min(at+layout.RegionSize, len(data))]))
	}
	return p.Append(nil)
}

func (p *peer) put(i, n int) error {
	p.t.Helper()
	data := payload(i, n)
	return p.call(proto.TPut, putBody(i, data, nil), data).err()
}

func rangesBody(rs ...proto.Range) []byte { return proto.AppendReadRanges(nil, rs) }

func rng(i, off, n int) proto.Range {
	return proto.Range{Key: key(i), Off: uint32(off), Len: uint32(n)}
}

func rangeBody(i, off, n int) []byte {
	r := rng(i, off, n)
	return r.Append(nil)
}

func sumOf(b []byte) uint64 { return xxhash.Sum64(b) }

func contextIn(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(bg, d)
}
