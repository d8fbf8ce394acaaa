package tlsconn

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"os"
	"slices"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/tlsconn/psk13"
)

// maxFile bounds what is read of a file, in bytes: a wrong name may be a device.
const maxFile = 1 << 20

// load reads all files of o, or says what is wrong with the first that is.
func load(o *Options) (*material, error) {
	m := &material{}
	if o.Cert != "" {
		if err := m.loadX509(o); err != nil {
			return nil, err
		}
	}
	if o.PSK != "" {
		b, err := readFile(o.PSK, "the file of pre-shared keys", true)
		if err != nil {
			return nil, err
		}
		keys, err := parsePSK(b, o.PSK)
		if err != nil {
			return nil, err
		}
		m.keys = psk13.NewKeys(keys)
	}
	return m, nil
}

func (m *material) loadX509(o *Options) error {
	cert, err := loadCertificate(o)
	if err != nil {
		return err
	}
	m.x509 = &tls.Config{
		Certificates: []tls.Certificate{cert},
		MinVersion:   tls.VersionTLS12,
		// A ticket would spare a client a signature when it comes back; disks stay attached for days.
		// Without tickets a renewed or revoked certificate counts from the next handshake on.
		SessionTicketsDisabled: true,
		// Small first records show a web page sooner. Here they are system calls.
		DynamicRecordSizingDisabled: true,
	}
	if o.CA == "" {
		return nil
	}
	authorities, err := loadCertificates(o.CA, "the authority's certificate")
	if err != nil {
		return err
	}
	m.x509.ClientCAs = x509.NewCertPool()
	for _, c := range authorities {
		m.x509.ClientCAs.AddCert(c)
	}
	if slices.ContainsFunc(authorities, signsByRSA) {
		m.x509.MaxVersion = tls.VersionTLS12
	}
	m.x509.ClientAuth = tls.VerifyClientCertIfGiven
	if o.VerifyPeer {
		m.x509.ClientAuth = tls.RequireAndVerifyClientCert
	}
	if o.crl == "" {
		return nil
	}
	revoked, err := loadCRL(o.crl, authorities)
	if err != nil {
		return err
	}
	m.x509.VerifyConnection = revoked.verify
	return nil
}

// signsByRSA is true of an authority of whose clients' certificates those with GnuTLS show none in TLS 1.3, which are
// all NBD clients of note: RSA signs certificates by PKCS #1, TLS 1.3 has no such signatures in handshakes, and what
// the server says of those GnuTLS (3.7, of Debian 12) takes for what it says of certificates, as it does not know the
// extension that is for these. TLS 1.2 has one list for both, with PKCS #1 in it, and the same ciphers.
func signsByRSA(authority *x509.Certificate) bool { return authority.PublicKeyAlgorithm == x509.RSA }

// loadCertificate reads the server's own certificate and its key.
func loadCertificate(o *Options) (tls.Certificate, error) {
	chain, err := loadCertificates(o.Cert, "the certificate")
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf := chain[0]
	if len(leaf.ExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) &&
		!slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return tls.Certificate{}, errs.New(errs.Invalid,
			"the certificate %s is not one for servers: its extended key usage lacks serverAuth", o.Cert)
	}
	key, err := readFile(o.Key, "the key", true)
	if err != nil {
		return tls.Certificate{}, err
	}
	if b, _ := pem.Decode(key); b != nil && (b.Type == "ENCRYPTED PRIVATE KEY" || b.Headers["DEK-Info"] != "") {
		return tls.Certificate{}, errs.New(errs.Invalid,
			"the key %s is locked with a passphrase, and nobody is there to ask: store it without one", o.Key)
	}
	pemChain, err := readFile(o.Cert, "the certificate", false)
	if err != nil {
		return tls.Certificate{}, err
	}
	cert, err := tls.X509KeyPair(pemChain, key)
	if err != nil {
		return cert, errs.Wrap(errs.Invalid, err, "the key %s is not the key of the certificate %s", o.Key,
			o.Cert)
	}
	cert.Leaf = leaf
	return cert, nil
}

// loadCertificates reads one or more certificates, of which the first must be valid today.
func loadCertificates(path, what string) ([]*x509.Certificate, error) {
	b, err := readFile(path, what, false)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errs.Wrap(errs.Invalid, err, "%s %s cannot be read", what, path)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errs.New(errs.Invalid, "%s %s holds no certificate: it must be PEM, with BEGIN CERTIFICATE",
			what, path)
	}
	switch now := time.Now(); {
	case now.After(out[0].NotAfter):
		return nil, errs.New(errs.Invalid, "%s %s expired on %s: renew it", what, path, day(out[0].NotAfter))
	case now.Before(out[0].NotBefore):
		return nil, errs.New(errs.Invalid, "%s %s is not valid before %s: is the clock right?", what, path,
			day(out[0].NotBefore))
	}
	return out, nil
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// readFile reads a small file whole. Of a secret it demands that not everybody can read it.
func readFile(path, what string, secret bool) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errs.Wrap(kindOf(err), err, "%s cannot be read", what)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, errs.Wrap(errs.IO, err, "%s cannot be read", what)
	}
	if !st.Mode().IsRegular() {
		return nil, errs.New(errs.Invalid, "%s %s is not a file", what, path)
	}
	if perm := st.Mode().Perm(); secret && perm&0o007 != 0 {
		return nil, errs.New(errs.Invalid,
			"%s %s is open to everybody on this machine (mode %#o): chmod o= %s", what, path, perm, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, errs.Wrap(errs.IO, err, "%s %s cannot be read", what, path)
	}
	if len(b) > maxFile {
		return nil, errs.New(errs.Invalid, "%s %s is larger than 1 MiB: it is something else", what, path)
	}
	return b, nil
}

func kindOf(err error) errs.Kind {
	if os.IsNotExist(err) {
		return errs.Absent
	}
	return errs.Invalid
}
