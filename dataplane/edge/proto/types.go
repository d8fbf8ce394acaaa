package proto

import (
	"crypto/rand"
	"fmt"

	"vstor/dataplane/errs"
	"vstor/dataplane/wire"
)

// Version is the version of the protocol that this build speaks, and the oldest it still understands.
//
//	1  the first
const (
	Version    = 1
	VersionMin = 1
)

// Types of messages; the numbers are on wires: append only. A reply has wire.Reply set.
const (
	THello   uint8 = 1
	TWelcome uint8 = 2
	TAuth    uint8 = 3
	TReady   uint8 = 4
	TRefuse  uint8 = 5

	TOpen      uint8 = 16
	TRenew     uint8 = 17
	TRead      uint8 = 18
	TWrite     uint8 = 19
	TFlush     uint8 = 20
	TTrim      uint8 = 21
	TZero      uint8 = 22
	TExtents   uint8 = 23
	TWarm      uint8 = 24
	TLocations uint8 = 25
	TManifest  uint8 = 26
	TStats     uint8 = 27
	TAcquire   uint8 = 28
	TClose     uint8 = 29
	TRot       uint8 = 30

	// From the router.
	TInvalidate uint8 = 48
	TYield      uint8 = 49
	TRevoke     uint8 = 50
	TRedirect   uint8 = 51
)

var names = map[uint8]string{
	THello: "hello", TWelcome: "welcome", TAuth: "auth", TReady: "ready", TRefuse: "refuse",
	TOpen: "open", TRenew: "renew", TRead: "read", TWrite: "write", TFlush: "flush", TTrim: "trim", TZero: "zero",
	TExtents: "extents", TWarm: "warm", TLocations: "locations", TManifest: "manifest", TStats: "stats",
	TAcquire: "acquire", TClose: "close", TRot: "rot",
	TInvalidate: "invalidate", TYield: "yield", TRevoke: "revoke", TRedirect: "redirect",
}

// TypeName is a type as people read it.
func TypeName(t uint8) string {
	n, ok := names[t&^wire.Reply]
	if !ok {
		return fmt.Sprintf("type %#x", t)
	}
	if t&wire.Reply != 0 {
		return n + " reply"
	}
	return n
}

// Bounds that the format or the protocol fixes.
const (
	// BlocksMax is how many blocks one Read, Write or Locations may name: a megabyte.
	BlocksMax = 256
	// ExtentsMax is how many extents one answer has, RangeMax how many blocks one question about them covers.
	ExtentsMax = 256
	RangeMax   = 1<<20 - 1
	// SpacesMax is how many namespaces the locations of one answer lie in.
	SpacesMax = 16
	// ManifestMax is the longest encoded manifest, in bytes.
	ManifestMax = 256 << 10
	// TextMax is the longest sentence or address; NameMax the longest name of a vDisk or a peer.
	TextMax = 512
	NameMax = 255
)

// The longest bodies fit a frame.
const (
	_ = uint(wire.BodyMax - (writeHead + 4*BlocksMax))
	_ = uint(wire.BodyMax - (locationsHead + 8*SpacesMax + 12*BlocksMax))
	_ = uint(wire.BodyMax - (8 + 8*ExtentsMax))
	_ = uint(wire.BodyMax - (helloHead + 2*NameMax))
)

// Opener is a process that opens vDisks: 128 random bits, made when it starts. Two that have the same never live at the
// same time. Zeros are nobody.
type Opener [16]byte

// NewOpener makes one.
func NewOpener() (o Opener) {
	rand.Read(o[:])
	return o
}

func (o Opener) String() string { return fmt.Sprintf("%x", o[:4]) }

func malformed(t uint8, n int) error {
	return errs.New(errs.Corrupt, "%s: a body of %d bytes that does not parse", TypeName(t), n)
}

// sentence is text cut to what may be sent.
func sentence(s string) string { return s[:min(len(s), TextMax)] }
