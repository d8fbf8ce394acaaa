//go:build e2e

package e2e

import (
	"context"
	"crypto/x509"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vstor/dataplane/tlsconn/tlstest"
)

// asked runs a client that may be refused, and must not hang.
func asked(t *testing.T, name string, args ...string) (out string, ok bool) {
	t.Helper()
	need(t, name)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	b, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("%s %v hangs: %s", name, args, b)
	}
	return string(b), err == nil
}

// A read-only vDisk: clients see it, and what they write all the same is refused.
func TestReadOnlyVDisk(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, small...)
	d.start()
	d.vstor("vdisk", "create", "demo", "--size", "16M")
	uri := d.uri("demo")
	client(t, "qemu-io", "-f", "raw", "-c", "write -P 7 0 1M", "-c", "flush", uri)
	held, err := d.dial("demo")()
	if err != nil {
		t.Fatal(err)
	}
	code, _, stderr := d.try("vdisk", "set", "demo", "--read-only")
	if code != 1 || !strings.Contains(stderr, "in use by 1") {
		t.Errorf("while it is in use: %d %s", code, stderr)
	}
	held.Close()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if code, _, stderr := d.try("vdisk", "set", "demo", "--read-only"); code == 0 {
			break
		} else if time.Now().After(end) {
			t.Fatal(stderr)
		}
	}
	check := func() {
		t.Helper()
		if _, ok := asked(t, "nbdinfo", "--is", "read-only", uri); !ok {
			t.Error("nbdinfo takes it for writable")
		}
		client(t, "qemu-io", "-r", "-f", "raw", "-c", "read -P 7 0 1M", uri)
		if out, ok := asked(t, "qemu-io", "-f", "raw", "-c", "write -P 8 0 1M", uri); ok && !strings.Contains(out, "failed") {
			t.Errorf("qemu-io writes: %s", out)
		}
		c, err := d.dial("demo")() // a client that does not care
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Write(make([]byte, 4096), 0, 0); err == nil {
			t.Error("a write is taken")
		}
		if err := c.Trim(0, 4096, 0); err == nil {
			t.Error("a trim is taken")
		}
		c.Close()
		client(t, "qemu-io", "-r", "-f", "raw", "-c", "read -P 7 0 1M", uri)
	}
	check()
	if out := d.vstor("vdisk", "show", "demo", "--json"); !strings.Contains(out, `"read_only": true`) {
		t.Errorf("show says %s", out)
	}
	d.kill()
	d.start()
	check()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if code, _, stderr := d.try("vdisk", "set", "demo", "--read-only=false"); code == 0 {
			break
		} else if time.Now().After(end) {
			t.Fatal(stderr)
		}
	}
	client(t, "qemu-io", "-f", "raw", "-c", "write -P 9 0 1M", "-c", "read -P 9 0 1M", uri)
	d.stop()
}

// Who is not on a vDisk's list does not see it and cannot open it; who is connected and falls off the list is out.
func TestAccessList(t *testing.T) {
	t.Parallel()
	tcp := freePort(t)
	d := newDeployment(t, append(small, "--nbd-listen", tcp)...)
	d.start()
	near, far := d.uri(""), "nbd://"+tcp+"/"
	for _, name := range []string{"all", "local", "net", "none"} {
		d.vstor("vdisk", "create", name, "--size", "16M")
	}
	d.vstor("vdisk", "set", "local", "--allow", "unix")
	d.vstor("vdisk", "set", "net", "--allow", "127.0.0.0/8", "--allow", "::1")
	d.vstor("vdisk", "set", "none", "--allow", "192.0.2.0/24", "--allow", "cert:host1.example", "--allow", "psk:alice")
	check := func() {
		t.Helper()
		for uri, sees := range map[string]string{near: "all local", far: "all net"} {
			list := client(t, "nbdinfo", "--list", uri)
			for _, name := range []string{"all", "local", "net", "none"} {
				want := strings.Contains(sees, name)
				if got := strings.Contains(list, `export="`+name+`"`); got != want {
					t.Errorf("%s lists %s: %v", uri, name, got)
				}
				one := strings.Replace(uri, "///", "///"+name, 1)
				if uri == far {
					one = uri + name
				}
				out, ok := asked(t, "nbdinfo", "--size", one)
				if ok != want || !ok && (strings.Contains(out, "192.0.2") || strings.Contains(out, "alice")) {
					t.Errorf("%s: %v %s", one, ok, out)
				}
				out, ok = asked(t, "qemu-io", "-f", "raw", "-c", "read 0 4k", one)
				if ok != want {
					t.Errorf("qemu-io %s: %v %s", one, ok, out)
				}
			}
		}
	}
	check()
	if out := d.vstor("vdisk", "ls"); !strings.Contains(out, "192.0.2.0/24 cert:host1.example psk:alice") {
		t.Errorf("ls says %s", out)
	}
	d.kill()
	d.start()
	check()
	c, err := d.dial("all")()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	out := d.vstor("vdisk", "set", "all", "--allow", "127.0.0.1")
	if !strings.Contains(out, "1 connections that the list does not admit") {
		t.Errorf("set says %s", out)
	}
	if err := c.Read(make([]byte, 4096), 0); err == nil {
		t.Error("who was shut out still reads")
	}
	for args, says := range map[string]string{
		"--allow nobody":           "nobody an access list can name",
		"--allow 10.0.0.1/8":       "10.0.0.0/8 is that network",
		"--allow all --allow unix": "stands alone",
		"--allow cert:":            "names nobody",
	} {
		code, _, stderr := d.try(append([]string{"vdisk", "set", "all"}, strings.Fields(args)...)...)
		if code != 1 || !strings.Contains(stderr, says) {
			t.Errorf("set %s: %d %s", args, code, stderr)
		}
	}
	d.vstor("vdisk", "set", "all", "--allow", "all")
	check()
	d.stop()
}

