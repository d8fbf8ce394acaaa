package nbd

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"vstor/dataplane/tlsconn"
)

// attachTLS is attach for a connection under TLS, which is top and made on nc.
func (s *Server) attachTLS(nc, top net.Conn, exp Export, t terms) error {
	if err := nc.SetDeadline(time.Time{}); err != nil {
		top.Close()
		return err
	}
	p := &pump{Conn: top, socket: nc, srv: s}
	p.ends.Store(2)
	fd, err := tlsconn.Pump(p)
	if err != nil {
		return err
	}
	if err := s.adopt(fd, exp, t, p); err != nil {
		// The place is given up by the caller: the end of the pump must not do it again.
		p.ends.Add(1)
		return err
	}
	return nil
}

// pump is a TLS connection between a client and the socket that the loop has. The place of its connection
// is given up when both are done with it: until then replies may be on their way.
type pump struct {
	net.Conn          // TLS
	socket   net.Conn // below it
	srv      *Server
	closed   sync.Once
	ends     atomic.Int32
}

// NetConn is what TLS is made on, as crypto/tls has it.
func (p *pump) NetConn() net.Conn {
	if c, ok := p.Conn.(interface{ NetConn() net.Conn }); ok {
		return c.NetConn()
	}
	return p.socket
}

// Close is the pump's last word.
func (p *pump) Close() error {
	err := p.Conn.Close()
	p.closed.Do(p.ended)
	return err
}

// cut ends the connection whatever the pump is doing. Any goroutine, and the loop.
func (p *pump) cut() { p.socket.Close() }

func (p *pump) ended() {
	if p.ends.Add(-1) == 0 {
		p.srv.release()
	}
}
