package dio

import (
	"syscall"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ring"
)

// BlockSize is what all offsets, lengths and addresses are multiples of, in bytes.
const BlockSize = buf.PageSize

// File is a drive or a preallocated file that is read and written past the page cache. All offsets,
// lengths and memory addresses are multiples of 4096; memory lies outside the Go heap or is page
// aligned and pinned by the call.
//
// The blocking half may be called from any goroutine but a loop's; the other half from loop l only,
// where op ends with the number of bytes moved, always all of them, or a negated errno. A range that is
// not aligned or not within Size is errs.Invalid, or -EINVAL, and touches nothing.
type File interface {
	// ReadAt fills p from off. A read past Size is an error, never short.
	ReadAt(p []byte, off int64) error
	// WriteAt writes all of p at off. It is on the drive's side when it returns, and survives power
	// loss only after Sync.
	WriteAt(p []byte, off int64) error
	// Sync makes every write that returned before the call survive power loss (fdatasync).
	Sync() error
	// Size in bytes; it never changes.
	Size() int64
	// Close ends the use of the file. Nothing may be under way.
	Close() error

	// ReadV fills the pages of v from off; WriteV writes them. v may be reused when the call returns,
	// the pages only after op ended.
	ReadV(l *ring.Loop, op *ring.Op, v *buf.Vec, off int64)
	WriteV(l *ring.Loop, op *ring.Op, v *buf.Vec, off int64)
	// Datasync is Sync for a loop: it covers the writes that ended before it was called. op ends
	// with 0.
	Datasync(l *ring.Loop, op *ring.Op)
}

// AlignedBuf is n bytes, page aligned, outside the Go heap, for the blocking half. Free it with FreeBuf.
func AlignedBuf(n int) ([]byte, error) {
	b, err := buf.AlignedBytes(max(n, 1))
	if err != nil {
		return nil, errs.Wrap(errs.IO, err, "dio: no memory for a buffer of %d bytes", n)
	}
	return b[:n], nil
}

// FreeBuf gives back what AlignedBuf gave.
func FreeBuf(b []byte) error { return buf.FreeAligned(b) }

// checkRange says what is wrong with an access to a file of the given size.
func checkRange(size, off int64, n int) error {
	if off%BlockSize != 0 || n%BlockSize != 0 {
		return errs.New(errs.Invalid, "dio: %d bytes at %d; direct IO needs multiples of %d", n, off, BlockSize)
	}
	if off < 0 || off > size || int64(n) > size-off {
		return errs.New(errs.Invalid, "dio: %d bytes at %d lie outside of a file of %d bytes", n, off, size)
	}
	return nil
}

const einval = -int32(syscall.EINVAL)

// inRange is checkRange for a loop; it ends op if the range is wrong.
func inRange(l *ring.Loop, op *ring.Op, size, off int64, n int) bool {
	if off%BlockSize == 0 && n%BlockSize == 0 && off >= 0 && off <= size && int64(n) <= size-off {
		return true
	}
	l.Defer(op, einval)
	return false
}
