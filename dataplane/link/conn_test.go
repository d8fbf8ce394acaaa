package link

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/wire"
)

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
