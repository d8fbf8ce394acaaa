package router

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/leaktest"
	"vstor/dataplane/link"
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

var secret = make([]byte, wire.SecretSize)

// nothing is a vDisk of zeros that swallows what is written.
type nothing struct{ loop *ring.Loop }

func (n *nothing) Info() block.Info { return block.Info{Size: 1 << 20} }

func (n *nothing) Submit(r *block.Request) {
	if r.Op == block.Read {
		n.loop.Pool().AddZeros(&r.Data, int(r.Len))
	}
	if r.Op == block.Extents {
		r.Extents = append(r.Extents, block.Extent{Len: r.Len})
	}
	n.loop.PostFunc(func() { r.Done.Completed(r) })
}

func (n *nothing) Mutate(m *block.Mutation) {
	n.loop.Pool().ReleaseVec(&m.Data)
	n.loop.PostFunc(func() { m.Done.MutationDone(m) })
}

func (n *nothing) Locate(_ ids.BlockAddr, out []layout.Location, _ block.Loaded) bool {
	clear(out)
	return true
}
func (n *nothing) Namespace(layout.Location) ids.NamespaceID { return 1 }
func (n *nothing) Sequence() ids.Seq                         { return 1 }
func (n *nothing) Manifest(context.Context, ids.NamespaceID, ids.SCONum) (*layout.Manifest, error) {
	return nil, errs.Absent
}
func (n *nothing) KeepHolder(context.Context, ids.VolumeID, Record) error { return nil }

// rig is a server of one vDisk.
type rig struct {
	t    testing.TB
	srv  *Server
	door *VDisk
	loop *ring.Loop
	pool *buf.Pool
}

