package link

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
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

// Frames of all sizes, written in pieces of any size, come back as they were.
func TestEcho(t *testing.T) {
	seeds := uint64(12)
	if raceEnabled {
		seeds = 4
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := newRig(t, HubOptions{})
			fd, nc := pair(t)
			e := newEcho(r, fd, seed, Options{})
			e.stalls, e.skips = seed%2 == 1, seed%3 == 0
			e.start()
			rng := rand.New(rand.NewPCG(seed, 2))
			const n = 150
			type msg struct{ body, data []byte }
			var msgs []msg
			for range n {
				m := msg{body: random(rng, []int{0, 8, 200, wire.BodyMax}[rng.IntN(4)])}
				m.data = random(rng, []int{0, 0, 1 + rng.IntN(100), 4096 * (1 + rng.IntN(40)), rng.IntN(300000)}[rng.IntN(5)])
				msgs = append(msgs, m)
			}
			go func() {
				var all []byte
				for i, m := range msgs {
					all = append(all, frame(16, uint64(i), m.body, m.data)...)
				}
				for len(all) > 0 {
					k := min(len(all), []int{1, 31, 33, 5000, 100000}[rng.IntN(5)])
					if _, err := nc.Write(all[:k]); err != nil {
						t.Error(err)
						return
					}
					all = all[k:]
				}
			}()
			seen := map[uint64]bool{}
			for range n {
				h, body, data, err := readReply(nc)
				must(t, err)
				m := msgs[h.ID]
				if e.skips && h.ID%3 == 0 {
					m.data = nil
				}
				if h.Type != 16|wire.Reply || h.Flags != 7 || h.Arg != 99 || !bytes.Equal(body, m.body) ||
					!bytes.Equal(data, m.data) {
					t.Fatalf("frame %d came back changed: %+v, %d of %d, %d of %d", h.ID, h, len(body), len(m.body),
						len(data), len(m.data))
				}
				seen[h.ID] = true
			}
			if len(seen) != n {
				t.Fatalf("%d of %d came back", len(seen), n)
			}
			nc.Close()
			wait(t, "Closed", e.closed)
			if errs.Of(e.reason) != errs.Closed {
				t.Errorf("ended with %v", e.reason)
			}
		})
	}
}

// What ends a connection, and with which kind.
func TestEnds(t *testing.T) {
	good := frame(16, 1, []byte("hello"), make([]byte, 10000))
	flipped := bytes.Clone(good)
	flipped[33] ^= 1
	version := bytes.Clone(good)
	version[4] = 9
	long := bytes.Clone(good)
	long[18] = 1
	for _, tc := range []struct {
		name  string
		bytes []byte
		kind  errs.Kind
		bad   uint64
	}{
		{"at once", nil, errs.Closed, 0},
		{"between frames", good, errs.Closed, 0},
		{"in a header", good[:20], errs.Unreachable, 1},
		{"in a body", good[:35], errs.Unreachable, 1},
		{"in data", good[:5000], errs.Unreachable, 1},
		{"garbage", bytes.Repeat([]byte{7}, 100), errs.Corrupt, 1},
		{"flipped bit", flipped, errs.Corrupt, 1},
		{"version", version, errs.Version, 1},
		{"long body", long, errs.Corrupt, 1},
	} {
		for _, step := range []int{1 << 20, 1} {
			t.Run(fmt.Sprint(tc.name, step), func(t *testing.T) {
				r := newRig(t, HubOptions{})
				fd, nc := pair(t)
				e := newEcho(r, fd, 1, Options{})
				e.start()
				go io.Copy(io.Discard, nc)
				for b := tc.bytes; len(b) > 0; {
					n := min(step, len(b))
					if len(tc.bytes)-len(b) > 50 {
						n = min(1000*step, len(b))
					}
					if _, err := nc.Write(b[:n]); err != nil {
						break
					}
					b = b[n:]
				}
				nc.(*net.UnixConn).CloseWrite()
				wait(t, "Closed", e.closed)
				if errs.Of(e.reason) != tc.kind || r.hub.Counts.BadPeers.Load() != tc.bad {
					t.Errorf("ended with %v (%v), %d bad peers", e.reason, errs.Of(e.reason), r.hub.Counts.BadPeers.Load())
				}
			})
		}
	}
}

