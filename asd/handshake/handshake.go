package handshake

import (
	"crypto/rand"
	"net"
	"time"

	"vstor/asd/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/link"
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

	// Drive is the ASD's drive, for who asked for CapShortCircuit, if it gave it. The asker owns it.
	Drive *Drive
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
	// Share gives the drive to an asker who wants it; with it CapShortCircuit is announced, on a unix socket.
	Share Sharer
}

func speak(nc net.Conn) *link.Shake {
	return &link.Shake{Conn: nc, Refuse: proto.TRefuse, Name: proto.TypeName}
}

// Ask is the dialing side's handshake. It blocks; not for loops. The error's kind: Unreachable (no answer in
// time, or the connection broke), Refused (another secret, deployment or ASD, as the sentence says), Version,
// Busy (the ASD has as many connections as it takes), Corrupt (it speaks something else). nc stays the
// caller's.
func Ask(nc net.Conn, o AskOptions) (*Peer, error) {
	s := speak(nc)
	if err := s.Begin(o.Secret, o.Timeout); err != nil {
		return nil, err
	}
	hello := proto.Hello{Lowest: proto.VersionMin, Highest: proto.Version, Caps: o.Caps, Deployment: o.Deployment,
		UUID: o.UUID, ID: o.ID, Name: o.Name}
	rand.Read(hello.Nonce[:])
	said := hello.Append(nil)
	if err := s.Write(proto.THello, errs.OK, said); err != nil {
		return nil, err
	}
	heard, err := s.Read(proto.TWelcome)
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
		return nil, s.Turn(errs.Refused, "the ASD does not prove that it knows this deployment's secret: "+
			"it belongs to another deployment, or one of the two has a wrong secret file")
	}
	proof := proto.ProveAsker(o.Secret, said, heard)
	if err := s.Write(proto.TAuth, errs.OK, proof[:]); err != nil {
		return nil, err
	}
	last, err := s.Read(proto.TReady)
	if err != nil {
		return nil, err
	}
	var r proto.Ready
	if err := r.Decode(last); err != nil {
		return nil, err
	}
	if why := mismatch(&hello, r.Deployment, r.UUID, r.ID); why != "" {
		return nil, errs.New(errs.Refused, "%s", why)
	}
	p := &Peer{Version: w.Version, Caps: w.Caps & o.Caps, Name: o.Name, ID: r.ID, UUID: r.UUID,
		Deployment:  r.Deployment,
		Incarnation: r.Incarnation, Requests: r.Requests, Bytes: r.Bytes}
	if p.Caps&proto.CapShortCircuit != 0 {
		if p.Drive, err = receiveDrive(nc); err != nil {
			return nil, err
		}
	}
	if err := s.End(); err != nil {
		p.Drive.Close()
		return nil, err
	}
	return p, nil
}

// Answer is the ASD's side of the handshake. It blocks; not for loops. After an error the caller closes nc;
// the peer was told why, as far as it may know.
func Answer(nc net.Conn, o AnswerOptions) (*Peer, error) {
	s := speak(nc)
	if err := s.Begin(o.Secret, o.Timeout); err != nil {
		return nil, err
	}
	if _, local := nc.(*net.UnixConn); local && o.Share != nil {
		o.Caps |= proto.CapShortCircuit
	}
	said, err := s.Read(proto.THello)
	if err != nil {
		return nil, err
	}
	var hello proto.Hello
	if err := hello.Decode(said); err != nil {
		return nil, err
	}
	w := proto.Welcome{Version: min(hello.Highest, proto.Version), Caps: hello.Caps & o.Caps}
	if w.Version < max(hello.Lowest, proto.VersionMin) {
		return nil, s.Turn(errs.Version, versions(&hello))
	}
	rand.Read(w.Nonce[:])
	answer := w.Append(nil)
	w.Proof = proto.ProveASD(o.Secret, said, answer)
	answer = w.Append(answer[:0])
	if err := s.Write(proto.TWelcome, errs.OK, answer); err != nil {
		return nil, err
	}
	auth, err := s.Read(proto.TAuth)
	if err != nil {
		return nil, err
	}
	var proof [proto.ProofSize]byte
	if copy(proof[:], auth) != len(auth) || !proto.SameProof(proof, proto.ProveAsker(o.Secret, said, answer)) {
		return nil, s.Turn(errs.Refused, "authentication failed")
	}
	if why := mismatch(&hello, o.Deployment, o.UUID, o.ID); why != "" {
		return nil, s.Turn(errs.Refused, why)
	}
	r := proto.Ready{Requests: o.Requests, Bytes: o.Bytes, ID: o.ID, UUID: o.UUID, Deployment: o.Deployment,
		Incarnation: o.Incarnation}
	if err := s.Write(proto.TReady, errs.OK, r.Append(nil)); err != nil {
		return nil, err
	}
	if w.Caps&proto.CapShortCircuit != 0 {
		if err := sendDrive(nc, o.Share); err != nil {
			return nil, err
		}
	}
	return &Peer{Version: w.Version, Caps: w.Caps, Name: hello.Name, ID: o.ID, UUID: o.UUID, Deployment: o.Deployment,
		Incarnation: o.Incarnation, Requests: o.Requests, Bytes: o.Bytes}, s.End()
}

// Refuse tells a peer that it is not let in, before any handshake. The caller closes nc.
func Refuse(nc net.Conn, k errs.Kind, why string) {
	speak(nc).TurnAway(k, why)
}