func newRig(t testing.TB) *rig {
	pool, err := buf.NewPool(8<<20, 1<<20)
	must(t, err)
	l, err := ring.New(ring.Options{Pool: pool, RecvBufs: 4, RecvBufSize: 32 << 10})
	must(t, err)
	must(t, l.Start())
	r := &rig{t: t, loop: l, pool: pool}
	n := &nothing{l}
	log := slog.New(slog.DiscardHandler)
	l.Call(func() {
		r.door = NewVDisk(Options{ID: 1, Name: "v", Loop: l, Hub: link.NewHub(l, link.HubOptions{}), Device: n, Driver: n,
			Objects: n, Keeper: n, Requests: 8, Bytes: 2 << 20, Log: log})
	})
	r.srv = NewServer(ServerOptions{Secret: secret, Log: log, Find: func(string) (*VDisk, error) { return r.door, nil }})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		r.srv.Shutdown(ctx)
		done := make(chan struct{})
		l.Call(func() { r.door.Close(func() { close(done) }) })
		<-done
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

// dial is a connection whose handshake is done.
func (r *rig) dial() net.Conn {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(r.t, err)
	conn := func(fd int) net.Conn {
		f := os.NewFile(uintptr(fd), "wire")
		defer f.Close()
		nc, err := net.FileConn(f)
		must(r.t, err)
		return nc
	}
	nc := conn(fds[0])
	r.srv.Attach(conn(fds[1]))
	nc.SetDeadline(time.Now().Add(60 * time.Second))
	k := &link.Shake{Conn: nc, Refuse: proto.TRefuse, Name: proto.TypeName}
	h := proto.Hello{Lowest: 1, Highest: 1, Opener: proto.Opener{1}, VDisk: "v", Edge: "attacker"}
	said := h.Append(nil)
	must(r.t, k.Write(proto.THello, errs.OK, said))
	heard, err := k.Read(proto.TWelcome)
	must(r.t, err)
	proof := proto.ProveEdge(secret, said, heard)
	must(r.t, k.Write(proto.TAuth, errs.OK, proof[:]))
	_, err = k.Read(proto.TReady)
	must(r.t, err)
	return nc
}

func frame(t uint8, id uint64, body, data []byte) []byte {
	b := append(make([]byte, wire.HeaderSize), body...)
	h := wire.Header{Type: t, ID: id, Body: uint32(len(body)), Data: uint32(len(data))}
	h.Seal(b)
	return append(b, data...)
}

// reply reads one answer.
func reply(nc net.Conn) (wire.Header, error) {
	var h wire.Header
	b := make([]byte, wire.HeaderSize)
	if err := readFull(nc, b); err != nil {
		return h, err
	}
	if err := h.Decode(b); err != nil {
		return h, err
	}
	return h, readFull(nc, make([]byte, int(h.Body)+int(h.Data)))
}

func readFull(nc net.Conn, b []byte) error {
	for len(b) > 0 {
		n, err := nc.Read(b)
		if b = b[n:]; err != nil && len(b) > 0 {
			return err
		}
	}
	return nil
}

// A stranger learns nothing and gets nowhere.
func TestStranger(t *testing.T) {
	r := newRig(t)
	a, b := net.Pipe()
	defer a.Close()
	go func() {
		k := &link.Shake{Conn: b, Refuse: proto.TRefuse, Name: proto.TypeName}
		h := proto.Hello{Lowest: 1, Highest: 1, Opener: proto.Opener{1}, VDisk: "v"}
		k.Write(proto.THello, errs.OK, h.Append(nil))
		k.Read(proto.TWelcome)
		k.Write(proto.TAuth, errs.OK, make([]byte, wire.ProofSize))
		if _, err := k.Read(proto.TReady); errs.Of(err) != errs.Refused {
			t.Error(err)
		}
	}()
	if _, _, err := r.srv.answer(a); errs.Of(err) != errs.Refused {
		t.Error(err)
	}
}

// Requests before Open, beyond the end, of sessions that may not and of types that do not exist are answered; what does
// not parse ends the connection and nothing else.
func TestOddRequests(t *testing.T) {
	r := newRig(t)
	rng := func(addr ids.BlockAddr, n uint64) []byte { return (&proto.Range{Addr: addr, Count: n}).Append(nil) }
	write := func(n int) []byte {
		return (&proto.Write{Addr: 0, Count: uint32(n), Sums: make([]uint32, n)}).Append(nil)
	}
	open := func(m proto.Mode) []byte { return (&proto.Open{Mode: m}).Append(nil) }
	for _, tc := range []struct {
		name string
		mode proto.Mode
		t    uint8
		body []byte
		data []byte
		want errs.Kind // Unreachable: the connection ends
	}{
		{"beyond the end", proto.Exclusive, proto.TRead, rng(255, 2), nil, errs.Invalid},
		{"trim beyond the end", proto.Exclusive, proto.TTrim, rng(256, 1), nil, errs.Invalid},
		{"no such type", proto.Exclusive, 100, nil, nil, errs.Unsupported},
		{"passive writes", proto.Passive, proto.TWrite, write(1), make([]byte, 4096), errs.Refused},
		{"passive trims", proto.Passive, proto.TTrim, rng(0, 1), nil, errs.Refused},
		{"passive looks up", proto.Passive, proto.TLocations, rng(0, 1), nil, errs.Refused},
		{"passive renews", proto.Passive, proto.TRenew, nil, nil, errs.Refused},
		{"passive reads", proto.Passive, proto.TRead, rng(0, 1), nil, errs.OK},
		{"manifest", proto.Exclusive, proto.TManifest, (&proto.Object{NS: 1, SCO: 2}).Append(nil), nil, errs.Absent},
		{"too many blocks", proto.Exclusive, proto.TRead, rng(0, 257), nil, errs.Unreachable},
		{"data that has none", proto.Exclusive, proto.TRead, rng(0, 1), make([]byte, 4096), errs.Unreachable},
		{"wrong sums", proto.Exclusive, proto.TWrite, write(1), make([]byte, 4096), errs.Unreachable},
		{"short data", proto.Exclusive, proto.TWrite, write(2), make([]byte, 4096), errs.Unreachable},
		{"opens twice", proto.Exclusive, proto.TOpen, open(proto.Passive), nil, errs.Unreachable},
		{"renew with a body", proto.Exclusive, proto.TRenew, []byte{1}, nil, errs.Unreachable},
	} {
		nc := r.dial()
		nc.Write(frame(proto.TRead, 1, rng(0, 1), nil))
		if h, err := reply(nc); err != nil || h.Kind() != errs.Refused {
			t.Errorf("%s: a read before Open: %v %v", tc.name, h.Kind(), err)
		}
		nc.Write(frame(proto.TOpen, 2, open(tc.mode), nil))
		if h, err := reply(nc); err != nil || h.Kind() != errs.OK {
			t.Errorf("%s: open: %v %v", tc.name, h.Kind(), err)
		}
		nc.Write(frame(tc.t, 3, tc.body, tc.data))
		h, err := reply(nc)
		if ended := err != nil; ended != (tc.want == errs.Unreachable) || !ended && h.Kind() != tc.want {
			t.Errorf("%s: %v %v", tc.name, h.Kind(), err)
		}
		nc.Close()
		for names, _ := r.door.Edges(); len(names) > 0; names, _ = r.door.Edges() {
			time.Sleep(time.Millisecond)
		}
	}
}

// A peer that asks for more than it may is not read from, and one that takes no answers holds up nobody else.
func TestBoundsHold(t *testing.T) {
	r := newRig(t)
	greedy := r.dial()
	defer greedy.Close()
	greedy.Write(frame(proto.TOpen, 1, (&proto.Open{Mode: proto.Exclusive}).Append(nil), nil))
	go func() { // never reads
		for i := range uint64(1000) {
			if _, err := greedy.Write(frame(proto.TRead, 2+i, (&proto.Range{Count: 256}).Append(nil), nil)); err != nil {
				return
			}
		}
	}()
	other := r.dial()
	defer other.Close()
	other.Write(frame(proto.TOpen, 1, (&proto.Open{Mode: proto.Passive}).Append(nil), nil))
	for i := range uint64(100) {
		if _, err := reply(other); err != nil {
			t.Fatal(err)
		}
		other.Write(frame(proto.TRead, 2+i, (&proto.Range{Count: 4}).Append(nil), nil))
	}
	r.loop.Call(func() {
		for s := range r.door.sessions {
			if s.unanswered > 8 || s.bytes > 2<<20 {
				t.Errorf("%d requests of %d bytes are under way", s.unanswered, s.bytes)
			}
		}
	})
}

// Frames of random types and bodies end connections and nothing else.
func TestRandomFrames(t *testing.T) {
	r := newRig(t)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		nc := r.dial()
		nc.SetDeadline(time.Now().Add(50 * time.Millisecond))
		if rng.IntN(2) == 0 {
			nc.Write(frame(proto.TOpen, 1, (&proto.Open{Mode: proto.Exclusive}).Append(nil), nil))
		}
		for range 1 + rng.IntN(5) {
			body := make([]byte, []int{0, 8, 16, 20, 32}[rng.IntN(5)])
			for i := range body {
				body[i] = byte(rng.IntN(3))
			}
			nc.Write(frame(uint8(rng.IntN(256)), rng.Uint64N(4), body, make([]byte, 4096*rng.IntN(3))))
		}
		nc.Close()
	}
	good := r.dial()
	defer good.Close()
	good.Write(frame(proto.TOpen, 1, (&proto.Open{Mode: proto.Passive}).Append(nil), nil))
	if h, err := reply(good); err != nil || h.Kind() != errs.OK {
		t.Error(h.Kind(), err)
	}
}
