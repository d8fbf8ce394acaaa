package server

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"vstor/asd/handshake"
	"vstor/asd/proto"
	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/link"
	"vstor/dataplane/ring"
	"vstor/dataplane/tlsconn"
)

// Server serves one store. Its methods may be called from any goroutine.
type Server struct {
	opts   Options
	pool   *buf.Pool
	loop   *ring.Loop
	core   *core
	work   work
	counts serverCounters
	usage  usage
	answer handshake.AnswerOptions

	mu         sync.Mutex // never held across IO
	closed     bool
	listeners  map[net.Listener]struct{}
	handshakes []net.Conn // bare sockets, oldest first
	conns      map[*conn]struct{}

	live sync.WaitGroup // handshakes and connections
	stop sync.Once
}

// New makes a server with its loop and its pool. It does not listen yet; Shutdown ends it.
func New(o Options) (*Server, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	pool, err := buf.NewPool(o.poolSize(), 0)
	if err != nil {
		return nil, err
	}
	s := &Server{opts: o, pool: pool, answer: answering(&o), listeners: map[net.Listener]struct{}{},
		conns: map[*conn]struct{}{}}
	if s.loop, err = ring.New(o.ringOptions(pool)); err == nil {
		s.core = newCore(s, s.loop)
		err = s.loop.Start()
	}
	if err != nil {
		pool.Close()
		return nil, err
	}
	if o.Store.Quarantine() > 0 {
		if !o.Store.New() { // peers of the process before this one may have leases yet
			s.loop.Call(func() { s.core.gone.until = time.Now().Add(o.Lease) })
		}
		o.Store.WatchDeletes(s.core.deleted.wake)
	}
	if _, why := s.loop.Plain(); why != nil {
		o.Log.Warn("no io_uring: IO is plain, which is slower", "loop", o.Name, "error", why)
	}
	s.work.start(s)
	return s, nil
}

// acceptPause is how long accepting rests when the process is out of descriptors: the connections that
// exist must go on, and some of them will end.
const acceptPause = 50 * time.Millisecond

// Serve accepts from ln, a unix or TCP listener, until Shutdown or an error of ln, and closes it. It returns
// nil after Shutdown. Several Serves may run at once.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		ln.Close()
		return errs.New(errs.Closed, "asd server: it was shut down; make a new one")
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
		case s.isClosed():
			return nil
		case isTemporary(err):
			time.Sleep(acceptPause)
		default:
			return errs.Wrap(errs.IO, err, "asd server: cannot accept on %v", ln.Addr())
		}
	}
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