// authority signs certificates in a test.
type authority struct {
	t  *testing.T
	ca *tlstest.Cert
}

func newAuthority(t *testing.T) *authority {
	return &authority{t, tlstest.Issue(t, nil, func(c *x509.Certificate) { c.NotAfter = time.Now().AddDate(1, 0, 0) })}
}

// issue puts a certificate of one side ("server", "client") into a folder, with the authority that it trusts.
func (a *authority) issue(dir, side, name string, end time.Time, trusts *authority) string {
	a.t.Helper()
	tlstest.Issue(a.t, a.ca, func(c *x509.Certificate) {
		c.Subject.CommonName, c.DNSNames = name, []string{name}
		c.NotBefore, c.NotAfter = time.Now().AddDate(-1, 0, 0), end
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}).Write(a.t, dir, side, true)
	trusts.ca.Write(a.t, dir, "ca", false)
	return dir
}

// TLS: the right certificate in; wrong, expired and none out, as those who come without TLS. Lists go by
// certificates' names; a certificate that ends is told of, and a new one counts without a restart.
func TestTLS(t *testing.T) {
	t.Parallel()
	tcp, dir := freePort(t), t.TempDir()
	ours, theirs := newAuthority(t), newAuthority(t)
	soon, later := time.Now().Add(5*24*time.Hour), time.Now().Add(100*24*time.Hour)
	server := ours.issue(filepath.Join(dir, "server"), "server", "localhost", soon, ours)
	d := newDeployment(t, append(small, "--nbd-listen", tcp, "--nbd-tls", "required", "--nbd-tls-dir", server,
		"--nbd-tls-verify-peer")...)
	d.start()
	d.vstor("vdisk", "create", "demo", "--size", "16M")
	d.vstor("vdisk", "create", "theirs", "--size", "16M")
	d.vstor("vdisk", "set", "theirs", "--allow", "cert:host2.example")
	_, port, _ := net.SplitHostPort(tcp)
	uri := func(export, certs string) string {
		return "nbds://localhost:" + port + "/" + export + "?tls-certificates=" + certs
	}
	host1 := ours.issue(filepath.Join(dir, "host1"), "client", "host1.example", later, ours)
	host2 := ours.issue(filepath.Join(dir, "host2"), "client", "HOST2.example", later, ours)
	bad := func(by, trusts *authority, name string, end time.Time) string {
		return uri("demo", by.issue(filepath.Join(dir, name), "client", "host1.example", end, trusts))
	}
	for _, c := range []struct {
		what, uri string
		ok        bool
	}{
		{"the right certificate", uri("demo", host1), true},
		{"another right certificate", uri("demo", host2), true},
		{"of another authority", bad(theirs, ours, "a", later), false},
		{"expired", bad(ours, ours, "b", time.Now().Add(-time.Hour)), false},
		{"who does not trust the server", bad(ours, theirs, "c", later), false},
		{"no certificate", uri("demo", onlyCA(t, filepath.Join(dir, "d"), host1)), false},
		{"no TLS", "nbd://" + tcp + "/demo", false},
		{"no TLS on the unix socket", d.uri("demo"), true},
		{"TLS on the unix socket", strings.Replace(d.uri("demo"), "nbd+unix", "nbds+unix", 1) +
			"&tls-hostname=localhost&tls-certificates=" + host1, true},
		{"on the list", uri("theirs", host2), true},
		{"not on the list", uri("theirs", host1), false},
		{"not on the list, without TLS", d.uri("theirs"), false},
	} {
		out, ok := asked(t, "nbdinfo", "--size", c.uri)
		if ok != c.ok || ok && strings.TrimSpace(out) != "16777216" {
			t.Errorf("%s: %v %s", c.what, ok, out)
		}
	}
	if list, ok := asked(t, "nbdinfo", "--list", uri("", host1)); !ok || strings.Contains(list, `export="theirs"`) {
		t.Errorf("host1 sees %s", list)
	}
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, []byte(strings.Repeat("through TLS\n", 16<<20/12)), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Truncate(image, 16<<20)
	client(t, "nbdcopy", image, uri("demo", host1))
	client(t, "nbdcopy", uri("demo", host1), image+"2")
	client(t, "cmp", image, image+"2")
	client(t, "qemu-img", "compare", "--object", "tls-creds-x509,id=tls0,endpoint=client,dir="+host1, "--image-opts",
		"driver=raw,file.filename="+image, "driver=nbd,host=localhost,port="+port+",export=demo,tls-creds=tls0")

	s := d.status()
	if len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "in 4 days") || s.State != "up" || s.TLS == nil ||
		!s.TLS.CertificateEnds.Equal(soon.Truncate(time.Second)) {
		t.Errorf("the status does not warn: %+v", s)
	}
	ours.issue(server, "server", "localhost", later, ours)
	d.cmd.Process.Signal(syscall.SIGHUP)
	for end := time.Now().Add(2 * time.Minute); len(d.status().Warnings) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("SIGHUP does not have the certificate read again")
		}
	}
	os.Remove(filepath.Join(server, "server-key.pem"))
	if code, _, stderr := d.try("reload"); code != 1 || !strings.Contains(stderr, "needs its key") {
		t.Errorf("a reload of nothing: %d %s", code, stderr)
	}
	if out, ok := asked(t, "nbdinfo", "--size", uri("demo", host1)); !ok {
		t.Errorf("after a reload that failed: %s", out)
	}
	ours.issue(server, "server", "localhost", later, ours)
	if out := d.vstor("reload"); !strings.Contains(out, "read again") {
		t.Errorf("reload says %s", out)
	}
	d.stop()
	d.start() // as it was told the first time
	client(t, "nbdinfo", uri("demo", host1))
	d.stop()
	ours.issue(server, "server", "localhost", time.Now().Add(-time.Hour), ours)
	if code, _, stderr := d.try("up"); code != 1 || !strings.Contains(stderr, "expired on") {
		t.Errorf("a start with an expired certificate: %d %s", code, stderr)
	}
}

