package server

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"vstor/asd/handshake"
	"vstor/asd/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/wire"
)

// attacks are what a peer may do to a server; each ends when its connection is closed.
var attacks = map[string]func(w *world, nc net.Conn, rng *rand.Rand){
	"garbage": func(w *world, nc net.Conn, rng *rand.Rand) {
		b := make([]byte, 1+rng.IntN(300000))
		rand.NewChaCha8([32]byte{byte(rng.Int())}).Read(b)
		nc.Write(b)
	},
	"half frames": func(w *world, nc net.Conn, rng *rand.Rand) {
		data := make([]byte, 300<<10)
		b := message(proto.TPut, 1, 0, putBody(50, data, nil), data)
		nc.Write(b[:rng.IntN(len(b))])
		time.Sleep(time.Duration(rng.IntN(600)) * time.Millisecond)
	},
	"flood of pings, no reply read": func(w *world, nc net.Conn, rng *rand.Rand) {
		b := bytes.Repeat(message(proto.TPing, 1, 0, nil, nil), 1000)
		for range 200 {
			if _, err := nc.Write(b); err != nil {
				return
			}
		}
	},
	"flood of reads, no reply read": func(w *world, nc net.Conn, rng *rand.Rand) {
		b := bytes.Repeat(message(proto.TReadRanges, 1, 0, rangesBody(rngOf(0, 0, 1<<20)), nil), 100)
		nc.SetDeadline(time.Now().Add(300 * time.Millisecond))
		for {
			if _, err := nc.Write(b); err != nil {
				return
			}
		}
	},
	"flood of gets, no reply read": func(w *world, nc net.Conn, rng *rand.Rand) {
		b := bytes.Repeat(message(proto.TGet, 1, 0, rangeBody(0, 0, 1<<20), nil), 100)
		nc.SetDeadline(time.Now().Add(300 * time.Millisecond))
		nc.Write(b)
		io.ReadFull(nc, make([]byte, 10))
		time.Sleep(100 * time.Millisecond)
	},
	"data that nobody wants": func(w *world, nc net.Conn, rng *rand.Rand) {
		nc.Write(message(77, 1, 0, nil, make([]byte, 1<<20)))
		h := wire.Header{Type: 77, Data: wire.DataMax}
		b := make([]byte, wire.HeaderSize)
		h.Seal(b)
		nc.Write(b)
		nc.Write(make([]byte, 1<<20))
	},
	"random requests": func(w *world, nc net.Conn, rng *rand.Rand) {
		go io.Copy(io.Discard, nc)
		for range 200 {
			body := make([]byte, []int{0, 8, 16, 20, 28, 32, 56, rng.IntN(200)}[rng.IntN(8)])
			for i := range body {
				body[i] = byte(rng.IntN(3))
			}
			typ := []byte{proto.TPing, proto.TInfo, proto.TStat, proto.TReadRanges, proto.TGet, proto.TPut, proto.TList,
				proto.TLocate, proto.TVerify, proto.TEpoch, proto.TDescribe, proto.TCancel, proto.TFault, 200}[rng.IntN(14)]
			if _, err := nc.Write(message(typ, rng.Uint64N(5), rng.Uint32N(3), body, make([]byte,
				rng.IntN(2)*rng.IntN(10000)))); err != nil {
				return
			}
		}
	},
	"cancels": func(w *world, nc net.Conn, rng *rand.Rand) {
		go io.Copy(io.Discard, nc)
		for i := range uint64(300) {
			nc.Write(message(proto.TVerify, i, 1, rangeBody(0, 0, 0), nil))
			nc.Write(message(proto.TCancel, 0, 0, binary.LittleEndian.AppendUint64(nil, i), nil))
		}
	},
	"a byte at a time": func(w *world, nc net.Conn, rng *rand.Rand) {
		b := message(proto.TReadRanges, 1, 0, rangesBody(rngOf(0, 0, 4096)), nil)
		for i := range b {
			nc.Write(b[i : i+1])
		}
		io.ReadFull(nc, make([]byte, 4096))
	},
}

func rngOf(i, off, n int) proto.Range { return rng(i, off, n) }

