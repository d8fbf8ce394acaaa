package tlsconn

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"time"

	"vstor/dataplane/errs"
)

// revocations are the serial numbers that an authority has taken back, by its subject and the number. A
// list that is not read again in time says nothing of the newest thieves, so an old one lets nobody in.
type revocations struct {
	path string
	gone map[string]bool // subject of the issuer, in DER, and serial number
	next time.Time       // the first list is old then; zero: never
}

// loadCRL reads lists of revoked certificates, each of which one of the authorities must have signed.
func loadCRL(path string, authorities []*x509.Certificate) (*revocations, error) {
	b, err := readFile(path, "the list of revoked certificates", false)
	if err != nil {
		return nil, err
	}
	r := &revocations{path: path, gone: map[string]bool{}}
	lists := 0
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "X509 CRL" {
			continue
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, errs.Wrap(errs.Invalid, err, "the list of revoked certificates %s cannot be read", path)
		}
		if !signedByOne(list, authorities) {
			return nil, errs.New(errs.Invalid, "the list of revoked certificates %s is not signed by the authority",
				path)
		}
		for _, e := range list.RevokedCertificateEntries {
			r.gone[string(list.RawIssuer)+e.SerialNumber.String()] = true
		}
		if !list.NextUpdate.IsZero() && (r.next.IsZero() || list.NextUpdate.Before(r.next)) {
			r.next = list.NextUpdate
		}
		lists++
	}
	if lists == 0 {
		return nil, errs.New(errs.Invalid,
			"%s holds no list of revoked certificates: it must be PEM, with BEGIN X509 CRL", path)
	}
	if r.old() {
		return nil, r.tooOld()
	}
	return r, nil
}

func signedByOne(list *x509.RevocationList, authorities []*x509.Certificate) bool {
	for _, a := range authorities {
		if list.CheckSignatureFrom(a) == nil {
			return true
		}
	}
	return false
}

func (r *revocations) old() bool { return !r.next.IsZero() && time.Now().After(r.next) }

func (r *revocations) tooOld() error {
	return errs.New(errs.Invalid, "the list of revoked certificates %s was to be renewed on %s", r.path,
		day(r.next))
}

// verify is a tls.Config's VerifyConnection: the client must have a chain of which nothing is revoked.
func (r *revocations) verify(cs tls.ConnectionState) error {
	if len(cs.VerifiedChains) == 0 {
		return nil // nobody
	}
	if r.old() {
		return r.tooOld()
	}
	for _, chain := range cs.VerifiedChains {
		if !r.revoked(chain) {
			return nil
		}
	}
	c := cs.VerifiedChains[0][0]
	return errs.New(errs.Invalid, "the certificate of %s, serial number %s, is revoked", c.Subject, c.SerialNumber)
}

func (r *revocations) revoked(chain []*x509.Certificate) bool {
	for _, c := range chain {
		if r.gone[string(c.RawIssuer)+c.SerialNumber.String()] {
			return true
		}
	}
	return false
}
