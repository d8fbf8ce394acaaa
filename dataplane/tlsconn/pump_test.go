package tlsconn

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"vstor/dataplane/tlsconn/tlstest"
)

// pumped is a pump in all the ways it can be: over a layer, over TLS without one, over what is no socket.
func pumped(t testing.TB, how string) (loop, peer net.Conn) {
	t.Helper()
	var outer net.Conn
	f := newFolder(t)
	switch how {
	case "pipe":
		outer, peer = net.Pipe()
		peer.SetDeadline(time.Now().Add(60 * time.Second))
	case "tls without a layer":
		server, raw := tlstest.Sockets(t)
		outer, peer = tls.Server(server, f.server(false).now.Load().x509), tls.Client(raw, f.client())
	case "layer over no socket":
		server, raw := net.Pipe()
		c := begin(f.server(false), server)
		client := tls.Client(raw, f.client())
		must(t, client.Handshake())
		outer, peer = (<-c).conn, client
	default:
		server, raw := tlstest.Sockets(t)
		c := begin(f.server(false), server)
		client := tls.Client(raw, f.client())
		must(t, client.Handshake())
		outer, peer = (<-c).conn, client
	}
	fd, err := Pump(outer)
	must(t, err)
	loop = tlstest.Loop(t, fd)
	t.Cleanup(func() {
		loop.Close()
		if how == "layer over no socket" {
			peer.(*tls.Conn).NetConn().Close() // TLS would wait for its reader to take the alert
		}
		peer.Close()
	})
	return loop, peer
}

var ways = []string{"tls", "tls without a layer", "layer over no socket", "pipe"}

// What goes in comes out, both ways at once, in pieces of every size.
func TestPump(t *testing.T) {
	for _, how := range ways {
		t.Run(how, func(t *testing.T) {
			loop, peer := pumped(t, how)
			const total = 6 << 20
			data := make([]byte, total)
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
			got := make(chan []byte)
			go func() {
				b := make([]byte, total)
				io.ReadFull(peer, b)
				got <- b
			}()
			b := make([]byte, total)
			_, err := io.ReadFull(loop, b)
			must(t, err)
			if !bytes.Equal(b, data) {
				t.Error("changed on the way in")
			}
			if !bytes.Equal(<-got, data) {
				t.Error("changed on the way out")
			}
		})
	}
}

// A small request does not wait for more, however it was cut.
func TestPumpSmall(t *testing.T) {
	for _, how := range ways {
		t.Run(how, func(t *testing.T) {
			loop, peer := pumped(t, how)
			b := make([]byte, 64)
			for i := range 100 {
				n := 1 + i%63
				_, err := peer.Write(b[:n])
				must(t, err)
				_, err = io.ReadFull(loop, b[:n])
				must(t, err)
				_, err = loop.Write(b[:n])
				must(t, err)
				_, err = io.ReadFull(peer, b[:n])
				must(t, err)
			}
		})
	}
}

// Every way to end reaches the other side, and nothing stays.
func TestPumpEnd(t *testing.T) {
	for _, how := range ways {
		t.Run(how+", the loop closes", func(t *testing.T) {
			loop, peer := pumped(t, how)
			loop.Write([]byte("last"))
			loop.Close()
			if b, err := io.ReadAll(peer); string(b) != "last" || err != nil {
				t.Errorf("%q, %v", b, err)
			}
		})
		t.Run(how+", the peer closes", func(t *testing.T) {
			loop, peer := pumped(t, how)
			go func() { peer.Write([]byte("last")); peer.Close() }()
			if b, err := io.ReadAll(loop); string(b) != "last" || err != nil {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
	t.Run("half", func(t *testing.T) { // the peer says that it sends no more, and still reads
		loop, peer := pumped(t, "tls")
		peer.Write([]byte("ask"))
		peer.(*tls.Conn).CloseWrite()
		if b, err := io.ReadAll(loop); string(b) != "ask" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
		loop.Write([]byte("answer"))
		loop.Close()
		if b, err := io.ReadAll(peer); string(b) != "answer" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	})
	t.Run("cut", func(t *testing.T) { // the end of TCP is not the end of TLS: answers to it are pointless
		loop, peer := pumped(t, "tls")
		peer.Write([]byte("ask"))
		peer.(*tls.Conn).NetConn().Close()
		if b, err := io.ReadAll(loop); string(b) != "ask" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
		for end := time.Now().Add(20 * time.Second); ; {
			if _, err := loop.Write([]byte("answer")); err != nil {
				break
			}
			if time.Now().After(end) {
				t.Fatal("answers still go")
			}
			time.Sleep(time.Millisecond)
		}
	})
	t.Run("forged", func(t *testing.T) { // a record that nobody sealed
		loop, peer := pumped(t, "tls")
		peer.(*tls.Conn).NetConn().Write([]byte("\x17\x03\x03\x00\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"))
		if b, err := io.ReadAll(loop); len(b) > 0 || err != nil {
			t.Errorf("%q, %v", b, err)
		}
		loop.Close()
		if _, err := peer.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("the peer is told %v", err)
		}
	})
}

// A peer that does not read, and a loop that does not: both stop the other side and hold up no close.
func TestPumpBackpressure(t *testing.T) {
	for _, side := range []string{"peer", "loop"} {
		t.Run(side+" does not read", func(t *testing.T) {
			loop, peer := pumped(t, "tls")
			w := loop
			if side == "loop" {
				w = peer
			}
			w.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			n := 0
			for b := make([]byte, 64<<10); n < 256<<20; {
				k, err := w.Write(b)
				n += k
				if err != nil {
					break
				}
			}
			if n >= 256<<20 {
				t.Error("256 MiB went nowhere")
			}
			loop.Close()
			peer.(*tls.Conn).NetConn().Close()
		})
	}
}
