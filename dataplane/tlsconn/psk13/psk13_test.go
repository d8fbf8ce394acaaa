package psk13

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// connect shakes hands with a client that edit has changed.
func connect(t *testing.T, edit func(*client)) (*Conn, *client) {
	t.Helper()
	server, peer := sockets(t)
	done := serve(server, testKeys())
	c := newClient(peer)
	if edit != nil {
		edit(c)
	}
	err := c.shake()
	if err != nil {
		peer.Close()
	}
	o := <-done
	if err != nil || o.err != nil {
		t.Fatalf("client: %v; server: %v", err, o.err)
	}
	return o.conn, c
}

func TestHandshake(t *testing.T) {
	sha384 := suites[1]
	for name, c := range map[string]struct {
		edit     func(*client)
		identity string
		retried  bool
	}{
		"plain":      {nil, "alice", false},
		"p256":       {func(c *client) { c.shares = []uint16{0x17} }, "alice", false},
		"retry":      {func(c *client) { c.shares, c.groups = []uint16{0x18}, []uint16{0x18, 0x17} }, "alice", true},
		"no share":   {func(c *client) { c.shares = []uint16{} }, "alice", true},
		"sha384":     {func(c *client) { c.offers[0].suite = sha384 }, "alice", false},
		"sha384 hrr": {func(c *client) { c.offers[0].suite, c.shares = sha384, []uint16{} }, "alice", true},
		"second known": {func(c *client) {
			c.offers = []offered{{"ticket", testKey, 77, suites[0]}, {"bob", testKeys().byIdentity["bob"], 0, suites[0]}}
		}, "bob", false},
		"two hashes": {func(c *client) {
			c.suites = []uint16{0x1302}
			c.offers = []offered{{"alice", testKey, 0, suites[0]}, {"alice", testKey, 0, sha384}}
		}, "alice", false},
		"no session": {func(c *client) { c.sessionID = nil }, "alice", false},
		"crumbs":     {func(c *client) { c.crumbs = 1 }, "alice", false},
		"unknown extension": {func(c *client) { c.extra = appendExtension(nil, 0xfafa, []byte("x")) }, "alice",
			false},
		"early data": {func(c *client) {
			c.extra = appendExtension(nil, extEarlyData, nil)
			c.early = append([]byte{typeData, 3, 3, 0, 100}, make([]byte, 100)...)
		}, "alice", false},
		"early data, retry": {func(c *client) {
			c.extra = appendExtension(nil, extEarlyData, nil)
			c.early = append([]byte{typeData, 3, 3, 0, 100}, make([]byte, 100)...)
			c.shares = []uint16{}
			c.again = func(c *client) { c.extra = nil }
		}, "alice", true},
	} {
		t.Run(name, func(t *testing.T) {
			s, peer := connect(t, c.edit)
			if s.Identity() != c.identity || peer.retried != c.retried {
				t.Errorf("%q, retried %v", s.Identity(), peer.retried)
			}
			must(t, peer.send(typeData, []byte("ask")))
			b := make([]byte, 10)
			n, err := s.Read(b)
			must(t, err)
			_, err = s.Write([]byte("answer"))
			must(t, err)
			got, err := peer.data()
			must(t, err)
			if string(b[:n]) != "ask" || string(got) != "answer" {
				t.Errorf("%q, %q", b[:n], got)
			}
			must(t, s.Close())
			if _, err := peer.data(); err != io.EOF {
				t.Errorf("after Close: %v", err)
			}
		})
	}
}

