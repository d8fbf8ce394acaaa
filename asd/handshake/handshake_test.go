package handshake

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"vstor/asd/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/wire"
)

var secret = bytes.Repeat([]byte{0x5e}, proto.SecretSize)

func asking() AskOptions {
	return AskOptions{Secret: secret, Deployment: [16]byte{1}, UUID: [16]byte{2}, ID: 3, Caps: 5,
		Name: "vstor on host"}
}

func answering() AnswerOptions {
	return AnswerOptions{Secret: secret, Deployment: [16]byte{1}, UUID: [16]byte{2}, ID: 3, Incarnation: 4,
		Caps:     4 | 8,
		Requests: 10, Bytes: 1 << 20, Timeout: 20 * time.Second}
}

// shake runs both sides of a handshake.
func shake(t *testing.T, ask AskOptions, answer AnswerOptions) (asker, asd *Peer, askErr, asdErr error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close() // not earlier: a pipe whose other end is closed takes no deadline any more
	done := make(chan struct{})
	go func() {
		defer close(done)
		if asd, asdErr = Answer(b, answer); asdErr != nil {
			b.Close()
		}
	}()
	if asker, askErr = Ask(a, ask); askErr != nil {
		a.Close()
	}
	wait(t, "Answer", done)
	return
}

func TestHandshake(t *testing.T) {
	asker, asd, err1, err2 := shake(t, asking(), answering())
	must(t, err1)
	must(t, err2)
	want := Peer{Version: proto.Version, Caps: 4, Name: "vstor on host", ID: 3, UUID: [16]byte{2},
		Deployment:  [16]byte{1},
		Incarnation: 4, Requests: 10, Bytes: 1 << 20}
	if *asker != want || *asd != want {
		t.Errorf("asker %+v\nASD %+v", asker, asd)
	}
	any := asking()
	any.UUID, any.Deployment, any.ID = [16]byte{}, [16]byte{}, 0
	if got, _, err, _ := shake(t, any, answering()); err != nil || *got != want {
		t.Errorf("whoever is there: %+v, %v", got, err)
	}
}

func TestHandshakeRefusals(t *testing.T) {
	for _, tc := range []struct {
		name     string
		ask      func(*AskOptions)
		kind     errs.Kind
		sentence string
	}{
		{"secret", func(o *AskOptions) { o.Secret = bytes.Repeat([]byte{1}, 32) }, errs.Refused, "does not prove"},
		{"short secret", func(o *AskOptions) { o.Secret = nil }, errs.Invalid, "0 bytes"},
		{"deployment", func(o *AskOptions) { o.Deployment[0]++ }, errs.Refused, "belongs to deployment 01"},
		{"uuid", func(o *AskOptions) { o.UUID[0]++; o.ID = 9 }, errs.Refused, "wanted was ASD 9 with UUID 03"},
		{"id", func(o *AskOptions) { o.ID = 9 }, errs.Refused, "has number 3; wanted was 9"},
	} {
		o := asking()
		tc.ask(&o)
		_, _, err, asdErr := shake(t, o, answering())
		if errs.Of(err) != tc.kind || !strings.Contains(err.Error(), tc.sentence) {
			t.Errorf("%s: %v (%v)", tc.name, err, errs.Of(err))
		}
		if asdErr == nil {
			t.Errorf("%s: the ASD saw nothing wrong", tc.name)
		}
	}
}

// stranger speaks to an ASD without Ask, and returns all it said.
func stranger(t *testing.T, speak func(nc net.Conn)) (string, error) {
	t.Helper()
	a, b := net.Pipe()
	a.SetDeadline(time.Now().Add(20 * time.Second))
	var asdErr error
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer b.Close()
		_, asdErr = Answer(b, answering())
	}()
	go speak(a)
	heard, _ := io.ReadAll(a)
	a.Close()
	wait(t, "Answer", done)
	return string(heard), asdErr
}

func helloFrame(edit func(*proto.Hello)) []byte {
	h := proto.Hello{Lowest: 1, Highest: 1, Deployment: [16]byte{1}, UUID: [16]byte{7}}
	edit(&h)
	return message(proto.THello, h.Append(nil))
}

func message(typ uint8, body []byte) []byte {
	b := append(make([]byte, wire.HeaderSize), body...)
	h := wire.Header{Type: typ, Body: uint32(len(body))}
	h.Seal(b)
	return b
}

// Who cannot prove itself hears that it failed and nothing of who is there.
func TestStrangerLearnsNothing(t *testing.T) {
	heard, err := stranger(t, func(nc net.Conn) {
		nc.Write(helloFrame(func(*proto.Hello) {}))
		nc.Write(message(proto.TAuth, make([]byte, proto.ProofSize)))
	})
	if errs.Of(err) != errs.Refused || !strings.HasSuffix(heard, "authentication failed") {
		t.Errorf("heard %q, %v", heard, err)
	}
	welcome := wire.HeaderSize + 80
	if len(heard) != welcome+wire.HeaderSize+len("authentication failed") {
		t.Errorf("heard %d bytes", len(heard))
	}
	heard, err = stranger(t, func(nc net.Conn) {
		nc.Write(helloFrame(func(h *proto.Hello) { h.Lowest, h.Highest = 8, 9 }))
	})
	if errs.Of(err) != errs.Version || !strings.HasSuffix(heard, "the peer 8 to 9") {
		t.Errorf("heard %q, %v", heard, err)
	}
	for name, b := range map[string][]byte{
		"garbage":    bytes.Repeat([]byte("x"), 100),
		"short":      helloFrame(func(*proto.Hello) {})[:50],
		"no hello":   message(proto.TPing, nil),
		"bad hello":  message(proto.THello, make([]byte, 10)),
		"empty auth": append(helloFrame(func(*proto.Hello) {}), message(proto.TAuth, nil)...),
		"long auth":  append(helloFrame(func(*proto.Hello) {}), message(proto.TAuth, make([]byte, 100))...),
	} {
		heard, err := stranger(t, func(nc net.Conn) {
			nc.Write(b)
			if name == "short" {
				nc.Close()
			}
		})
		if err == nil || len(heard) > welcome+wire.HeaderSize+len("authentication failed") {
			t.Errorf("%s: heard %q, %v", name, heard, err)
		}
	}
}

