package router

import (
	"crypto/rand"
	"fmt"
	"net"
	"time"

	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/link"
	"vstor/dataplane/wire"
)

// answer is the router's side of the handshake. It blocks. After an error the caller closes nc; the peer was told why,
// as far as it may know.
func (s *Server) answer(nc net.Conn) (*proto.Hello, *VDisk, error) {
	k := &link.Shake{Conn: nc, Refuse: proto.TRefuse, Name: proto.TypeName}
	if err := k.Begin(s.opt.Secret, s.opt.HandshakeTimeout); err != nil {
		return nil, nil, err
	}
	said, err := k.Read(proto.THello)
	if err != nil {
		return nil, nil, err
	}
	var hello proto.Hello
	if err := hello.Decode(said); err != nil {
		return nil, nil, err
	}
	w := proto.Welcome{Version: min(hello.Highest, proto.Version), Caps: hello.Caps & s.opt.Caps}
	if w.Version < max(hello.Lowest, proto.VersionMin) {
		return nil, nil, k.Turn(errs.Version, fmt.Sprintf("this router speaks version %d to %d of the Edge protocol, the "+
			"peer %d to %d", proto.VersionMin, proto.Version, hello.Lowest, hello.Highest))
	}
	rand.Read(w.Nonce[:])
	heard := w.Append(nil)
	w.Proof = proto.ProveRouter(s.opt.Secret, said, heard)
	heard = w.Append(heard[:0])
	if err := k.Write(proto.TWelcome, errs.OK, heard); err != nil {
		return nil, nil, err
	}
	auth, err := k.Read(proto.TAuth)
	if err != nil {
		return nil, nil, err
	}
	var proof [wire.ProofSize]byte
	if copy(proof[:], auth) != len(auth) || !wire.SameProof(proof, proto.ProveEdge(s.opt.Secret, said, heard)) {
		return nil, nil, k.Turn(errs.Refused, "authentication failed")
	}
	var zero [16]byte
	if hello.Deployment != zero && hello.Deployment != s.opt.Deployment {
		return nil, nil, k.Turn(errs.Refused, fmt.Sprintf("this router belongs to deployment %x, not to %x",
			s.opt.Deployment, hello.Deployment))
	}
	d, err := s.opt.Find(hello.VDisk)
	if err != nil {
		return nil, nil, k.Turn(errs.Of(err), err.Error())
	}
	r := proto.Ready{Requests: uint32(d.opt.Requests), Bytes: uint64(d.opt.Bytes), Deployment: s.opt.Deployment}
	if err := k.Write(proto.TReady, errs.OK, r.Append(nil)); err != nil {
		return nil, nil, err
	}
	return &hello, d, k.End()
}

// turnAway tells a peer that it is one too many.
func turnAway(nc net.Conn) {
	k := &link.Shake{Conn: nc, Refuse: proto.TRefuse, Name: proto.TypeName}
	k.TurnAway(errs.Busy, "this router has as many connections as it takes")
}

const defaultHandshake = 10 * time.Second
