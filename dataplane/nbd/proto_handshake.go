package nbd

import (
	"encoding/binary"
	"fmt"

	"vstor/dataplane/block"
)

// Handshake phase, fixed newstyle. All integers are big endian. This file is pure.
//
// Greeting, server to client, 18 bytes, and the client's answer, 4 bytes of flags:
//
//	 0   8   "NBDMAGIC"
//	 8   8   "IHAVEOPT"
//	16   2   handshake flags
//
// Option, client to server, 16 bytes, then Length bytes:
//
//	 0   8   "IHAVEOPT"
//	 8   4   option
//	12   4   length
//
// Option reply, server to client, 20 bytes, then Length bytes (of an error: a sentence for a person):
//
//	 0   8   magic 0x0003e889045565a9
//	 8   4   option it answers
//	12   4   type; bit 31 set = error
//	16   4   length
//
// Data of INFO and GO: u32 name length, name, u16 count, count x u16 information types.
// Data of a SERVER reply: u32 name length, name, description in what is left.
// Data of an INFO reply: u16 type, then EXPORT: u64 size, u16 transmission flags; NAME, DESCRIPTION:
// a string; BLOCK_SIZE: u32 minimum, u32 preferred, u32 maximum payload.
// Data of the metadata options: contexts.go.
// Answer to EXPORT_NAME (no reply header): u64 size, u16 transmission flags, and 124 bytes of zeros
// unless NO_ZEROES was agreed.
const (
	nbdMagic         = 0x4e42444d41474943 // "NBDMAGIC"
	optionMagic      = 0x49484156454f5054 // "IHAVEOPT"
	optionReplyMagic = 0x0003e889045565a9

	greetingSize    = 18
	optionSize      = 16
	optionReplySize = 20
	exportNameZeros = 124

	// nameMax is the longest string the protocol allows, in bytes.
	nameMax = 4096
	// optionMax is the longest option payload that is read: a SET_META_CONTEXT with the longest name and
	// as much again of queries, or a GO with every information type one could think of.
	optionMax = 4 + nameMax + 4 + 4 + nameMax
	// optionSkipMax is the longest payload that is skipped with ERR_TOO_BIG; whoever announces more
	// means no good and is disconnected.
	optionSkipMax = 1 << 20
)

// Handshake flags, and the client's, which mean the same.
const (
	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1
)

// Option is what a client asks for during the handshake.
type Option uint32

const (
	OptExportName      Option = 1
	OptAbort           Option = 2
	OptList            Option = 3
	OptStartTLS        Option = 5
	OptInfo            Option = 6
	OptGo              Option = 7
	OptStructured      Option = 8
	OptListMeta        Option = 9
	OptSetMeta         Option = 10
	OptExtendedHeaders Option = 11
)

// OptionReply is the type of an answer to an option.
type OptionReply uint32

const (
	RepAck         OptionReply = 1
	RepServer      OptionReply = 2
	RepInfo        OptionReply = 3
	RepMetaContext OptionReply = 4
	repError       OptionReply = 1 << 31
	RepErrUnsup    OptionReply = repError + 1
	RepErrPolicy   OptionReply = repError + 2
	RepErrInvalid  OptionReply = repError + 3
	RepErrPlatform OptionReply = repError + 4
	RepErrTLSReqd  OptionReply = repError + 5
	RepErrUnknown  OptionReply = repError + 6
	RepErrShutdown OptionReply = repError + 7
	RepErrTooBig   OptionReply = repError + 9
	RepErrExtended OptionReply = repError + 10
)

// InfoType is a kind of information about an export.
type InfoType uint16

const (
	InfoExport      InfoType = 0
	InfoName        InfoType = 1
	InfoDescription InfoType = 2
	InfoBlockSize   InfoType = 3
)

// Transmission flags.
const (
	TransHasFlags        = 1 << 0
	TransReadOnly        = 1 << 1
	TransSendFlush       = 1 << 2
	TransSendFUA         = 1 << 3
	TransRotational      = 1 << 4
	TransSendTrim        = 1 << 5
	TransSendWriteZeroes = 1 << 6
	TransSendDF          = 1 << 7
	TransCanMultiConn    = 1 << 8
	TransSendCache       = 1 << 10
	TransSendFastZero    = 1 << 11
	TransStatusPayload   = 1 << 12 // BLOCK_STATUS may name the contexts it wants
)

// Block sizes we announce, in bytes.
const (
	blockMin       = 1
	blockPreferred = 4096
	blockMax       = block.MaxRequest
)

// transmissionFlags of an export under what was agreed. A read-only export does not offer what it would
// refuse.
func transmissionFlags(info ExportInfo, m Mode, contexts contextSet) uint16 {
	f := uint16(TransHasFlags | TransSendFlush | TransSendFUA | TransCanMultiConn | TransSendCache)
	if info.ReadOnly {
		f |= TransReadOnly
	} else {
		f |= TransSendTrim | TransSendWriteZeroes | TransSendFastZero
	}
	if info.Rotational {
		f |= TransRotational
	}
	if m != Simple {
		f |= TransSendDF
	}
	if m == Extended && contexts != 0 {
		f |= TransStatusPayload
	}
	return f
}