// False ASDs: each of what they may say is an error of a fitting kind.
func TestFalseASD(t *testing.T) {
	w := proto.Welcome{Version: 1}
	newer := proto.Welcome{Version: 2}
	flipped := message(proto.TWelcome, w.Append(nil))
	flipped[50] ^= 1
	data := message(proto.TWelcome, nil)
	wh := wire.Header{Type: proto.TWelcome, Data: 7}
	wh.Seal(data)
	refusal := func(k errs.Kind) []byte {
		b := message(proto.TRefuse, []byte("because\n\x1b[2J"))
		h := wire.Header{Type: proto.TRefuse, Body: uint32(len(b) - wire.HeaderSize), Arg: uint32(k)}
		h.Seal(b)
		return b
	}
	for _, tc := range []struct {
		name  string
		bytes []byte
		kind  errs.Kind
	}{
		{"silence", nil, errs.Unreachable},
		{"garbage", bytes.Repeat([]byte("x"), 100), errs.Corrupt},
		{"no proof", message(proto.TWelcome, w.Append(nil)), errs.Refused},
		{"newer", message(proto.TWelcome, newer.Append(nil)), errs.Version},
		{"half", message(proto.TWelcome, w.Append(nil))[:60], errs.Unreachable},
		{"flipped", flipped, errs.Corrupt},
		{"short", message(proto.TWelcome, make([]byte, 5)), errs.Corrupt},
		{"data", data, errs.Corrupt},
		{"ready", message(proto.TReady, nil), errs.Corrupt},
		{"busy", refusal(errs.Busy), errs.Busy},
		{"version", refusal(errs.Version), errs.Version},
		{"refused", refusal(errs.Refused), errs.Refused},
		{"absent is not believed", refusal(errs.Absent), errs.Refused},
	} {
		a, b := net.Pipe()
		go func() {
			io.ReadFull(b, make([]byte, wire.HeaderSize+88+len("vstor on host")))
			b.Write(tc.bytes)
			b.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			io.Copy(io.Discard, b)
			b.Close()
		}()
		_, err := Ask(a, asking())
		a.Close()
		if errs.Of(err) != tc.kind || strings.ContainsRune(err.Error(), 0x1b) {
			t.Errorf("%s: %v (%v)", tc.name, err, errs.Of(err))
		}
	}
}

// Both sides give up in time.
func TestHandshakeTimeout(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	o := asking()
	o.Timeout = 20 * time.Millisecond
	if _, err := Ask(a, o); errs.Of(err) != errs.Unreachable {
		t.Errorf("Ask: %v", err)
	}
	p := answering()
	p.Timeout = 20 * time.Millisecond
	if _, err := Answer(b, p); errs.Of(err) != errs.Unreachable {
		t.Errorf("Answer: %v", err)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(helloFrame(func(*proto.Hello) {}))
	f.Add(append(helloFrame(func(*proto.Hello) {}), message(proto.TAuth, make([]byte, 32))...))
	f.Add(helloFrame(func(h *proto.Hello) { h.Highest = 0 }))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := Answer(&script{in: sealed(b)}, answering()); err == nil {
			t.Fatalf("let in: %+v", p)
		}
	})
}

func FuzzAsk(f *testing.F) {
	w := proto.Welcome{Version: 1}
	f.Add(message(proto.TWelcome, w.Append(nil)))
	f.Add(message(proto.TRefuse, []byte("no")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := Ask(&script{in: sealed(b)}, asking()); err == nil {
			t.Fatalf("believed: %+v", p)
		}
	})
}

// sealed is b with the checksums of what looks like frames made right, so that what is behind them is tried.
func sealed(b []byte) []byte {
	b = bytes.Clone(b)
	for rest := b; len(rest) >= wire.HeaderSize; {
		var h wire.Header
		if h.Decode(rest) != nil || wire.HeaderSize+int(h.Body) > len(rest) {
			break
		}
		h.Seal(rest)
		rest = rest[wire.HeaderSize+int(h.Body):]
	}
	return b
}

// script is a net.Conn that says what was written down before.
type script struct {
	net.Conn
	in []byte
}

func (s *script) Read(b []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.in)
	s.in = s.in[n:]
	return n, nil
}

func (s *script) Write(b []byte) (int, error)      { return len(b), nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wait(t testing.TB, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(60 * time.Second):
		t.Fatalf("%s did not come in 60 s", what)
	}
}
