package link

import (
	"errors"
	"io"
	"net"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"vstor/dataplane/errs"
	"vstor/dataplane/wire"
)

// Shake is what the handshakes of all protocols have in common: frames one at a time, on a net.Conn with a deadline for
// all of them, and a refusal that may come in place of any. It blocks; not for loops.
type Shake struct {
	Conn   net.Conn
	Refuse uint8              // type of the frame that is a refusal: its Arg is the errs.Kind, its body a sentence
	Name   func(uint8) string // of a type, for messages
	Also   errs.Kind          // that a refusal may have beside Version, Busy, Closed and Refused; OK: none
}

const (
	defaultHandshake = 10 * time.Second
	refusalMax       = 512 // bytes of a refusal's sentence that are believed
)

// Begin checks the secret and starts the clock; timeout 0 is 10 s.
func (s *Shake) Begin(secret []byte, timeout time.Duration) error {
	if len(secret) != wire.SecretSize {
		return errs.New(errs.Invalid, "the deployment's secret has %d bytes; %d would be right", len(secret),
			wire.SecretSize)
	}
	if timeout <= 0 {
		timeout = defaultHandshake
	}
	return broken(s.Conn.SetDeadline(time.Now().Add(timeout)))
}

// End stops the clock.
func (s *Shake) End() error { return broken(s.Conn.SetDeadline(time.Time{})) }

// Write sends a frame. A peer that turns this side away does not wait for it and closes; a write that comes then finds
// the connection broken, and why lies unread before the break: so that is read, and is the error.
func (s *Shake) Write(t uint8, k errs.Kind, body []byte) error {
	err := s.send(t, k, body)
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		switch _, said := s.Read(s.Refuse); errs.Of(said) {
		case errs.Unreachable, errs.Corrupt: // nothing, or no refusal
		default:
			return said
		}
	}
	return err
}

func (s *Shake) send(t uint8, k errs.Kind, body []byte) error {
	_, err := s.Conn.Write(Sealed(t, k, body))
	return broken(err)
}

// Sealed is the bytes of a frame without data.
func Sealed(t uint8, k errs.Kind, body []byte) []byte {
	b := append(make([]byte, wire.HeaderSize, wire.HeaderSize+len(body)), body...)
	h := wire.Header{Type: t, Body: uint32(len(body)), Arg: uint32(k)}
	h.Seal(b)
	return b
}

// Turn tells the peer why it is not let in, and makes the error for this side.
func (s *Shake) Turn(k errs.Kind, why string) error {
	_ = s.send(s.Refuse, k, []byte(why))
	return errs.New(k, "%s", why)
}

// TurnAway is Turn before any handshake; it does not wait for the peer. The caller closes the connection.
func (s *Shake) TurnAway(k errs.Kind, why string) {
	s.Conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)) // an empty socket takes it at once
	_ = s.send(s.Refuse, k, []byte(why))
}

// Read reads one frame and not a byte more: what follows belongs to the Conn. It returns the body of a frame of the
// type that is wanted, and as an error what a refusal says.
func (s *Shake) Read(want uint8) ([]byte, error) {
	b := make([]byte, wire.HeaderSize, 512)
	if _, err := io.ReadFull(s.Conn, b); err != nil {
		return nil, broken(err)
	}
	var h wire.Header
	if err := h.Decode(b); err != nil {
		return nil, err
	}
	b = append(b, make([]byte, h.Body)...)
	if _, err := io.ReadFull(s.Conn, b[wire.HeaderSize:]); err != nil {
		return nil, broken(err)
	}
	if err := h.Verify(b); err != nil {
		return nil, err
	}
	body := b[wire.HeaderSize:]
	switch {
	case h.Data != 0:
		return nil, errs.New(errs.Corrupt, "handshake: %s with %d bytes of data; it has none", s.Name(h.Type), h.Data)
	case h.Type == s.Refuse:
		return nil, s.refused(&h, body)
	case h.Type != want:
		return nil, errs.New(errs.Corrupt, "handshake: %s came where %s was due", s.Name(h.Type), s.Name(want))
	}
	return body, nil
}

func broken(err error) error {
	if err == nil {
		return nil
	}
	return errs.Wrap(errs.Unreachable, err, "handshake")
}

// refused is the error that a refusal carries; from somebody unknown not every kind is believed.
func (s *Shake) refused(h *wire.Header, body []byte) error {
	k := errs.Refused
	switch h.Kind() {
	case errs.Version, errs.Busy, errs.Closed, s.Also:
		k = h.Kind()
	}
	if k == errs.OK {
		k = errs.Refused
	}
	return errs.New(k, "refused by the peer: %s", Printable(body[:min(len(body), refusalMax)]))
}

// Printable is text from a peer, fit for a log.
func Printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, string(b))
}
