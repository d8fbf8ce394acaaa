package nbd_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/nbd"
	"vstor/dataplane/nbd/nbdtest"
)

func TestShutdownAnswers(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.loop.Call(func() { r.ram.Hold = true })
	c := r.dial()
	half := r.dial() // in the middle of a payload
	q := nbd.Request{Type: nbd.CmdWrite, Length: 100000}
	half.Conn.Write(half.Header(&q))
	silent, err := net.Dial("unix", r.sock) // in the middle of a handshake
	must(t, err)
	defer silent.Close()
	c.Send(nbd.Request{Type: nbd.CmdWrite, Length: 5000}, make([]byte, 5000))
	eventually(t, "the write waits", func() (all bool) {
		r.loop.Call(func() { all = r.ram.Waiting() == 1 })
		return all
	})
	done := make(chan error, 1)
	go func() { done <- r.srv.Shutdown(context.Background()) }()
	expectEOF(t, half.Conn)
	if _, err := net.Dial("unix", r.sock); err == nil {
		eventually(t, "the listener is closed", func() bool { _, err := net.Dial("unix", r.sock); return err != nil })
	}
	select {
	case err := <-done:
		t.Fatalf("shut down (%v) with a request in flight", err)
	case <-time.After(50 * time.Millisecond):
	}
	c.Send(nbd.Request{Type: nbd.CmdFlush}, nil) // too late, not read
	r.loop.Call(func() { r.ram.Hold = false; r.ram.Release() })
	if e, cookie, err := c.Recv(); e != nbd.OK || cookie != 1 || err != nil {
		t.Errorf("reply %v %d %v", e, cookie, err)
	}
	expectEOF(t, c.Conn)
	must(t, <-done)
}

// TestShutdownCutsOff: the device does not answer. Shutdown says so and gives up; when the device
// answers after all, everything is freed.
func TestShutdownCutsOff(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.loop.Call(func() { r.ram.Hold = true })
	c := r.dial()
	c.Send(nbd.Request{Type: nbd.CmdFlush}, nil)
	eventually(t, "the flush waits", func() (all bool) {
		r.loop.Call(func() { all = r.ram.Waiting() == 1 })
		return all
	})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := r.srv.Shutdown(ctx); !errors.Is(err, errs.Busy) {
		t.Errorf("%v, want busy", err)
	}
	expectEOF(t, c.Conn)
	r.loop.Call(func() { r.ram.Hold = false; r.ram.Release() })
	eventually(t, "it is gone", func() bool { return r.srv.Stats().Connections == 0 })
}

// TestLoopStops under live connections: they end, and nothing leaks.
func TestLoopStops(t *testing.T) {
	r := newRig(t, rigOptions{})
	c, d := r.dial(), r.dial()
	must(t, c.WriteAt(make([]byte, 9999), 1, 0))
	for range 100 { // replies in flight
		c.Send(nbd.Request{Type: nbd.CmdRead, Length: 1 << 20}, nil)
	}
	r.loop.Call(r.ram.Drop)
	r.loop.Stop()
	expectEOF(t, d.Conn)
	eventually(t, "all are gone", func() bool { return r.srv.Stats().Connections == 0 })
	if nc, err := net.Dial("unix", r.sock); err == nil {
		nc.Close()
	}
}

func TestOptions(t *testing.T) {
	good := nbd.Options{Exports: &nbdtest.Exports{}}
	for name, change := range map[string]func(*nbd.Options){
		"exports":  func(o *nbd.Options) { o.Exports = nil },
		"inflight": func(o *nbd.Options) { o.MaxInflight = 257 },
		"conns":    func(o *nbd.Options) { o.MaxConnections = -1 },
		"timeout":  func(o *nbd.Options) { o.StallTimeout = -1 },
		"bytes":    func(o *nbd.Options) { o.MaxReadBytes = -1 },
		"loop":     func(o *nbd.Options) { o.LoopReadBytes = 1 },
	} {
		o := good
		change(&o)
		if _, err := nbd.New(o); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := nbd.New(good); err != nil {
		t.Error(err)
	}
}
