package buf

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

func mapAnon(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
}

func unmap(b []byte) error { return unix.Munmap(b) }

// Addr is the address of a run's first byte, for the kernel. The memory lies outside the Go heap and
// never moves.
func (p *Pool) Addr(s Seg) uintptr {
	return uintptr(unsafe.Pointer(&p.mem[int(s.Page)*PageSize+int(s.Off)]))
}

// AlignedBytes maps n bytes outside the Go heap, page aligned: for buffers that live as long as their
// owner. Free them with FreeAligned.
func AlignedBytes(n int) ([]byte, error) { return mapAnon((n + PageSize - 1) &^ (PageSize - 1)) }

// FreeAligned unmaps what AlignedBytes gave.
func FreeAligned(b []byte) error { return unmap(b[:cap(b)]) }
