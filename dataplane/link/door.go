package link

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/stat"
	"vstor/dataplane/tlsconn"
)

// Door is where a server's peers come in: it accepts them, has their handshakes run, and knows the connections that
// came of that, all of it within bounds. C is what the server makes of a connection. The exported fields are set
// before the first Serve; the methods may be called from any goroutine.
type Door[C comparable] struct {
	Name        string      // of the server, in errors
	Connections int         // at a time
	Handshakes  int         // at a time
	TLS         *tls.Config // for TCP; nil is none

	// Shake runs a handshake, on a goroutine of its own; Door closes nc if it fails, and ends it by that when it must
	// make room. admit makes a connection of nc, which is not Door's any more, and calls Admit.
	Shake func(nc net.Conn) (admit func() error, err error)
	// TurnAway tells a peer that it is one too many. It must not wait for it.
	TurnAway func(nc net.Conn)
	// Failed is told of each handshake that came to nothing.
	Failed func(from net.Addr, err error)

	Refused stat.Shared // peers that were one too many
	Fails   stat.Shared // handshakes that came to nothing
	Evicted stat.Shared // of them, those that had to make room

	mu        sync.Mutex // never held across IO
	closed    bool
	listeners []net.Listener
	shaking   []net.Conn // bare sockets, oldest first
	conns     map[C]struct{}
	live      sync.WaitGroup // handshakes and connections
}

// acceptPause is how long accepting rests when the process is out of descriptors: the connections that exist must go
// on, and some of them will end.
const acceptPause = 50 * time.Millisecond

// Serve accepts from ln, a unix or TCP listener, until Close or an error of ln, and closes it. It returns nil after
// Close. Several Serves may run at once.
func (d *Door[C]) Serve(ln net.Listener) error {
	defer ln.Close()
	d.mu.Lock()
	closed := d.closed
	if !closed {
		d.listeners = append(d.listeners, ln)
	}
	d.mu.Unlock()
	if closed {
		return errs.New(errs.Closed, "%s: it was shut down; make a new one", d.Name)
	}
	defer d.unlisted(ln)
	for {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			d.Attach(nc)
		case d.Closed():
			return nil
		case isTemporary(err):
			time.Sleep(acceptPause)
		default:
			return errs.Wrap(errs.IO, err, "%s: cannot accept on %v", d.Name, ln.Addr())
		}
	}
}

func (d *Door[C]) unlisted(ln net.Listener) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listeners = slices.DeleteFunc(d.listeners, func(x net.Listener) bool { return x == ln })
}

// Closed reports whether Close was called. A connection asks when it starts: whoever closed before has not found it.
func (d *Door[C]) Closed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// isTemporary: out of descriptors or memory, or a client that was gone before it was accepted.
func isTemporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

// Attach begins the handshake of a peer that was accepted elsewhere. One too many takes the place of the oldest: a
// handshake takes milliseconds, and those that do not end must keep nobody out.
func (d *Door[C]) Attach(nc net.Conn) {
	d.mu.Lock()
	closed, full := d.closed, len(d.conns) >= d.Connections
	if !closed && !full {
		if len(d.shaking) >= d.Handshakes {
			d.Evicted.Add(1)
			d.shaking[0].Close()
			d.shaking = append(d.shaking[:0], d.shaking[1:]...)
		}
		d.shaking = append(d.shaking, nc)
		d.live.Add(1)
	}
	d.mu.Unlock()
	switch {
	case closed:
		nc.Close()
	case full:
		d.Refused.Add(1)
		if !d.secured(nc) { // it would have to shake hands first
			d.TurnAway(nc)
		}
		nc.Close()
	default:
		go d.shake(nc)
	}
}

// secured reports whether a socket is to speak TLS.
func (d *Door[C]) secured(nc net.Conn) bool {
	_, local := nc.(*net.UnixConn)
	return d.TLS != nil && !local
}

// shake runs a handshake. Closing raw, from anywhere, ends it.
func (d *Door[C]) shake(raw net.Conn) {
	defer d.live.Done()
	nc := raw
	if d.secured(raw) {
		nc = tls.Server(tlsconn.Layer(raw), d.TLS)
	}
	from := raw.RemoteAddr()
	admit, err := d.Shake(nc)
	d.shaken(raw)
	if err != nil {
		nc.Close()
	} else {
		err = admit()
	}
	if err != nil {
		d.Fails.Add(1)
		d.Failed(from, err)
	}
}

// shaken takes a handshake off the list.
func (d *Door[C]) shaken(nc net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shaking = slices.DeleteFunc(d.shaking, func(x net.Conn) bool { return x == nc })
}

// Admit counts c among the connections, and has it started, which start reports. Errors: Closed, Busy (one too many);
// then c is the caller's to end.
func (d *Door[C]) Admit(c C, start func() bool) error {
	d.mu.Lock()
	closed, full := d.closed, len(d.conns) >= d.Connections
	if !closed && !full {
		if d.conns == nil {
			d.conns = map[C]struct{}{}
		}
		d.conns[c] = struct{}{}
		d.live.Add(1)
	}
	d.mu.Unlock()
	switch {
	case closed:
		return errs.New(errs.Closed, "%s: shutting down", d.Name)
	case full:
		d.Refused.Add(1)
		return errs.New(errs.Busy, "%s: as many connections as it takes", d.Name)
	case start():
		return nil
	}
	d.Finished(c)
	return errs.New(errs.Closed, "%s: the loop has ended", d.Name)
}

// Finished is the end of a connection that was admitted.
func (d *Door[C]) Finished(c C) {
	d.mu.Lock()
	delete(d.conns, c)
	d.mu.Unlock()
	d.live.Done()
}

// List is the connections there are.
func (d *Door[C]) List() []C {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]C, 0, len(d.conns))
	for c := range d.conns {
		out = append(out, c)
	}
	return out
}

// Close stops accepting and ends handshakes: nothing was promised yet. Connections are their owner's to end.
func (d *Door[C]) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for _, ln := range d.listeners {
		ln.Close()
	}
	for _, nc := range d.shaking {
		nc.Close()
	}
}

// Wait returns true when no handshake and no connection is left, false if ctx is done first. After Close.
func (d *Door[C]) Wait(ctx context.Context) bool {
	done := make(chan struct{})
	go func() { d.live.Wait(); close(done) }()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}
