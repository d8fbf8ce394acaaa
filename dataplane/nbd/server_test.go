package nbd_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/nbd"
	"vstor/dataplane/nbd/nbdtest"
	"vstor/dataplane/ring"
)

// rig is a server with a loop and a RAM device behind export "disk".
type rig struct {
	t       testing.TB
	loop    *ring.Loop
	pool    *buf.Pool
	ram     *nbdtest.RAM
	exports *nbdtest.Exports
	srv     *nbd.Server
	sock    string
	tcp     string
	served  chan error
	fds     int
}

type rigOptions struct {
	size     int64
	pool     int64
	info     block.Info
	server   nbd.Options
	withTCP  bool
	keepOpen bool // the test shuts down itself
}

func newRig(t testing.TB, o rigOptions) *rig {
	t.Helper()
	if o.size == 0 {
		o.size = 16 << 20
	}
	if o.pool == 0 {
		o.pool = 3*o.size + 32<<20
	}
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil { // the runtime's own descriptors come with the first
		ln.Close()
	}
	r := &rig{t: t, fds: countFDs(t), exports: &nbdtest.Exports{}, served: make(chan error, 2)}
	var err error
	if r.pool, err = buf.NewPool(o.pool, 1<<20); err != nil {
		t.Fatal(err)
	}
	if r.loop, err = ring.New(ring.Options{Pool: r.pool}); err != nil {
		t.Fatal(err)
	}
	if err := r.loop.Start(); err != nil {
		t.Fatal(err)
	}
	o.info.Size = o.size
	r.ram = nbdtest.NewRAM(r.loop, o.info)
	r.exports.Add(r.loop, r.ram, "disk", "a disk of RAM")
	o.server.Exports = r.exports
	o.server.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	if r.srv, err = nbd.New(o.server); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r.sock = filepath.Join(dir, "s")
	r.listen("unix", r.sock)
	if o.withTCP {
		r.tcp = r.listen("tcp", "127.0.0.1:0")
	}
	if !o.keepOpen {
		t.Cleanup(r.close)
	}
	return r
}

func (r *rig) listen(network, addr string) string {
	ln, err := net.Listen(network, addr)
	if err != nil {
		r.t.Fatal(err)
	}
	go func() { r.served <- r.srv.Serve(ln) }()
	return ln.Addr().String()
}

// close shuts down and checks that nothing leaked.
func (r *rig) close() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := r.srv.Shutdown(ctx); err != nil {
		r.t.Errorf("shutdown: %v", err)
	}
	if err := <-r.served; err != nil {
		r.t.Errorf("serve: %v", err)
	}
	r.loop.Call(r.ram.Drop)
	r.loop.Stop()
	if free, all := r.pool.Free(), r.pool.Pages(); free != all {
		r.t.Errorf("%d of %d pages leaked", all-free, all)
	}
	if n := r.exports.Opened.Load(); n != 0 {
		r.t.Errorf("%d exports left open", n)
	}
	r.pool.Close()
	deadline := time.Now().Add(time.Minute)
	for countFDs(r.t) > r.fds && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond) // a test's own clients close in their goroutines
	}
	if n := countFDs(r.t); n > r.fds {
		r.t.Errorf("%d descriptors leaked", n-r.fds)
	}
}

func countFDs(t testing.TB) int {
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}

// shuffle makes the device complete in random order.
func (r *rig) shuffle(seed uint64, delay time.Duration) {
	r.loop.Call(func() { r.ram.Shuffle, r.ram.MaxDelay = rand.New(rand.NewPCG(seed, 0)), delay })
}

func (r *rig) dial() *nbdtest.Client {
	r.t.Helper()
	return r.dialAt("unix", r.sock)
}

func (r *rig) dialAt(network, addr string) *nbdtest.Client {
	r.t.Helper()
	c, err := nbdtest.Dial(network, addr, "disk")
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Conn.Close() })
	return c
}

