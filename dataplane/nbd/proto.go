package nbd

import (
	"encoding/binary"
	"fmt"
)

// Transmission phase, what the client sends. All integers are big endian. This file is pure: bytes in,
// values out.
//
// Compact request, 28 bytes, followed by Length bytes of payload if Type is CmdWrite:
//
//	 0   4   magic 0x25609513
//	 4   2   command flags
//	 6   2   type
//	 8   8   cookie: opaque, comes back in the reply
//	16   8   offset, bytes
//	24   4   length, bytes
//
// Extended request, 32 bytes, followed by Length bytes of payload if FlagPayload is set; else Length is
// how much of the export it is about:
//
//	 0   4   magic 0x21e41c71
//	 4  20   flags, type, cookie, offset: as above
//	24   8   length, bytes
//
// Payload of an extended BLOCK_STATUS with FlagPayload: u64 length it is about, then the ids of the
// contexts that are wanted, u32 each.
const (
	requestMagic         = 0x25609513
	extendedRequestMagic = 0x21e41c71

	// RequestSize and ExtendedRequestSize are the sizes in bytes of the two headers drawn above.
	RequestSize         = 28
	ExtendedRequestSize = 32
)

// Mode is which headers a connection agreed on.
type Mode uint8

const (
	Simple     Mode = iota // compact requests, simple replies
	Structured             // compact requests, replies in chunks where that says more
	Extended               // extended requests and chunks
)

// Command is the type of a request.
type Command uint16

const (
	CmdRead        Command = 0
	CmdWrite       Command = 1
	CmdDisc        Command = 2
	CmdFlush       Command = 3
	CmdTrim        Command = 4
	CmdCache       Command = 5
	CmdWriteZeroes Command = 6
	CmdBlockStatus Command = 7
)

var commandNames = [...]string{"read", "write", "disc", "flush", "trim", "cache", "write-zeroes",
	"block-status"}

func (c Command) String() string {
	if int(c) < len(commandNames) {
		return commandNames[c]
	}
	return fmt.Sprintf("command %d", uint16(c))
}

// Command flags.
const (
	FlagFUA      = 1 << 0
	FlagNoHole   = 1 << 1
	FlagDF       = 1 << 2
	FlagReqOne   = 1 << 3
	FlagFastZero = 1 << 4
	FlagPayload  = 1 << 5 // extended requests: Length bytes of payload follow
)

// Errno is an error value of a reply.
type Errno uint32

const (
	OK        Errno = 0
	EPERM     Errno = 1
	EIO       Errno = 5
	ENOMEM    Errno = 12
	EINVAL    Errno = 22
	ENOSPC    Errno = 28
	EOVERFLOW Errno = 75
	ENOTSUP   Errno = 95
	ESHUTDOWN Errno = 108
)

func (e Errno) String() string {
	switch e {
	case OK:
		return "ok"
	case EPERM:
		return "EPERM"
	case EIO:
		return "EIO"
	case ENOMEM:
		return "ENOMEM"
	case EINVAL:
		return "EINVAL"
	case ENOSPC:
		return "ENOSPC"
	case EOVERFLOW:
		return "EOVERFLOW"
	case ENOTSUP:
		return "ENOTSUP"
	case ESHUTDOWN:
		return "ESHUTDOWN"
	}
	return fmt.Sprintf("error %d", uint32(e))
}

// Request is a parsed request header.
type Request struct {
	Flags  uint16
	Type   Command
	Cookie uint64
	Offset uint64 // bytes
	Length uint64 // bytes; a compact header has 32 bits for it
}

// String is for people.
func (r Request) String() string {
	return fmt.Sprintf("nbd request %s flags %#x cookie %#x offset %d length %d",
		r.Type, r.Flags, r.Cookie, r.Offset, r.Length)
}

// ParseRequest reads a compact header from the first RequestSize bytes of b. It is false if b is too
// short or the magic is wrong; every other field is for check to judge.
func ParseRequest(b []byte) (r Request, ok bool) {
	if len(b) < RequestSize || binary.BigEndian.Uint32(b) != requestMagic {
		return Request{}, false
	}
	r = parseRequest(b)
	r.Length = uint64(binary.BigEndian.Uint32(b[24:]))
	return r, true
}

// ParseExtendedRequest is ParseRequest for an extended header.
func ParseExtendedRequest(b []byte) (r Request, ok bool) {
	if len(b) < ExtendedRequestSize || binary.BigEndian.Uint32(b) != extendedRequestMagic {
		return Request{}, false
	}
	r = parseRequest(b)
	r.Length = binary.BigEndian.Uint64(b[24:])
	return r, true
}

func parseRequest(b []byte) Request {
	return Request{
		Flags:  binary.BigEndian.Uint16(b[4:]),
		Type:   Command(binary.BigEndian.Uint16(b[6:])),
		Cookie: binary.BigEndian.Uint64(b[8:]),
		Offset: binary.BigEndian.Uint64(b[16:]),
	}
}

// AppendRequest appends the header of r that belongs to mode m; a compact one cuts Length to 32 bits.
func AppendRequest(b []byte, m Mode, r Request) []byte {
	magic := uint32(requestMagic)
	if m == Extended {
		magic = extendedRequestMagic
	}
	b = binary.BigEndian.AppendUint32(b, magic)
	b = binary.BigEndian.AppendUint16(b, r.Flags)
	b = binary.BigEndian.AppendUint16(b, uint16(r.Type))
	b = binary.BigEndian.AppendUint64(b, r.Cookie)
	b = binary.BigEndian.AppendUint64(b, r.Offset)
	if m == Extended {
		return binary.BigEndian.AppendUint64(b, r.Length)
	}
	return binary.BigEndian.AppendUint32(b, uint32(r.Length))
}

// hasPayload reports whether payload follows the header.
func (r *Request) hasPayload(m Mode) bool {
	if m == Extended {
		return r.Flags&FlagPayload != 0 && r.Length > 0
	}
	return r.Type == CmdWrite && r.Length > 0
}
