package tlsconn

import (
	"crypto/x509"
	"os"
	"strings"
	"testing"
	"time"

	"vstor/dataplane/tlsconn/tlstest"
)

// Each mistake has its own sentence.
func TestOptions(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(f *folder, o *Options)
		want string
	}{
		{"nothing", func(f *folder, o *Options) { *o = Options{} }, "TLS needs a certificate and its key, or"},
		{"empty folder", func(f *folder, o *Options) { o.Dir = t.TempDir() }, "neither server-cert.pem"},
		{"no folder", func(f *folder, o *Options) { o.Dir = "/nonesuch" }, "neither server-cert.pem"},
		{"no key", func(f *folder, o *Options) { os.Remove(f.path(nameKey)) }, "needs its key"},
		{"no certificate", func(f *folder, o *Options) { os.Remove(f.path(nameCert)) }, "needs its certificate"},
		{"own certificate alone", func(f *folder, o *Options) { o.Cert = f.path(nameCert) }, "needs its key"},
		{"no authority", func(f *folder, o *Options) { os.Remove(f.path(nameCA)); o.VerifyPeer = true },
			"needs the certificate of their authority"},
		{"missing file", func(f *folder, o *Options) { o.CA = f.path("none") }, "no such file"},
		{"a folder for a file", func(f *folder, o *Options) { o.CA = f.dir }, "is not a file"},
		{"no PEM", func(f *folder, o *Options) { f.put(nameCA, []byte("hello")) }, "holds no certificate"},
		{"bad DER", func(f *folder, o *Options) {
			f.put(nameCA, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
		}, "cannot be read"},
		{"key of another", func(f *folder, o *Options) { f.put(nameKey, tlstest.Issue(t, f.ca, nil).KeyPEM(t)) },
			"is not the key of the certificate"},
		{"locked key", func(f *folder, o *Options) {
			f.put(nameKey, []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"))
		}, "passphrase"},
		{"open key", func(f *folder, o *Options) { must(t, os.Chmod(f.path(nameKey), 0o644)) }, "chmod o="},
		{"expired", func(f *folder, o *Options) {
			f.serve(tlstest.Issue(t, f.ca, func(c *x509.Certificate) { forServer(c); expired(c) }))
		}, "expired on"},
		{"early", func(f *folder, o *Options) {
			f.serve(tlstest.Issue(t, f.ca, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }))
		}, "not valid before"},
		{"for clients", func(f *folder, o *Options) { f.serve(tlstest.Issue(t, f.ca, forClient)) }, "lacks serverAuth"},
		{"huge", func(f *folder, o *Options) { f.put(nameCA, make([]byte, 2<<20)) }, "larger than 1 MiB"},
		{"other's revocations", func(f *folder, o *Options) {
			f.put(nameCRL, tlstest.Issue(t, nil, nil).CRL(t, time.Now().Add(time.Hour)))
		}, "not signed by the authority"},
		{"old revocations", func(f *folder, o *Options) {
			f.put(nameCRL, f.ca.CRL(t, time.Now().Add(-time.Hour)))
		}, "was to be renewed"},
		{"no revocations", func(f *folder, o *Options) { f.put(nameCRL, f.ca.PEM()) }, "holds no list"},
		{"whose revocations", func(f *folder, o *Options) {
			f.put(nameCRL, f.ca.CRL(t, time.Now().Add(time.Hour)))
			os.Remove(f.path(nameCA))
		}, "ca-cert.pem is missing"},
		{"open keys", func(f *folder, o *Options) {
			f.put(namePSK, []byte("a:00"))
			must(t, os.Chmod(f.path(namePSK), 0o604))
		}, "open to everybody"},
		{"no keys", func(f *folder, o *Options) { f.put(namePSK, []byte("\n")) }, "holds no key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFolder(t)
			o := Options{Dir: f.dir}
			c.make(f, &o)
			if s, err := NewServer(o); err == nil || s != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestPSKFile(t *testing.T) {
	const key = "000102030405060708090a0b0c0d0e0f"
	for text, want := range map[string]string{
		"alice:" + key: "alice", "a:b:" + key + "\n": "a:b", "#616263:" + key + "\r\n": "abc", "\n\nx:" + key: "x",
		"#:" + key: "#", " spaced :" + key: " spaced ",
	} {
		keys, err := parsePSK([]byte(text), "keys.psk")
		must(t, err)
		if len(keys) != 1 || len(keys[want]) != 16 || keys[want][15] != 15 {
			t.Errorf("%q: %v", text, keys)
		}
	}
	for text, want := range map[string]string{
		"alice": "no colon", ":" + key: "empty", "a:xy": "not hexadecimal", "a:0011": "less than 16",
		"a:" + key + "\na:" + key: "line 2: the identity has a key already", "#zz:" + key: "after #",
		"a:" + strings.Repeat("00", 513): "more than 512", strings.Repeat("i", 1025) + ":" + key: "longer than 1024",
		"a:" + key + " ": "not hexadecimal",
	} {
		if _, err := parsePSK([]byte(text), "keys.psk"); err == nil || !strings.Contains(err.Error(), want) ||
			strings.Contains(err.Error(), key) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzPSKFile(f *testing.F) {
	f.Add([]byte("alice:000102030405060708090a0b0c0d0e0f\n#6162:000102030405060708090a0b0c0d0e0f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := parsePSK(b, "keys.psk")
		if (err == nil) != (len(keys) > 0) {
			t.Errorf("%d keys, %v", len(keys), err)
		}
		for id, k := range keys {
			if id == "" || len(id) > maxIdentity || len(k) < minKey || len(k) > maxKey {
				t.Errorf("%q has a key of %d bytes", id, len(k))
			}
		}
	})
}