// Keys and signatures of RSA are what tools make that are not told otherwise; clients with GnuTLS have to find a way to
// show them.
func TestTLSWithRSA(t *testing.T) {
	t.Parallel()
	tcp, dir := freePort(t), t.TempDir()
	later := time.Now().AddDate(0, 0, 100)
	ours := &authority{t, tlstest.AuthorityRSA(t, func(c *x509.Certificate) { c.NotAfter = later })}
	server := ours.issue(filepath.Join(dir, "server"), "server", "localhost", later, ours)
	host := ours.issue(filepath.Join(dir, "host"), "client", "host1.example", later, ours)
	d := newDeployment(t, append(small, "--nbd-listen", tcp, "--nbd-tls", "required", "--nbd-tls-dir", server,
		"--nbd-tls-verify-peer")...)
	d.start()
	d.vstor("vdisk", "create", "demo", "--size", "16M")
	_, port, _ := net.SplitHostPort(tcp)
	uri := "nbds://localhost:" + port + "/demo?tls-certificates="
	if out, ok := asked(t, "nbdinfo", "--size", uri+host); !ok || strings.TrimSpace(out) != "16777216" {
		t.Errorf("the right certificate: %v %s", ok, out)
	}
	client(t, "qemu-img", "map", "--object", "tls-creds-x509,id=tls0,endpoint=client,dir="+host, "--image-opts",
		"driver=nbd,host=localhost,port="+port+",export=demo,tls-creds=tls0")
	if out, ok := asked(t, "nbdinfo", "--size", uri+onlyCA(t, filepath.Join(dir, "none"), host)); ok {
		t.Errorf("no certificate: %s", out)
	}
	d.stop()
}

// onlyCA is a folder of a client without a certificate.
func onlyCA(t *testing.T, dir, like string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(like, "ca-cert.pem"))
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "ca-cert.pem"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// With a pre-shared key there is neither certificate nor authority.
func TestTLSWithKeys(t *testing.T) {
	t.Parallel()
	tcp, dir := freePort(t), t.TempDir()
	keys := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	alice, bob := "alice:"+strings.Repeat("a1", 32)+"\n", "bob:"+strings.Repeat("b2", 32)+"\n"
	good := keys("s/keys.psk", alice+bob)
	d := newDeployment(t, append(small, "--nbd-listen", tcp, "--nbd-tls", "required", "--nbd-tls-dir",
		filepath.Dir(good))...)
	d.start()
	d.vstor("vdisk", "create", "demo", "--size", "16M")
	d.vstor("vdisk", "set", "demo", "--allow", "psk:alice")
	for _, c := range []struct {
		what, user, file string
		ok               bool
	}{
		{"alice", "alice", keys("alice.psk", alice), true},
		{"bob, who is not on the list", "bob", keys("bob.psk", bob), false},
		{"alice with bob's key", "alice", keys("wrong.psk", "alice:"+strings.Repeat("b2", 32)+"\n"), false},
		{"a stranger", "carol", keys("carol.psk", "carol:"+strings.Repeat("c3", 32)+"\n"), false},
	} {
		out, ok := asked(t, "nbdinfo", "--size", "nbds://"+c.user+"@"+tcp+"/demo?tls-psk-file="+c.file)
		if ok != c.ok {
			t.Errorf("%s: %v %s", c.what, ok, out)
		}
	}
	if out, ok := asked(t, "nbdinfo", "--size", "nbd://"+tcp+"/demo"); ok {
		t.Errorf("without TLS: %s", out)
	}
	d.stop()
}
