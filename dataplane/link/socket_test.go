package link

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/tlsconn/tlstest"
)

// tlsPair is a server's and a client's end of a TLS connection over TCP; both have certificates.
func tlsPair(t testing.TB) (server, client net.Conn) {
	t.Helper()
	c := tlstest.Issue(t, nil, func(c *x509.Certificate) { c.DNSNames = []string{"asd"} })
	certs, roots := []tls.Certificate{c.TLS()}, c.Pool()
	server, client = tlstest.Sockets(t)
	server = tls.Server(server, &tls.Config{Certificates: certs, ClientCAs: roots,
		ClientAuth: tls.RequireAndVerifyClientCert})
	client = tls.Client(client, &tls.Config{Certificates: certs, RootCAs: roots, ServerName: "asd"})
	return server, client
}

// A connection over TLS behaves as one over a bare socket, from the handshake to either end's close.
func TestPumpTLS(t *testing.T) {
	for _, who := range []string{"peer closes", "peer cuts", "loop closes"} {
		t.Run(who, func(t *testing.T) {
			r := newRig(t, HubOptions{})
			server, client := tlsPair(t)
			fdc := make(chan int, 1)
			go func() {
				if err := server.(*tls.Conn).Handshake(); err != nil {
					t.Error(err)
				}
				fd, err := Take(server)
				if err != nil {
					t.Error(err)
				}
				fdc <- fd
			}()
			must(t, client.(*tls.Conn).Handshake())
			e := newEcho(r, <-fdc, 1, Options{})
			e.start()
			client.SetDeadline(time.Now().Add(60 * time.Second))
			rng := rand.New(rand.NewPCG(1, 2))
			for i := range 8 {
				data := random(rng, rng.IntN(1<<20))
				go client.Write(frame(16, uint64(i), []byte("body"), data))
				_, body, got, err := readReply(client)
				must(t, err)
				if string(body) != "body" || !bytes.Equal(got, data) {
					t.Fatal("changed under way")
				}
			}
			switch who {
			case "peer closes":
				client.Close()
			case "peer cuts":
				client.(*tls.Conn).NetConn().Close()
			default:
				r.loop.Call(func() { e.c.End(errs.Closed) })
				if _, _, _, err := readReply(client); err == nil {
					t.Error("the loop closed, the peer reads on")
				}
				client.Close()
			}
			wait(t, "Closed", e.closed)
		})
	}
}

// A peer that does not read stops the sender, in the loop and in the pump, and holds nothing up at the end.
func TestPumpBackpressure(t *testing.T) {
	r := newRig(t, HubOptions{})
	a, b := net.Pipe() // no socket, and no buffer at all
	fd, err := Take(a)
	must(t, err)
	e := newEcho(r, fd, 1, Options{Timeout: 100 * time.Millisecond})
	e.start()
	b.SetDeadline(time.Now().Add(20 * time.Second))
	go b.Write(frame(16, 1, nil, make([]byte, 4<<20)))
	wait(t, "Closed", e.closed)
	if r.hub.Counts.Silent.Load() != 1 {
		t.Errorf("ended with %v", e.reason)
	}
	b.Close()
}

func TestTake(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	must(t, err)
	defer c.Close()
	s, err := ln.Accept()
	must(t, err)
	fd, err := Take(s)
	must(t, err)
	r := newRig(t, HubOptions{})
	e := newEcho(r, fd, 1, Options{})
	e.start()
	c.Write(frame(16, 1, nil, []byte("x")))
	_, _, d, err := readReply(c)
	must(t, err)
	if string(d) != "x" {
		t.Error("changed")
	}
	c.Close()
	wait(t, "Closed", e.closed)
	s, c = net.Pipe()
	s.Close()
	c.Close()
	fd, err = Take(s) // closed already: the loop finds out
	must(t, err)
	e = newEcho(r, fd, 1, Options{})
	e.start()
	wait(t, "Closed", e.closed)
}