func fill(b []byte, seed uint64) []byte {
	rnd := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	rnd.Read(b)
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// patiently tries with a timeout of the server's that a test has to wait out, and with longer ones where the
// machine was too slow for the test to do its part in time, which try says.
func patiently(t *testing.T, try func(t *testing.T, timeout time.Duration) (late bool)) {
	for timeout := 300 * time.Millisecond; ; timeout *= 4 {
		late := false
		t.Run(timeout.String(), func(t *testing.T) { late = try(t, timeout) })
		if !late {
			return
		}
		if timeout > time.Minute {
			t.Fatal("the machine is never fast enough")
		}
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not so: %s", what)
		}
	}
}

func TestReadWrite(t *testing.T) {
	r := newRig(t, rigOptions{withTCP: true})
	for _, where := range [][2]string{{"unix", r.sock}, {"tcp", r.tcp}} {
		t.Run(where[0], func(t *testing.T) {
			c := r.dialAt(where[0], where[1])
			if c.Size != 16<<20 {
				t.Fatalf("size %d", c.Size)
			}
			for i, n := range []int{1, 511, 512, 4096, 4097, 32767, 32768, 40000, 1 << 20, 1<<20 + 4095, 3<<20 + 17} {
				for _, off := range []int64{0, 1, 512, 4095, 4096, 1<<20 - 3} {
					p := fill(make([]byte, n), uint64(i))
					must(t, c.WriteAt(p, off, uint16(i&1)))
					got := make([]byte, n)
					must(t, c.ReadAt(got, off))
					if !bytes.Equal(p, got) {
						t.Fatalf("%d bytes at %d came back different", n, off)
					}
				}
			}
			must(t, c.Flush())
			must(t, c.Close())
		})
	}
}

// TestModel runs random requests, unaligned, over several connections with many in flight, against a
// device that completes in random order.
func TestModel(t *testing.T) {
	r := newRig(t, rigOptions{size: 4 << 20})
	r.shuffle(1, 200*time.Microsecond)
	const conns = 6
	part := r.ram.Info().Size / 8
	done := make(chan error, conns)
	for i := range conns {
		c := r.dialMode(nbd.Mode(i % 3))
		go func() { done <- modelClient(c, int64(i)*part, part, uint64(i)) }()
	}
	for range conns {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// modelClient owns a part of the device. It keeps requests in flight that do not overlap.
func modelClient(c *nbdtest.Client, base, size int64, seed uint64) error {
	rnd := rand.New(rand.NewPCG(seed, 7))
	model := make([]byte, size)
	for range 40 {
		// A round: cut the part into ranges, one request each, all in flight at once.
		flight := map[uint64][]byte{} // what a read must bring, else nil
		var out []byte
		for at := int64(0); at < size; {
			n := min(size-at, 1+rnd.Int64N(1<<uint(1+rnd.IntN(18))))
			q := nbd.Request{Offset: uint64(base + at), Length: uint64(n)}
			var data, want []byte
			switch k := rnd.IntN(10); {
			case k < 4:
				q.Type, data = nbd.CmdWrite, fill(make([]byte, n), rnd.Uint64())
				if c.Mode == nbd.Extended {
					q.Flags = nbd.FlagPayload
				}
				copy(model[at:], data)
			case k == 4:
				q.Type = nbd.CmdWriteZeroes
				clear(model[at : at+n])
			case k == 5 && c.Contexts != nil:
				q.Type = nbd.CmdBlockStatus
			default:
				q.Type = nbd.CmdRead
				want = bytes.Clone(model[at : at+n])
			}
			out = append(append(out, c.Header(&q)...), data...)
			c.Expect(q, data)
			flight[q.Cookie] = want
			at += n
			if len(flight) == 200 {
				break
			}
		}
		sent := make(chan error, 1)
		go func() { _, err := c.Conn.Write(out); sent <- err }()
		for len(flight) > 0 {
			a, err := c.Answer()
			if err != nil {
				return err
			}
			want, ok := flight[a.Cookie]
			if !ok || a.Errno != nbd.OK {
				return fmt.Errorf("reply %v to cookie %d, known %v", a.Errno, a.Cookie, ok)
			}
			delete(flight, a.Cookie)
			if want != nil && !bytes.Equal(a.Data, want) {
				return fmt.Errorf("%d: wrong data", a.Cookie)
			}
		}
		if err := <-sent; err != nil {
			return err
		}
	}
	return c.Close()
}
