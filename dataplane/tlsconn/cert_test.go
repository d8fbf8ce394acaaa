package tlsconn

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vstor/dataplane/leaktest"
	"vstor/dataplane/tlsconn/tlstest"
)

func TestMain(m *testing.M) { leaktest.Main(m, nil) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func expired(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
}

func forServer(c *x509.Certificate) {
	c.Subject.CommonName = "server"
	c.DNSNames = []string{"server"}
	c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
}

func forClient(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }

// folder is a Dir as an administrator makes it.
type folder struct {
	t   testing.TB
	dir string
	ca  *tlstest.Cert
}

func newFolder(t testing.TB) *folder {
	f := &folder{t: t, dir: t.TempDir(), ca: tlstest.Issue(t, nil, nil)}
	f.put(nameCA, f.ca.PEM())
	f.serve(tlstest.Issue(t, f.ca, forServer))
	return f
}

func (f *folder) serve(server *tlstest.Cert) {
	f.put(nameCert, server.PEM())
	f.put(nameKey, server.KeyPEM(f.t))
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }

func (f *folder) put(name string, b []byte) {
	f.t.Helper()
	must(f.t, os.WriteFile(f.path(name), b, 0o600))
}

func (f *folder) server(verify bool) *Server {
	f.t.Helper()
	s, err := NewServer(Options{Dir: f.dir, VerifyPeer: verify})
	must(f.t, err)
	return s
}

// client trusts the folder's authority and shows what it is given.
func (f *folder) client(show ...*tlstest.Cert) *tls.Config {
	c := &tls.Config{RootCAs: f.ca.Pool(), ServerName: "server"}
	if len(show) > 0 { // even if the server names other authorities
		cert := show[0].TLS()
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	return c
}
