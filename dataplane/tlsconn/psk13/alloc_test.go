package psk13

import (
	"testing"
	"time"
)

// Once warm, records cost no allocation.
func TestAllocs(t *testing.T) {
	server, peer := sockets(t)
	done := serve(server, testKeys())
	c := newClient(peer)
	must(t, c.shake())
	s := (<-done).conn
	in, out := make([]byte, 32<<10), make([]byte, 40<<10)
	sealed := make([]byte, 0, 32<<10)
	go func() {
		for b := make([]byte, 64<<10); ; {
			if _, err := peer.Read(b); err != nil {
				return
			}
		}
	}()
	n := testing.AllocsPerRun(200, func() {
		sealed = c.out.seal(sealed[:0], typeData, in[:4096])
		peer.Write(sealed)
		if k, err := s.Read(in); k != 4096 || err != nil {
			t.Fatal(k, err)
		}
		if _, err := s.Write(out); err != nil {
			t.Fatal(err)
		}
	})
	if n > 0.5 { // a collection may empty the pool of flights
		t.Errorf("%v allocations a round", n)
	}
	s.Close()
	peer.SetDeadline(time.Now())
}
