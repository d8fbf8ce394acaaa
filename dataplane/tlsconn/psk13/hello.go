package psk13

import (
	"bytes"
	"encoding/binary"
)

// Numbers of the protocol.
const (
	typeChangeCipherSpec = 20
	typeAlert            = 21
	typeHandshake        = 22
	typeData             = 23

	msgClientHello         = 1
	msgServerHello         = 2
	msgEncryptedExtensions = 8
	msgFinished            = 20
	msgKeyUpdate           = 24
	msgHash                = 254

	extSupportedGroups  = 10
	extRecordSizeLimit  = 28
	extPreSharedKey     = 41
	extEarlyData        = 42
	extSupportedVersion = 43
	extPSKModes         = 45
	extKeyShare         = 51

	version12, version13 = 0x0303, 0x0304

	pskDHE = 1 // the mode psk_dhe_ke

	// maxHello bounds a ClientHello, in bytes. Real ones have less than 2 KiB.
	maxHello = 32 << 10
)

// offer is one pre-shared key that the client says it has.
type offer struct {
	identity []byte
	age      uint32 // of a ticket; 0 of a key from outside
	binder   []byte
}

// share is the client's half of a Diffie-Hellman exchange.
type share struct {
	group uint16
	key   []byte
}

// clientHello is what a client offers. Its slices point into raw.
type clientHello struct {
	raw       []byte // the message with its header
	truncated int    // bytes of raw before the binders
	sessionID []byte
	suites    []uint16
	groups    []uint16
	shares    []share
	offers    []offer
	sizeLimit int // bytes of a record's content and type; 0: not said

	tls13, dhe, early          bool
	hasShares, hasPSK, hasMode bool
}

// cursor reads big-endian fields; after the first that is cut short it is bad for good.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if c.bad || n > len(c.b) {
		c.bad, c.b = true, nil
		return nil
	}
	out := c.b[:n:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) number(bytes int) (n int) {
	for _, b := range c.take(bytes) {
		n = n<<8 | int(b)
	}
	return n
}

// vector reads a length of so many bytes, and what it counts, which must be within the bounds.
func (c *cursor) vector(size, least int) []byte {
	n := c.number(size)
	if n < least {
		c.bad = true
	}
	return c.take(n)
}

// list is a vector to read from; where it is short, both cursors are bad.
func (c *cursor) list(size, least int) cursor {
	b := c.vector(size, least)
	return cursor{b: b, bad: c.bad}
}

// done reports whether everything was read and nothing was short.
func (c *cursor) done() bool { return !c.bad && len(c.b) == 0 }

// parseHello reads a ClientHello (RFC 8446, 4.1.2), whose lengths it must fill exactly.
//
//	0  type 1           1  length u24
//	4  version u16      6  random, 32 bytes
//	38 session id, u8 counts its bytes, at most 32
//	.. cipher suites, u16 counts their bytes, each u16
//	.. compressions, u8 counts their bytes: one, 0
//	.. extensions, u16 counts their bytes:  type u16 | u16 counts bytes | content
func parseHello(raw []byte) (*clientHello, *Error) {
	h := &clientHello{raw: raw, truncated: len(raw)}
	c := cursor{b: raw}
	if c.number(1) != msgClientHello {
		return nil, fault(UnexpectedMessage, "the first message is no ClientHello")
	}
	body := c.list(3, 0)
	body.take(2 + 32)
	h.sessionID = body.vector(1, 0)
	codes := body.list(2, 2)
	for len(codes.b) > 0 {
		h.suites = append(h.suites, uint16(codes.number(2)))
	}
	compressions := body.vector(1, 1)
	if !c.done() || body.bad || codes.bad || len(h.sessionID) > 32 {
		return nil, fault(DecodeError, "the ClientHello is malformed")
	}
	if len(body.b) == 0 {
		return nil, fault(ProtocolVersion, "the client speaks no TLS 1.3")
	}
	exts := body.list(2, 0)
	if err := h.parseExtensions(&exts); err != nil {
		return nil, err
	}
	if !exts.done() || !body.done() {
		return nil, fault(DecodeError, "the ClientHello is malformed")
	}
	if h.tls13 && !bytes.Equal(compressions, []byte{0}) {
		return nil, fault(IllegalParameter, "the client wants compression")
	}
	return h, nil
}

func (h *clientHello) parseExtensions(exts *cursor) *Error {
	seen := map[int]bool{}
	for len(exts.b) > 0 {
		id := exts.number(2)
		c := exts.list(2, 0)
		if exts.bad {
			break
		}
		if seen[id] {
			return fault(IllegalParameter, "the ClientHello has extension %d twice", id)
		}
		seen[id] = true
		if id == extPreSharedKey && len(exts.b) > 0 {
			return fault(IllegalParameter, "pre_shared_key is not the last extension")
		}
		if err := h.parseExtension(id, &c); err != nil {
			return err
		}
		if c.bad {
			return fault(DecodeError, "extension %d of the ClientHello is malformed", id)
		}
	}
	return nil
}

