package psk13

import (
	"crypto/cipher"
	"encoding/binary"

	"vstor/dataplane/invariants"
)

// A record (RFC 8446, 5). In clear, the content follows the header; sealed, the type in the header is 23
// and the content is the plaintext's:
//
//	0 type u8 | 1 version u16 | 3 length u16 | 5 content                    in clear
//	0 23      | 1 0x0303      | 3 length u16 | 5 sealed: content, type u8, zeros | tag 16
//	└──────────── additional data ───────────┘
//
// The nonce is the count of records under this key, xor the key's IV.
const (
	headerLen = 5
	tagLen    = 16
	maxPlain  = 16 << 10         // bytes of content
	maxSealed = maxPlain + 256   // bytes after the header
	maxRecord = maxPlain + 1 + 5 // and of padding none: what we send, without the tag
)

// half is one direction's protection. Its secret changes; without one it is clear.
type half struct {
	suite  *suite
	secret []byte
	aead   cipher.AEAD // nil: in clear
	iv     [12]byte
	nonce  [12]byte // scratch: on the stack it would escape
	seq    uint64
}

// use turns to another secret and counts from zero.
func (h *half) use(s *suite, secret []byte) {
	aead, err := s.aead(expandLabel(s.hash, secret, "key", nil, s.key))
	if err != nil {
		invariants.Fail("psk13: suite %#x: %v", s.id, err)
	}
	h.suite, h.secret, h.aead, h.seq = s, secret, aead, 0
	copy(h.iv[:], expandLabel(s.hash, secret, "iv", nil, len(h.iv)))
}

// update is what a KeyUpdate does.
func (h *half) update() { h.use(h.suite, nextSecret(h.suite.hash, h.secret)) }

func (h *half) nextNonce() []byte {
	h.nonce = h.iv
	for i := range 8 {
		h.nonce[4+i] ^= byte(h.seq >> (56 - 8*i))
	}
	return h.nonce[:]
}

// seal appends a record to dst, whose capacity must hold it. content is at most maxPlain.
func (h *half) seal(dst []byte, typ byte, content []byte) []byte {
	at := len(dst)
	if h.aead == nil {
		dst = append(dst, typ, 3, 3, 0, 0)
		binary.BigEndian.PutUint16(dst[at+3:], uint16(len(content)))
		return append(dst, content...)
	}
	dst = append(dst, typeData, 3, 3, 0, 0)
	binary.BigEndian.PutUint16(dst[at+3:], uint16(len(content)+1+tagLen))
	dst = append(dst, content...)
	dst = append(dst, typ)
	body := dst[at+headerLen:]
	sealed := h.aead.Seal(body[:0], h.nextNonce(), body, dst[at:at+headerLen])
	h.seq++
	return dst[:at+headerLen+len(sealed)]
}

// open decrypts a record, header and all, into dst, whose capacity must hold the sealed bytes without the
// tag. After an error the record counts as not seen.
func (h *half) open(dst, record []byte) (typ byte, content []byte, err *Error) {
	plain, oerr := h.aead.Open(dst[:0], h.nextNonce(), record[headerLen:], record[:headerLen])
	if oerr != nil {
		return 0, nil, fault(BadRecordMAC, "a record does not verify")
	}
	h.seq++
	n := len(plain)
	for n > 0 && plain[n-1] == 0 {
		n--
	}
	if n == 0 {
		return 0, nil, fault(UnexpectedMessage, "a record has no type")
	}
	if n-1 > maxPlain {
		return 0, nil, fault(RecordOverflow, "a record holds %d bytes, more than 16384", n-1)
	}
	return plain[n-1], plain[:n-1], nil
}
