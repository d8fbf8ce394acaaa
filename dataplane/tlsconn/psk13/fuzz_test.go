package psk13

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// tape is a connection that plays what it was given and records what is written.
type tape struct {
	net.Conn
	in  bytes.Reader
	out bytes.Buffer
}

func (t *tape) Read(b []byte) (int, error)       { return t.in.Read(b) }
func (t *tape) Write(b []byte) (int, error)      { return t.out.Write(b) }
func (t *tape) SetWriteDeadline(time.Time) error { return nil }
func (t *tape) Close() error                     { return nil }
func play(b []byte) *tape                        { t := &tape{}; t.in.Reset(b); return t }
func buffered(t *tape) Source                    { return bufio.NewReaderSize(t, maxSealed+headerLen) }
func record(typ byte, b []byte) []byte           { return append([]byte{typ, 3, 1}, vector(2, b)...) }

// FuzzHello parses any ClientHello, and lets a server answer it. Whatever it is, it has no way in without
// the key, nothing but one alert comes back unless a binder was right, and that alert fits the error.
func FuzzHello(f *testing.F) {
	for _, edit := range []func(*client){nil, func(c *client) { c.shares = []uint16{} },
		func(c *client) { c.offers = nil },
		func(c *client) { c.offers[0].suite = suites[1] }, func(c *client) { c.offers[0].identity = "eve" },
		func(c *client) { c.extra = appendExtension(nil, extRecordSizeLimit, []byte{0, 64}) }} {
		c := newClient(nil)
		if edit != nil {
			edit(c)
		}
		f.Add(c.hello())
	}
	keys := testKeys()
	f.Fuzz(func(t *testing.T, b []byte) {
		h, fail := parseHello(b)
		if (h == nil) == (fail == nil) {
			t.Fatalf("%v, %v", h, fail)
		}
		if len(b) == 0 || len(b) > maxPlain {
			return
		}
		raw := record(typeHandshake, b)
		Sniff(raw)
		for i := range min(len(raw), 8) {
			if v := Sniff(raw[:i]); v == WantsPSK {
				t.Fatalf("%d bytes are a hello", i)
			}
		}
		nc := play(raw)
		c, err := Server(nc, buffered(nc), keys)
		if c != nil || err == nil {
			t.Fatal("came in without a Finished")
		}
		sent := nc.out.Bytes()
		if fault := asFault(err); fault != nil && (len(sent) < 7 || sent[0] == typeAlert && Alert(sent[6]) != fault.Alert) {
			t.Fatalf("%v, but sent %x", err, sent)
		}
		if h == nil && len(sent) != 0 && sent[0] != typeAlert {
			t.Fatalf("a bad hello got %x", sent)
		}
	})
}

// FuzzRecords plays records to a connection: each byte of the script says what comes next. What is read is
// what was sealed, up to the first fault.
func FuzzRecords(f *testing.F) {
	f.Add([]byte{0, 1, 5, 2, 3, 0, 1, 4, 0, 1}, []byte("content and more"))
	f.Add([]byte{6, 0, 0, 7, 0}, []byte{24, 0, 0, 1, 1})
	f.Fuzz(func(t *testing.T, script, content []byte) {
		var sealer half
		secret := make([]byte, 32)
		sealer.use(suites[0], secret)
		var wire, want []byte
		whole := true // nothing wrong so far
		for _, op := range script[:min(len(script), 40)] {
			n := int(op>>3) * len(content) / 31
			part := content[:n]
			out := make([]byte, 0, n+64)
			switch op & 7 {
			case 0, 1, 2:
				wire = append(wire, sealer.seal(out, typeData, part)...)
				if whole {
					want = append(want, part...)
				}
			case 3:
				wire = append(wire, sealer.seal(out, typeHandshake, []byte{24, 0, 0, 1, op >> 7})...)
				sealer.update()
			case 4:
				wire, whole = append(wire, sealer.seal(out, typeHandshake, part)...), false
			case 5:
				wire, whole = append(wire, sealer.seal(out, typeAlert, part)...), false
			case 6:
				wire, whole = append(wire, part...), false
			case 7:
				b := sealer.seal(out, typeData, part)
				b[len(b)-1]++
				wire, whole = append(wire, b...), false
			}
			if len(part) > maxPlain {
				whole = false
			}
		}
		nc := play(wire)
		c := &Conn{Conn: nc, src: buffered(nc), maxOut: maxPlain, rekeyAfter: rekeyAfter, shaken: true}
		c.in.use(suites[0], secret)
		c.out.use(suites[0], secret)
		got, err := io.ReadAll(c)
		if !bytes.HasPrefix(want, got) && (whole || !bytes.HasPrefix(got, want)) ||
			whole && asFault(err) == nil && len(got) < len(want) {
			t.Fatalf("%d bytes, sealed were %d: %v", len(got), len(want), err)
		}
		c.Write([]byte("x"))
		c.Close()
	})
}