// parseExtension reads one; those that it does not know are none of its business.
func (h *clientHello) parseExtension(id int, c *cursor) *Error {
	switch id {
	case extSupportedVersion: // u8 counts bytes: versions, u16
		for l := c.list(1, 2); len(l.b) > 0; c.bad = c.bad || l.bad {
			h.tls13 = l.number(2) == version13 || h.tls13
		}
	case extSupportedGroups: // u16 counts bytes: groups, u16
		for l := c.list(2, 2); len(l.b) > 0; c.bad = c.bad || l.bad {
			h.groups = append(h.groups, uint16(l.number(2)))
		}
	case extPSKModes: // u8 counts bytes: modes, u8
		h.hasMode = true
		h.dhe = bytes.IndexByte(c.vector(1, 1), pskDHE) >= 0
	case extEarlyData: // nothing
		h.early = true
	case extRecordSizeLimit: // u16, RFC 8449
		if h.sizeLimit = c.number(2); h.sizeLimit < 64 {
			return fault(IllegalParameter, "the client takes records of %d bytes only", h.sizeLimit)
		}
	case extKeyShare:
		h.hasShares = true
		return h.parseShares(c)
	case extPreSharedKey:
		h.hasPSK = true
		return h.parseOffers(c)
	default:
		return nil
	}
	c.bad = c.bad || len(c.b) > 0
	return nil
}

// parseShares reads key_share: u16 counts bytes: { group u16 | u16 counts bytes: public key }.
func (h *clientHello) parseShares(c *cursor) *Error {
	l := c.list(2, 0)
	for len(l.b) > 0 {
		s := share{group: uint16(l.number(2)), key: l.vector(2, 1)}
		for _, other := range h.shares {
			if other.group == s.group {
				return fault(IllegalParameter, "the ClientHello has two shares of one group")
			}
		}
		if len(h.shares) == 64 {
			return fault(IllegalParameter, "the ClientHello has more than 64 shares")
		}
		h.shares = append(h.shares, s)
	}
	c.bad = c.bad || l.bad || len(c.b) > 0
	return nil
}

// parseOffers reads pre_shared_key:
//
//	u16 counts bytes: { u16 counts bytes: identity | age u32 }
//	u16 counts bytes: { u8 counts bytes: binder, 32 at least }     the binders are not in their own hash
func (h *clientHello) parseOffers(c *cursor) *Error {
	identities := c.list(2, 7)
	h.truncated = len(h.raw) - len(c.b)
	for len(identities.b) > 0 {
		o := offer{identity: identities.vector(2, 1)}
		o.age = uint32(identities.number(4))
		h.offers = append(h.offers, o)
	}
	binders := c.list(2, 33)
	n := 0
	for ; len(binders.b) > 0; n++ {
		if b := binders.vector(1, 32); n < len(h.offers) {
			h.offers[n].binder = b
		}
	}
	c.bad = c.bad || identities.bad || binders.bad || len(c.b) > 0
	if !c.bad && n != len(h.offers) {
		return fault(IllegalParameter, "the ClientHello has %d identities and %d binders", len(h.offers), n)
	}
	return nil
}

// A Verdict says which server a ClientHello is for.
type Verdict int

const (
	NeedMore Verdict = iota // bytes are missing to tell
	WantsPSK
	WantsOther // certificates, or nothing that is TLS
)

// A Sniffer looks at the first bytes of a connection and says whether they ask for a pre-shared key from
// outside. Tickets, of another server's session, have an age; a key from outside has none (4.2.11). Whether
// its identity is known does not count: then a client that guesses could tell by what answers it.
type Sniffer struct {
	msg  []byte // of the message, what lies in the records before
	at   int    // where the record begins that is not over
	took int    // bytes of it that are in msg
}

// Sniff gets all bytes that have come so far. It goes on where it ended: to begin anew at each byte that
// trickles in would let a client of few packets cost seconds.
func (s *Sniffer) Sniff(all []byte) Verdict {
	for {
		b := all[s.at:]
		if len(b) > 0 && b[0] != typeHandshake {
			return WantsOther
		}
		if len(b) < headerLen {
			return NeedMore
		}
		n := int(binary.BigEndian.Uint16(b[3:]))
		if b[1] != 3 || n == 0 || n > maxPlain {
			return WantsOther
		}
		part := b[headerLen:min(len(b), headerLen+n)]
		s.msg = append(s.msg, part[s.took:]...)
		s.took = len(part)
		if len(s.msg) > 0 && s.msg[0] != msgClientHello {
			return WantsOther
		}
		if len(s.msg) >= 4 {
			size := 4 + int(s.msg[1])<<16 + int(s.msg[2])<<8 + int(s.msg[3])
			if size > maxHello {
				return WantsOther
			}
			if len(s.msg) >= size {
				return verdict(s.msg[:size])
			}
		}
		if len(part) < n {
			return NeedMore
		}
		s.at, s.took = s.at+headerLen+n, 0
	}
}

// Sniff is a Sniffer's, of bytes that need not be looked at again.
func Sniff(b []byte) Verdict { return new(Sniffer).Sniff(b) }

func verdict(msg []byte) Verdict {
	h, err := parseHello(msg)
	if err != nil || !h.tls13 {
		return WantsOther
	}
	for _, o := range h.offers {
		if o.age == 0 {
			return WantsPSK
		}
	}
	return WantsOther
}
