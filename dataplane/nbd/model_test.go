package nbd_test

import (
	"encoding/binary"
	"fmt"
	"slices"

	"vstor/dataplane/block"
	"vstor/dataplane/nbd"
	"vstor/dataplane/nbd/nbdtest"
)

// flat is what a device of bytes should be: an array, and the state of each of its blocks. It goes by the
// protocol alone and shares no code with the server.
type flat struct {
	mode   nbd.Mode
	data   []byte
	states []block.ExtentState
}

const blk = 4096

func newFlat(m nbd.Mode, size int) *flat {
	f := &flat{mode: m, data: make([]byte, size), states: make([]block.ExtentState, size/blk)}
	for i := range f.states {
		f.states[i] = block.Hole | block.ReadsZero
	}
	return f
}

// payload is how many bytes follow a header; false: the server hangs up.
func (f *flat) payload(q nbd.Request) (n uint64, ok bool) {
	if f.mode != nbd.Extended {
		if q.Type == nbd.CmdWrite {
			return q.Length, true
		}
		return 0, true
	}
	if q.Flags&nbd.FlagPayload == 0 {
		return 0, true
	}
	return q.Length, q.Length <= 32<<20
}

// control reads what a BLOCK_STATUS has behind its header, if it is short enough to be read at all.
func (f *flat) control(q nbd.Request) bool {
	return f.mode == nbd.Extended && q.Type == nbd.CmdBlockStatus && q.Flags&nbd.FlagPayload != 0 && q.Length <= 16
}

// verdict is the error a request is answered with; both contexts are selected where there are any.
func (f *flat) verdict(q nbd.Request, payload []byte) nbd.Errno {
	flags, ok := map[nbd.Command]uint16{nbd.CmdRead: 1, nbd.CmdWrite: 1, nbd.CmdFlush: 1, nbd.CmdTrim: 1,
		nbd.CmdWriteZeroes: 1 | 2 | 16, nbd.CmdCache: 1, nbd.CmdBlockStatus: 1 | 8}[q.Type]
	if f.mode != nbd.Simple && q.Type == nbd.CmdRead {
		flags |= nbd.FlagDF
	}
	size, length := uint64(len(f.data)), q.Length
	if f.mode == nbd.Extended {
		switch q.Type {
		case nbd.CmdWrite:
			flags |= nbd.FlagPayload
			ok = q.Flags&nbd.FlagPayload != 0
		case nbd.CmdBlockStatus:
			flags |= nbd.FlagPayload
			if q.Flags&nbd.FlagPayload != 0 {
				var ids []uint32
				if ok = f.control(q) && q.Length%4 == 0; ok && len(payload) > 8 {
					for p := payload[8:]; len(p) > 0; p = p[4:] {
						ids = append(ids, binary.BigEndian.Uint32(p))
					}
					length = binary.BigEndian.Uint64(payload)
				}
				ok = slices.Contains([]string{"[1]", "[2]", "[1 2]", "[2 1]"}, fmt.Sprint(ids))
			}
		}
	}
	inside := q.Offset <= size && length <= size-q.Offset
	switch {
	case !ok || q.Flags&^flags != 0:
		return nbd.EINVAL
	case q.Type == nbd.CmdFlush && (q.Offset != 0 || q.Length != 0):
		return nbd.EINVAL
	case q.Type == nbd.CmdBlockStatus && (f.mode == nbd.Simple || length == 0):
		return nbd.EINVAL
	case q.Type == nbd.CmdWrite && q.Length > 32<<20:
		return nbd.EINVAL
	case q.Type == nbd.CmdRead && q.Length > 32<<20:
		if f.mode == nbd.Simple {
			return nbd.EINVAL
		}
		return nbd.EOVERFLOW
	case !inside && (q.Type == nbd.CmdWrite || q.Type == nbd.CmdWriteZeroes):
		return nbd.ENOSPC
	case !inside:
		return nbd.EINVAL
	}
	return nbd.OK
}

// apply does what a request that is not refused does.
func (f *flat) apply(q nbd.Request, payload []byte) {
	off, end := q.Offset, q.Offset+q.Length
	whole := func(set block.ExtentState) {
		for b := (off + blk - 1) / blk; (b+1)*blk <= end; b++ {
			f.states[b] = set
		}
	}
	switch q.Type {
	case nbd.CmdWrite:
		copy(f.data[off:], payload)
		for b := off / blk; b*blk < end && q.Length > 0; b++ {
			f.states[b] = 0
		}
	case nbd.CmdWriteZeroes:
		clear(f.data[off:end])
		if whole(block.Hole | block.ReadsZero); q.Flags&nbd.FlagNoHole != 0 {
			whole(block.ReadsZero)
		}
	case nbd.CmdTrim:
		for b := (off + blk - 1) / blk; (b+1)*blk <= end; b++ {
			clear(f.data[b*blk : (b+1)*blk])
		}
		whole(block.Hole | block.ReadsZero)
	}
}

// told checks extents against the states from off on: in order, merged, cut to length.
func (f *flat) told(off, length uint64, status map[uint32][]nbdtest.Extent) bool {
	for id, x := range status {
		at := off
		for _, e := range x {
			for end := at + e.Len; at < end; at = min(end, at/blk*blk+blk) {
				s := f.states[at/blk]
				if id == 2 {
					s = ^s & block.Hole
				}
				if uint64(s) != e.Status {
					return false
				}
			}
		}
		if at > off+length {
			return false
		}
	}
	return true
}
