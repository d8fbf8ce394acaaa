package nbd_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/nbd"
	"vstor/dataplane/nbd/nbdtest"
	"vstor/dataplane/tlsconn"
	"vstor/dataplane/tlsconn/tlstest"
)

// authority issues certificates into a folder, under the names that libnbd and qemu look for.
type authority struct {
	t   *testing.T
	dir string
	ca  *tlstest.Cert
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir(), ca: tlstest.Issue(t, nil, nil)}
	a.ca.Write(t, a.dir, "ca", false)
	a.issue("server", func(c *x509.Certificate) { c.DNSNames = []string{"localhost"} })
	a.issue("client", func(*x509.Certificate) {})
	return a
}

// issue makes NAME-cert.pem and NAME-key.pem.
func (a *authority) issue(name string, edit func(*x509.Certificate)) {
	tlstest.Issue(a.t, a.ca, func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		edit(c)
	}).Write(a.t, a.dir, name, true)
}

func (a *authority) server() *tlsconn.Server {
	s, err := tlsconn.NewServer(tlsconn.Options{Dir: a.dir, VerifyPeer: true})
	must(a.t, err)
	return s
}

func (a *authority) client() *tls.Config {
	c, err := tls.LoadX509KeyPair(filepath.Join(a.dir, "client-cert.pem"), filepath.Join(a.dir, "client-key.pem"))
	must(a.t, err)
	return &tls.Config{RootCAs: a.ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{c}}
}

func newTLSRig(t *testing.T, a *authority, o rigOptions) *rig {
	o.withTCP, o.server.TLS, o.server.TLSRequired = true, a.server(), true
	return newRig(t, o)
}

func (r *rig) dialTLS(m nbd.Mode, cfg *tls.Config) (*nbdtest.Client, error) {
	ask := nbdtest.Ask{Export: "disk", Mode: m, TLS: cfg}
	if m != nbd.Simple {
		ask.Contexts = []string{ctxAllocation, ctxDepth}
	}
	c, err := nbdtest.DialAsk("tcp", r.tcp, ask)
	if err == nil {
		r.t.Cleanup(func() { c.Conn.Close() })
	}
	return c, err
}

// TestTLS: with TLS everything is as without, over TCP nothing is without it, and the exports learn who came.
func TestTLS(t *testing.T) {
	a := newAuthority(t)
	r := newTLSRig(t, a, rigOptions{size: 4 << 20})
	var seen nbd.Peer
	r.exports.Admit = func(_ string, p nbd.Peer) error { seen = p; return nil }
	for m := nbd.Simple; m <= nbd.Extended; m++ {
		c, err := r.dialTLS(m, a.client())
		must(t, err)
		if !seen.TLS || len(seen.ID.Names) == 0 || seen.ID.Names[0] != "alice" || seen.Addr.Network() != "tcp" {
			t.Errorf("the peer is %+v", seen)
		}
		r.loop.Call(r.ram.Drop)
		must(t, modelClient(c, 0, 4<<20, uint64(m)))
	}
	if _, err := nbdtest.Dial("tcp", r.tcp, "disk"); err == nil || !strings.Contains(err.Error(), "STARTTLS") {
		t.Errorf("without TLS: %v", err)
	}
	must(t, r.dial().Close()) // a unix socket may
	if seen.TLS || seen.ID.Names != nil || seen.Addr.Network() != "unix" {
		t.Errorf("the peer is %+v", seen)
	}
	r.exports.Admit = func(string, nbd.Peer) error { return errs.New(errs.Refused, "alice may not have it") }
	if _, err := r.dialTLS(nbd.Simple, a.client()); err == nil || !strings.Contains(err.Error(), "alice may not") {
		t.Errorf("refused: %v", err)
	}
	r.exports.Admit = nil
	eventually(t, "all are gone", func() bool { return r.srv.Stats().Connections == 0 })
}

