package psk13_test

import (
	"bytes"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"

	"vstor/dataplane/tlsconn"
	"vstor/dataplane/tlsconn/psk13"
	"vstor/dataplane/tlsconn/tlstest"
)

// pumped is a client, and the socket that a loop would own behind the server's pump.
func pumped(t testing.TB) (loop, peer net.Conn) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "keys.psk")
	must(os.WriteFile(file, []byte("alice:"+hex.EncodeToString(psk13.AliceKey())), 0o600))
	s, err := tlsconn.NewServer(tlsconn.Options{PSK: file})
	must(err)
	server, raw := tlstest.Sockets(t)
	fds := make(chan int, 1)
	go func() {
		c, id, err := s.Handshake(server)
		if err != nil || id.PSK != "alice" {
			t.Error(err, id)
			server.Close()
			fds <- -1
			return
		}
		fd, err := tlsconn.Pump(c)
		if err != nil {
			t.Error(err)
		}
		fds <- fd
	}()
	client, err := psk13.NewTestClient(raw)
	must(err)
	loop = tlstest.Loop(t, <-fds)
	t.Cleanup(func() { client.Close() })
	return loop, client
}

// Both ways at once through the pump, and an end that is one.
func TestPump(t *testing.T) {
	loop, peer := pumped(t)
	data := make([]byte, 5<<20)
	rand.NewChaCha8([32]byte{1}).Read(data)
	send := func(w io.Writer, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 2))
		for b := data; len(b) > 0; {
			n := min(len(b), 1+rng.IntN(1<<(4+rng.IntN(16))))
			if _, err := w.Write(b[:n]); err != nil {
				t.Error(err)
				return
			}
			b = b[n:]
		}
	}
	go send(loop, 1)
	go send(peer, 2)
	out := make(chan []byte)
	go func() {
		b := make([]byte, len(data))
		io.ReadFull(peer, b)
		out <- b
	}()
	in := make([]byte, len(data))
	io.ReadFull(loop, in)
	if !bytes.Equal(in, data) || !bytes.Equal(<-out, data) {
		t.Error("changed")
	}
	loop.Write([]byte("last"))
	loop.Close()
	if b, err := io.ReadAll(peer); string(b) != "last" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

// BenchmarkPump carries 1 MiB, in from a client or out to it.
func BenchmarkPump(b *testing.B) {
	p := make([]byte, 1<<20)
	b.Run("in", func(b *testing.B) {
		loop, peer := pumped(b)
		go io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{loop}, make([]byte, 256<<10))
		b.SetBytes(1 << 20)
		for b.Loop() {
			peer.Write(p)
		}
	})
	b.Run("out", func(b *testing.B) {
		loop, peer := pumped(b)
		go func() {
			for out := make([]byte, 1<<20); ; {
				if _, err := loop.Write(out); err != nil {
					return
				}
			}
		}()
		b.SetBytes(1 << 20)
		for b.Loop() {
			io.ReadFull(peer, p)
		}
	})
}
