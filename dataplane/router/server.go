package router

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/link"
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
	opt  ServerOptions
	door link.Door[*session]
}

// NewServer makes a Server that does not listen yet; Shutdown ends it.
func NewServer(o ServerOptions) *Server {
	o.EnsureDefaults()
	s := &Server{opt: o}
	s.door = link.Door[*session]{Name: "router", Connections: o.Connections, Handshakes: o.Handshakes, TLS: o.TLS,
		Shake: s.shake, TurnAway: turnAway, Failed: s.failed}
	return s
}

// Serve accepts from ln until Shutdown or an error of ln, and closes it. It returns nil after Shutdown.
func (s *Server) Serve(ln net.Listener) error { return s.door.Serve(ln) }

// Attach serves a connection that was accepted elsewhere.
func (s *Server) Attach(nc net.Conn) { s.door.Attach(nc) }

// failed is told of handshakes that came to nothing.
func (s *Server) failed(from net.Addr, err error) {
	s.opt.Log.Debug("router: handshake failed", "from", from, "error", err)
}

// shake runs a handshake; what it returns hands the connection over to the vDisk's loop.
func (s *Server) shake(nc net.Conn) (func() error, error) {
	hello, d, err := s.answer(nc)
	if err != nil {
		return nil, err
	}
	x := &session{d: d, srv: s, seat: Seat{Opener: hello.Opener, Edge: link.Printable([]byte(hello.Edge))}}
	return func() error { return s.attach(nc, x) }, nil
}

// attach posts the session to its loop. nc is not the caller's any more.
func (s *Server) attach(nc net.Conn, x *session) error {
	fd, err := link.Take(nc)
	if err != nil {
		return err
	}
	x.link = link.New(x.d.opt.Hub, fd, x, s.opt.Link)
	if err = s.door.Admit(x, func() bool { return x.d.loop.Post(x) }); err != nil {
		x.link.Discard()
	}
	return err
}

// Shutdown stops accepting and reading, and returns when what was asked is answered and all connections are closed.
// When ctx is done first it cuts them off. The vDisks stay the caller's.
func (s *Server) Shutdown(ctx context.Context) {
	s.door.Close()
	s.each(func(x *session) { x.link.End(errs.New(errs.Closed, "router: stopping")) })
	if !s.door.Wait(ctx) {
		s.each(func(x *session) { x.link.Abort(errs.New(errs.Closed, "router: stopping")) })
		s.door.Wait(context.Background())
	}
}

// each runs f for every connection, on its loop.
func (s *Server) each(f func(*session)) {
	for _, x := range s.door.List() {
		x.d.loop.Call(func() {
			if _, live := x.d.sessions[x]; live {
				f(x)
			}
		})
	}
}