// TestTLSStrangers: no certificate, one of another authority, an expired one, no TLS at all, and somebody who
// puts options in the clear behind STARTTLS.
func TestTLSStrangers(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	r := newTLSRig(t, a, rigOptions{})
	none := a.client()
	none.Certificates = nil
	foreign := a.client()
	foreign.Certificates = other.client().Certificates
	a.issue("client", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	for name, cfg := range map[string]*tls.Config{"none": none, "foreign": foreign, "expired": a.client()} {
		if _, err := r.dialTLS(nbd.Simple, cfg); err == nil {
			t.Errorf("%s was let in", name)
		}
	}
	nc, err := net.Dial("tcp", r.tcp)
	must(t, err)
	defer nc.Close()
	c := &nbdtest.Client{Conn: nc}
	must(t, c.Greet(3))
	must(t, c.SendOption(nbd.OptStartTLS, nil))
	must(t, c.SendOption(nbd.OptList, nil)) // in the clear, in the hope that it is taken for protected
	_, rep, _, err := c.OptionReply()
	if rep != nbd.RepAck || err != nil {
		t.Errorf("%v, %v", rep, err)
	}
	if _, _, data, err := c.OptionReply(); err == nil {
		t.Errorf("an answer to what was injected: %q", data)
	}
	eventually(t, "all are gone", func() bool { return r.srv.Stats().Connections == 0 })
	if n := r.srv.Stats().HandshakesFailed; n != 4 {
		t.Errorf("%d handshakes failed", n)
	}
}

// TestTLSShutdown: what was asked is answered before the end, and who does not read is cut off.
func TestTLSShutdown(t *testing.T) { patiently(t, tlsShutdown) }

func tlsShutdown(t *testing.T, timeout time.Duration) (late bool) {
	a := newAuthority(t)
	r := newTLSRig(t, a, rigOptions{size: 32 << 20})
	fillDisk(t, r)
	c, err := r.dialTLS(nbd.Structured, a.client())
	must(t, err)
	deaf, err := r.dialTLS(nbd.Simple, a.client())
	must(t, err)
	for range 8 {
		_, err = deaf.Send(nbd.Request{Type: nbd.CmdRead, Length: 8 << 20}, nil)
		must(t, err)
	}
	r.loop.Call(func() { r.ram.Hold = true })
	for range 10 {
		_, err := c.Ask(nbd.Request{Type: nbd.CmdRead, Length: 100000}, nil)
		must(t, err)
	}
	eventually(t, "they wait", func() (ok bool) {
		r.loop.Call(func() { ok = r.ram.Waiting() >= 10 })
		return ok
	})
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	begun := time.Now()
	done := make(chan error, 1)
	go func() { done <- r.srv.Shutdown(ctx) }()
	r.loop.Call(func() { r.ram.Hold = false; r.ram.Release() })
	for range 10 {
		ans, err := c.Answer()
		if time.Since(begun) > timeout/2 {
			return true
		}
		must(t, err)
		if len(ans.Data) != 100000 {
			t.Errorf("%+v", ans)
		}
	}
	expectEOF(t, c.Conn)
	must(t, <-done)
	if n := r.srv.Stats().Connections; n != 0 {
		t.Errorf("%d connections", n)
	}
	return false
}

// TestTLSClients: the real ones.
func TestTLSClients(t *testing.T) {
	nbdinfo, nbdcopy := tool(t, "nbdinfo", "libnbd-bin"), tool(t, "nbdcopy", "libnbd-bin")
	qemuImg := tool(t, "qemu-img", "qemu-utils")
	a := newAuthority(t)
	r := newTLSRig(t, a, rigOptions{size: 8 << 20})
	data, _ := holey(t, r)
	_, port, _ := net.SplitHostPort(r.tcp)
	uri := "nbds://localhost:" + port + "/disk?tls-certificates=" + a.dir
	if out := run(t, nbdinfo, uri); !strings.Contains(out, "with TLS") {
		t.Errorf("%s", out)
	}
	out := filepath.Join(t.TempDir(), "out")
	run(t, nbdcopy, "--connections=4", uri, out)
	got, err := os.ReadFile(out)
	must(t, err)
	if !bytes.Equal(got, data) {
		t.Error("what came out is not what went in")
	}
	image := `json:{"driver":"raw","file":{"driver":"nbd","export":"disk","tls-creds":"t",` +
		`"server":{"type":"inet","host":"localhost","port":"` + port + `"}}}`
	run(t, qemuImg, "compare", "-F", "raw", "--object", "tls-creds-x509,id=t,endpoint=client,dir="+a.dir, image, out)
	if err := exec.Command(nbdinfo, "nbd://localhost:"+port+"/disk").Run(); err == nil {
		t.Error("nbdinfo came in without TLS")
	}
}
