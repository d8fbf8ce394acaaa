package tlsconn

import (
	"bytes"
	"encoding/hex"
	"strings"

	"vstor/dataplane/errs"
)

const (
	// minKey is how short a pre-shared key may be, in bytes: who recorded a handshake can try shorter ones
	// offline.
	minKey      = 16
	maxKey      = 512
	maxIdentity = 1024 // bytes
)

// parsePSK reads what psktool writes, and what GnuTLS reads:
//
//	identity:hexkey        one per line; the last colon ends the identity
//	#hexidentity:hexkey    an identity that is not text
func parsePSK(b []byte, path string) (map[string][]byte, error) {
	keys := map[string][]byte{}
	for i, line := range bytes.Split(b, []byte("\n")) {
		text := strings.TrimSuffix(string(line), "\r")
		if text == "" {
			continue
		}
		bad := func(what string) error { // never with the line: it may hold a key
			return errs.New(errs.Invalid, "%s, line %d: %s; want identity:hexkey, as psktool writes it", path,
				i+1, what)
		}
		colon := strings.LastIndexByte(text, ':')
		if colon < 0 {
			return nil, bad("no colon")
		}
		identity, digits := text[:colon], text[colon+1:]
		if strings.HasPrefix(identity, "#") && len(identity) > 1 {
			raw, err := hex.DecodeString(identity[1:])
			if err != nil {
				return nil, bad("after # the identity must be hexadecimal")
			}
			identity = string(raw)
		}
		key, err := hex.DecodeString(digits)
		switch {
		case identity == "":
			return nil, bad("the identity is empty")
		case len(identity) > maxIdentity:
			return nil, bad("the identity is longer than 1024 bytes")
		case err != nil:
			return nil, bad("the key is not hexadecimal")
		case len(key) < minKey:
			return nil, bad("the key has less than 16 bytes, so that it could be guessed")
		case len(key) > maxKey:
			return nil, bad("the key has more than 512 bytes")
		case keys[identity] != nil:
			return nil, bad("the identity has a key already")
		}
		keys[identity] = key
	}
	if len(keys) == 0 {
		return nil, errs.New(errs.Invalid, "%s holds no key; want lines of identity:hexkey, as psktool writes them",
			path)
	}
	return keys, nil
}
