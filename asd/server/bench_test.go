package server

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/asd/handshake"
	"vstor/asd/proto"
	"vstor/asd/store"
	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
	"vstor/dataplane/link"
	"vstor/dataplane/ring"
	"vstor/dataplane/wire"
)

// benchWorld serves a real file over TCP.
func benchWorld(b *testing.B, secure *tls.Config) string {
	dir := b.TempDir()
	d, err := dio.Create(filepath.Join(dir, "data"), 1<<30, dio.Options{})
	if err != nil {
		b.Skip(err)
	}
	so := store.Options{Data: d, FS: vfs.Default, Dir: filepath.Join(dir, "index"), ID: 3, UUID: testUUID,
		Deployment: testDeploy}
	must(b, store.Format(so))
	st, err := store.Open(so)
	must(b, err)
	s, err := New(Options{Store: st, Secret: testSecret, TLS: secure})
	must(b, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(b, err)
	go s.Serve(ln)
	b.Cleanup(func() {
		must(b, s.Shutdown(bg))
		must(b, st.Close())
		d.Close()
	})
	return ln.Addr().String()
}

func benchPeer(b *testing.B, addr string, secure *tls.Config) *peer {
	nc, err := net.Dial("tcp", addr)
	must(b, err)
	if secure != nil {
		nc = tls.Client(nc, secure)
	}
	_, err = handshake.Ask(nc, askOptions())
	must(b, err)
	return &peer{t: b, nc: nc}
}

// BenchmarkPut sends 1 MiB fragments over one connection, depth at a time, and deletes old ones when it is full.
func BenchmarkPut(b *testing.B) {
	for _, depth := range []int{1, 4, 8} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			addr := benchWorld(b, nil)
			const size = 1 << 20
			data := payload(1, size)
			p := proto.Put{Epoch: 1}
			for at := 0; at < size; at += layout.RegionSize {
				p.Sums = append(p.Sums, xxhash.Sum64(data[at:at+layout.RegionSize]))
			}
			var next atomic.Int64
			var wg sync.WaitGroup
			b.SetBytes(size)
			b.ResetTimer()
			for range depth {
				c, mine := benchPeer(b, addr, nil), p
				wg.Add(1)
				go func() {
					defer wg.Done()
					defer c.nc.Close()
					for i := int(next.Add(1)); i <= b.N; i = int(next.Add(1)) {
						mine.Key = key(i)
						a := c.call(proto.TPut, mine.Append(nil), data)
						for a.Kind() == errs.Full {
							var keys []byte
							for k := max(1, i-900); k < i-100; k++ {
								keys = key(k).Append(keys)
							}
							c.call(proto.TDelete, proto.AppendSum(nil, sumOf(keys)), keys)
							a = c.call(proto.TPut, mine.Append(nil), data)
						}
						must(b, a.err())
					}
				}()
			}
			wg.Wait()
		})
	}
}

// reader is one request of a client on a loop, sent again and again.
type reader struct {
	c    *benchClient
	f    link.Frame
	body []byte
	pg   buf.Vec
}

// benchClient reads 4 KiB at random places, from a loop of its own.
type benchClient struct {
	conn *link.Conn
	loop *ring.Loop
	rng  *rand.Rand
	rs   map[uint64]*reader
	left int
	out  int
	done chan struct{}
	shut chan struct{}
}

func (c *benchClient) FrameIn(h *wire.Header, body []byte, in *buf.Vec) link.Verdict {
	r := c.rs[h.ID]
	if h.Kind() != errs.OK || h.Data != 4096 {
		panic(fmt.Sprintf("kind %v, %d bytes", h.Kind(), h.Data))
	}
	in.Segs = append(in.Segs, r.pg.Segs...)
	r.c.out--
	r.send()
	return link.Next
}

func (r *reader) send() {
	if r.c.left == 0 {
		if r.c.out == 0 {
			close(r.c.done)
		}
		return
	}
	r.c.left--
	r.c.out++
	q := rng(r.c.rng.IntN(200), r.c.rng.IntN(1024)*4096, 4096)
	r.body = q.Append(r.body[:0])
	r.f.Body = r.body
	r.c.conn.Send(&r.f)
}

func (r *reader) FrameSent(*link.Frame, bool) {}
func (c *benchClient) FrameData(bool)         {}
func (c *benchClient) Ended(error)            {}
func (c *benchClient) Closed()                { close(c.shut) }

// BenchmarkRead reads 4 KiB at random over one TCP connection, BenchmarkReadTLS the same through the pumps.
func BenchmarkRead(b *testing.B) { benchReads(b, nil, nil) }
func BenchmarkReadTLS(b *testing.B) {
	server, client := certificates(b)
	benchReads(b, server, client)
}

func benchReads(b *testing.B, server, client *tls.Config) {
	addr := benchWorld(b, server)
	p := benchPeer(b, addr, client)
	for i := range 200 {
		must(b, p.put(i, 4<<20))
	}
	p.nc.Close()
	for _, depth := range []int{1, 8, 32, 128} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			pool, err := buf.NewPool(8<<20, 0)
			must(b, err)
			l, err := ring.New(ring.Options{Pool: pool})
			must(b, err)
			must(b, l.Start())
			nc := benchPeer(b, addr, client).nc
			fd, err := link.Take(nc)
			must(b, err)
			c := &benchClient{loop: l, rng: rand.New(rand.NewPCG(1, 1)), rs: map[uint64]*reader{}, left: b.N,
				done: make(chan struct{}), shut: make(chan struct{})}
			c.conn = link.New(link.NewHub(l, link.HubOptions{}), fd, c, link.Options{})
			b.SetBytes(4096)
			b.ResetTimer()
			l.Call(func() {
				c.conn.Start()
				for i := range depth {
					r := &reader{c: c, f: link.Frame{Type: proto.TReadRanges, ID: uint64(i)}}
					r.f.Done = r
					pool.Alloc(&r.pg, 1)
					c.rs[uint64(i)] = r
					if c.left > 0 {
						r.send()
					}
				}
			})
			<-c.done
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "IO/s")
			l.Call(func() { c.conn.End(nil) })
			<-c.shut
			l.Stop()
			pool.Close()
		})
	}
}
