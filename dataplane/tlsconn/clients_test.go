package tlsconn

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vstor/dataplane/tlsconn/tlstest"
)

// The tests of this file let real clients speak TLS with a Server: NBD clients through a door that knows
// STARTTLS and then leads to nbdkit, and the tools of GnuTLS and OpenSSL. A tool that is not installed
// skips its test.

const testKey = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

func needs(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED: %s is not installed", tool)
		}
	}
}

// run runs a tool for five minutes at most.
func run(t *testing.T, stdin string, tool string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.WaitDelay = time.Minute
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// door listens for clients, and does with each what serve does until the test ends.
type door struct {
	t    *testing.T
	ln   net.Listener
	work sync.WaitGroup
	mu   sync.Mutex
	saw  []string // how handshakes ended
}

func newDoor(t *testing.T, serve func(d *door, nc net.Conn)) *door {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	d := &door{t: t, ln: ln}
	d.work.Add(1)
	go func() {
		defer d.work.Done()
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			nc.SetDeadline(time.Now().Add(5 * time.Minute))
			d.work.Add(1)
			go func() { defer d.work.Done(); serve(d, nc); nc.Close() }()
		}
	}()
	t.Cleanup(func() { ln.Close(); d.work.Wait() })
	return d
}

func (d *door) port() string { return fmt.Sprint(d.ln.Addr().(*net.TCPAddr).Port) }

func (d *door) ended(id Identity, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.saw = append(d.saw, fmt.Sprintf("%q %q %v", id.PSK, id.Names, err))
}

func (d *door) last() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.saw) == 0 {
		return "nobody came"
	}
	return d.saw[len(d.saw)-1]
}

const optionMagic = 0x49484156454F5054

// startTLS greets an NBD client as far as STARTTLS, its first option, and returns its flags.
func startTLS(nc net.Conn) (flags []byte, err error) {
	nc.Write([]byte("NBDMAGICIHAVEOPT\x00\x03"))
	b := make([]byte, 4+16)
	if _, err := io.ReadFull(nc, b); err != nil {
		return nil, err
	}
	if binary.BigEndian.Uint64(b[4:]) != optionMagic || binary.BigEndian.Uint32(b[12:]) != 5 {
		return nil, fmt.Errorf("%x is not STARTTLS", b)
	}
	reply := binary.BigEndian.AppendUint64(nil, 0x3e889045565a9)
	reply = append(reply, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0)
	_, err = nc.Write(reply)
	return b[:4], err
}

// nbd starts nbdkit with a disk in memory, behind a door with TLS and a pump.
func nbd(t *testing.T, s *Server) *door {
	needs(t, "nbdkit")
	socket := filepath.Join(t.TempDir(), "nbd.sock")
	kit := exec.Command("nbdkit", "-f", "-U", socket, "memory", "64M")
	must(t, kit.Start())
	t.Cleanup(func() { kit.Process.Kill(); kit.Wait() })
	return newDoor(t, func(d *door, nc net.Conn) {
		flags, err := startTLS(nc)
		if err != nil {
			d.ended(Identity{}, err)
			return
		}
		c, id, err := s.Handshake(nc)
		d.ended(id, err)
		if err != nil {
			return
		}
		fd, err := Pump(c)
		if err != nil {
			t.Error(err)
			return
		}
		f := os.NewFile(uintptr(fd), "loop")
		loop, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Error(err)
			return
		}
		defer loop.Close()
		var back net.Conn
		for range 3000 { // nbdkit takes a moment to listen
			if back, err = net.Dial("unix", socket); err == nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil {
			t.Error(err)
			return
		}
		defer back.Close()
		io.ReadFull(back, make([]byte, 18)) // its greeting: ours was in clear
		back.Write(flags)
		done := make(chan struct{})
		go func() { io.Copy(loop, back); loop.Close(); close(done) }()
		io.Copy(back, loop)
		back.Close()
		<-done
	})
}

// keysFolder has one pre-shared key, alice's.
func keysFolder(t *testing.T) string {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, namePSK), []byte("alice:"+testKey+"\n"), 0o600))
	return dir
}

// clientFolder is what qemu and libnbd want of a client's certificate.
func clientFolder(t *testing.T, f *folder, c *tlstest.Cert) string {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, nameCA), f.ca.PEM(), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "client-cert.pem"), c.PEM(), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "client-key.pem"), c.KeyPEM(t), 0o600))
	return dir
}

