package client

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"vstor/asd/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
	"vstor/dataplane/wire"
)

// script makes what a peer says of fuzzed bytes: as they are, or as the content of frames whose checksums are
// right, to get deeper. id is that of the first request.
func script(data []byte, id uint64) []byte {
	if len(data) == 0 || data[0]%4 == 0 {
		return data
	}
	data = data[1:]
	var out []byte
	for len(data) >= 12 && len(out) < 1<<20 {
		h := wire.Header{Type: data[0] | wire.Reply, ID: id + uint64(data[1]%8), Arg: uint32(data[2]),
			Body: uint32(binary.LittleEndian.Uint16(data[4:]) % 600),
			Data: binary.LittleEndian.Uint32(data[8:]) % (80 << 10)}
		if data[3]&1 != 0 {
			h.Type = proto.TReadRanges | wire.Reply
		}
		if data[3]&2 != 0 {
			h.Arg, h.Body = 0, 1
		}
		if data[3]&4 != 0 {
			h.Data = 4096
		}
		if data[3]&8 != 0 {
			h.ID = binary.LittleEndian.Uint64(data[1:9])
		}
		data = data[12:]
		frame := make([]byte, wire.HeaderSize+int(h.Body)+int(h.Data))
		n := copy(frame[wire.HeaderSize:], data)
		h.Seal(frame)
		out = append(out, frame...)
		data = data[min(n, len(data)):]
	}
	return append(out, data...)
}

// A peer that answers anything to any call: an error, no panic, nothing written beyond dst.
func FuzzCalls(f *testing.F) {
	f.Add(byte(0), []byte{1, 0x94, 0, 0, 6, 1, 0, 0, 0, 0, 16, 0, 0})
	f.Add(byte(1), []byte{1, 0x95, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(byte(2), []byte("no frame at all, but long enough to be taken for a header"))
	for op := range byte(12) {
		good := make([]byte, wire.HeaderSize)
		(&wire.Header{Type: proto.TPing | wire.Reply, ID: 1}).Seal(good)
		f.Add(op, append([]byte{}, good...))
	}
	f.Fuzz(func(t *testing.T, op byte, data []byte) {
		near, far := net.Pipe()
		defer near.Close()
		end := time.Now().Add(10 * time.Second)
		near.SetDeadline(end)
		far.SetDeadline(end)
		go io.Copy(io.Discard, far)
		said := script(data, 1)
		go func() { far.Write(said); far.Close() }()
		c := &conn{line: line{nc: near, raw: near}}
		err := fuzzCall(t, c, op)
		if err == nil && c.broken != nil {
			t.Fatal("a broken call without an error")
		}
		if k := errs.Of(err); c.broken == nil && k == errs.Canceled {
			t.Fatal("nobody canceled")
		}
	})
}

func fuzzCall(t *testing.T, c *conn, op byte) (err error) {
	guarded := bytes.Repeat([]byte{0x5a}, 3<<10)
	dst := guarded[1<<10 : 2<<10 : 2<<10]
	k := layout.FragKey{Namespace: 5, SCO: 1}
	switch op % 10 {
	case 0:
		err = c.get(k, 0, dst)
	case 1:
		err = c.put(&layout.FragPut{Key: k, Buf: make([]byte, 8192), Sums: []uint64{1}})
	case 2:
		err = c.delete([]layout.FragKey{k})
	case 3:
		fs, lerr := c.list(&proto.List{Namespace: 5, Limit: 10}, nil)
		if err = lerr; len(fs) > 10 {
			t.Fatal("more than asked for")
		}
	case 4:
		_, err = c.describe(k)
	case 5:
		_, err = c.locate(proto.Range{Key: k, Len: 8192})
	case 6:
		err = c.readRanges([]proto.Range{{Key: k, Len: 512}, {Key: k, Len: 512}}, dst, make([]errs.Kind, 2))
	case 7:
		_, err = c.bare(proto.TPing, 0)
	case 8:
		a := &ASD{opts: Options{AnswerWithin: time.Second, Patience: time.Second}}
		_, err = a.look(c)
	case 9:
		long := make([]byte, 3<<20)
		err = c.get(k, 0, long)
	}
	for i, b := range guarded {
		if (i < 1<<10 || i >= 2<<10) && b != 0x5a {
			t.Fatal("written beyond dst")
		}
	}
	return err
}

// A peer that sends anything to a Reader: every read ends, pages that ended are not touched any more (they are
// poisoned, and the pool counts them), and the Reader connects again.
func FuzzReader(f *testing.F) {
	f.Add([]byte{1, 0x93, 0, 0, 2 | 4 | 1, 1, 0, 0, 0, 0, 16, 0, 0})
	f.Add([]byte{1, 0x93, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte("no frame at all, but long enough to be taken for a header"))
	f.Add([]byte{1, 0x93, 0, 0, 7, 1, 0, 0, 0, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14})
	said := make(chan []byte, 1)
	fk := newFake(f, func(c *fakeConn, h *wire.Header, body []byte) bool {
		if h.Type != proto.TReadRanges {
			return true
		}
		select {
		case data := <-said:
			c.nc.Write(script(data, h.ID))
			return false
		default:
			return plain(c, h, body)
		}
	})
	a := fk.client(nil)
	g := newRig(f)
	r := g.reader(a, ReaderOptions{StallAfter: 5 * time.Second, ReadTimeout: 5 * time.Second})
	f.Fuzz(func(t *testing.T, data []byte) {
		g.t = t
		g.ready(r)
		said <- data
		var qs []*reading
		g.loop.Call(func() {
			for i := range 4 {
				qs = append(qs, g.start(r, i, 1<<20, 0, 4096*(1+9*(i%2))))
			}
		})
		for _, q := range qs {
			<-q.done
			if q.res > 0 && int(q.res) != q.n {
				t.Fatalf("a short read: %d of %d", q.res, q.n)
			}
		}
		if len(said) > 0 { // nobody read
			<-said
		}
		g.ready(r)
		g.loop.Call(func() {
			if r.out != 0 || r.live.head != nil {
				t.Errorf("%d requests are left", r.out)
			}
		})
		q := g.read(r, 1, 1<<20, 0, 4096)
		if q.res != 4096 || !bytes.Equal(q.got, zeros[:4096]) {
			// The script's connection may have ended with it.
			g.ready(r)
		}
	})
}
