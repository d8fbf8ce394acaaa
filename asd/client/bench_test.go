package client

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/asd/server"
	"vstor/asd/store"
	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
	"vstor/dataplane/layout"
	"vstor/dataplane/ring"
)

// benchASD is a server on a file, and a client of it without a relay between.
func benchASD(b *testing.B, network string) *ASD {
	dir := os.Getenv("VSTOR_BENCH_DIR")
	if dir == "" {
		dir = b.TempDir()
	}
	dir, err := os.MkdirTemp(dir, "asd")
	must(b, err)
	b.Cleanup(func() { os.RemoveAll(dir) })
	f, err := dio.Create(filepath.Join(dir, "data"), 1<<30, dio.Options{})
	if err != nil {
		b.Skip(err)
	}
	so := store.Options{Data: f, FS: vfs.Default, Dir: filepath.Join(dir, "index"), ID: 3, UUID: testUUID}
	must(b, store.Format(so))
	st, err := store.Open(so)
	must(b, err)
	srv, err := server.New(server.Options{Store: st, Secret: testSecret,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	must(b, err)
	addr := filepath.Join(dir, "s")
	if network == "tcp" {
		addr = "127.0.0.1:0"
	}
	ln, err := net.Listen(network, addr)
	must(b, err)
	go srv.Serve(ln)
	a, err := New(Options{ID: 3, UUID: testUUID, Secret: testSecret, Network: network, Addr: ln.Addr().String()})
	must(b, err)
	b.Cleanup(func() {
		a.Close()
		srv.Shutdown(bg)
		st.Close()
		f.Close()
	})
	until(b, "the ASD to come up", a.Up)
	return a
}

// lane keeps one read of a random place going.
type lane struct {
	r    *Reader
	op   ring.Op
	v    buf.Vec
	n    int
	rng  *rand.Rand
	left *atomic.Int64
	done chan struct{}
}

func (l *lane) RingDone(_ *ring.Op, res int32) {
	if int(res) != l.n && l.left.Load() > 0 {
		panic(fmt.Sprint("a read ended with ", res))
	}
	if l.left.Add(-1) < 0 {
		l.done <- struct{}{}
		return
	}
	off := l.rng.IntN(4<<20/l.n) * l.n
	l.r.ReadRange(&l.op, key(l.rng.IntN(64)), uint32(off), uint32(l.n), &l.v)
}

func benchRead(b *testing.B, network string, n, depth int) {
	a, g := benchASD(b, network), newRig(b)
	for i := range 64 {
		must(b, a.Put(bg, fput(b, i, 4<<20)))
	}
	r := g.reader(a, lenient)
	g.ready(r)
	var left atomic.Int64
	left.Store(int64(b.N))
	done := make(chan struct{}, depth)
	lanes := make([]*lane, depth)
	for i := range lanes {
		lanes[i] = &lane{r: r, n: n, rng: rand.New(rand.NewPCG(uint64(i), 1)), left: &left, done: done}
		lanes[i].op.Done = lanes[i]
		g.loop.Call(func() { g.pool.Alloc(&lanes[i].v, n/4096) })
	}
	var before, after syscall.Rusage
	cpu := func(ru *syscall.Rusage) { g.loop.Call(func() { syscall.Getrusage(1, ru) }) }
	cpu(&before)
	b.SetBytes(int64(n))
	b.ResetTimer()
	g.loop.Call(func() {
		for _, l := range lanes {
			l.RingDone(nil, int32(n))
		}
	})
	for range depth {
		<-done
	}
	b.StopTimer()
	cpu(&after)
	used := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	b.ReportMetric(float64(used)/float64(b.N+depth), "loop-cpu-ns/op")
	g.loop.Call(func() {
		for _, l := range lanes {
			g.pool.ReleaseVec(&l.v)
		}
	})
}

func BenchmarkReader(b *testing.B) {
	for _, network := range []string{"unix", "tcp"} {
		b.Run(network+"/4K/QD1", func(b *testing.B) { benchRead(b, network, 4096, 1) })
		b.Run(network+"/4K/QD32", func(b *testing.B) { benchRead(b, network, 4096, 32) })
		b.Run(network+"/1M/QD8", func(b *testing.B) { benchRead(b, network, 1<<20, 8) })
	}
}

// BenchmarkPut puts fragments of 1 MiB, several at a time.
func BenchmarkPut(b *testing.B) {
	for _, network := range []string{"unix", "tcp"} {
		b.Run(network+"/1M", func(b *testing.B) {
			a := benchASD(b, network)
			b.SetBytes(1 << 20)
			b.ResetTimer()
			var n atomic.Uint32
			b.SetParallelism(2)
			b.RunParallel(func(pb *testing.PB) {
				p := fput(b, 1, 1<<20)
				for pb.Next() {
					i := n.Add(1)
					q := *p
					q.Key = layout.FragKey{Namespace: 1, SCO: 1, Put: 1, Chunk: uint16(i), Version: uint8(i >> 16)}
					if err := a.Put(bg, &q); err != nil {
						b.Error(err)
						return
					}
					if err := a.Delete(bg, []layout.FragKey{q.Key}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkGet gets verified bytes with blocking calls.
func BenchmarkGet(b *testing.B) {
	for _, n := range []int{4096, 1 << 20} {
		b.Run(fmt.Sprintf("unix/%dK", n>>10), func(b *testing.B) {
			a := benchASD(b, "unix")
			must(b, a.Put(bg, fput(b, 1, 4<<20)))
			b.SetBytes(int64(n))
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				dst := make([]byte, n)
				for pb.Next() {
					if err := a.Get(bg, key(1), 0, dst); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
