package handshake

import (
	"crypto/rand"
	"io"
	"net"
	"time"

	"vstor/asd/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/wire"
)

// Peer is who the handshake found at the other side, and what was agreed.
type Peer struct {
	Version uint16
	Caps    uint64 // of both
	Name    string // of the asker, for logs

	// Of the ASD.
	ID          ids.ASDID
	UUID        [16]byte
	Deployment  [16]byte
	Incarnation uint64
	Requests    uint32 // may be unanswered
	Bytes       uint64 // of data that they may ask for or carry
}

// AskOptions is what the side that dialed says and wants.
type AskOptions struct {
	Secret     []byte   // the deployment's, proto.SecretSize bytes
	Deployment [16]byte // zeros: any that has the secret
	UUID       [16]byte // of the ASD that is wanted; zeros: whoever is there
	ID         ids.ASDID
	Caps       uint64
	Name       string        // for the ASD's log
	Timeout    time.Duration // of the handshake as a whole; default 10 s
}

// AnswerOptions is what an ASD says of itself and allows.
type AnswerOptions struct {
	Secret      []byte
	Deployment  [16]byte
	UUID        [16]byte
	ID          ids.ASDID
	Incarnation uint64
	Caps        uint64
	Requests    uint32
	Bytes       uint64
	Timeout     time.Duration // of the handshake as a whole; default 10 s
}

const defaultHandshake = 10 * time.Second

// Ask is the dialing side's handshake. It blocks; not for loops. The error's kind: Unreachable (no answer in
// time, or the connection broke), Refused (another secret, deployment or ASD, as the sentence says), Version,
// Busy (the ASD has as many connections as it takes), Corrupt (it speaks something else). nc stays the
// caller's.
func Ask(nc net.Conn, o AskOptions) (*Peer, error) {
	if err := checkSecret(o.Secret); err != nil {
		return nil, err
	}
	if err := begin(nc, o.Timeout); err != nil {
		return nil, err
	}
	hello := proto.Hello{Lowest: proto.VersionMin, Highest: proto.Version, Caps: o.Caps, Deployment: o.Deployment,
		UUID: o.UUID, ID: o.ID, Name: o.Name}
	rand.Read(hello.Nonce[:])
	said := hello.Append(nil)
	if err := writeFrame(nc, proto.THello, errs.OK, said); err != nil {
		return nil, err
	}
	heard, err := readFrame(nc, proto.TWelcome)
	if err != nil {
		return nil, err
	}
	var w proto.Welcome
	if err := w.Decode(heard); err != nil {
		return nil, err
	}
	if w.Version < proto.VersionMin || w.Version > proto.Version {
		return nil, errs.New(errs.Version, "the ASD chose version %d of the protocol; this build speaks %d to %d",
			w.Version, proto.VersionMin, proto.Version)
	}
	if !proto.SameProof(w.Proof, proto.ProveASD(o.Secret, said, heard)) {
		return nil, refuse(nc, errs.Refused, "the ASD does not prove that it knows this deployment's secret: "+
			"it belongs to another deployment, or one of the two has a wrong secret file")
	}
	proof := proto.ProveAsker(o.Secret, said, heard)
	if err := writeFrame(nc, proto.TAuth, errs.OK, proof[:]); err != nil {
		return nil, err
	}
	last, err := readFrame(nc, proto.TReady)
	if err != nil {
		return nil, err
	}
	var r proto.Ready
	if err := r.Decode(last); err != nil {
		return nil, err
	}
	if s := mismatch(&hello, r.Deployment, r.UUID, r.ID); s != "" {
		return nil, errs.New(errs.Refused, "%s", s)
	}
	return &Peer{Version: w.Version, Caps: w.Caps & o.Caps, Name: o.Name, ID: r.ID, UUID: r.UUID,
		Deployment:  r.Deployment,
		Incarnation: r.Incarnation, Requests: r.Requests, Bytes: r.Bytes}, end(nc)
}

