package proto

import (
	"encoding/binary"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/wire"
)

// NonceSize and ProofSize are in bytes; SecretSize is that of a deployment's secret.
const (
	NonceSize  = wire.NonceSize
	ProofSize  = wire.ProofSize
	SecretSize = wire.SecretSize
)

// Hello opens the handshake.
//
//	byte   0  lowest version u16, highest version u16, zero u32
//	       8  capabilities   u64
//	      16  deployment     16 bytes
//	      32  UUID of the ASD that is wanted, zeros for whoever is there
//	      48  ASD id         u32
//	      52  name length    u32
//	      56  nonce          32 bytes
//	      88  name of the asker, for logs
type Hello struct {
	Lowest, Highest uint16
	Caps            uint64
	Deployment      [16]byte
	UUID            [16]byte
	ID              ids.ASDID
	Nonce           [NonceSize]byte
	Name            string
}

// Append appends the body of the message.
func (h *Hello) Append(b []byte) []byte {
	le := binary.LittleEndian
	name := h.Name[:min(len(h.Name), NameMax)]
	b = le.AppendUint32(le.AppendUint16(le.AppendUint16(b, h.Lowest), h.Highest), 0)
	b = le.AppendUint64(b, h.Caps)
	b = append(append(b, h.Deployment[:]...), h.UUID[:]...)
	b = le.AppendUint32(le.AppendUint32(b, uint32(h.ID)), uint32(len(name)))
	return append(append(b, h.Nonce[:]...), name...)
}

// Decode reads it.
func (h *Hello) Decode(b []byte) error {
	c := wire.NewCursor(b)
	h.Lowest, h.Highest = c.U16(), c.U16()
	c.U32()
	h.Caps = c.U64()
	c.Copy(h.Deployment[:])
	c.Copy(h.UUID[:])
	h.ID = ids.ASDID(c.U32())
	n := c.U32()
	c.Copy(h.Nonce[:])
	if !c.OK() || n > NameMax || int(n) != c.Left() {
		return malformed(THello, len(b))
	}
	h.Name = string(c.Bytes(int(n)))
	return nil
}

// Welcome answers Hello. It proves that the ASD knows the secret, and says nothing about the ASD: a stranger
// learns no more than that it is one. Ready names it, to those who have proved themselves.
//
//	byte   0  version      u16, zeros to 8
//	       8  capabilities u64, those of both
//	      16  nonce        32 bytes
//	      48  proof        32 bytes
type Welcome struct {
	Version uint16
	Caps    uint64
	Nonce   [NonceSize]byte
	Proof   [ProofSize]byte
}

const welcomeSize = 80

// Append appends the body of the message.
func (w *Welcome) Append(b []byte) []byte {
	le := binary.LittleEndian
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

// ProveASD is the proof that goes into Welcome; hello and welcome are bodies, and the proof's place in
// welcome does not count. REQUIRES: welcome has been decoded, or appended.
func ProveASD(secret, hello, welcome []byte) [ProofSize]byte {
	return prove(secret, "vstor ASD", hello, welcome)
}

// ProveAsker is the body of Auth.
func ProveAsker(secret, hello, welcome []byte) [ProofSize]byte {
	return prove(secret, "vstor asker", hello, welcome)
}

// prove leaves out the proof's place in welcome.
func prove(secret []byte, role string, hello, welcome []byte) [ProofSize]byte {
	return wire.Prove(secret, role, hello, welcome[:min(len(welcome), welcomeSize-ProofSize)])
}

// SameProof compares in constant time.
func SameProof(a, b [ProofSize]byte) bool { return wire.SameProof(a, b) }

// Ready ends the handshake: who the ASD is, and the bounds of this connection.
//
//	byte   0  requests unanswered u32, ASD id u32
//	       8  bytes of data asked for or carried by them u64
//	      16  incarnation u64, goes up with every start
//	      24  deployment  16 bytes
//	      40  UUID        16 bytes
type Ready struct {
	Requests    uint32
	ID          ids.ASDID
	Bytes       uint64
	Incarnation uint64
	Deployment  [16]byte
	UUID        [16]byte
}

// Append appends the body of the message.
func (r *Ready) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(le.AppendUint32(b, r.Requests), uint32(r.ID))
	b = le.AppendUint64(le.AppendUint64(b, r.Bytes), r.Incarnation)
	return append(append(b, r.Deployment[:]...), r.UUID[:]...)
}

// Decode reads it.
func (r *Ready) Decode(b []byte) error {
	c := wire.NewCursor(b)
	r.Requests, r.ID = c.U32(), ids.ASDID(c.U32())
	r.Bytes, r.Incarnation = c.U64(), c.U64()
	c.Copy(r.Deployment[:])
	c.Copy(r.UUID[:])
	if !c.Done() || r.Requests == 0 || r.Bytes == 0 {
		return malformed(TReady, len(b))
	}
	return nil
}

// Refuse is a TRefuse: its header's Arg is the errs.Kind, its body the sentence.

func malformed(t uint8, n int) error {
	return errs.New(errs.Corrupt, "%s: a body of %d bytes that does not parse", TypeName(t), n)
}
