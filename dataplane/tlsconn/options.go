package tlsconn

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"vstor/dataplane/errs"
)

// The names that nbdkit and qemu give the files of a folder.
const (
	nameCert = "server-cert.pem"
	nameKey  = "server-key.pem"
	nameCA   = "ca-cert.pem"
	nameCRL  = "ca-crl.pem"
	namePSK  = "keys.psk"
)

// Options says which files a Server reads. A name of its own wins over the file in Dir.
type Options struct {
	// Dir is a folder with server-cert.pem and server-key.pem, or keys.psk, or all three; ca-cert.pem;
	// ca-crl.pem.
	Dir       string
	Cert, Key string // PEM; the certificate first, then those between it and the authority
	CA        string // PEM: whose certificates of clients count
	PSK       string // lines of identity:hexkey, as psktool writes them
	// VerifyPeer turns away who shows neither a certificate of CA nor proves a pre-shared key. Without it a
	// client may stay nobody, but a certificate that it does show must still be of CA.
	VerifyPeer bool

	crl string // PEM: certificates of CA that do not count any more; only from Dir
}

// EnsureDefaults fills in the files that Dir has.
func (o *Options) EnsureDefaults() {
	if o.Dir == "" {
		return
	}
	fill := func(field *string, name string) {
		path := filepath.Join(o.Dir, name)
		if _, err := os.Stat(path); *field == "" && !errors.Is(err, fs.ErrNotExist) {
			*field = path // there, or not to be looked at: loading says why
		}
	}
	if o.Cert == "" && o.Key == "" { // never one's own certificate with the folder's key
		fill(&o.Cert, nameCert)
		fill(&o.Key, nameKey)
	}
	fill(&o.CA, nameCA)
	fill(&o.crl, nameCRL)
	fill(&o.PSK, namePSK)
}

// Validate says what is missing. It reads no file.
func (o *Options) Validate() error {
	in := ""
	if o.Dir != "" {
		in = "; " + o.Dir + " has not got it"
	}
	switch {
	case o.Cert == "" && o.Key == "" && o.PSK == "":
		if o.Dir == "" {
			return errs.New(errs.Invalid, "TLS needs a certificate and its key, or a file of pre-shared keys")
		}
		return errs.New(errs.Invalid, "%s has neither %s and %s nor %s: TLS needs the two or the one", o.Dir,
			nameCert, nameKey, namePSK)
	case o.Cert != "" && o.Key == "":
		return errs.New(errs.Invalid, "the certificate %s needs its key%s", o.Cert, in)
	case o.Cert == "" && o.Key != "":
		return errs.New(errs.Invalid, "the key %s needs its certificate%s", o.Key, in)
	case o.VerifyPeer && o.Cert != "" && o.CA == "":
		return errs.New(errs.Invalid, "verifying clients needs the certificate of their authority%s", in)
	case o.crl != "" && o.CA == "":
		return errs.New(errs.Invalid, "%s revokes certificates, but %s is missing: whose?", o.crl, nameCA)
	}
	return nil
}
