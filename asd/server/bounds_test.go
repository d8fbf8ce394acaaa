package server

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"

	"vstor/asd/handshake"
	"vstor/asd/proto"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
)

// Many connections that together ask for far more than there is memory for are all served, in turn.
func TestMoreAskedThanFits(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		o.PoolBytes, o.PutBuffers, o.MaxRequests, o.MaxBytes = 2<<20, 2, 8, 1<<20
	})
	p := w.dial()
	for i := range 8 {
		must(t, p.put(i, 1<<20))
	}
	var wg sync.WaitGroup
	var contents [8][]byte
	for i := range contents {
		contents[i] = payload(i, 1<<20)
	}
	for n := range 12 {
		wg.Add(1)
		q := w.dial()
		go func() {
			defer wg.Done()
			const reqs = 24
			data := payload(100+n, 1<<20)
			body := putBody(100+n, data, nil)
			go func() {
				for i := range reqs {
					switch {
					case n%4 == 3:
						q.nc.Write(message(proto.TPut, uint64(i), 0, body, data))
					case i%8 == 7:
						q.nc.Write(message(proto.TGet, uint64(i), 0, rangeBody(i%8, 0, 1<<20), nil))
					default:
						q.nc.Write(message(proto.TReadRanges, uint64(i), 0, rangesBody(rng(i%8, 0, 512<<10), rng(i%8,
							512<<10, 512<<10)), nil))
					}
				}
			}()
			for range reqs {
				a, err := q.recv()
				if err != nil || a.Kind() != errs.OK {
					t.Errorf("%v %v", err, a.err())
					return
				}
				if a.Type != proto.TPut|0x80 && !bytes.Equal(a.data, contents[a.ID%8]) {
					t.Errorf("request %d: wrong bytes", a.ID)
				}
			}
		}()
	}
	wg.Wait()
	if w.srv.Stats().Stalls == 0 {
		t.Error("nobody had to wait: this tests nothing")
	}
}

// Who waits for a put buffer holds up no reader.
func TestPutsWaitAlone(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.PutBuffers = 1 })
	p := w.dial()
	must(t, p.put(1, 4096))
	w.hang(dio.Writes)
	var puts []*peer
	for i := range 5 {
		q := w.dial()
		data := payload(10+i, 1<<20)
		go q.send(proto.TPut, 0, putBody(10+i, data, nil), data)
		puts = append(puts, q)
	}
	until(t, "a stalled put", func() bool { return w.drive.Stalled() == 1 })
	for range 20 {
		must(t, p.call(proto.TReadRanges, rangesBody(rng(1, 0, 4096)), nil).err())
	}
	w.heal()
	for _, q := range puts {
		a, err := q.recv()
		must(t, err)
		must(t, a.err())
	}
}

// Beyond MaxConnections a peer is told; beyond MaxHandshakes the oldest one goes.
func TestConnectionBounds(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.MaxConnections = 2; o.MaxHandshakes = 3 })
	// What the bound counts, which is more than Stats: a connection is the loop's later, and not for as long.
	places := func() int { return len(w.srv.door.List()) }
	p := w.dial()
	w.dial()
	until(t, "both are in", func() bool { return places() == 2 })
	nc, err := net.Dial("unix", w.path)
	must(t, err)
	if _, err := handshake.Ask(nc, askOptions()); errs.Of(err) != errs.Busy {
		t.Errorf("one too many: %v", err)
	}
	nc.Close()
	p.nc.Close()
	until(t, "room", func() bool { return places() == 1 })
	var silent []net.Conn
	for range 10 {
		nc, err := net.Dial("unix", w.path)
		must(t, err)
		silent = append(silent, nc)
	}
	q := w.dial()
	must(t, q.call(proto.TPing, nil, nil).err())
	until(t, "evictions", func() bool { return w.srv.Stats().Evicted >= 7 })
	for _, nc := range silent {
		nc.Close()
	}
	until(t, "failed handshakes", func() bool { return w.srv.Stats().HandshakesFailed == 10 })
}

func TestHandshakeDeadline(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.HandshakeTimeout = 30 * time.Millisecond })
	nc, err := net.Dial("unix", w.path)
	must(t, err)
	defer nc.Close()
	until(t, "the deadline", func() bool { return w.srv.Stats().HandshakesFailed == 1 })
}

func TestIdle(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.IdleTimeout = 40 * time.Millisecond })
	p := w.dial()
	if _, err := p.recv(); err == nil {
		t.Error("an answer to nothing")
	}
	until(t, "idle", func() bool { return w.srv.Stats().Idle == 1 && w.srv.Stats().Connections == 0 })
}

func TestOptions(t *testing.T) {
	w := newWorld(t, nil)
	for name, edit := range map[string]func(*Options){
		"store": func(o *Options) { o.Store = nil }, "secret": func(o *Options) { o.Secret = o.Secret[1:] },
		"pool": func(o *Options) { o.PoolBytes = 4096 }, "fragment": func(o *Options) { o.MaxFragment = 5000 },
		"long fragment": func(o *Options) { o.MaxFragment = 64 << 20 }, "buffers": func(o *Options) { o.PutBuffers = -1 },
		"workers": func(o *Options) { o.Workers = 1 }, "requests": func(o *Options) { o.MaxRequests = -1 },
		"connections": func(o *Options) { o.MaxConnections = 1 << 20 }, "idle": func(o *Options) { o.IdleTimeout = -1 },
		"faults": func(o *Options) { o.AllowFaults = true },
	} {
		o := Options{Store: w.store, Secret: testSecret}
		edit(&o)
		if s, err := New(o); errs.Of(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
			if s != nil {
				s.Shutdown(bg)
			}
		}
	}
	o := Options{Store: w.store, Secret: testSecret}
	if m := o.Memory(); m < 64<<20 || m > 128<<20 {
		t.Errorf("the default takes %d MiB", m>>20)
	}
}
