package server

import (
	"context"
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
)

// Server serves one store. Its methods may be called from any goroutine.
type Server struct {
	opts   Options
	pool   *buf.Pool
	loop   *ring.Loop
	joiner *ring.Joiner
	core   *core
	work   work
	usage  usage
	answer handshake.AnswerOptions
	door   link.Door[*conn]
	stop   sync.Once
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
	s := &Server{opts: o, pool: pool, answer: answering(&o)}
	s.door = link.Door[*conn]{Name: "asd server", Connections: o.MaxConnections, Handshakes: o.MaxHandshakes, TLS: o.TLS,
		Shake: s.shake, TurnAway: turnAway, Failed: s.failed}
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
	s.joiner = ring.Join(s.loop)
	s.work.start(s)
	return s, nil
}

// Serve accepts from ln, a unix or TCP listener, until Shutdown or an error of ln, and closes it. It returns
// nil after Shutdown. Several Serves may run at once.
func (s *Server) Serve(ln net.Listener) error { return s.door.Serve(ln) }

// turnAway tells a peer that it is one too many.
func turnAway(nc net.Conn) {
	handshake.Refuse(nc, errs.Busy, "this ASD has as many connections as it takes")
}

// failed is told of handshakes that came to nothing.
func (s *Server) failed(from net.Addr, err error) {
	s.opts.Log.Debug("asd server: handshake failed", "asd", s.opts.Name, "from", from, "error", err)
}

// shake runs a handshake; what it returns hands the connection over to the loop.
func (s *Server) shake(nc net.Conn) (func() error, error) {
	peer, err := handshake.Answer(nc, s.answer)
	return func() error { return s.attach(nc, peer) }, err
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
	err := s.door.Admit(c, func() bool { return s.loop.Post(c) })
	if err != nil {
		c.link.Discard()
	}
	return err
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
		s.joiner.Stop()
		s.loop.Stop()
		err = s.pool.Close()
	})
	return err
}

// quiesce ends listening, handshakes and connections.
func (s *Server) quiesce(ctx context.Context) error {
	s.door.Close()
	s.each((*conn).shutdown)
	return s.drain(ctx)
}

// each runs f for every connection, on the loop.
func (s *Server) each(f func(*conn)) {
	s.loop.Call(func() {
		for _, c := range s.door.List() {
			f(c)
		}
	})
}

func (s *Server) drain(ctx context.Context) error {
	if s.door.Wait(ctx) {
		return nil
	}
	s.each(func(c *conn) { c.link.Abort(errShutdown) })
	grace, end := context.WithTimeout(context.Background(), killGrace)
	defer end()
	if s.door.Wait(grace) {
		return nil
	}
	return errs.Wrap(errs.Busy, ctx.Err(), "asd server: %d connections still wait for the drive", len(s.door.List()))
}
