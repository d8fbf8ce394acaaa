package psk13

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/sha256"
	"crypto/sha512"
	"hash"
)

// suite is a cipher suite.
type suite struct {
	id     uint16
	hash   func() hash.Hash
	hashes int // bytes of a hash, and so of a binder
	key    int // bytes
	aead   func(key []byte) (cipher.AEAD, error)
}

// suites in the order of our preference. TLS_CHACHA20_POLY1305_SHA256 is for processors without AES
// instructions; every client must have the first.
var suites = []*suite{
	{id: 0x1301, hash: sha256.New, hashes: sha256.Size, key: 16, aead: aesGCM},
	{id: 0x1302, hash: sha512.New384, hashes: sha512.Size384, key: 32, aead: aesGCM},
}

func aesGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// group is a Diffie-Hellman group.
type group struct {
	id    uint16
	curve ecdh.Curve
}

// groups in the order of our preference.
var groups = []group{{0x001d, ecdh.X25519()}, {0x0017, ecdh.P256()}}