// Random bytes go into the disk and come back, with libnbd's tools and with qemu's.
func TestNBDClients(t *testing.T) {
	f := newFolder(t)
	must(t, os.WriteFile(f.path(namePSK), []byte("alice:"+testKey+"\n"), 0o600))
	psk, certs := keysFolder(t), clientFolder(t, f, tlstest.Issue(t, f.ca, forClient))
	s := f.server(true)
	for name, c := range map[string]struct{ uri, creds, saw string }{
		"psk": {"nbds://alice@localhost:%s/?tls-psk-file=" + filepath.Join(psk, namePSK),
			"tls-creds-psk,id=tls0,endpoint=client,username=alice,dir=" + psk, `"alice" [] <nil>`},
		"x509": {"nbds://localhost:%s/?tls-certificates=" + certs,
			"tls-creds-x509,id=tls0,endpoint=client,dir=" + certs, `"" ["alice"] <nil>`},
	} {
		t.Run(name, func(t *testing.T) {
			needs(t, "nbdinfo", "nbdcopy", "qemu-img")
			d := nbd(t, s)
			f.serve(tlstest.Issue(t, f.ca, func(c *x509.Certificate) { forServer(c); c.DNSNames = []string{"localhost"} }))
			must(t, s.Reload())
			uri := fmt.Sprintf(c.uri, d.port())
			if out, err := run(t, "", "nbdinfo", "--size", uri); err != nil || strings.TrimSpace(out) != "67108864" {
				t.Fatalf("%s, %v; %s", out, err, d.last())
			}
			if d.last() != c.saw {
				t.Errorf("the server saw %s, want %s", d.last(), c.saw)
			}
			dir := t.TempDir()
			in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
			data := make([]byte, 64<<20)
			rand.NewChaCha8([32]byte{3}).Read(data)
			must(t, os.WriteFile(in, data, 0o600))
			for _, args := range [][]string{
				{"nbdcopy", in, uri}, {"nbdcopy", uri, out},
				{"qemu-img", "convert", "-n", "--image-opts", "--target-image-opts", "--object", c.creds,
					"driver=file,filename=" + in,
					"driver=nbd,server.type=inet,server.host=localhost,tls-creds=tls0,server.port=" + d.port()},
				{"qemu-img", "compare", "--object", c.creds, "--image-opts", "driver=file,filename=" + in,
					"driver=nbd,server.type=inet,server.host=localhost,tls-creds=tls0,server.port=" + d.port()},
			} {
				if out, err := run(t, "", args[0], args[1:]...); err != nil {
					t.Fatalf("%v: %s, %v; %s", args, out, err, d.last())
				}
			}
			got, err := os.ReadFile(out)
			must(t, err)
			if !bytes.Equal(got, data) {
				t.Error("nbdcopy brought back something else")
			}
		})
	}
}

