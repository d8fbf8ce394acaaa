package link

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"vstor/dataplane/buf"
	"vstor/dataplane/ring"
	"vstor/dataplane/wire"
)

// echo answers each frame with its own body and data. Its verdicts are random.
type echo struct {
	r      *rig
	c      *Conn
	rng    *rand.Rand
	stalls bool // now and then
	skips  bool
	hold   bool // of every frame: stall until released
	timer  ring.Timer
	recv   *reply
	free   []*reply

	got      int
	sent     int
	unsent   int
	lost     int
	open     int // replies that the Conn has
	reason   error
	ended    chan struct{}
	closed   chan struct{}
	keepData bool // answers carry the data; else nothing
}

type reply struct {
	e    *echo
	f    Frame
	body []byte
	in   buf.Vec
	held buf.Vec
}

func newEcho(r *rig, fd int, seed uint64, o Options) *echo {
	e := &echo{r: r, rng: rand.New(rand.NewPCG(seed, 1)), ended: make(chan struct{}), closed: make(chan struct{}),
		keepData: true}
	e.c = New(r.hub, fd, e, o)
	e.timer.Fire = e.c.Resume
	return e
}

func (e *echo) start() { e.r.loop.Call(e.c.Start) }

func (e *echo) get() *reply {
	if n := len(e.free); n > 0 {
		p := e.free[n-1]
		e.free = e.free[:n-1]
		return p
	}
	p := &reply{e: e}
	p.f.Done = p
	return p
}

func (e *echo) FrameIn(h *wire.Header, body []byte, in *buf.Vec) Verdict {
	if e.hold {
		return Stall
	}
	if e.stalls && e.rng.IntN(3) == 0 {
		e.r.loop.After(&e.timer, time.Duration(e.rng.IntN(2))*time.Millisecond)
		return Stall
	}
	e.got++
	p := e.get()
	p.body = append(p.body[:0], body...)
	p.f.Type, p.f.Flags, p.f.ID, p.f.Arg, p.f.Body = h.Type|wire.Reply, h.Flags, h.ID, h.Arg, p.body
	p.f.Data.Reset()
	if h.Data == 0 || e.skips && h.ID%3 == 0 {
		p.send()
		return Skip
	}
	e.place(p, int(h.Data), in)
	e.recv = p
	return Next
}

// place names pages for n bytes, at odd places.
func (e *echo) place(p *reply, n int, in *buf.Vec) {
	if e.rng == nil || e.rng.IntN(2) == 0 {
		e.r.pool.Alloc(&p.held, (n+4095)/4096)
		left := n
		for _, s := range p.held.Segs {
			s.Len = uint32(min(left, int(s.Len)))
			left -= int(s.Len)
			in.Add(s)
		}
	} else {
		for left := n; left > 0; {
			var one buf.Vec
			e.r.pool.Alloc(&one, 1)
			off := e.rng.IntN(4096)
			k := min(left, 4096-off, 1+e.rng.IntN(4096))
			in.Segs = append(in.Segs, buf.Seg{Page: one.Segs[0].Page, Off: uint32(off), Len: uint32(k)})
			p.held.Segs = append(p.held.Segs, one.Segs...)
			left -= k
		}
	}
	p.in.Segs = append(p.in.Segs[:0], in.Segs...)
}

func (e *echo) FrameData(whole bool) {
	p := e.recv
	e.recv = nil
	if !whole {
		e.lost++
		e.r.pool.ReleaseVec(&p.held)
		return
	}
	if e.keepData {
		p.f.Data.Segs = append(p.f.Data.Segs[:0], p.in.Segs...)
	}
	p.send()
}

func (p *reply) send() {
	p.e.open++
	p.e.c.Send(&p.f)
}

func (p *reply) FrameSent(f *Frame, sent bool) {
	e := p.e
	e.open--
	if sent {
		e.sent++
	} else {
		e.unsent++
	}
	e.r.pool.ReleaseVec(&p.held)
	e.free = append(e.free, p)
}

func (e *echo) Ended(reason error) {
	e.reason = reason
	close(e.ended)
}

func (e *echo) Closed() {
	if e.open != 0 || e.recv != nil {
		e.r.t.Errorf("closed with %d frames open", e.open)
	}
	close(e.closed)
}

// frame is one message as bytes.
func frame(t uint8, id uint64, body, data []byte) []byte {
	b := make([]byte, wire.HeaderSize+len(body), wire.HeaderSize+len(body)+len(data))
	copy(b[wire.HeaderSize:], body)
	h := wire.Header{Type: t, Flags: 7, ID: id, Body: uint32(len(body)), Data: uint32(len(data)), Arg: 99}
	h.Seal(b)
	return append(b, data...)
}

func readReply(nc net.Conn) (h wire.Header, body, data []byte, err error) {
	b := make([]byte, wire.HeaderSize)
	if _, err = io.ReadFull(nc, b); err != nil {
		return
	}
	if err = h.Decode(b); err != nil {
		return
	}
	b = append(b, make([]byte, int(h.Body)+int(h.Data))...)
	if _, err = io.ReadFull(nc, b[wire.HeaderSize:]); err != nil {
		return
	}
	err = h.Verify(b)
	return h, b[wire.HeaderSize : wire.HeaderSize+h.Body], b[wire.HeaderSize+h.Body:], err
}

func random(rng *rand.Rand, n int) []byte {
	b := make([]byte, (n+7)/8*8)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], rng.Uint64())
	}
	return b[:n]
}
