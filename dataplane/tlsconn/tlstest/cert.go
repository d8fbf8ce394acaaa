// Package tlstest makes certificates, and connections to show them on, for tests of what speaks TLS.
package tlstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Cert is a certificate with its key, which may sign others.
type Cert struct {
	*x509.Certificate
	Key crypto.Signer
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Issue makes a certificate that holds from an hour ago for two hours, for any use, if edit does not say otherwise.
// Signed by nobody it is an authority, and else alice's. Keys are of P-256, or of RSA where the signer's is.
func Issue(t testing.TB, by *Cert, edit func(*x509.Certificate)) *Cert {
	t.Helper()
	if by != nil {
		if _, is := by.Key.(*rsa.PrivateKey); is {
			return issue(t, by, rsaKey(t), edit)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return issue(t, by, key, edit)
}

// AuthorityRSA makes an authority with an RSA key, as tools do that are not told otherwise.
func AuthorityRSA(t testing.TB, edit func(*x509.Certificate)) *Cert {
	t.Helper()
	return issue(t, nil, rsaKey(t), edit)
}

func rsaKey(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	return key
}

func issue(t testing.TB, by *Cert, key crypto.Signer, edit func(*x509.Certificate)) *Cert {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	must(t, err)
	c := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "alice"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}
	if by == nil {
		c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid = "ca", true, true
		c.KeyUsage |= x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		by = &Cert{c, key}
	}
	if edit != nil {
		edit(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by.Certificate, key.Public(), by.Key)
	must(t, err)
	c, err = x509.ParseCertificate(der)
	must(t, err)
	return &Cert{c, key}
}

// TLS is the certificate as a side of a connection shows it.
func (c *Cert) TLS() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: c.Key, Leaf: c.Certificate}
}

// Pool trusts what c signed.
func (c *Cert) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.Certificate)
	return pool
}

// PEM is the certificate as files hold it; KeyPEM its key.
func (c *Cert) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func (c *Cert) KeyPEM(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.Key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// CRL is a list, to be renewed by next, of certificates that c takes back, as files hold it.
func (c *Cert) CRL(t testing.TB, next time.Time, gone ...*Cert) []byte {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-2 * time.Hour), NextUpdate: next}
	for _, g := range gone {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: g.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, c.Certificate, c.Key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// Write puts NAME-cert.pem, and with a key NAME-key.pem, into a folder: names that qemu and libnbd look for.
func (c *Cert) Write(t testing.TB, dir, name string, withKey bool) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, name+"-cert.pem"), c.PEM(), 0o600))
	if withKey {
		must(t, os.WriteFile(filepath.Join(dir, name+"-key.pem"), c.KeyPEM(t), 0o600))
	}
}
