package buf

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapAnon maps n bytes in single pages, none of which is there before it is touched. Big pages would be mapped in no
// time; but the first touch of one zeroes all of it, which on a guest whose host gives it the memory only then takes
// 5 ms (measured), and who touches a pool, or a table of a cache, first is a loop. See BigBytes and Stretch.
func mapAnon(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
}

// bigPage is what the processor maps at once, beyond single pages.
const bigPage = 2 << 20

// JoinPages asks the kernel for physically contiguous memory behind a run, now: for what goes to a drive in long
// writes. A drive is told of each contiguous piece apart, and a virtio drive without indirect descriptors takes 256
// pieces in all: there a write of 1 MiB in scattered pages keeps all others waiting. It is a wish: where the memory
// has no such pieces left, or the machine forbids them (transparent_hugepage), single pages come. Nothing is
// reserved for it. REQUIRES: the run is new; nobody uses it yet.
func (p *Pool) JoinPages(s Seg) {
	// Outwards to whole pieces: neighbours may share one.
	first := int(s.Page) * PageSize &^ (bigPage - 1)
	end := min((int(s.Page)*PageSize+int(s.Off+s.Len)+bigPage-1)&^(bigPage-1), len(p.mem))
	_ = unix.Madvise(p.mem[first:end], unix.MADV_HUGEPAGE)
	b := p.SegBytes(s)
	for i := 0; i < len(b); i += PageSize {
		b[i] = 0
	}
}

func unmap(b []byte) error { return unix.Munmap(b) }

// BigBytes maps n bytes outside the Go heap, in big pages as far as there are such (see JoinPages): for what goes to a
// drive in long writes and is first touched by who can wait for it, which is no loop. n is rounded up to pages, and
// nothing is taken before it is touched. Free them with FreeBig.
func BigBytes(n int) ([]byte, error) {
	b, err := mapPieces(n)
	if err != nil {
		return nil, err
	}
	if whole := len(b) &^ (bigPage - 1); whole > 0 { // not the rest: a few bytes there would take a page of it
		_ = unix.Madvise(b[:whole], unix.MADV_HUGEPAGE)
	}
	return b, nil
}

// mapPieces maps n bytes, rounded up to pages, from a boundary of big pages on, in single pages as mapAnon does. Unmap
// them with FreeBig.
func mapPieces(n int) ([]byte, error) {
	n = (n + PageSize - 1) &^ (PageSize - 1)
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(n)+bigPage, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*byte)(fromBoundary(p, uintptr(n))), n), nil
}

// fromBoundary gives all of bigPage+n mapped bytes back but n from the first boundary on: big pages lie on such.
func fromBoundary(p unsafe.Pointer, n uintptr) unsafe.Pointer {
	before := -uintptr(p) & (bigPage - 1)
	start := unsafe.Add(p, before)
	if before > 0 {
		_ = unix.MunmapPtr(p, before)
	}
	_ = unix.MunmapPtr(unsafe.Add(start, n), bigPage-before)
	return start
}

// FreeBig unmaps what BigBytes and mapPieces gave.
func FreeBig(b []byte) error {
	return unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b)))
}

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
