package psk13

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"net"
	"slices"
)

// handshake is what lives until both sides are Finished.
type handshake struct {
	c    *Conn
	keys *Keys

	suite    *suite
	early    []byte // the early secret: it comes from the key
	index    int    // of the offer that was chosen
	identity []byte
	known    bool

	transcript hash.Hash
	prefix     []byte // of the transcript, before the ClientHello: a retried one's
	ccs        bool   // ours was sent
}

// Server shakes hands with a client that has one of the keys. It reads records from src, which lies above
// nc, and nothing but them. After an error the client was sent the alert that goes with it; nc is the
// caller's to close. The error is an *Error, or what the client said or nc returned.
func Server(nc net.Conn, src Source, keys *Keys) (*Conn, error) {
	c := &Conn{Conn: nc, src: src, maxOut: maxPlain, rekeyAfter: rekeyAfter}
	h := &handshake{c: c, keys: keys}
	if err := h.run(); err != nil {
		return nil, c.fail(err)
	}
	return c, nil
}

func (h *handshake) run() error {
	hello, err := h.readHello()
	if err != nil {
		return err
	}
	g, public, err := pickGroup(hello)
	if err != nil {
		return err
	}
	if public == nil {
		if hello, err = h.retry(hello, g); err != nil {
			return err
		}
		public = hello.shares[0].key
	}
	own, shared, err := exchange(g, public)
	if err != nil {
		return err
	}
	return h.finish(hello, g, own, shared)
}

// readHello reads a ClientHello, chooses what of it to use, and believes it.
func (h *handshake) readHello() (*clientHello, error) {
	raw, err := h.c.readMessage(maxHello)
	if err != nil {
		return nil, err
	}
	hello, fail := parseHello(raw)
	if fail != nil {
		return nil, fail
	}
	if len(h.c.hand) > 0 {
		return nil, fault(UnexpectedMessage, "something follows the ClientHello in its record")
	}
	if err := h.choose(hello); err != nil {
		return nil, err
	}
	if err := h.checkBinder(hello); err != nil {
		return nil, err
	}
	h.c.skipCCS = true
	h.c.skip = 0
	if hello.early {
		h.c.skip = maxEarlyData
	}
	h.transcript = h.suite.hash()
	h.transcript.Write(h.prefix)
	h.transcript.Write(hello.raw)
	return hello, nil
}

// choose picks a key and a suite whose hash is the key's. The size of the binder says which that is: key
// files do not, and clients agree on SHA-256 unless told otherwise. The first offer whose identity is known
// is taken; if there is none, the first, for the look of it.
func (h *handshake) choose(hello *clientHello) error {
	switch {
	case !hello.tls13:
		return fault(ProtocolVersion, "the client speaks no TLS 1.3, which pre-shared keys need here")
	case !hello.hasPSK:
		return fault(HandshakeFailure, "the client offers no pre-shared key, and there is no certificate for it")
	case !hello.hasMode, hello.groups == nil, !hello.hasShares:
		return fault(MissingExtension, "the client does not say how to exchange keys")
	case !hello.dhe:
		return fault(HandshakeFailure, "the client wants a pre-shared key without Diffie-Hellman (psk_dhe_ke)")
	}
	common := slices.DeleteFunc(slices.Clone(suites), func(s *suite) bool {
		return !slices.Contains(hello.suites, s.id)
	})
	h.suite, h.known = nil, false
	var key []byte
	for i, o := range hello.offers { // to the end: its time must not tell where a known one stood
		at := slices.IndexFunc(common, func(s *suite) bool { return s.hashes == len(o.binder) })
		if at < 0 {
			continue
		}
		k, known := h.keys.key(o.identity)
		if h.suite == nil || known && !h.known {
			h.suite, h.index, h.identity, h.known, key = common[at], i, o.identity, known, k
		}
	}
	if h.suite == nil {
		return fault(HandshakeFailure, "no cipher suite in common with the client")
	}
	h.early = earlySecret(h.suite.hash, key)
	return nil
}

