package nbd

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/ring"
	"vstor/dataplane/tlsconn"
)

// Server accepts NBD clients and serves them what Options.Exports opens.
type Server struct {
	opts   Options
	counts serverCounters
	closed atomic.Bool

	mu         sync.Mutex // never held across IO
	listeners  map[net.Listener]struct{}
	handshakes map[net.Conn]struct{}
	conns      map[*conn]struct{}
	shares     map[*ring.Loop]*share

	work sync.WaitGroup // handshakes and connections
}

// New makes a server that does not listen yet.
func New(opts Options) (*Server, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	return &Server{
		opts:       opts.WithDefaults(),
		listeners:  make(map[net.Listener]struct{}),
		handshakes: make(map[net.Conn]struct{}),
		conns:      make(map[*conn]struct{}),
		shares:     make(map[*ring.Loop]*share),
	}, nil
}

// acceptPause is how long accepting rests when the process is out of descriptors: the connections
// that exist must go on, and some of them will end.
const acceptPause = 50 * time.Millisecond

// Serve accepts from ln, a unix or TCP listener, until Shutdown or an error of ln, and closes it. It
// returns nil after Shutdown. Several Serves may run at once.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	if s.closed.Load() {
		s.mu.Unlock()
		ln.Close()
		return errs.New(errs.Closed, "nbd: the server was shut down; make a new one")
	}
	s.listeners[ln] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, ln)
		s.mu.Unlock()
		ln.Close()
	}()
	for {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			s.accept(nc)
		case s.closed.Load():
			return nil
		case isTemporary(err):
			time.Sleep(acceptPause)
		default:
			return errs.Wrap(errs.IO, err, "nbd: cannot accept on %v", ln.Addr())
		}
	}
}

// isTemporary: out of descriptors or memory, or a client that was gone before it was accepted.
func isTemporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

func (s *Server) accept(nc net.Conn) {
	if s.counts.connections.Add(1) > int64(s.opts.MaxConnections) {
		s.counts.connections.Add(-1)
		s.counts.refused.Add(1)
		nc.Close()
		return
	}
	s.counts.accepted.Add(1)
	s.mu.Lock()
	if s.closed.Load() {
		s.mu.Unlock()
		s.counts.connections.Add(-1)
		nc.Close()
		return
	}
	s.handshakes[nc] = struct{}{}
	s.work.Add(1)
	s.mu.Unlock()
	go s.serve(nc)
}

// serve runs a handshake and hands the socket over to the export's loop.
func (s *Server) serve(nc net.Conn) {
	h := &handshake{rw: nc, exports: s.opts.Exports, closing: s.closed.Load, peer: Peer{Addr: nc.RemoteAddr()}}
	end := nc // what to close, or to pump
	if s.opts.TLS != nil {
		h.forceTLS = s.opts.TLSRequired && !isUnix(nc)
		h.startTLS = func() (io.ReadWriter, tlsconn.Identity, error) {
			tc, id, err := s.opts.TLS.Handshake(nc)
			if err == nil {
				end = tc
			}
			return tc, id, err
		}
	}
	var exp Export
	err := nc.SetDeadline(time.Now().Add(s.opts.HandshakeTimeout))
	if err == nil {
		exp, err = h.run()
	}
	s.mu.Lock()
	delete(s.handshakes, nc)
	s.mu.Unlock()
	if err == nil {
		if err = s.attach(nc, end, exp, h.agreed.terms(exp.Info())); err != nil {
			exp.Close()
		}
	} else {
		end.Close()
	}
	if err == nil {
		s.counts.handshaken.Add(1)
		return
	}
	if !errors.Is(err, errAborted) {
		s.counts.failed.Add(1)
		s.opts.Log.Debug("nbd: handshake failed", "client", nc.RemoteAddr(), "error", err)
	}
	s.release()
}

// release gives up the place of a connection that has ended.
func (s *Server) release() {
	s.counts.connections.Add(-1)
	s.work.Done()
}

func isUnix(nc net.Conn) bool {
	_, ok := nc.(*net.UnixConn)
	return ok
}

// attach makes a conn of the socket and posts it to its loop. The sockets are not the caller's any more.
func (s *Server) attach(nc, top net.Conn, exp Export, t terms) error {
	if top == nc {
		defer nc.Close() // one of two descriptors of the socket
		fd, err := ring.Socket(nc)
		if err != nil {
			return err
		}
		return s.adopt(fd, exp, t, nil)
	}
	return s.attachTLS(nc, top, exp, t)
}

// adopt takes over a connected stream socket in blocking mode whose handshake is done, also if it fails.
// p is the pump at its other end, or nil.
func (s *Server) adopt(fd int, exp Export, t terms, p *pump) error {
	s.mu.Lock()
	if s.closed.Load() {
		s.mu.Unlock()
		closeFD(fd)
		return errs.New(errs.Closed, "the server is shutting down")
	}
	l := exp.Loop()
	sh := s.shares[l]
	if sh == nil {
		sh = newShare(l, &s.opts)
		s.shares[l] = sh
	}
	c := newConn(s, sh, fd, exp, t)
	c.tls = p
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	if l.Post(c) {
		return nil
	}
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	closeFD(fd)
	return errs.New(errs.Closed, "the loop of export %q has ended", exp.Info().Name)
}

// finished is the end of a connection, in a goroutine of its own: Export.Close may block.
func (s *Server) finished(c *conn) {
	closeFD(c.fd)
	c.exp.Close()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	if c.tls != nil {
		c.tls.ended()
		return
	}
	s.release()
}

// killGrace is how long Shutdown waits for connections it has cut off once its context is done.
const killGrace = 2 * time.Second

// Shutdown stops accepting and reading, lets the requests in flight complete and their replies leave,
// and closes. When ctx is done first it cuts the connections off, waits a little for the devices to
// hand the requests back, and returns an error if they do not. The loops must run until it has
// returned, and longer if it returned an error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed.Store(true)
	for ln := range s.listeners {
		ln.Close()
	}
	for nc := range s.handshakes {
		nc.SetDeadline(time.Now()) // ends it: nothing was promised yet
	}
	conns := s.connList()
	s.mu.Unlock()
	for _, c := range conns {
		c.share.loop.PostFunc(c.drain)
	}

	done := make(chan struct{})
	go func() { s.work.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	conns = s.connList()
	s.mu.Unlock()
	for _, c := range conns {
		c.share.loop.PostFunc(c.abort)
	}
	select {
	case <-done:
		return nil
	case <-time.After(killGrace):
		return errs.Wrap(errs.Busy, ctx.Err(), "nbd: %d connections still wait for their device",
			s.counts.connections.Load())
	}
}

func (s *Server) connList() []*conn {
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}