// What a client may not do, the alert that it gets, and a word of what the log says.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		edit  func(*client)
		alert Alert
		log   string
	}{
		"tls 1.2":  {func(c *client) { c.versions = []uint16{0x0303} }, ProtocolVersion, "TLS 1.3"},
		"no psk":   {func(c *client) { c.offers = nil }, HandshakeFailure, "offers no pre-shared key"},
		"no modes": {func(c *client) { c.modes = nil }, MissingExtension, "exchange keys"},
		"psk_ke":   {func(c *client) { c.modes = []byte{0} }, HandshakeFailure, "without Diffie-Hellman"},
		"no groups": {func(c *client) {
			c.extra = appendExtension(nil, extKeyShare, []byte{0, 0})
			c.groups, c.shares = nil, nil
		}, MissingExtension, "exchange keys"},
		"foreign groups": {func(c *client) { c.groups, c.shares = []uint16{0x18}, []uint16{0x18} }, HandshakeFailure,
			"no group"},
		"foreign suites": {func(c *client) { c.suites = []uint16{0x1304, 0x00ff} }, HandshakeFailure, "no cipher suite"},
		"wrong hash":     {func(c *client) { c.suites = []uint16{0x1302} }, HandshakeFailure, "no cipher suite"},
		"unknown": {func(c *client) { c.offers[0].identity = "eve" }, DecryptError,
			`no key for a client that calls itself "eve"`},
		"wrong key": {func(c *client) { c.offers[0].key = []byte("wrong") }, DecryptError, `"alice" has another key`},
		"binder bit": {func(c *client) { c.binders = func(b []byte) []byte { b[32] ^= 1; return b } }, DecryptError,
			"another key"},
		"binder missing": {func(c *client) {
			c.offers = append(c.offers, c.offers[0])
			c.binders = func([]byte) []byte { return vector(1, make([]byte, 65)) }
		}, IllegalParameter, "2 identities and 1 binders"},
		"two shares of one": {func(c *client) { c.shares = []uint16{0x1d, 0x1d} }, IllegalParameter, "two shares"},
		"twice": {func(c *client) { c.extra = appendExtension(appendExtension(nil, 99, nil), 99, nil) },
			IllegalParameter, "twice"},
		"not last": {func(c *client) {
			c.extra = appendExtension(nil, extPreSharedKey, slices.Concat(vector(2, make([]byte, 7)),
				vector(2, make([]byte, 33))))
		}, IllegalParameter, "not the last"},
		"tiny records": {func(c *client) { c.extra = appendExtension(nil, extRecordSizeLimit, []byte{0, 63}) },
			IllegalParameter, "records of 63 bytes"},
		"bad list": {func(c *client) { c.extra = appendExtension(nil, extEarlyData, []byte{1}) }, DecodeError,
			"malformed"},
		"second hello without share": {func(c *client) {
			c.shares = []uint16{}
			c.again = func(c *client) { c.shares = []uint16{} }
		}, IllegalParameter, "second ClientHello"},
		"second hello of another": {func(c *client) {
			c.shares = []uint16{}
			c.again = func(c *client) { c.random[0]++ }
		}, IllegalParameter, "second ClientHello"},
		"second hello of bob": {func(c *client) {
			c.shares = []uint16{}
			c.again = func(c *client) { c.offers[0].identity, c.offers[0].key = "bob", testKeys().byIdentity["bob"] }
		}, IllegalParameter, "second ClientHello"},
	} {
		t.Run(name, func(t *testing.T) {
			server, peer := sockets(t)
			done := serve(server, testKeys())
			cl := newClient(peer)
			c.edit(cl)
			told := cl.shake()
			o := <-done
			var f *Error
			if !errors.As(o.err, &f) || f.Alert != c.alert || !strings.Contains(f.Msg, c.log) {
				t.Errorf("the log says %v", o.err)
			}
			if told != error(c.alert) {
				t.Errorf("the client is told %v, want %v", told, c.alert)
			}
		})
	}
}

