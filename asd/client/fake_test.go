package client

import (
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"vstor/asd/handshake"
	"vstor/asd/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/wire"
)

// fake is an ASD by script: it shakes hands, answers Stat, and leaves all other requests to answer. It allocates
// nothing per request.
type fake struct {
	t    testing.TB
	addr string
	ln   net.Listener
	work sync.WaitGroup

	mu     sync.Mutex
	conns  []net.Conn
	answer func(c *fakeConn, h *wire.Header, body []byte) bool // false ends the connection
}

type fakeConn struct {
	nc   net.Conn
	in   []byte
	out  []byte
	skip []byte
}

func newFake(t testing.TB, answer func(c *fakeConn, h *wire.Header, body []byte) bool) *fake {
	f := &fake{t: t, addr: filepath.Join(t.TempDir(), "fake"), answer: answer}
	var err error
	f.ln, err = net.Listen("unix", f.addr)
	must(t, err)
	f.work.Add(1)
	go func() {
		defer f.work.Done()
		for {
			nc, err := f.ln.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns = append(f.conns, nc)
			f.mu.Unlock()
			f.work.Add(1)
			go f.serve(nc)
		}
	}()
	t.Cleanup(func() {
		f.ln.Close()
		f.cut()
		f.work.Wait()
	})
	return f
}

// cut closes all connections.
func (f *fake) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, nc := range f.conns {
		nc.Close()
	}
	f.conns = nil
}

func (f *fake) client(edit func(*Options)) *ASD {
	o := Options{ID: 3, UUID: testUUID, Secret: testSecret, Network: "unix", Addr: f.addr, RetryMin: time.Millisecond,
		RetryMax: 20 * time.Millisecond}
	if edit != nil {
		edit(&o)
	}
	a, err := New(o)
	must(f.t, err)
	f.t.Cleanup(func() { a.Close() })
	until(f.t, "the ASD to come up", a.Up)
	return a
}

func (f *fake) serve(nc net.Conn) {
	defer f.work.Done()
	defer nc.Close()
	if _, err := handshake.Answer(nc, handshake.AnswerOptions{Secret: testSecret, UUID: testUUID, Deployment: testDeploy,
		ID: 3, Requests: 64, Bytes: 8 << 20}); err != nil {
		return
	}
	c := &fakeConn{nc: nc, in: make([]byte, 4096), out: make([]byte, 4096, 2<<20), skip: make([]byte, 64<<10)}
	var h wire.Header
	for {
		if _, err := io.ReadFull(nc, c.in[:wire.HeaderSize]); err != nil || h.Decode(c.in) != nil {
			return
		}
		body := c.in[wire.HeaderSize : wire.HeaderSize+h.Body]
		if _, err := io.ReadFull(nc, body); err != nil || h.Verify(c.in) != nil {
			return
		}
		for left := int(h.Data); left > 0; {
			n, err := nc.Read(c.skip[:min(left, len(c.skip))])
			if err != nil {
				return
			}
			left -= n
		}
		if h.Type == proto.TStat {
			c.reply(&h, errs.OK, (&proto.Stat{Capacity: 1}).Append(nil), nil)
		} else if !f.answer(c, &h, body) {
			return
		}
	}
}

// reply answers a request.
func (c *fakeConn) reply(h *wire.Header, k errs.Kind, body, data []byte) {
	out := append(append(c.out[:wire.HeaderSize], body...), data...)
	r := wire.Header{Type: h.Type | wire.Reply, ID: h.ID, Arg: uint32(k), Body: uint32(len(body)),
		Data: uint32(len(data))}
	r.Seal(out)
	c.nc.Write(out)
}

var zeros = make([]byte, 1<<20)
var zerosSum = xxhash.Sum64(zeros)
var okRange = []byte{0}

// plain answers every request as if all were well and every fragment zeros.
func plain(c *fakeConn, h *wire.Header, body []byte) bool {
	switch h.Type {
	case proto.TReadRanges:
		c.reply(h, errs.OK, okRange, zeros[:binary.LittleEndian.Uint32(body[24:])])
	case proto.TGet:
		c.reply(h, errs.OK, proto.AppendSum(c.in[:0], zerosSum), zeros)
	case proto.TCancel:
	default:
		c.reply(h, errs.OK, nil, nil)
	}
	return true
}