func (h *handshake) checkBinder(hello *clientHello) error {
	t := h.suite.hash()
	t.Write(h.prefix)
	t.Write(hello.raw[:hello.truncated])
	if hmac.Equal(binder(h.suite.hash, h.early, t.Sum(nil)), hello.offers[h.index].binder) && h.known {
		return nil
	}
	identity := h.identity[:min(len(h.identity), 64)]
	if h.known {
		return fault(DecryptError, "the client that calls itself %q has another key", identity)
	}
	return fault(DecryptError, "there is no key for a client that calls itself %q", identity)
}

// pickGroup is our favourite of those that the client has sent a share of; without any, public is nil and the
// group is one to ask for.
func pickGroup(hello *clientHello) (g group, public []byte, err error) {
	for _, ours := range groups {
		if !slices.Contains(hello.groups, ours.id) {
			continue
		}
		for _, s := range hello.shares {
			if s.group == ours.id {
				return ours, s.key, nil
			}
		}
		if g.curve == nil {
			g = ours
		}
	}
	if g.curve == nil {
		return g, nil, fault(HandshakeFailure, "no group in common with the client: it needs X25519 or P-256")
	}
	return g, nil, nil
}

func exchange(g group, public []byte) (own, shared []byte, err error) {
	peer, err := g.curve.NewPublicKey(public)
	if err != nil {
		return nil, nil, fault(IllegalParameter, "the client's share is not of its group")
	}
	private, err := g.curve.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fault(InternalError, "no ephemeral key: %v", err)
	}
	if shared, err = private.ECDH(peer); err != nil {
		return nil, nil, fault(IllegalParameter, "the client's share is of low order")
	}
	return private.PublicKey().Bytes(), shared, nil
}

// retryRandom makes a ServerHello a HelloRetryRequest (RFC 8446, 4.1.3).
var retryRandom = sha256.Sum256([]byte("HelloRetryRequest"))

// retry asks for a share of g, and reads the ClientHello that has it. Nothing else in it may have changed.
func (h *handshake) retry(old *clientHello, g group) (*clientHello, error) {
	request := h.serverHello(old, retryRandom[:], binary.BigEndian.AppendUint16(nil, g.id), false)
	sum := h.transcript.Sum(nil)
	h.prefix = append(append([]byte{msgHash, 0, 0, byte(len(sum))}, sum...), request...)
	out := h.c.out.seal(make([]byte, 0, 512), typeHandshake, request)
	if _, err := h.c.Conn.Write(h.appendCCS(out, old)); err != nil {
		return nil, err
	}
	suite, identity := h.suite, h.identity
	hello, err := h.readHello()
	if err != nil {
		return nil, err
	}
	if hello.early || len(hello.shares) != 1 || hello.shares[0].group != g.id || h.suite != suite ||
		!bytes.Equal(h.identity, identity) || !bytes.Equal(hello.raw[4:38], old.raw[4:38]) ||
		!bytes.Equal(hello.sessionID, old.sessionID) || !slices.Equal(hello.suites, old.suites) ||
		!slices.Equal(hello.groups, old.groups) || hello.sizeLimit != old.sizeLimit {
		return nil, fault(IllegalParameter,
			"the client's second ClientHello is not the first with the share asked for")
	}
	return hello, nil
}

// appendCCS adds the record that lets boxes on the way believe that this is TLS 1.2 (D.4): once, and only
// if the client plays along, which a session id says.
func (h *handshake) appendCCS(out []byte, hello *clientHello) []byte {
	if len(hello.sessionID) == 0 || h.ccs {
		return out
	}
	h.ccs = true
	return append(out, typeChangeCipherSpec, 3, 3, 0, 1, 1)
}

// serverHello makes a ServerHello, or without chosen a HelloRetryRequest (4.1.3, 4.1.4).
//
//	0 type 2  1 length u24  4 0x0303  6 random, 32 bytes | session id, as the client sent it | suite u16 | 0
//	extensions: supported_versions 0x0304, key_share, and pre_shared_key with the index of the chosen
func (h *handshake) serverHello(hello *clientHello, random, keyShare []byte, chosen bool) []byte {
	m := append(make([]byte, 0, 256), msgServerHello, 0, 0, 0, version12>>8, version12&0xff)
	m = append(m, random...)
	m = append(append(m, byte(len(hello.sessionID))), hello.sessionID...)
	m = binary.BigEndian.AppendUint16(m, h.suite.id)
	m = append(m, 0, 0, 0)
	at := len(m)
	m = appendExtension(m, extSupportedVersion, []byte{version13 >> 8, version13 & 0xff})
	m = appendExtension(m, extKeyShare, keyShare)
	if chosen {
		m = appendExtension(m, extPreSharedKey, binary.BigEndian.AppendUint16(nil, uint16(h.index)))
	}
	binary.BigEndian.PutUint16(m[at-2:], uint16(len(m)-at))
	return setLength(m)
}