// A peer that half-closes gets all its replies.
func TestEndAnswers(t *testing.T) {
	r := newRig(t, HubOptions{})
	fd, nc := pair(t)
	e := newEcho(r, fd, 1, Options{})
	e.start()
	data := make([]byte, 1<<20)
	go func() {
		for i := range 10 {
			nc.Write(frame(16, uint64(i), nil, data))
		}
		nc.(*net.UnixConn).CloseWrite()
	}()
	for range 10 {
		_, _, d, err := readReply(nc)
		must(t, err)
		if len(d) != len(data) {
			t.Fatal("short reply")
		}
	}
	wait(t, "Closed", e.closed)
	if _, err := nc.Read(data); err != io.EOF {
		t.Errorf("after the last reply: %v", err)
	}
}

// Abort gives everything back: in mid-data, in mid-send, while stalled.
func TestAbort(t *testing.T) {
	for _, how := range []string{"idle", "data", "bulk data", "sending", "stalled", "retained"} {
		t.Run(how, func(t *testing.T) {
			r := newRig(t, HubOptions{})
			fd, nc := pair(t)
			e := newEcho(r, fd, 1, Options{})
			e.hold = how == "stalled"
			e.start()
			big := frame(16, 1, nil, make([]byte, 4<<20))
			switch how {
			case "data":
				nc.Write(frame(16, 1, nil, make([]byte, 10000))[:5000])
			case "bulk data":
				nc.Write(big[:1<<20])
			case "sending":
				nc.Write(big)
				nc.Write(frame(16, 2, nil, nil))
			case "stalled":
				nc.Write(big[:20<<10])
			case "retained":
				r.loop.Call(e.c.Retain)
			}
			time.Sleep(20 * time.Millisecond)
			r.loop.Call(func() { e.c.Abort(errs.New(errs.Busy, "enough")) })
			wait(t, "Ended", e.ended)
			if how == "retained" {
				var f Frame
				f.Done = &reply{e: e}
				r.loop.Call(func() {
					e.open++
					e.c.Send(&f)
					e.c.Release()
				})
			}
			wait(t, "Closed", e.closed)
			if errs.Of(e.reason) != errs.Busy {
				t.Errorf("ended with %v", e.reason)
			}
			r.loop.Call(func() { e.c.Abort(nil); e.c.End(nil); e.c.Resume() })
		})
	}
}

// A peer that is silent in the middle of a frame, or takes no replies, is cut off; one that is silent between
// frames is not.
func TestSilence(t *testing.T) {
	for _, how := range []string{"header", "data", "replies", "between"} {
		t.Run(how, func(t *testing.T) {
			r := newRig(t, HubOptions{})
			fd, nc := pair(t)
			e := newEcho(r, fd, 1, Options{Timeout: 50 * time.Millisecond})
			e.start()
			big := frame(16, 1, nil, make([]byte, 4<<20))
			switch how {
			case "header":
				nc.Write(big[:10])
			case "data":
				nc.Write(big[:1<<20])
			case "replies":
				go nc.Write(big)
			case "between":
				nc.Write(frame(16, 1, nil, nil))
				_, _, _, err := readReply(nc)
				must(t, err)
				time.Sleep(200 * time.Millisecond)
				nc.Write(frame(16, 1, nil, nil))
				_, _, _, err = readReply(nc)
				must(t, err)
				nc.Close()
			}
			wait(t, "Closed", e.closed)
			silent := uint64(1)
			if how == "between" {
				silent = 0
			}
			if r.hub.Counts.Silent.Load() != silent {
				t.Errorf("counted %d silent peers, ended with %v", r.hub.Counts.Silent.Load(), e.reason)
			}
		})
	}
}

// Connections that stall keep what they had received, up to a bound of all.
func TestStashBound(t *testing.T) {
	r := newRig(t, HubOptions{StashBytes: 16 << 10})
	var es []*echo
	for range 3 {
		fd, nc := pair(t)
		e := newEcho(r, fd, 1, Options{})
		e.hold = true
		nc.Write(frame(16, 1, nil, make([]byte, 6000)))
		e.start()
		es = append(es, e)
	}
	end := time.Now().Add(time.Minute)
	for r.hub.Counts.Overloaded.Load() == 0 && time.Now().Before(end) {
		time.Sleep(time.Millisecond)
	}
	if closed := r.hub.Counts.Overloaded.Load(); closed != 1 {
		t.Fatalf("%d of 3 connections were closed", closed)
	}
	for _, e := range es {
		r.loop.Call(func() { e.c.Abort(errs.Closed) })
		wait(t, "Closed", e.closed)
	}
}

