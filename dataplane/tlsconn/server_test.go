package tlsconn

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/tlsconn/tlstest"
)

// outcome is what became of a handshake.
type outcome struct {
	conn net.Conn
	id   Identity
	err  error
}

func begin(s *Server, nc net.Conn) chan outcome {
	c := make(chan outcome, 1)
	go func() {
		conn, id, err := s.Handshake(nc)
		c <- outcome{conn, id, err}
	}()
	return c
}

// meet lets a client of crypto/tls shake hands with s and say a word. It returns what the client was told,
// nil for a quiet end.
func meet(t *testing.T, s *Server, cfg *tls.Config) (outcome, error) {
	t.Helper()
	server, raw := tlstest.Sockets(t)
	c := make(chan outcome, 1)
	go func() {
		defer server.Close()
		conn, id, err := s.Handshake(server)
		if err == nil {
			if b, err := io.ReadAll(conn); string(b) != "hello" {
				t.Errorf("the server got %q, %v", b, err)
			}
			conn.Close()
		}
		c <- outcome{conn, id, err}
	}()
	client := tls.Client(raw, cfg)
	_, told := client.Write([]byte("hello"))
	if told == nil { // in TLS 1.3 the server's verdict comes after the client is done
		client.CloseWrite()
		_, told = client.Read(make([]byte, 1))
	}
	if errors.Is(told, io.EOF) {
		told = nil
	}
	raw.Close()
	return <-c, told
}

func TestCertificates(t *testing.T) {
	f := newFolder(t)
	other := newFolder(t)
	revoked := tlstest.Issue(t, f.ca, forClient)
	alice := tlstest.Issue(t, f.ca, func(c *x509.Certificate) {
		forClient(c)
		c.DNSNames = []string{"alice.example"}
		c.EmailAddresses = []string{"a@example"}
		c.IPAddresses = []net.IP{net.ParseIP("10.0.0.9")}
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "example", Path: "/alice"}}
	})
	f.put(nameCRL, f.ca.CRL(t, time.Now().Add(time.Hour), revoked))
	names := []string{"alice", "alice.example", "a@example", "10.0.0.9", "spiffe://example/alice"}
	for _, c := range []struct {
		name   string
		show   []*tlstest.Cert
		free   bool   // without VerifyPeer
		alert  string // what the client is told
		log    string // what the server says
		names  []string
		only13 bool
	}{
		{name: "right", show: []*tlstest.Cert{alice}, names: names},
		{name: "right, free", show: []*tlstest.Cert{alice}, names: names, free: true},
		{name: "none, free", free: true},
		{name: "none", alert: "certificate required", log: "didn't provide a certificate", only13: true},
		{name: "wrong authority", show: []*tlstest.Cert{tlstest.Issue(t, other.ca, forClient)},
			alert: "unknown certificate authority", log: "not of our authority"},
		{name: "wrong authority, free", show: []*tlstest.Cert{tlstest.Issue(t, other.ca, forClient)}, free: true,
			alert: "unknown certificate authority", log: "not of our authority"},
		{name: "expired", show: []*tlstest.Cert{tlstest.Issue(t, f.ca, expired)}, alert: "expired certificate",
			log: "has expired"},
		{name: "revoked", show: []*tlstest.Cert{revoked}, alert: "bad certificate", log: "is revoked"},
		{name: "for servers", show: []*tlstest.Cert{tlstest.Issue(t, f.ca, forServer)}, alert: "bad certificate",
			log: "incompatible key usage"},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			if c.only13 && version == tls.VersionTLS12 {
				continue // the same, but the alert was named later
			}
			t.Run(c.name+" "+tls.VersionName(version), func(t *testing.T) {
				cfg := f.client(c.show...)
				cfg.MinVersion, cfg.MaxVersion = version, version
				o, told := meet(t, f.server(!c.free), cfg)
				if c.alert == "" {
					if o.err != nil || !slices.Equal(o.id.Names, c.names) || o.id.PSK != "" {
						t.Fatalf("%v, %+v", o.err, o.id)
					}
					return
				}
				if o.err == nil || !strings.Contains(o.err.Error(), c.log) || !errors.Is(o.err, errs.Invalid) {
					t.Errorf("the log says %v", o.err)
				}
				if told == nil || !strings.Contains(told.Error(), c.alert) {
					t.Errorf("the client is told %v", told)
				}
			})
		}
	}
}

// What a client may not speak, and what it may think of the server.
func TestRefusals(t *testing.T) {
	f := newFolder(t)
	s := f.server(false)
	old := f.client()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if o, told := meet(t, s, old); o.err == nil || !strings.Contains(told.Error(), "protocol version not supported") {
		t.Errorf("TLS 1.1: %v, %v", o.err, told)
	}
	stranger := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "server"}
	if o, _ := meet(t, s, stranger); o.err == nil || !strings.Contains(o.err.Error(), "turned this server away") {
		t.Errorf("a client that does not trust us: %v", o.err)
	}
	for name, send := range map[string][]byte{
		"plain": []byte("NBDMAGICIHAVEOPT"), "http": []byte("GET / HTTP/1.1\r\n\r\n"), "zeros": make([]byte, 64),
		"too long": {22, 3, 1, 0xff, 0xff, 1, 0, 0},
	} {
		server, client := tlstest.Sockets(t)
		c := begin(s, server)
		client.Write(send)
		client.(*net.TCPConn).CloseWrite()
		if o := <-c; !errors.Is(o.err, errs.Invalid) {
			t.Errorf("%s: %v", name, o.err)
		}
		server.Close()
	}
}

