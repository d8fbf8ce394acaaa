package link

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ring"
)

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