// Answer is the ASD's side of the handshake. It blocks; not for loops. After an error the caller closes nc;
// the peer was told why, as far as it may know.
func Answer(nc net.Conn, o AnswerOptions) (*Peer, error) {
	if err := checkSecret(o.Secret); err != nil {
		return nil, err
	}
	if err := begin(nc, o.Timeout); err != nil {
		return nil, err
	}
	said, err := readFrame(nc, proto.THello)
	if err != nil {
		return nil, err
	}
	var hello proto.Hello
	if err := hello.Decode(said); err != nil {
		return nil, err
	}
	w := proto.Welcome{Version: min(hello.Highest, proto.Version), Caps: hello.Caps & o.Caps}
	if w.Version < max(hello.Lowest, proto.VersionMin) {
		return nil, refuse(nc, errs.Version, versions(&hello))
	}
	rand.Read(w.Nonce[:])
	answer := w.Append(nil)
	w.Proof = proto.ProveASD(o.Secret, said, answer)
	answer = w.Append(answer[:0])
	if err := writeFrame(nc, proto.TWelcome, errs.OK, answer); err != nil {
		return nil, err
	}
	auth, err := readFrame(nc, proto.TAuth)
	if err != nil {
		return nil, err
	}
	var proof [proto.ProofSize]byte
	if copy(proof[:], auth) != len(auth) || !proto.SameProof(proof, proto.ProveAsker(o.Secret, said, answer)) {
		return nil, refuse(nc, errs.Refused, "authentication failed")
	}
	if s := mismatch(&hello, o.Deployment, o.UUID, o.ID); s != "" {
		return nil, refuse(nc, errs.Refused, s)
	}
	r := proto.Ready{Requests: o.Requests, Bytes: o.Bytes, ID: o.ID, UUID: o.UUID, Deployment: o.Deployment,
		Incarnation: o.Incarnation}
	if err := writeFrame(nc, proto.TReady, errs.OK, r.Append(nil)); err != nil {
		return nil, err
	}
	return &Peer{Version: w.Version, Caps: w.Caps, Name: hello.Name, ID: o.ID, UUID: o.UUID, Deployment: o.Deployment,
		Incarnation: o.Incarnation, Requests: o.Requests, Bytes: o.Bytes}, end(nc)
}

// Refuse tells a peer that it is not let in, before any handshake. The caller closes nc.
func Refuse(nc net.Conn, k errs.Kind, why string) {
	nc.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)) // an empty socket takes it at once
	_ = writeFrame(nc, proto.TRefuse, k, []byte(why))
}

// refuse tells the peer and makes the error for this side.
func refuse(nc net.Conn, k errs.Kind, why string) error {
	_ = writeFrame(nc, proto.TRefuse, k, []byte(why))
	return errs.New(k, "%s", why)
}

func checkSecret(secret []byte) error {
	if len(secret) != proto.SecretSize {
		return errs.New(errs.Invalid, "the deployment's secret has %d bytes; %d would be right", len(secret),
			proto.SecretSize)
	}
	return nil
}

func begin(nc net.Conn, timeout time.Duration) error {
	if timeout <= 0 {
		timeout = defaultHandshake
	}
	return broken(nc.SetDeadline(time.Now().Add(timeout)))
}

func end(nc net.Conn) error { return broken(nc.SetDeadline(time.Time{})) }

func broken(err error) error {
	if err == nil {
		return nil
	}
	return errs.Wrap(errs.Unreachable, err, "handshake")
}

func writeFrame(nc net.Conn, t uint8, k errs.Kind, body []byte) error {
	b := append(make([]byte, wire.HeaderSize, wire.HeaderSize+len(body)), body...)
	h := wire.Header{Type: t, Body: uint32(len(body)), Arg: uint32(k)}
	h.Seal(b)
	_, err := nc.Write(b)
	return broken(err)
}

// readFrame reads one frame and not a byte more: what follows belongs to the Conn. It returns the body of
// a frame of the type that is wanted, and as an error what a Refuse says.
func readFrame(nc net.Conn, want uint8) ([]byte, error) {
	b := make([]byte, wire.HeaderSize, 512)
	if _, err := io.ReadFull(nc, b); err != nil {
		return nil, broken(err)
	}
	var h wire.Header
	if err := h.Decode(b); err != nil {
		return nil, err
	}
	b = append(b, make([]byte, h.Body)...)
	if _, err := io.ReadFull(nc, b[wire.HeaderSize:]); err != nil {
		return nil, broken(err)
	}
	if err := h.Verify(b); err != nil {
		return nil, err
	}
	body := b[wire.HeaderSize:]
	switch {
	case h.Data != 0:
		return nil, errs.New(errs.Corrupt, "handshake: %s with %d bytes of data; it has none",
			proto.TypeName(h.Type), h.Data)
	case h.Type == proto.TRefuse:
		return nil, refused(&h, body)
	case h.Type != want:
		return nil, errs.New(errs.Corrupt, "handshake: %s came where %s was due", proto.TypeName(h.Type),
			proto.TypeName(want))
	}
	return body, nil
}

// refused is the error that a Refuse carries; from somebody unknown not every kind is believed.
func refused(h *wire.Header, body []byte) error {
	k := errs.Refused
	switch h.Kind() {
	case errs.Version, errs.Busy, errs.Closed:
		k = h.Kind()
	}
	return errs.New(k, "refused by the peer: %s", printable(body[:min(len(body), proto.TextMax)]))
}
