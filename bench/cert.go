package bench

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"vstor/dataplane/errs"
)

// homeCerts is where libnbd looks for the certificates it trusts, below the user's home. A URI could name a
// folder, but fio does not allow URIs to name files.
const homeCerts = ".pki/libnbd"

// makeCertificate puts a new key and a certificate for 127.0.0.1, which signs itself, into a folder for the
// server, and the certificate once more where a client whose home is that folder looks for an authority.
func makeCertificate(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot make a key")
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vstor bench"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:   time.Now().AddDate(0, 0, -1), NotAfter: time.Now().AddDate(1, 0, 0), // servers warn of the last weeks
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	cert, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot make a certificate")
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot write down a key")
	}
	if err := os.MkdirAll(filepath.Join(dir, homeCerts), 0o700); err != nil {
		return errs.Wrap(errs.IO, err, "cannot make the folder of the certificate")
	}
	for file, block := range map[string]*pem.Block{
		"server-cert.pem":          {Type: "CERTIFICATE", Bytes: cert},
		"server-key.pem":           {Type: "PRIVATE KEY", Bytes: der},
		homeCerts + "/ca-cert.pem": {Type: "CERTIFICATE", Bytes: cert},
	} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			return errs.Wrap(errs.IO, err, "cannot keep a certificate")
		}
	}
	return nil
}
