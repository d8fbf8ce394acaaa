package buf

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// bigPage is what the processor maps at once, beyond single pages.
const bigPage = 2 << 20

// mapAnon maps n bytes. For what is long it asks for big pages, which lie contiguous in physical memory. A drive is
// told of each contiguous piece apart, and a virtio drive without indirect descriptors takes 256 pieces in all: there a
// write of 1 MiB from scattered pages keeps all others waiting. It is a wish: where the memory has no such pieces left,
// or the machine forbids them (transparent_hugepage), single pages come. Nothing is reserved, and nothing taken before
// it is touched; then it is a big page at a time.
func mapAnon(n int) ([]byte, error) {
	size := n
	if n >= bigPage {
		size = (n + bigPage - 1) &^ (bigPage - 1) // such a mapping begins on a boundary, since Linux 6.7
	}
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	if n >= bigPage {
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	}
	return b[:n], nil
}

// unmap gives back what mapAnon gave.
func unmap(b []byte) error { return unix.Munmap(b[:cap(b)]) }

// Addr is the address of a run's first byte, for the kernel. The memory lies outside the Go heap and
// never moves.
func (p *Pool) Addr(s Seg) uintptr {
	return uintptr(unsafe.Pointer(&p.mem[int(s.Page)*PageSize+int(s.Off)]))
}

// AlignedBytes maps n bytes outside the Go heap, page aligned: for buffers that live as long as their
// owner. Free them with FreeAligned.
func AlignedBytes(n int) ([]byte, error) { return mapAnon((n + PageSize - 1) &^ (PageSize - 1)) }

// FreeAligned unmaps what AlignedBytes gave.
func FreeAligned(b []byte) error { return unmap(b) }