func appendGreeting(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, nbdMagic)
	b = binary.BigEndian.AppendUint64(b, optionMagic)
	return binary.BigEndian.AppendUint16(b, flagFixedNewstyle|flagNoZeroes)
}

// parseOption reads an option header from the first optionSize bytes of b; false on a wrong magic.
func parseOption(b []byte) (opt Option, length uint32, ok bool) {
	if len(b) < optionSize || binary.BigEndian.Uint64(b) != optionMagic {
		return 0, 0, false
	}
	return Option(binary.BigEndian.Uint32(b[8:])), binary.BigEndian.Uint32(b[12:]), true
}

// infoRequest is the payload of INFO and GO: the name lies in the bytes that were parsed.
type infoRequest struct {
	name  []byte
	wants uint32 // bit n: information type n was asked for; types above 31 are unknown and ignored
}

func (r infoRequest) has(t InfoType) bool { return r.wants&(1<<t) != 0 }

// parseInfoRequest reads the payload of INFO and GO. A payload that is too short, too long or whose
// name is longer than the protocol's strings may be is an error, whose text goes to the client.
func parseInfoRequest(b []byte) (infoRequest, error) {
	if len(b) < 6 {
		return infoRequest{}, fmt.Errorf("the payload has %d bytes; a name length and a count need at least 6",
			len(b))
	}
	n := binary.BigEndian.Uint32(b)
	if n > uint32(len(b)-6) {
		return infoRequest{}, fmt.Errorf("the export name is said to have %d bytes; the payload leaves room for %d",
			n, len(b)-6)
	}
	if n > nameMax {
		return infoRequest{}, fmt.Errorf("the export name has %d bytes; at most %d are allowed", n, nameMax)
	}
	r := infoRequest{name: b[4 : 4+n]}
	types := b[4+n:]
	count := int(binary.BigEndian.Uint16(types))
	types = types[2:]
	if len(types) != 2*count {
		return infoRequest{}, fmt.Errorf("%d information requests need %d bytes; the payload has %d",
			count, 2*count, len(types))
	}
	for ; len(types) > 0; types = types[2:] {
		if t := binary.BigEndian.Uint16(types); t < 32 {
			r.wants |= 1 << t
		}
	}
	return r, nil
}

// appendOptionReply appends a reply header that announces n bytes of data.
func appendOptionReply(b []byte, opt Option, typ OptionReply, n int) []byte {
	b = binary.BigEndian.AppendUint64(b, optionReplyMagic)
	b = binary.BigEndian.AppendUint32(b, uint32(opt))
	b = binary.BigEndian.AppendUint32(b, uint32(typ))
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

func appendServer(b []byte, e ExportInfo) []byte {
	b = appendOptionReply(b, OptList, RepServer, 4+len(e.Name)+len(e.Description))
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.Name)))
	b = append(b, e.Name...)
	return append(b, e.Description...)
}

// appendInfos appends the INFO replies that answer r, EXPORT and BLOCK_SIZE always. The order is
// fixed, so that a GO repeats an INFO to the byte.
func appendInfos(b []byte, opt Option, r infoRequest, e ExportInfo, trans uint16) []byte {
	b = appendOptionReply(b, opt, RepInfo, 12)
	b = binary.BigEndian.AppendUint16(b, uint16(InfoExport))
	b = binary.BigEndian.AppendUint64(b, uint64(e.Size))
	b = binary.BigEndian.AppendUint16(b, trans)
	if r.has(InfoName) {
		b = appendInfoString(b, opt, InfoName, e.Name)
	}
	if r.has(InfoDescription) {
		b = appendInfoString(b, opt, InfoDescription, e.Description)
	}
	b = appendOptionReply(b, opt, RepInfo, 14)
	b = binary.BigEndian.AppendUint16(b, uint16(InfoBlockSize))
	b = binary.BigEndian.AppendUint32(b, blockMin)
	b = binary.BigEndian.AppendUint32(b, blockPreferred)
	return binary.BigEndian.AppendUint32(b, blockMax)
}

func appendInfoString(b []byte, opt Option, t InfoType, s string) []byte {
	b = appendOptionReply(b, opt, RepInfo, 2+len(s))
	b = binary.BigEndian.AppendUint16(b, uint16(t))
	return append(b, s...)
}

func appendExportName(b []byte, e ExportInfo, trans uint16, zeros bool) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(e.Size))
	b = binary.BigEndian.AppendUint16(b, trans)
	if zeros {
		b = append(b, make([]byte, exportNameZeros)...)
	}
	return b
}