// A client of NBD that may not come in fails, and the server says why.
func TestNBDStrangers(t *testing.T) {
	needs(t, "nbdinfo")
	f, other := newFolder(t), newFolder(t)
	must(t, os.WriteFile(f.path(namePSK), []byte("alice:"+testKey+"\n"), 0o600))
	f.serve(tlstest.Issue(t, f.ca, func(c *x509.Certificate) { forServer(c); c.DNSNames = []string{"localhost"} }))
	wrong := filepath.Join(t.TempDir(), "wrong.psk")
	must(t, os.WriteFile(wrong, []byte("alice:"+strings.Repeat("ab", 32)+"\neve:"+testKey+"\n"), 0o600))
	certs := func(c *tlstest.Cert) string {
		return "nbds://localhost:%s/?tls-certificates=" + clientFolder(t, f, c)
	}
	d := nbd(t, f.server(true))
	for name, c := range map[string]struct{ uri, saw string }{
		"wrong key":        {"nbds://alice@localhost:%s/?tls-psk-file=" + wrong, "has another key"},
		"unknown identity": {"nbds://eve@localhost:%s/?tls-psk-file=" + wrong, "there is no key for"},
		"wrong authority":  {certs(tlstest.Issue(t, other.ca, forClient)), "not of our authority"},
		"expired":          {certs(tlstest.Issue(t, f.ca, expired)), "expired"},
	} {
		if out, err := run(t, "", "nbdinfo", fmt.Sprintf(c.uri, d.port())); err == nil {
			t.Errorf("%s came in: %s", name, out)
		}
		for range 3000 { // the client may be gone before the server has said why
			if strings.Contains(d.last(), c.saw) {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if !strings.Contains(d.last(), c.saw) {
			t.Errorf("%s: the server says %s", name, d.last())
		}
	}
}

// echo shakes hands and sends back what comes.
func echo(s *Server) func(*door, net.Conn) {
	return func(d *door, nc net.Conn) {
		c, id, err := s.Handshake(nc)
		d.ended(id, err)
		if err == nil {
			io.Copy(c, c)
			c.Close()
		}
	}
}

// The two libraries behind nearly every client, with each group, hash and suite that we have.
func TestTLSTools(t *testing.T) {
	s, err := NewServer(Options{Dir: keysFolder(t)})
	must(t, err)
	const strings13 = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+ECDHE-PSK:+DHE-PSK:+PSK"
	for name, prio := range map[string]string{
		"plain": strings13, "qemu": "NORMAL:+ECDHE-PSK:+DHE-PSK:+PSK", "x25519": strings13 + ":-GROUP-ALL:+GROUP-X25519",
		"p256":             strings13 + ":-GROUP-ALL:+GROUP-SECP256R1",
		"retry":            strings13 + ":-GROUP-ALL:+GROUP-SECP384R1:+GROUP-SECP256R1",
		"no compatibility": strings13 + ":%DISABLE_TLS13_COMPAT_MODE",
	} {
		t.Run("gnutls "+name, func(t *testing.T) {
			needs(t, "gnutls-cli")
			d := newDoor(t, echo(s))
			out, err := run(t, "hello\n", "gnutls-cli", "-p", d.port(), "127.0.0.1", "--pskusername", "alice", "--pskkey",
				testKey, "--priority", prio)
			if err != nil || !strings.Contains(out, "PSK authentication. Connected as 'alice'") {
				t.Errorf("%s, %v; %s", out, err, d.last())
			}
		})
	}
	for name, args := range map[string][]string{
		"plain": nil, "p256": {"-groups", "P-256"}, "retry": {"-groups", "P-384:X25519"},
		"suites":           {"-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"},
		"no compatibility": {"-no_middlebox"},
	} {
		t.Run("openssl "+name, func(t *testing.T) {
			needs(t, "openssl")
			d := newDoor(t, echo(s))
			out, err := run(t, "hello\nQ\n", "openssl", append([]string{"s_client", "-connect",
				"127.0.0.1:" + d.port(), "-tls1_3",
				"-psk_identity", "alice", "-psk", testKey}, args...)...)
			if err != nil || !strings.Contains(out, "Reused, TLSv1.3, Cipher is TLS_AES_128_GCM_SHA256") {
				t.Errorf("%s, %v; %s", out, err, d.last())
			}
		})
	}
}

// A client turns its key, and asks the server to: OpenSSL does on a line of k or K.
func TestKeyUpdateTools(t *testing.T) {
	needs(t, "openssl")
	s, err := NewServer(Options{Dir: keysFolder(t)})
	must(t, err)
	d := newDoor(t, echo(s))
	r, w := io.Pipe()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "openssl", "s_client", "-connect", "127.0.0.1:"+d.port(), "-tls1_3", "-psk_identity",
		"alice", "-psk", testKey)
	cmd.Stdin, cmd.WaitDelay = r, time.Minute
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var all []byte
	expect := func(line string) {
		b := make([]byte, 4096)
		for !bytes.Contains(all, []byte(line)) {
			n, err := out.Read(b)
			all = append(all, b[:n]...)
			if err != nil {
				t.Fatalf("%q did not come: %s, %v; %s", line, all, err, d.last())
			}
		}
	}
	for i, turn := range []string{"", "k\n", "K\n", "K\n"} { // a command is one read of openssl's
		io.WriteString(w, turn)
		time.Sleep(50 * time.Millisecond)
		word := "word" + hex.EncodeToString([]byte{byte(i)})
		io.WriteString(w, word+"\n")
		expect(word + "\n")
	}
	io.WriteString(w, "Q\n")
	w.Close()
	if err := cmd.Wait(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		t.Errorf("%v", err)
	}
}