// TestAttack: whatever some peers do, a bystander's puts and reads go on, and nothing is left behind.
func TestAttack(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		o.StallTimeout, o.HandshakeTimeout = 500*time.Millisecond, 10*time.Second // of the bystander, too
	})
	p := w.dial()
	must(t, p.put(0, 16384))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	seed := uint64(0)
	for name, attack := range attacks {
		for known := range 2 {
			seed++
			rng := rand.New(rand.NewPCG(seed, 0))
			wg.Add(1)
			go func() {
				defer wg.Done()
				for {
					select {
					case <-stop:
						return
					default:
					}
					nc, err := net.Dial("unix", w.path)
					if err != nil {
						t.Error(name, err)
						return
					}
					nc.SetDeadline(time.Now().Add(5 * time.Second))
					if known == 1 {
						if _, err := handshake.Ask(nc, askOptions()); err != nil {
							// A burst of other attackers may have taken its place.
							nc.Close()
							continue
						}
						nc.SetDeadline(time.Now().Add(2 * time.Second))
					}
					attack(w, nc, rng)
					nc.Close()
				}
			}()
		}
	}
	end := time.Now().Add(1500 * time.Millisecond)
	done := 0
	for i := 1; time.Now().Before(end) || done < 5; i++ {
		p.nc.SetDeadline(time.Now().Add(30 * time.Second))
		if err := p.put(1+i%20, 16384); err != nil {
			t.Fatal(err)
		}
		a := p.call(proto.TReadRanges, rangesBody(rng(1+i%20, 4096, 8192)), nil)
		if must(t, a.err()); !bytes.Equal(a.data, payload(1+i%20, 16384)[4096:12288]) {
			t.Fatal("wrong bytes")
		}
		keys := key(1 + i%20).Append(nil)
		must(t, p.call(proto.TDelete, proto.AppendSum(nil, sumOf(keys)), keys).err())
		done++
	}
	close(stop)
	wg.Wait()
	s := w.srv.Stats()
	t.Logf("the bystander did %d rounds; bad peers %d, stalled %d, evicted %d, failed handshakes %d, stalls %d",
		done, s.BadPeers, s.Stalled, s.Evicted, s.HandshakesFailed, s.Stalls)
	if s.BadPeers == 0 || s.HandshakesFailed == 0 {
		t.Error("no attack was noticed")
	}
}

// Shutdown answers what was asked, also of those who wait in lines, and then closes.
func TestShutdownAnswers(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.PutBuffers = 1 })
	p := w.dial()
	must(t, p.put(1, 8192))
	q := w.dial()
	w.drive.Set()
	w.hang(0xff)
	data := payload(2, 1<<20)
	p.send(proto.TPut, 0, putBody(2, data, nil), data)
	p.send(proto.TReadRanges, 0, rangesBody(rng(1, 0, 8192)), nil)
	until(t, "a put and a read under way", func() bool { return w.drive.Stalled() == 2 })
	go q.nc.Write(message(proto.TPut, 1, 0, putBody(3, data, nil), data)) // waits for a buffer: it was not begun
	quiet := make(chan error, 1)
	go func() {
		ctx, cancel := contextIn(30 * time.Second)
		defer cancel()
		quiet <- w.srv.quiesce(ctx)
	}()
	until(t, "that the connections end", func() bool {
		ended := 0
		w.srv.loop.Call(func() {
			for c := w.srv.core.conns; c != nil; c = c.next {
				if c.link.Ended() {
					ended++
				}
			}
		})
		return ended > 0 && w.srv.Stats().Connections == 1 // who waited is gone
	})
	w.heal()
	must(t, <-quiet)
	w.shutdown()
	for id, a := range p.answers(2) {
		if a.err() != nil {
			t.Errorf("request %d: %v", id, a.err())
		}
	}
	for _, c := range []*peer{p, q} {
		if a, err := c.recv(); err == nil {
			t.Errorf("after the end: %v", a)
		}
	}
	if err := w.srv.Serve(w.ln); errs.Of(err) != errs.Closed {
		t.Errorf("serve again: %v", err)
	}
}

// Where the drive does not come back, Shutdown says so in bounded time.
func TestShutdownOfHungDrive(t *testing.T) {
	w := newWorld(t, nil)
	p := w.dial()
	must(t, p.put(1, 8192))
	w.hang(0xff)
	p.send(proto.TVerify, 0, rangeBody(1, 0, 0), nil)
	until(t, "a read under way", func() bool { return w.drive.Stalled() == 1 })
	ctx, cancel := contextIn(10 * time.Millisecond)
	defer cancel()
	if err := w.srv.Shutdown(ctx); errs.Of(err) != errs.Busy {
		t.Errorf("shut down: %v", err)
	}
}
