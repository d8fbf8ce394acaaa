package psk13

import (
	"crypto/hkdf"
	"crypto/hmac"
	"hash"

	"vstor/dataplane/invariants"
)

// The key schedule (RFC 8446, 7.1). Each arrow is HKDF-Extract with what stands above it as salt;
// Derive-Secret makes the rest.
//
//	            0
//	            │
//	  PSK ──► early ──────── "ext binder" of nothing ──────────────────► binder key
//	            │ "derived"
//	(EC)DHE ► handshake ──── "c hs traffic", "s hs traffic" of CH..SH
//	            │ "derived"
//	    0 ──► master ─────── "c ap traffic", "s ap traffic" of CH..server Finished

func extract(h func() hash.Hash, salt, secret []byte) []byte {
	out, err := hkdf.Extract(h, secret, salt)
	if err != nil {
		invariants.Fail("psk13: HKDF-Extract: %v", err)
	}
	return out
}

// expandLabel is HKDF-Expand-Label. Its info is
//
//	0 length u16 | 2 n u8 | 3 "tls13 " label, n bytes | 3+n m u8 | 4+n context, m bytes
func expandLabel(h func() hash.Hash, secret []byte, label string, context []byte, length int) []byte {
	info := make([]byte, 0, 64+len(context))
	info = append(info, byte(length>>8), byte(length), byte(len("tls13 ")+len(label)))
	info = append(append(info, "tls13 "...), label...)
	info = append(append(info, byte(len(context))), context...)
	out, err := hkdf.Expand(h, secret, string(info), length)
	if err != nil {
		invariants.Fail("psk13: HKDF-Expand: %v", err)
	}
	return out
}

// deriveSecret is Derive-Secret; transcript is a hash already.
func deriveSecret(h func() hash.Hash, secret []byte, label string, transcript []byte) []byte {
	return expandLabel(h, secret, label, transcript, h().Size())
}

// derived is the salt of the next stage.
func derived(h func() hash.Hash, secret []byte) []byte {
	return deriveSecret(h, secret, "derived", h().Sum(nil))
}

// verifyData is the MAC of a Finished or a binder under a traffic secret or a binder key (4.4.4).
func verifyData(h func() hash.Hash, secret, transcript []byte) []byte {
	m := hmac.New(h, expandLabel(h, secret, "finished", nil, h().Size()))
	m.Write(transcript)
	return m.Sum(nil)
}

// binder is what proves that the peer has the key: transcript is the hash up to the binders.
func binder(h func() hash.Hash, early, transcript []byte) []byte {
	return verifyData(h, deriveSecret(h, early, "ext binder", h().Sum(nil)), transcript)
}

func earlySecret(h func() hash.Hash, psk []byte) []byte { return extract(h, nil, psk) }

func handshakeSecret(h func() hash.Hash, early, shared []byte) []byte {
	return extract(h, derived(h, early), shared)
}

func masterSecret(h func() hash.Hash, handshake []byte) []byte {
	return extract(h, derived(h, handshake), make([]byte, h().Size()))
}

// nextSecret is the traffic secret after a KeyUpdate (7.2).
func nextSecret(h func() hash.Hash, secret []byte) []byte {
	return expandLabel(h, secret, "traffic upd", nil, h().Size())
}
