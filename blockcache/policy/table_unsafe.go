package policy

import (
	"unsafe"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
)

// NewTable maps n zeroed records outside the Go heap: tables are as long as the worst case wants, and memory comes
// only with use. T holds no pointers. Free it with FreeTable.
func NewTable[T any](n int) ([]T, error) {
	var t T
	b, err := buf.AlignedBytes(max(n, 1) * int(unsafe.Sizeof(t)))
	if err != nil {
		return nil, errs.Wrap(errs.IO, err, "blockcache: no memory for a table of %d records", n)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), n), nil
}

// FreeTable unmaps what NewTable gave; nil is nothing.
func FreeTable[T any](s []T) {
	if len(s) == 0 {
		return
	}
	n := (len(s)*int(unsafe.Sizeof(s[0])) + buf.PageSize - 1) &^ (buf.PageSize - 1)
	err := buf.FreeAligned(unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), n))
	invariants.Assert(err == nil, "blockcache: a table of %d records cannot be unmapped: %v", len(s), err)
}

// Of the sizes below EntryBytes is the sum.
const (
	_ = uint(entrySize - unsafe.Sizeof(entry{}))
	_ = uint(unsafe.Sizeof(entry{}) - entrySize)
	_ = uint(ghostSize - unsafe.Sizeof(ghost{}))
	_ = uint(unsafe.Sizeof(ghost{}) - ghostSize)
)