// A frame can be taken back as long as nothing of it has left.
func TestWithdraw(t *testing.T) {
	r := newRig(t, HubOptions{})
	fd, nc := pair(t)
	e := newEcho(r, fd, 1, Options{})
	e.start()
	var fs [3]reply
	r.loop.Call(func() {
		for i := range fs {
			fs[i].e = e
			fs[i].f = Frame{Type: 20, ID: uint64(i), Done: &fs[i]}
			fs[i].send()
		}
		if !e.c.Withdraw(&fs[1].f) || e.c.Withdraw(&fs[1].f) {
			t.Error("cannot take a frame back")
		}
		e.open--
	})
	for _, want := range []uint64{0, 2} {
		h, _, _, err := readReply(nc)
		must(t, err)
		if h.ID != want {
			t.Errorf("frame %d came, not %d", h.ID, want)
		}
	}
	r.loop.Call(func() {
		if e.c.Withdraw(&fs[0].f) {
			t.Error("took back what was sent")
		}
	})
	nc.Close()
	wait(t, "Closed", e.closed)
}

// Without a page for its headers a connection waits for one.
func TestNoPage(t *testing.T) {
	r := newRig(t, HubOptions{})
	fd, nc := pair(t)
	e := newEcho(r, fd, 1, Options{})
	e.start()
	var all buf.Vec
	r.loop.Call(func() { r.pool.AllocReserved(&all, r.pool.Free()) })
	nc.Write(frame(16, 1, []byte("x"), nil))
	nc.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := nc.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes came out of nowhere", n)
	}
	nc.SetReadDeadline(time.Now().Add(60 * time.Second))
	r.loop.Call(func() { r.pool.ReleaseVec(&all) })
	_, body, _, err := readReply(nc)
	must(t, err)
	if string(body) != "x" {
		t.Errorf("body %q", body)
	}
	nc.Close()
	wait(t, "Closed", e.closed)
}

// Divert gives the pages of data back that is still to come.
func TestDivert(t *testing.T) {
	r := newRig(t, HubOptions{})
	fd, nc := pair(t)
	e := newEcho(r, fd, 1, Options{})
	e.start()
	f := frame(16, 1, nil, make([]byte, 20000))
	nc.Write(f[:8000])
	for ok := false; !ok; time.Sleep(time.Millisecond) {
		r.loop.Call(func() {
			if e.recv == nil {
				return
			}
			if ok = e.c.Divert(); !ok {
				t.Error("cannot divert")
				return
			}
			e.r.pool.ReleaseVec(&e.recv.held)
			e.recv = nil
		})
	}
	nc.Write(f[8000:])
	nc.Write(frame(16, 2, nil, []byte("next")))
	h, _, data, err := readReply(nc)
	must(t, err)
	if h.ID != 2 || string(data) != "next" {
		t.Errorf("frame %d with %q came", h.ID, data)
	}
	nc.Close()
	wait(t, "Closed", e.closed)
}

// A loop that stops ends its connections.
func TestLoopStops(t *testing.T) {
	pool, err := buf.NewPool(8<<20, 0)
	must(t, err)
	l, err := ring.New(ring.Options{Pool: pool})
	must(t, err)
	must(t, l.Start())
	r := &rig{t: t, pool: pool, loop: l, hub: NewHub(l, HubOptions{})}
	fd, nc := pair(t)
	e := newEcho(r, fd, 1, Options{})
	e.start()
	nc.Write(frame(16, 1, nil, make([]byte, 1<<20))[:500000])
	time.Sleep(10 * time.Millisecond)
	l.Stop()
	select {
	case <-e.closed:
	default:
		t.Error("the connection is not closed")
	}
	must(t, pool.Close())
}

// A connection that ended before it started closes all the same.
func TestEndBeforeStart(t *testing.T) {
	r := newRig(t, HubOptions{})
	fd, _ := pair(t)
	e := newEcho(r, fd, 1, Options{})
	r.loop.Call(func() { e.c.Abort(errs.Closed); e.c.Start() })
	wait(t, "Closed", e.closed)
	fd, _ = pair(t)
	New(r.hub, fd, e, Options{}).Discard()
	if err := unix.Close(fd); err == nil {
		t.Error("Discard did not close")
	}
}
