package tlsconn

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/tlsconn/psk13"
)

// Identity is who the peer proved to be. Empty is nobody: a client without a certificate, where that is
// allowed.
type Identity struct {
	Names []string // of a verified certificate: the common name, then the subject's alternative names
	PSK   string   // the identity of the pre-shared key
}

// Server shakes hands. Any goroutine may call its methods.
type Server struct {
	opts Options
	now  atomic.Pointer[material]
}

// material is what was loaded at once; it never changes.
type material struct {
	x509 *tls.Config // nil: no certificates
	keys *psk13.Keys // nil: no pre-shared keys
}

// NewServer reads the files. Its errors are sentences for who wrote the configuration.
func NewServer(o Options) (*Server, error) {
	s := &Server{opts: o}
	if err := s.Reload(); err != nil {
		return nil, err
	}
	return s, nil
}

// Reload reads the files again; handshakes that begin later use them. After an error the old ones stay.
func (s *Server) Reload() error {
	o := s.opts
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return err
	}
	m, err := load(&o)
	if err != nil {
		return err
	}
	s.now.Store(m)
	return nil
}

// Handshake makes of nc, whose next byte must be the client's first of TLS, the connection inside. It takes
// as long as nc's deadline lets it: without one, for ever. A client that offers a pre-shared key is held to
// it; any other needs certificates. After an error the peer has been sent an alert that says why, and nc is
// still the caller's to close. What came in clear before must not be used after: a man in the middle may
// have put it there.
func (s *Server) Handshake(nc net.Conn) (net.Conn, Identity, error) {
	m := s.now.Load()
	l := newLayer(nc)
	c, id, err := m.handshake(l)
	if err != nil {
		l.release()
		if err = sentence(err); !errors.Is(err, errs.Unreachable) {
			linger(nc)
		}
		return nil, Identity{}, err
	}
	return c, id, nil
}

func (m *material) handshake(l *layer) (net.Conn, Identity, error) {
	psk, err := m.wantsPSK(l)
	if err != nil {
		return nil, Identity{}, err
	}
	if psk {
		c, err := psk13.Server(l, l, m.keys)
		if err != nil {
			return nil, Identity{}, err
		}
		l.whole = true
		return c, Identity{PSK: c.Identity()}, nil
	}
	c := tls.Server(l, m.x509)
	if err := c.Handshake(); err != nil {
		return nil, Identity{}, err
	}
	return c, identityOf(c.ConnectionState()), nil
}

// wantsPSK decides which of two servers a client gets, from its ClientHello, which stays in l.
func (m *material) wantsPSK(l *layer) (bool, error) {
	if m.x509 == nil || m.keys == nil {
		return m.keys != nil, nil
	}
	var sniffer psk13.Sniffer
	for {
		switch sniffer.Sniff(l.buffered()) {
		case psk13.WantsPSK:
			return true, nil
		case psk13.WantsOther:
			return false, nil
		}
		n := len(l.buffered())
		if n == chunkSize {
			return false, nil // a hello of crumbs
		}
		if _, err := l.Peek(n + 1); err != nil {
			return false, err
		}
	}
}

// identityOf names who showed a certificate that was verified; any other says nothing.
func identityOf(cs tls.ConnectionState) (id Identity) {
	if len(cs.VerifiedChains) == 0 {
		return id
	}
	c := cs.VerifiedChains[0][0]
	if c.Subject.CommonName != "" {
		id.Names = append(id.Names, c.Subject.CommonName)
	}
	id.Names = append(id.Names, c.DNSNames...)
	id.Names = append(id.Names, c.EmailAddresses...)
	for _, a := range c.IPAddresses {
		id.Names = append(id.Names, a.String())
	}
	for _, u := range c.URIs {
		id.Names = append(id.Names, u.String())
	}
	return id
}

// sentence says what happened in the words of who reads the log of the server.
func sentence(err error) error {
	var (
		record   tls.RecordHeaderError
		unknown  x509.UnknownAuthorityError
		invalid  x509.CertificateInvalidError
		operated *net.OpError
	)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errs.Wrap(errs.Unreachable, err, "TLS: the client hung up during the handshake")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errs.Wrap(errs.Unreachable, err, "TLS: the client did not finish the handshake in time")
	case errors.As(err, &record):
		return errs.Wrap(errs.Invalid, err, "TLS: what the client sends is not TLS")
	case errors.As(err, &unknown):
		return errs.Wrap(errs.Invalid, err, "TLS: the client's certificate is not of our authority")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return errs.Wrap(errs.Invalid, err, "TLS: the client's certificate has expired or is not valid yet")
	case errors.As(err, &operated) && operated.Op == "remote error":
		return errs.Wrap(errs.Invalid, err, "TLS: the client turned this server away")
	}
	return errs.Wrap(errs.Invalid, err, "TLS: the handshake failed")
}

const (
	lingerTime  = 300 * time.Millisecond
	lingerBytes = 256 << 10
)

// linger lets the alert reach the peer. A close while something unread lies in the socket makes the kernel
// send a reset, which overtakes the alert, so what the peer is still sending is read away: bounded in time
// and bytes.
func linger(nc net.Conn) {
	c, ok := nc.(interface{ CloseWrite() error })
	if !ok || c.CloseWrite() != nil {
		return
	}
	nc.SetReadDeadline(time.Now().Add(lingerTime))
	io.Copy(io.Discard, io.LimitReader(nc, lingerBytes))
}
