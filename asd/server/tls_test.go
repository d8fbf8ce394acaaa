package server

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"vstor/asd/handshake"
	"vstor/asd/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/tlsconn/tlstest"
)

// certificates is a server's and a client's TLS configuration that trust each other and nobody else.
func certificates(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	c := tlstest.Issue(t, nil, func(c *x509.Certificate) { c.DNSNames = []string{"asd"} })
	certs, roots := []tls.Certificate{c.TLS()}, c.Pool()
	return &tls.Config{Certificates: certs, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert},
		&tls.Config{Certificates: certs, RootCAs: roots, ServerName: "asd"}
}

// TCP listeners speak TLS where it is set up, and unix sockets do not.
func TestTLS(t *testing.T) {
	server, client := certificates(t)
	w := newWorld(t, func(o *Options) { o.TLS = server })
	must(t, w.dial().put(1, 1<<20))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	served := make(chan error, 1)
	go func() { served <- w.srv.Serve(ln) }()
	dial := func() net.Conn {
		nc, err := net.Dial("tcp", ln.Addr().String())
		must(t, err)
		return nc
	}
	p := w.join(tls.Client(dial(), client))
	must(t, p.put(2, 300<<10))
	for i, n := range map[int]int{1: 1 << 20, 2: 300 << 10} {
		a := p.call(proto.TReadRanges, rangesBody(rng(i, 0, n)), nil)
		if must(t, a.err()); !bytes.Equal(a.data, payload(i, n)) {
			t.Error("wrong bytes")
		}
	}
	for name, nc := range map[string]net.Conn{"plain": dial(), "without certificate": tls.Client(dial(),
		&tls.Config{RootCAs: client.RootCAs, ServerName: "asd"})} {
		o := askOptions()
		o.Timeout = 5 * time.Second
		if _, err := handshake.Ask(nc, o); err == nil {
			t.Errorf("%s: let in", name)
		}
		nc.Close()
	}
	p.nc.Close()
	until(t, "the pump's end", func() bool { return w.srv.Stats().Connections == 1 })
	w.shutdown()
	must(t, <-served)
}

// Plain TCP.
func TestTCP(t *testing.T) {
	w := newWorld(t, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	served := make(chan error, 1)
	go func() { served <- w.srv.Serve(ln) }()
	nc, err := net.Dial("tcp", ln.Addr().String())
	must(t, err)
	p := w.join(nc)
	must(t, p.put(1, 1<<20))
	a := p.call(proto.TReadRanges, rangesBody(rng(1, 0, 1<<20)), nil)
	if must(t, a.err()); !bytes.Equal(a.data, payload(1, 1<<20)) {
		t.Error("wrong bytes")
	}
	o := askOptions()
	o.UUID[0]++
	nc, err = net.Dial("tcp", ln.Addr().String())
	must(t, err)
	if _, err := handshake.Ask(nc, o); errs.Of(err) != errs.Refused {
		t.Errorf("another ASD: %v", err)
	}
	nc.Close()
	w.shutdown()
	must(t, <-served)
}
