package psk13

import "crypto/rand"

// Keys are the pre-shared keys of a server. They do not change.
type Keys struct {
	byIdentity map[string][]byte
	decoy      []byte // for identities that have no key; nobody knows it
}

// NewKeys takes over a map from identity to key.
func NewKeys(byIdentity map[string][]byte) *Keys {
	k := &Keys{byIdentity: byIdentity, decoy: make([]byte, 32)}
	rand.Read(k.decoy)
	return k
}

// key is the key of an identity, or the decoy.
func (k *Keys) key(identity []byte) (key []byte, known bool) {
	if key, known = k.byIdentity[string(identity)]; known {
		return key, true
	}
	return k.decoy, false
}
