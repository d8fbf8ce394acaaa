package bench

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// A client that trusts what is in its home takes the server for 127.0.0.1; another one does not.
func TestCertificate(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	for _, d := range []string{dir, other} {
		if err := makeCertificate(d); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "server-cert.pem"), filepath.Join(dir, "server-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for home, trusts := range map[string]bool{dir: true, other: false} {
		authority, err := os.ReadFile(filepath.Join(home, ".pki", "libnbd", "ca-cert.pem"))
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(authority) {
			t.Fatal("there is no certificate in ca-cert.pem")
		}
		ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if c, err := ln.Accept(); err == nil {
				c.(*tls.Conn).HandshakeContext(t.Context())
				c.Close()
			}
		}()
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		client := tls.Client(conn, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
		err = client.HandshakeContext(t.Context())
		conn.Close()
		ln.Close()
		if (err == nil) != trusts || trusts && client.ConnectionState().Version != tls.VersionTLS13 {
			t.Errorf("a handshake of one who trusts the server (%v) ends with %v", trusts, err)
		}
	}
}