// A client may stop anywhere: hanging up is noticed at once, silence at the deadline.
func TestTruncatedHello(t *testing.T) {
	f := newFolder(t)
	certificates := f.server(true)
	keys, err := NewServer(Options{Dir: keysFolder(t)})
	must(t, err)
	f.put(namePSK, []byte("alice:"+testKey))
	hello := clientHello(t, f.client())
	for name, s := range map[string]*Server{"certificates": certificates, "keys": keys, "both": f.server(true)} {
		t.Run(name, func(t *testing.T) { stops(t, s, hello) })
	}
}

func stops(t *testing.T, s *Server, hello []byte) {
	for _, cut := range []int{0, 1, 4, 5, 6, 60, len(hello) - 1} {
		server, client := tlstest.Sockets(t)
		c := begin(s, server)
		client.Write(hello[:cut])
		client.Close()
		if o := <-c; !errors.Is(o.err, errs.Unreachable) || !strings.Contains(o.err.Error(), "hung up") {
			t.Errorf("%d bytes, then hung up: %v", cut, o.err)
		}
		server.Close()
		server, client = tlstest.Sockets(t)
		server.SetDeadline(time.Now().Add(30 * time.Millisecond))
		c = begin(s, server)
		client.Write(hello[:cut])
		if o := <-c; !errors.Is(o.err, errs.Unreachable) || !strings.Contains(o.err.Error(), "in time") {
			t.Errorf("%d bytes, then silence: %v", cut, o.err)
		}
	}
	server, client := tlstest.Sockets(t)
	server.SetDeadline(time.Now().Add(300 * time.Millisecond))
	c := begin(s, server)
	go func() { // a byte now and then does not buy time
		for i := range hello {
			if _, err := client.Write(hello[i : i+1]); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	if o := <-c; !errors.Is(o.err, errs.Unreachable) {
		t.Errorf("slow client: %v", o.err)
	}
	server.Close()
}

// clientHello is the first flight of a client.
func clientHello(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	r, w := net.Pipe()
	defer r.Close()
	done := make(chan struct{})
	go func() { tls.Client(w, cfg).Handshake(); w.Close(); close(done) }()
	b := make([]byte, 16<<10)
	n, err := io.ReadAtLeast(r, b, 5)
	must(t, err)
	r.Close()
	<-done
	return b[:n]
}

// Data that comes in one segment with the end of the handshake is not lost.
func TestEarlyData(t *testing.T) {
	f := newFolder(t)
	server, raw := tlstest.Sockets(t)
	c := begin(f.server(false), server)
	client := tls.Client(&glue{Conn: raw}, f.client())
	want := bytes.Repeat([]byte("x"), 100<<10)
	go func() {
		must(t, client.Handshake())
		client.NetConn().(*glue).last = len(want)
		client.Write(want)
		client.Close()
	}()
	o := <-c
	must(t, o.err)
	got, err := io.ReadAll(o.conn)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d", len(got), len(want))
	}
	o.conn.Close()
}

// glue holds small writes back until much was written.
type glue struct {
	net.Conn
	held []byte
	last int
}

func (g *glue) Write(b []byte) (int, error) {
	if len(g.held) == 0 && len(b) > 0 && b[0] == 22 && b[5] == 1 { // the ClientHello must go
		return g.Conn.Write(b)
	}
	if g.held = append(g.held, b...); g.last > 0 && len(g.held) < g.last {
		return len(b), nil
	}
	if g.last == 0 {
		return len(b), nil
	}
	_, err := g.Conn.Write(g.held)
	g.held = g.held[:0]
	return len(b), err
}

func TestReload(t *testing.T) {
	f := newFolder(t)
	s := f.server(false)
	serial := func() string {
		server, raw := tlstest.Sockets(t)
		c := begin(s, server)
		client := tls.Client(raw, f.client())
		must(t, client.Handshake())
		(<-c).conn.Close()
		return client.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	renewed := tlstest.Issue(t, f.ca, forServer)
	f.put(nameCert, renewed.PEM()) // half: the key is still the old one's
	if err := s.Reload(); err == nil {
		t.Error("a certificate with another's key was taken")
	}
	if serial() != first {
		t.Error("a failed reload changed the certificate")
	}
	f.serve(renewed)
	must(t, s.Reload())
	if serial() != renewed.Certificate.SerialNumber.String() {
		t.Error("the renewed certificate is not shown")
	}
}

// Where RSA signs clients' certificates there is no TLS 1.3, in which GnuTLS shows none; elsewhere there is.
func TestVersionByAuthority(t *testing.T) {
	for _, c := range []struct {
		ca      *tlstest.Cert
		version uint16
	}{
		{tlstest.Issue(t, nil, nil), tls.VersionTLS13},
		{tlstest.AuthorityRSA(t, nil), tls.VersionTLS12},
	} {
		f := &folder{t: t, dir: t.TempDir(), ca: c.ca}
		f.put(nameCA, f.ca.PEM())
		f.serve(tlstest.Issue(t, f.ca, forServer))
		cfg := f.client(tlstest.Issue(t, f.ca, forClient))
		var got uint16
		cfg.VerifyConnection = func(cs tls.ConnectionState) error {
			got = cs.Version
			return nil
		}
		if o, told := meet(t, f.server(true), cfg); o.err != nil || got != c.version {
			t.Errorf("%v: %v, %v, spoken is %s", c.ca.PublicKeyAlgorithm, o.err, told, tls.VersionName(got))
		}
	}
}
