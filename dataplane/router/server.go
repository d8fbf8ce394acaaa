package router

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/link"
	"vstor/dataplane/stat"
	"vstor/dataplane/tlsconn"
)

// ServerOptions of a Server. Zero fields take the defaults in EnsureDefaults.
type ServerOptions struct {
	Secret     []byte
	Deployment [16]byte
	Caps       uint64
	// Find is the vDisk of a name. The sentence of an error reaches the edge; Absent says that there is none.
	Find func(name string) (*VDisk, error)
	TLS  *tls.Config // for TCP; nil is none

	Connections      int
	Handshakes       int
	HandshakeTimeout time.Duration
	Link             link.Options
	Log              *slog.Logger
}

// EnsureDefaults fills in zero fields.
func (o *ServerOptions) EnsureDefaults() {
	if o.Connections == 0 {
		o.Connections = 256
	}
	if o.Handshakes == 0 {
		o.Handshakes = 64
	}
	if o.HandshakeTimeout == 0 {
		o.HandshakeTimeout = defaultHandshake
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
}

// Server accepts edges. Its methods may be called from any goroutine but the vDisks' loops.
type Server struct {
	opt     ServerOptions
	refused stat.Shared // connections

	mu         sync.Mutex // never held across IO
	closed     bool
	listeners  map[net.Listener]struct{}
	handshakes []net.Conn // bare sockets, oldest first
	conns      map[*session]struct{}

	live sync.WaitGroup // handshakes and connections
}

// NewServer makes a Server that does not listen yet; Shutdown ends it.
func NewServer(o ServerOptions) *Server {
	o.EnsureDefaults()
	return &Server{opt: o, listeners: map[net.Listener]struct{}{}, conns: map[*session]struct{}{}}
}

// acceptPause is how long accepting rests when the process is out of descriptors.
const acceptPause = 50 * time.Millisecond

// Serve accepts from ln until Shutdown or an error of ln, and closes it. It returns nil after Shutdown.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.listeners[ln] = struct{}{}
	}
	s.mu.Unlock()
	defer ln.Close()
	for !closed {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			s.accept(nc)
		case s.isClosed():
			return nil
		case isTemporary(err):
			time.Sleep(acceptPause)
		default:
			return errs.Wrap(errs.IO, err, "router: cannot accept on %v", ln.Addr())
		}
	}
	return errs.New(errs.Closed, "router: the server was shut down; make a new one")
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// isTemporary: out of descriptors or memory, or a client that was gone before it was accepted.
func isTemporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

// accept begins a handshake. One too many takes the place of the oldest: a handshake takes milliseconds, and those
// that do not end must keep nobody out.
func (s *Server) accept(nc net.Conn) {
	s.mu.Lock()
	closed, full := s.closed, len(s.conns) >= s.opt.Connections
	if !closed && !full {
		if len(s.handshakes) >= s.opt.Handshakes {
			s.handshakes[0].Close()
			s.handshakes = append(s.handshakes[:0], s.handshakes[1:]...)
		}
		s.handshakes = append(s.handshakes, nc)
		s.live.Add(1)
	}
	s.mu.Unlock()
	switch {
	case closed:
		nc.Close()
	case full:
		s.refused.Add(1)
		if !s.secured(nc) { // it would have to shake hands first
			turnAway(nc)
		}
		nc.Close()
	default:
		go s.shake(nc)
	}
}

// secured reports whether a socket is to speak TLS.
func (s *Server) secured(nc net.Conn) bool {
	_, local := nc.(*net.UnixConn)
	return s.opt.TLS != nil && !local
}

// Attach serves a connection that was accepted elsewhere. It blocks for its handshake.
func (s *Server) Attach(nc net.Conn) { s.accept(nc) }

// shake runs a handshake and hands the connection over to the vDisk's loop. Closing raw, from anywhere, ends it.
func (s *Server) shake(raw net.Conn) {
	nc := raw
	if s.secured(raw) {
		nc = tls.Server(tlsconn.Layer(raw), s.opt.TLS)
	}
	addr := raw.RemoteAddr()
	hello, d, err := s.answer(nc)
	s.forget(raw)
	if err != nil {
		nc.Close()
	} else {
		x := &session{d: d, srv: s, seat: Seat{Opener: hello.Opener, Edge: link.Printable([]byte(hello.Edge))}}
		err = s.attach(nc, x)
	}
	if err != nil {
		s.opt.Log.Debug("router: handshake failed", "from", addr, "error", err)
		s.live.Done()
	}
}

// forget takes a handshake off the list.
func (s *Server) forget(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, h := range s.handshakes {
		if h == nc {
			s.handshakes = append(s.handshakes[:i], s.handshakes[i+1:]...)
			return
		}
	}
}

// attach posts the session to its loop. nc is not the caller's any more.
func (s *Server) attach(nc net.Conn, x *session) error {
	fd, err := link.Take(nc)
	if err != nil {
		return err
	}
	x.link = link.New(x.d.opt.Hub, fd, x, s.opt.Link)
	s.mu.Lock()
	ok := !s.closed && len(s.conns) < s.opt.Connections
	if ok {
		s.conns[x] = struct{}{}
	}
	s.mu.Unlock()
	if ok && x.d.loop.Post(x) {
		return nil
	}
	s.mu.Lock()
	delete(s.conns, x)
	s.mu.Unlock()
	x.link.Discard()
	return errs.New(errs.Closed, "router: stopping, or as many connections as it takes")
}

// finished is the end of a connection, on its loop.
func (s *Server) finished(x *session) {
	s.mu.Lock()
	delete(s.conns, x)
	s.mu.Unlock()
	s.live.Done()
}

// Shutdown stops accepting and reading, and returns when what was asked is answered and all connections are closed.
// When ctx is done first it cuts them off. The vDisks stay the caller's.
func (s *Server) Shutdown(ctx context.Context) {
	s.mu.Lock()
	s.closed = true
	for ln := range s.listeners {
		ln.Close()
	}
	for _, nc := range s.handshakes {
		nc.Close() // nothing was promised yet
	}
	s.mu.Unlock()
	s.each(func(x *session) { x.link.End(errs.New(errs.Closed, "router: stopping")) })
	done := make(chan struct{})
	go func() { s.live.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		s.each(func(x *session) { x.link.Abort(errs.New(errs.Closed, "router: stopping")) })
		<-done
	}
}

// each runs f for every connection, on its loop.
func (s *Server) each(f func(*session)) {
	s.mu.Lock()
	list := make([]*session, 0, len(s.conns))
	for x := range s.conns {
		list = append(list, x)
	}
	s.mu.Unlock()
	for _, x := range list {
		x.d.loop.Call(func() {
			if _, live := x.d.sessions[x]; live {
				f(x)
			}
		})
	}
}
