package psk13

import (
	"bytes"
	"fmt"
	"testing"
)

// Data in clear is passed over only while early data may come, and records of nothing never are: neither costs
// the client anything, so a server that waits for better would do so as long as its deadline lets it.
func TestEmptyRecordsInClear(t *testing.T) {
	c := newClient(nil)
	hello := record(typeHandshake, c.hello())
	for _, before := range [][]byte{nil, hello[:5+len(hello)/2]} {
		if before != nil { // half of a hello, with a header that says so
			before = record(typeHandshake, before[headerLen:])
		}
		nc := play(append(bytes.Clone(before), bytes.Repeat(record(typeData, nil), 1000)...))
		_, err := Server(nc, buffered(nc), testKeys())
		if f := asFault(err); f == nil || f.Alert != UnexpectedMessage {
			t.Fatalf("after %d bytes: %v", len(before), err)
		}
	}
}

// A Sniffer says at each byte what Sniff says of all up to it, however the hello is cut up.
func TestSnifferTrickle(t *testing.T) {
	hello := newClient(nil).hello()
	for _, crumb := range []int{1, 3, 100, len(hello) - 1, len(hello)} {
		var wire []byte
		for m := hello; len(m) > 0; {
			n := min(crumb, len(m))
			wire, m = append(wire, record(typeHandshake, m[:n])...), m[n:]
		}
		for _, broken := range []bool{false, true} {
			if broken {
				wire[len(wire)-1-min(crumb, 2)] ^= 0xff
			}
			var s Sniffer
			for i := range len(wire) + 1 {
				v := s.Sniff(wire[:i])
				if want := Sniff(wire[:i]); v != want {
					t.Fatalf("records of %d, %d bytes: %v, want %v", crumb, i, v, want)
				}
				if v != NeedMore {
					break
				}
				if i-s.at >= headerLen+crumb { // it does not begin anew
					t.Fatalf("records of %d, %d bytes: it stands at %d", crumb, i, s.at)
				}
			}
		}
	}
}

// The first identity that is known counts, wherever it stands.
func TestFirstKnown(t *testing.T) {
	eve := func(i int) offered { return offered{fmt.Sprintf("eve%d", i), testKey, 0, suites[0]} }
	alice, bob := offered{"alice", testKey, 0, suites[0]}, offered{"bob", testKey, 0, suites[0]} // bob's is wrong
	for i, offers := range [][]offered{{alice, bob}, {eve(0), alice, bob}, {eve(0), eve(1), alice, eve(2), bob}} {
		_, c := connect(t, func(c *client) { c.offers = offers })
		if got := offers[c.chosen].identity; got != "alice" {
			t.Errorf("%d: %s", i, got)
		}
	}
}
