package tlsconn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vstor/dataplane/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m, nil) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// issued is a certificate with its key, which may sign others.
type issued struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes a certificate; by nil is an authority that signs itself.
func issue(t testing.TB, by *issued, edit func(*x509.Certificate)) *issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "ca"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	signer := &issued{cert: tmpl, key: key}
	if by == nil {
		tmpl.IsCA, tmpl.BasicConstraintsValid = true, true
		tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	} else {
		signer = by
		tmpl.Subject.CommonName = "alice"
		tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	}
	if edit != nil {
		edit(tmpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, signer.cert, &key.PublicKey, signer.key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return &issued{cert: cert, key: key}
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

func (i *issued) tls() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{i.cert.Raw}, PrivateKey: i.key}
}

func (i *issued) certPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.cert.Raw})
}

func (i *issued) keyPEM(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(i.key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func (i *issued) crl(t testing.TB, next time.Time, gone ...*issued) []byte {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-2 * time.Hour), NextUpdate: next}
	for _, g := range gone {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: g.cert.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, i.cert, i.key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// folder is a Dir as an administrator makes it.
type folder struct {
	t   testing.TB
	dir string
	ca  *issued
}

func newFolder(t testing.TB) *folder {
	f := &folder{t: t, dir: t.TempDir(), ca: issue(t, nil, nil)}
	f.put(nameCA, f.ca.certPEM())
	f.serve(issue(t, f.ca, forServer))
	return f
}

func (f *folder) serve(server *issued) {
	f.put(nameCert, server.certPEM())
	f.put(nameKey, server.keyPEM(f.t))
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
func (f *folder) client(show ...*issued) *tls.Config {
	c := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "server"}
	c.RootCAs.AddCert(f.ca.cert)
	if len(show) > 0 { // even if the server names other authorities
		cert := show[0].tls()
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	return c
}

// sockets are two ends of a TCP connection.
func sockets(t testing.TB) (server, client net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	client, err = net.Dial("tcp", ln.Addr().String())
	must(t, err)
	server, err = ln.Accept()
	must(t, err)
	t.Cleanup(func() { client.Close(); server.Close() })
	for _, c := range []net.Conn{server, client} {
		c.SetDeadline(time.Now().Add(60 * time.Second))
	}
	return server, client
}
