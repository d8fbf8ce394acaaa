package nbd

import (
	"vstor/dataplane/block"
	"vstor/dataplane/buf"
)

// terms is what a connection agreed on and what its export is: all that a request is judged by. Pure.
type terms struct {
	size     int64 // bytes
	readOnly bool
	mode     Mode
	contexts contextSet // selected for this export
}

// reason is why a request failed, as a number: requests carry it without a pointer.
type reason uint8

const (
	whyNot reason = iota
	whyCommand
	whyFlags
	whyReadOnly
	whyFlush
	whyTooLong
	whyRange
	whyNoContext
	whyNothing
	whyContexts
	whyPayload
	whyNoPayload
	whySlowZero
	whyDevice
	whyInvalid
	whyFull
	whyRefused
	whyClosed
)

// reasonMax bounds the sentences below, in bytes.
const reasonMax = 120

var reasons = [...]string{
	whyNot:       "",
	whyCommand:   "this server does not know the command",
	whyFlags:     "the command does not take one of the flags that are set",
	whyReadOnly:  "the export is read-only",
	whyFlush:     "FLUSH has neither offset nor length: both must be 0",
	whyTooLong:   "READ and WRITE carry at most 32 MiB each: ask for less at once",
	whyRange:     "the range ends behind the end of the export",
	whyNoContext: "no metadata context was selected for this export: SET_META_CONTEXT comes before GO",
	whyNothing:   "BLOCK_STATUS needs a range of at least one byte",
	whyContexts:  "the payload must be a length and the ids of selected contexts, each once",
	whyPayload:   "the command takes no payload",
	whyNoPayload: "WRITE must set the payload flag: its data follows the header",
	whySlowZero:  "zeroing this range is not faster than writing zeros",
	whyDevice:    "the server could not do it: an input/output error",
	whyInvalid:   "the device does not do that",
	whyFull:      "space lacks on the server",
	whyRefused:   "the device refuses it",
	whyClosed:    "the server is shutting down",
}

func (w reason) String() string { return reasons[w] }

// check judges a request: OK, or the error its reply carries and why. Nothing of a request that fails is
// done; its payload is skipped.
//
// The order is command, flags, permission, size, range, so that a request wrong in several ways gets the
// error a client can act on first. FUA is allowed on everything: clients are known to set it.
func (t *terms) check(q *Request) (Errno, reason) {
	allowed, writes, beyond := uint16(FlagFUA), false, EINVAL
	switch q.Type {
	case CmdRead:
		if t.mode != Simple {
			allowed |= FlagDF
		}
		if q.Length > block.MaxRequest && q.Flags&^allowed == 0 {
			return t.readTooLong(), whyTooLong
		}
	case CmdWrite:
		writes, beyond = true, ENOSPC
		if t.mode == Extended {
			if q.Flags&FlagPayload == 0 {
				return EINVAL, whyNoPayload
			}
			allowed |= FlagPayload
		}
	case CmdFlush:
		if q.Offset != 0 || q.Length != 0 {
			return EINVAL, whyFlush
		}
	case CmdTrim:
		writes = true
	case CmdCache:
	case CmdWriteZeroes:
		writes, beyond = true, ENOSPC
		allowed |= FlagNoHole | FlagFastZero
	case CmdBlockStatus:
		allowed |= FlagReqOne
		if t.mode == Extended && t.contexts != 0 {
			allowed |= FlagPayload
		}
	case CmdDisc:
	default:
		return EINVAL, whyCommand
	}
	switch {
	case t.mode == Extended && q.Flags&FlagPayload&^allowed != 0:
		return EINVAL, whyPayload
	case q.Flags&^allowed != 0:
		return EINVAL, whyFlags
	case writes && t.readOnly:
		return EPERM, whyReadOnly
	case q.Type == CmdWrite && q.Length > block.MaxRequest:
		return EINVAL, whyTooLong
	case q.Type == CmdBlockStatus && t.contexts == 0:
		return EINVAL, whyNoContext
	case q.Type == CmdBlockStatus && q.Length == 0:
		return EINVAL, whyNothing
	case q.Offset > uint64(t.size) || q.Length > uint64(t.size)-q.Offset:
		return beyond, whyRange
	case q.Flags&FlagFastZero != 0 && q.Length > rangeStep && (q.Offset|q.Length)%buf.PageSize != 0:
		// Of several pieces, which must all be fast or none be done: only whole blocks surely are.
		return ENOTSUP, whySlowZero
	}
	return OK, whyNot
}

// readTooLong: the error for reads that would take several replies exists with chunks only.
func (t *terms) readTooLong() Errno {
	if t.mode == Simple {
		return EINVAL
	}
	return EOVERFLOW
}