// Records that come instead of a hello, a Finished, or data.
func TestBadRecords(t *testing.T) {
	plain := func(b ...byte) func(*client) { return func(c *client) { c.nc.Write(b) } }
	for name, c := range map[string]struct {
		first, late func(*client)
		alert       Alert
	}{
		"no tls":         {first: plain([]byte("NBDMAGIC")...), alert: UnexpectedMessage},
		"data first":     {first: plain(23, 3, 3, 0, 1, 0), alert: UnexpectedMessage},
		"ccs first":      {first: plain(20, 3, 3, 0, 1, 1), alert: UnexpectedMessage},
		"huge":           {first: plain(22, 3, 3, 0x40, 1, 1), alert: RecordOverflow},
		"huge hello":     {first: plain(22, 3, 3, 0, 4, 1, 1, 0, 0), alert: IllegalParameter},
		"finished first": {first: plain(22, 3, 3, 0, 4, 20, 0, 0, 0), alert: UnexpectedMessage},
		"empty":          {first: plain(22, 3, 3, 0, 0), alert: UnexpectedMessage},
		"bad hello":      {first: plain(22, 3, 3, 0, 5, 1, 0, 0, 1, 0), alert: DecodeError},
		"in clear":       {late: plain(22, 3, 3, 0, 1, 0), alert: UnexpectedMessage},
		"alert in clear": {late: plain(21, 3, 3, 0, 2, 1, 0), alert: UnexpectedMessage},
		"late ccs":       {late: plain(20, 3, 3, 0, 1, 1), alert: UnexpectedMessage},
		"not sealed":     {late: plain(append([]byte{23, 3, 3, 0, 40}, make([]byte, 40)...)...), alert: BadRecordMAC},
		"short":          {late: plain(append([]byte{23, 3, 3, 0, 16}, make([]byte, 16)...)...), alert: BadRecordMAC},
		"overflow":       {late: plain(23, 3, 3, 0x41, 1), alert: RecordOverflow},
		"replayed": {late: func(c *client) {
			b := c.out.seal(make([]byte, 0, 64), typeData, []byte("x"))
			c.nc.Write(b)
			c.nc.Write(b)
		}, alert: BadRecordMAC},
		"too much": {late: func(c *client) { c.send(typeData, make([]byte, maxPlain+1)) }, alert: RecordOverflow},
		"no type":  {late: func(c *client) { c.send(0, make([]byte, 10)) }, alert: UnexpectedMessage},
		"renegotiate": {late: func(c *client) { c.send(typeHandshake, []byte{1, 0, 0, 0}) },
			alert: UnexpectedMessage},
		"two updates in one": {late: func(c *client) {
			c.send(typeHandshake, []byte{24, 0, 0, 1, 0, 24, 0, 0, 1, 0})
		}, alert: DecodeError},
		"odd update":  {late: func(c *client) { c.send(typeHandshake, []byte{24, 0, 0, 1, 2}) }, alert: IllegalParameter},
		"odd alert":   {late: func(c *client) { c.send(typeAlert, []byte{1}) }, alert: DecodeError},
		"inner type":  {late: func(c *client) { c.send(99, []byte{1}) }, alert: UnexpectedMessage},
		"empty flood": {late: func(c *client) { flood(c, func() { c.send(typeData, nil) }) }, alert: UnexpectedMessage},
		"update flood": {late: func(c *client) {
			flood(c, func() { c.send(typeHandshake, []byte{24, 0, 0, 1, 0}); c.out.update() })
		}, alert: UnexpectedMessage},
	} {
		t.Run(name, func(t *testing.T) {
			server, peer := sockets(t)
			done := serve(server, testKeys())
			cl := newClient(peer)
			if c.first != nil {
				c.first(cl)
			} else {
				must(t, cl.shake())
			}
			o := <-done
			if c.late != nil {
				must(t, o.err)
				c.late(cl)
				for b := make([]byte, 32<<10); o.err == nil; {
					_, o.err = o.conn.Read(b)
				}
				o.conn.Close()
				if _, again := o.conn.Read(make([]byte, 1)); again != o.err {
					t.Errorf("%v, then %v", o.err, again)
				}
				if _, err := o.conn.Write([]byte("x")); err == nil {
					t.Error("writes still go")
				}
			}
			if !errors.Is(o.err, c.alert) {
				t.Errorf("the log says %v, want %v", o.err, c.alert)
			}
			if _, _, told := cl.record(); told != error(c.alert) {
				t.Errorf("the client is told %v, want %v", told, c.alert)
			}
		})
	}
}

