package proto

import (
	"encoding/binary"

	"vstor/dataplane/wire"
)

var le = binary.LittleEndian

// Hello opens the handshake.
//
//	byte   0  lowest version u16, highest version u16, length of the vDisk's name u16, of the edge's u16
//	       8  capabilities   u64
//	      16  deployment     16 bytes
//	      32  opener         16 bytes
//	      48  nonce          32 bytes
//	      80  the vDisk's name; then the edge's, for logs
type Hello struct {
	Lowest, Highest uint16
	Caps            uint64
	Deployment      [16]byte
	Opener          Opener
	Nonce           [wire.NonceSize]byte
	VDisk           string
	Edge            string
}

const helloHead = 80

// Append appends the body of the message.
func (h *Hello) Append(b []byte) []byte {
	vdisk, edge := h.VDisk[:min(len(h.VDisk), NameMax)], h.Edge[:min(len(h.Edge), NameMax)]
	b = le.AppendUint16(le.AppendUint16(b, h.Lowest), h.Highest)
	b = le.AppendUint16(le.AppendUint16(b, uint16(len(vdisk))), uint16(len(edge)))
	b = le.AppendUint64(b, h.Caps)
	b = append(append(b, h.Deployment[:]...), h.Opener[:]...)
	return append(append(append(b, h.Nonce[:]...), vdisk...), edge...)
}

// Decode reads it.
func (h *Hello) Decode(b []byte) error {
	c := wire.NewCursor(b)
	h.Lowest, h.Highest = c.U16(), c.U16()
	vdisk, edge := int(c.U16()), int(c.U16())
	h.Caps = c.U64()
	c.Copy(h.Deployment[:])
	c.Copy(h.Opener[:])
	c.Copy(h.Nonce[:])
	if !c.OK() || vdisk > NameMax || edge > NameMax || vdisk+edge != c.Left() || h.Opener == (Opener{}) {
		return malformed(THello, len(b))
	}
	h.VDisk, h.Edge = string(c.Bytes(vdisk)), string(c.Bytes(edge))
	return nil
}

// Welcome answers Hello. It proves that the router knows the secret, and says nothing about it.
//
//	byte   0  version      u16, zeros to 8
//	       8  capabilities u64, those of both
//	      16  nonce        32 bytes
//	      48  proof        32 bytes
type Welcome struct {
	Version uint16
	Caps    uint64
	Nonce   [wire.NonceSize]byte
	Proof   [wire.ProofSize]byte
}

const welcomeSize = 80

// Append appends the body of the message.
func (w *Welcome) Append(b []byte) []byte {
	b = append(le.AppendUint16(b, w.Version), 0, 0, 0, 0, 0, 0)
	b = le.AppendUint64(b, w.Caps)
	return append(append(b, w.Nonce[:]...), w.Proof[:]...)
}

// Decode reads it.
func (w *Welcome) Decode(b []byte) error {
	c := wire.NewCursor(b)
	w.Version = c.U16()
	c.Bytes(6)
	w.Caps = c.U64()
	c.Copy(w.Nonce[:])
	c.Copy(w.Proof[:])
	if !c.Done() {
		return malformed(TWelcome, len(b))
	}
	return nil
}

// ProveRouter is the proof that goes into Welcome, ProveEdge the body of Auth; hello and welcome are bodies, and the
// proof's place in welcome does not count.
func ProveRouter(secret, hello, welcome []byte) [wire.ProofSize]byte {
	return wire.Prove(secret, "vstor router", hello, welcome[:min(len(welcome), welcomeSize-wire.ProofSize)])
}

// ProveEdge is the other side's.
func ProveEdge(secret, hello, welcome []byte) [wire.ProofSize]byte {
	return wire.Prove(secret, "vstor edge", hello, welcome[:min(len(welcome), welcomeSize-wire.ProofSize)])
}

// Ready ends the handshake: the bounds of this connection.
//
//	byte   0  requests unanswered u32, zero u32
//	       8  bytes of data asked for or carried by them u64
//	      16  deployment  16 bytes
type Ready struct {
	Requests   uint32
	Bytes      uint64
	Deployment [16]byte
}

// Append appends the body of the message.
func (r *Ready) Append(b []byte) []byte {
	b = le.AppendUint32(le.AppendUint32(b, r.Requests), 0)
	return append(le.AppendUint64(b, r.Bytes), r.Deployment[:]...)
}

// Decode reads it.
func (r *Ready) Decode(b []byte) error {
	c := wire.NewCursor(b)
	r.Requests = c.U32()
	c.U32()
	r.Bytes = c.U64()
	c.Copy(r.Deployment[:])
	if !c.Done() || r.Requests == 0 || r.Bytes < BlocksMax*4096 {
		return malformed(TReady, len(b))
	}
	return nil
}
