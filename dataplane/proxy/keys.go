package proxy

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// The proxy's keys in the metadata store. Numbers are big endian, so that keys sort by them. All start with
// 'P': other users of the store keep away from it.
//
//	'P' 'o' namespace          cell: the owner's epoch; epochGone once the namespace is deleted
//	'P' 'p' namespace          cell: first put id not yet reserved
//	'P' 's' namespace          cell: first SCO number not yet reserved
//	'P' 'm' namespace SCO      manifest
//	'P' 'n' namespace commit   cell: SCO; the order of commits
//	'P' 'l' namespace          cell: the last commit
//	'P' 'c' namespace put      cell: SCO; the put id is condemned
//	'P' 'd' namespace SCO put  manifest of an object whose fragments are being deleted
//	'P' 'x' namespace          cell: 0; all of the namespace is being deleted
const (
	keyOwner     = 'o'
	keyPuts      = 'p'
	keySCOs      = 's'
	keyManifest  = 'm'
	keyOrder     = 'n'
	keyLast      = 'l'
	keyCondemned = 'c'
	keyDelete    = 'd'
	keyGone      = 'x'
)

// epochGone owns a deleted namespace: nobody's epoch, so whatever asserts an owner is refused.
const epochGone = ^ids.Epoch(0)

func key(kind byte) []byte { return append(make([]byte, 0, 20), 'P', kind) }

func nsKey(kind byte, ns ids.NamespaceID) []byte {
	return binary.BigEndian.AppendUint64(key(kind), uint64(ns))
}

func manifestKey(ns ids.NamespaceID, sco ids.SCONum) []byte {
	return binary.BigEndian.AppendUint32(nsKey(keyManifest, ns), uint32(sco))
}

func condemnedKey(ns ids.NamespaceID, put ids.PutID) []byte {
	return binary.BigEndian.AppendUint32(nsKey(keyCondemned, ns), uint32(put))
}

func deleteKey(ns ids.NamespaceID, sco ids.SCONum, put ids.PutID) []byte {
	b := binary.BigEndian.AppendUint32(nsKey(keyDelete, ns), uint32(sco))
	return binary.BigEndian.AppendUint32(b, uint32(put))
}

// A cell is one number in the metadata store, little endian:
//
//	byte   0      2         3      4       12         16
//	       "VC"   version   kind   value   checksum          kind: second byte of the key
const (
	cellMagic   = 'V' | 'C'<<8
	cellVersion = 1
	cellSize    = 16
)

func encodeCell(kind byte, value uint64) []byte {
	b := binary.LittleEndian.AppendUint16(make([]byte, 0, cellSize), cellMagic)
	b = append(b, cellVersion, kind)
	b = binary.LittleEndian.AppendUint64(b, value)
	return binary.LittleEndian.AppendUint32(b, uint32(xxhash.Sum64(b)))
}

func decodeCell(kind byte, b []byte) (uint64, error) {
	le := binary.LittleEndian
	switch {
	case len(b) != cellSize || le.Uint16(b) != cellMagic:
		return 0, errs.New(errs.Corrupt, "proxy: cell %q of %d bytes is no cell", kind, len(b))
	case le.Uint32(b[12:]) != uint32(xxhash.Sum64(b[:12])):
		return 0, errs.New(errs.Corrupt, "proxy: cell %q fails its checksum", kind)
	case b[2] != cellVersion:
		return 0, errs.New(errs.Version, "proxy: cell %q has version %d; this program reads %d", kind, b[2], cellVersion)
	case b[3] != kind:
		return 0, errs.New(errs.Corrupt, "proxy: cell %q lies where %q belongs", b[3], kind)
	}
	return le.Uint64(b[4:]), nil
}

// DumpCell decodes any cell, for tools/dump.
func DumpCell(b []byte) (kind byte, value uint64, err error) {
	if len(b) == cellSize {
		kind = b[3]
	}
	value, err = decodeCell(kind, b)
	return kind, value, err
}