func flood(c *client, send func()) {
	for range maxUseless + 1 {
		send()
	}
}

// The client's alerts, its end, and a connection that is cut.
func TestEnds(t *testing.T) {
	s, c := connect(t, nil)
	must(t, c.send(typeData, []byte("last")))
	must(t, c.send(typeAlert, []byte{1, byte(UserCanceled)}))
	must(t, c.send(typeAlert, []byte{1, byte(CloseNotify)}))
	if b, err := io.ReadAll(s); string(b) != "last" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := s.Write([]byte("still")); err != nil {
		t.Errorf("after the client's end: %v", err)
	}
	if b, err := c.data(); string(b) != "still" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	must(t, s.CloseWrite())
	if _, err := s.Write([]byte("x")); err == nil {
		t.Error("writes go after CloseWrite")
	}

	s, c = connect(t, nil)
	must(t, c.send(typeAlert, []byte{2, byte(InternalError)}))
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, InternalError) ||
		!strings.Contains(err.Error(), "remote error") {
		t.Errorf("%v", err)
	}
	s, c = connect(t, nil)
	must(t, c.send(typeData, []byte("last")))
	c.nc.Close()
	if b, err := io.ReadAll(s); string(b) != "last" || err != io.ErrUnexpectedEOF {
		t.Errorf("%q, %v", b, err)
	}
	server, peer := sockets(t) // a client that turns us away in the middle says so in clear
	done := serve(server, testKeys())
	cl := newClient(peer)
	must(t, cl.sendHello())
	peer.Write([]byte{21, 3, 3, 0, 2, 2, byte(HandshakeFailure)})
	if o := <-done; !errors.Is(o.err, HandshakeFailure) {
		t.Errorf("%v", o.err)
	}
}

// Any bytes, cut anyhow, with keys that change on both sides all the time.
func TestStream(t *testing.T) {
	for seed := range uint64(6) {
		rng := mrand.New(mrand.NewPCG(seed, 1))
		limit := []int{0, 64, 1000, 16385}[seed%4]
		s, c := connect(t, func(c *client) {
			if limit > 0 {
				c.extra = appendExtension(nil, extRecordSizeLimit, binary.BigEndian.AppendUint16(nil, uint16(limit)))
			}
			c.limit = limit
			c.offers[0].suite = suites[seed%2]
		})
		s.rekeyAfter = 3
		buffer := make([]byte, 1+rng.IntN(200<<10))
		data := make([]byte, 300<<10)
		mrand.NewChaCha8([32]byte{byte(seed)}).Read(data)
		go func() {
			for rest := data; len(rest) > 0; {
				n := min(len(rest), 1+rng.IntN(maxPlain))
				c.send(typeData, rest[:n])
				rest = rest[n:]
				if rng.IntN(3) == 0 {
					c.send(typeHandshake, []byte{msgKeyUpdate, 0, 0, 1, byte(rng.IntN(2))})
					c.out.update()
				}
			}
			c.send(typeAlert, []byte{1, 0})
		}()
		got := make(chan []byte)
		go func() {
			defer close(got)
			var all []byte
			for {
				b, err := c.data()
				if err != nil {
					if err != io.EOF {
						t.Error(err)
					}
					got <- all
					return
				}
				all = append(all, b...)
			}
		}()
		// What comes in goes out again, in other pieces: the reader and the writer are two.
		r, w := io.Pipe()
		go func() {
			sizes := mrand.New(mrand.NewPCG(seed, 2))
			b := make([]byte, 40<<10)
			for {
				n, err := s.Read(b[:1+sizes.IntN(len(b))])
				w.Write(b[:n])
				if err != nil {
					w.CloseWithError(err)
					return
				}
			}
		}()
		_, err := io.CopyBuffer(struct{ io.Writer }{s}, struct{ io.Reader }{r}, buffer)
		must(t, err)
		s.Close()
		if !bytes.Equal(<-got, data) {
			t.Errorf("seed %d: changed", seed)
		}
	}
}
