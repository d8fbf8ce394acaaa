package nbd

import (
	"encoding/binary"
	"fmt"

	"vstor/dataplane/block"
)

// Transmission phase. All integers are big endian. This file is pure: bytes in, values out.
//
// Request, client to server, 28 bytes, followed by Length bytes of payload if Type is CmdWrite:
//
//	 0   4   magic 0x25609513
//	 4   2   command flags
//	 6   2   type
//	 8   8   cookie: opaque, comes back in the reply
//	16   8   offset, bytes
//	24   4   length, bytes
//
// Simple reply, server to client, 16 bytes, followed by the data of a CmdRead if Error is 0:
//
//	0   4   magic 0x67446698
//	4   4   error
//	8   8   cookie
const (
	requestMagic = 0x25609513
	replyMagic   = 0x67446698

	// RequestSize and ReplySize are the sizes in bytes of the two headers drawn above.
	RequestSize = 28
	ReplySize   = 16
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
	Length uint32 // bytes
}

// String is the printer of tools/dump.
func (r Request) String() string {
	return fmt.Sprintf("nbd request %s flags %#x cookie %#x offset %d length %d",
		r.Type, r.Flags, r.Cookie, r.Offset, r.Length)
}

// ParseRequest reads a header from the first RequestSize bytes of b. It is false if b is too short
// or the magic is wrong; every other field is for check to judge.
func ParseRequest(b []byte) (r Request, ok bool) {
	if len(b) < RequestSize || binary.BigEndian.Uint32(b) != requestMagic {
		return Request{}, false
	}
	return Request{
		Flags:  binary.BigEndian.Uint16(b[4:]),
		Type:   Command(binary.BigEndian.Uint16(b[6:])),
		Cookie: binary.BigEndian.Uint64(b[8:]),
		Offset: binary.BigEndian.Uint64(b[16:]),
		Length: binary.BigEndian.Uint32(b[24:]),
	}, true
}

// PutRequest writes a header into the first RequestSize bytes of b.
func PutRequest(b []byte, r Request) {
	binary.BigEndian.PutUint32(b, requestMagic)
	binary.BigEndian.PutUint16(b[4:], r.Flags)
	binary.BigEndian.PutUint16(b[6:], uint16(r.Type))
	binary.BigEndian.PutUint64(b[8:], r.Cookie)
	binary.BigEndian.PutUint64(b[16:], r.Offset)
	binary.BigEndian.PutUint32(b[24:], r.Length)
}

// PutReply writes a simple reply header into the first ReplySize bytes of b.
func PutReply(b []byte, e Errno, cookie uint64) {
	binary.BigEndian.PutUint32(b, replyMagic)
	binary.BigEndian.PutUint32(b[4:], uint32(e))
	binary.BigEndian.PutUint64(b[8:], cookie)
}

// ParseReply reads a simple reply header; false if b is too short or the magic is wrong.
func ParseReply(b []byte) (e Errno, cookie uint64, ok bool) {
	if len(b) < ReplySize || binary.BigEndian.Uint32(b) != replyMagic {
		return 0, 0, false
	}
	return Errno(binary.BigEndian.Uint32(b[4:])), binary.BigEndian.Uint64(b[8:]), true
}

// check judges a request against the export: OK, or the error its reply carries. Nothing of a
// request that fails is done; the payload of a write is skipped.
//
// The order is flags, permission, size, range, so that a request wrong in several ways gets the
// error a client can act on first.
func check(r Request, size int64, readOnly bool) Errno {
	allowed, writes := uint16(FlagFUA), false
	beyond := EINVAL
	switch r.Type {
	case CmdRead, CmdDisc:
	case CmdFlush:
		if r.Offset != 0 || r.Length != 0 {
			return EINVAL
		}
	case CmdTrim:
		writes = true
	case CmdWrite:
		writes, beyond = true, ENOSPC
	case CmdWriteZeroes:
		writes, beyond = true, ENOSPC
		allowed |= FlagNoHole
	default: // CACHE and BLOCK_STATUS are not negotiated
		return EINVAL
	}
	switch {
	case r.Flags&^allowed != 0:
		return EINVAL
	case writes && readOnly:
		return EPERM
	case (r.Type == CmdRead || r.Type == CmdWrite) && r.Length > block.MaxRequest:
		return EINVAL
	case r.Offset > uint64(size) || uint64(r.Length) > uint64(size)-r.Offset:
		return beyond
	}
	return OK
}
