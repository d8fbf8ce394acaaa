package proto

import (
	"fmt"

	"vstor/dataplane/wire"
)

// Version is the version of the protocol that this build speaks, and the oldest it still understands.
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
	TDrive   uint8 = 6

	TPing       uint8 = 16
	TInfo       uint8 = 17
	TStat       uint8 = 18
	TReadRanges uint8 = 19
	TGet        uint8 = 20
	TPut        uint8 = 21
	TDelete     uint8 = 22
	TList       uint8 = 23
	TLocate     uint8 = 24
	TVerify     uint8 = 25
	TFence      uint8 = 26
	TEpoch      uint8 = 27
	TDescribe   uint8 = 28
	TCancel     uint8 = 29
	TFault      uint8 = 30
	TExtents    uint8 = 31
	TLease      uint8 = 32
	TForget     uint8 = 33
)

// TypesEnd is above all types.
const TypesEnd = TForget + 1

var names = map[uint8]string{
	THello: "hello", TWelcome: "welcome", TAuth: "auth", TReady: "ready", TRefuse: "refuse", TPing: "ping",
	TInfo: "info",
	TStat: "stat", TReadRanges: "read-ranges", TGet: "get", TPut: "put", TDelete: "delete", TList: "list",
	TLocate: "locate", TVerify: "verify", TFence: "fence", TEpoch: "epoch", TDescribe: "describe", TCancel: "cancel",
	TFault: "fault", TDrive: "drive", TExtents: "extents", TLease: "lease", TForget: "forget",
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
	// RangesMax is how many ranges one ReadRanges may name, ReadMax how many bytes they may have together;
	// a Get has at most ReadMax too.
	RangesMax = 64
	ReadMax   = 1 << 20
	// DeleteMax is how many fragments one Delete may name, ListMax how many one List gives.
	DeleteMax = 1024
	ListMax   = 1024
	// LocateMax is how many fragments one Extents may ask for, ExtentsMax in how many pieces one may lie.
	LocateMax  = 32
	ExtentsMax = 8
	// DescMax is the longest descriptor of a fragment, RegionsMax the most regions.
	DescMax    = 512
	RegionsMax = 256
	// TextMax is the longest sentence of a refusal or a failure; NameMax the longest name of a peer.
	TextMax = 512
	NameMax = 64
)

// The longest reply to an Extents fits a body.
const _ = uint(wire.BodyMax - 8 - LocateMax*(4+12*ExtentsMax))

// Capabilities are bits that both sides announce; what both have may be used.
const (
	// CapFaults: the ASD was started with --allow-faults.
	CapFaults uint64 = 1 << 0
	// CapShortCircuit: the asker wants to read the drive itself, the ASD lets it. On unix sockets only.
	CapShortCircuit uint64 = 1 << 1
)