// accept begins a handshake. One too many takes the place of the oldest: a handshake takes milliseconds, and
// those that do not end must keep nobody out.
func (s *Server) accept(nc net.Conn) {
	s.mu.Lock()
	closed, full := s.closed, len(s.conns) >= s.opts.MaxConnections
	if !closed && !full {
		if len(s.handshakes) >= s.opts.MaxHandshakes {
			s.counts.evicted.Add(1)
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
		s.counts.refused.Add(1)
		if !s.secured(nc) { // it would have to shake hands first
			handshake.Refuse(nc, errs.Busy, "this ASD has as many connections as it takes")
		}
		nc.Close()
	default:
		go s.shake(nc)
	}
}

// secured reports whether a socket is to speak TLS.
func (s *Server) secured(nc net.Conn) bool {
	_, local := nc.(*net.UnixConn)
	return s.opts.TLS != nil && !local
}

// shake runs a handshake and hands the connection over to the loop. Closing raw, from anywhere, ends it.
func (s *Server) shake(raw net.Conn) {
	nc := raw
	if s.secured(raw) {
		nc = tls.Server(tlsconn.Layer(raw), s.opts.TLS)
	}
	addr := raw.RemoteAddr()
	peer, err := handshake.Answer(nc, s.answer)
	s.forget(raw)
	if err == nil {
		err = s.attach(nc, peer)
	} else {
		nc.Close()
	}
	if err != nil {
		s.counts.failed.Add(1)
		s.opts.Log.Debug("asd server: handshake failed", "asd", s.opts.Name, "from", addr, "error", err)
		s.live.Done()
	}
}

// answering is what this server says in handshakes.
func answering(o *Options) handshake.AnswerOptions {
	st := o.Store.Stat()
	a := handshake.AnswerOptions{Secret: o.Secret, Deployment: st.Deployment, UUID: st.UUID, ID: st.ID,
		Incarnation: st.Incarnation, Requests: uint32(o.MaxRequests), Bytes: uint64(o.MaxBytes),
		Timeout: o.HandshakeTimeout}
	if o.AllowFaults {
		a.Caps |= proto.CapFaults
	}
	if o.Share != nil {
		a.Share = func() (int, dio.Shared, error) {
			fd, is, err := o.Share()
			if err != nil {
				o.Log.Warn("the drive cannot be handed over: its bytes go over the socket", "asd", o.Name, "error", err)
			}
			return fd, is, err
		}
	}
	return a
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

// attach makes a conn of nc, which is not the caller's any more, and posts it to the loop.
func (s *Server) attach(nc net.Conn, peer *handshake.Peer) error {
	fd, err := link.Take(nc)
	if err != nil {
		return err
	}
	return s.adopt(fd, peer)
}

// adopt takes over a connected stream socket in blocking mode whose handshake is done.
func (s *Server) adopt(fd int, peer *handshake.Peer) error {
	c := &conn{k: s.core, peer: peer}
	c.link = link.New(s.core.hub, fd, c, link.Options{})
	s.mu.Lock()
	full := len(s.conns) >= s.opts.MaxConnections
	if !s.closed && !full {
		s.conns[c] = struct{}{}
	}
	closed := s.closed
	s.mu.Unlock()
	switch {
	case closed:
		err := errs.New(errs.Closed, "asd server: shutting down")
		c.link.Discard()
		return err
	case full:
		s.counts.refused.Add(1)
		c.link.Discard()
		return errs.New(errs.Busy, "asd server: as many connections as it takes")
	}
	if s.loop.Post(c) {
		return nil
	}
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	c.link.Discard()
	return errs.New(errs.Closed, "asd server: the loop has ended")
}

// finished is the end of a connection, on the loop.
func (s *Server) finished(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.live.Done()
}

// killGrace is how long Shutdown waits for connections it has cut off once its context is done.
const killGrace = 2 * time.Second

// Shutdown stops accepting and reading, lets what was asked be answered, closes all connections, and ends
// workers and loop. When ctx is done first it cuts the connections off, waits a little for the drive to hand the
// requests back, and returns an error of kind Busy if it does not: then the loop and its memory stay until
// the process ends. The store is the caller's, and stays open.
func (s *Server) Shutdown(ctx context.Context) error {
	if err := s.quiesce(ctx); err != nil {
		return err
	}
	var err error
	s.stop.Do(func() {
		s.work.stop()
		s.loop.Stop()
		err = s.pool.Close()
	})
	return err
}

// quiesce ends listening, handshakes and connections.
func (s *Server) quiesce(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	for ln := range s.listeners {
		ln.Close()
	}
	for _, nc := range s.handshakes {
		nc.Close() // nothing was promised yet
	}
	s.mu.Unlock()
	s.each((*conn).shutdown)
	return s.drain(ctx)
}

// each runs f for every connection, on the loop.
func (s *Server) each(f func(*conn)) {
	s.loop.Call(func() {
		s.mu.Lock()
		conns := make([]*conn, 0, len(s.conns))
		for c := range s.conns {
			conns = append(conns, c)
		}
		s.mu.Unlock()
		for _, c := range conns {
			f(c)
		}
	})
}

func (s *Server) drain(ctx context.Context) error {
	done := make(chan struct{})
	go func() { s.live.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.each(func(c *conn) { c.link.Abort(errShutdown) })
	select {
	case <-done:
		return nil
	case <-time.After(killGrace):
		s.mu.Lock()
		defer s.mu.Unlock()
		return errs.Wrap(errs.Busy, ctx.Err(), "asd server: %d connections still wait for the drive", len(s.conns))
	}
}