func appendExtension(m []byte, id uint16, content []byte) []byte {
	m = binary.BigEndian.AppendUint16(m, id)
	m = binary.BigEndian.AppendUint16(m, uint16(len(content)))
	return append(m, content...)
}

// setLength fills in the u24 of a message's header.
func setLength(m []byte) []byte {
	n := len(m) - 4
	m[1], m[2], m[3] = byte(n>>16), byte(n>>8), byte(n)
	return m
}

// encryptedExtensions says how long the client's records may be, if it has said so itself (RFC 8449).
func (h *handshake) encryptedExtensions(hello *clientHello) []byte {
	m := []byte{msgEncryptedExtensions, 0, 0, 0, 0, 0}
	if hello.sizeLimit > 0 {
		m = appendExtension(m, extRecordSizeLimit, binary.BigEndian.AppendUint16(nil, maxPlain+1))
		h.c.maxOut = min(maxPlain, hello.sizeLimit-1)
	}
	binary.BigEndian.PutUint16(m[4:], uint16(len(m)-6))
	return setLength(m)
}

// add puts a message of ours into the transcript.
func (h *handshake) add(m []byte) []byte {
	h.transcript.Write(m)
	return m
}

// finish sends the rest of our side in one write, and waits for the client's Finished.
func (h *handshake) finish(hello *clientHello, g group, own, shared []byte) error {
	c, s := h.c, h.suite
	random := make([]byte, 32)
	rand.Read(random)
	share := binary.BigEndian.AppendUint16(nil, g.id)
	share = binary.BigEndian.AppendUint16(share, uint16(len(own)))
	flight := c.out.seal(make([]byte, 0, 1024), typeHandshake,
		h.add(h.serverHello(hello, random, append(share, own...), true)))
	flight = h.appendCCS(flight, hello)

	secret := handshakeSecret(s.hash, h.early, shared)
	sum := h.transcript.Sum(nil)
	client := deriveSecret(s.hash, secret, "c hs traffic", sum)
	server := deriveSecret(s.hash, secret, "s hs traffic", sum)
	c.in.use(s, client)
	c.out.use(s, server)
	messages := h.add(h.encryptedExtensions(hello))
	messages = append(messages, h.add(finished(s.hash, server, h.transcript.Sum(nil)))...)
	for n := 0; len(messages) > 0; messages = messages[n:] { // the client's limit is for these records too
		n = min(len(messages), c.maxOut)
		flight = c.out.seal(flight, typeHandshake, messages[:n])
	}

	master := masterSecret(s.hash, secret)
	sum = h.transcript.Sum(nil)
	c.out.use(s, deriveSecret(s.hash, master, "s ap traffic", sum))
	if _, err := c.Conn.Write(flight); err != nil {
		return err
	}
	if err := h.readFinished(client, sum); err != nil {
		return err
	}
	c.in.use(s, deriveSecret(s.hash, master, "c ap traffic", sum))
	c.identity, c.skipCCS, c.hand, c.useless, c.shaken = string(h.identity), false, nil, 0, true
	return nil
}

func finished(hash func() hash.Hash, secret, transcript []byte) []byte {
	mac := verifyData(hash, secret, transcript)
	return append([]byte{msgFinished, 0, 0, byte(len(mac))}, mac...)
}

func (h *handshake) readFinished(secret, transcript []byte) error {
	m, err := h.c.readMessage(4 + h.suite.hashes)
	if err != nil {
		return err
	}
	if m[0] != msgFinished || len(h.c.hand) > 0 {
		return fault(UnexpectedMessage, "the client sent message %d instead of its Finished alone", m[0])
	}
	if !hmac.Equal(m, finished(h.suite.hash, secret, transcript)) {
		return fault(DecryptError, "the client's Finished does not verify")
	}
	return nil
}

// asFault is err's *Error, if it is one.
func asFault(err error) *Error {
	var f *Error
	errors.As(err, &f)
	return f
}
