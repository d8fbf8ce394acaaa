package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
)

// Both ends of a connection hold the deployment's secret. Each proves it with HMAC-SHA256 over its role and everything
// said before, both nonces included, so that no proof serves twice, in the other direction or in another protocol.

// NonceSize and ProofSize are in bytes; SecretSize is that of a deployment's secret.
const (
	NonceSize  = 32
	ProofSize  = sha256.Size
	SecretSize = 32
)

// Prove is the proof of who has a role, after the two messages that opened a handshake. A proof that is itself part of
// one of them does not go in: the caller cuts it off.
func Prove(secret []byte, role string, first, second []byte) (out [ProofSize]byte) {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(role))
	m.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(first)))) // where one ends is part of what is said
	m.Write(first)
	m.Write(second)
	copy(out[:], m.Sum(nil))
	return out
}

// SameProof compares in constant time.
func SameProof(a, b [ProofSize]byte) bool { return hmac.Equal(a[:], b[:]) }
