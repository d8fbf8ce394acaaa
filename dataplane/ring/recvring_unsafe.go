package ring

import (
	"errors"
	"sync/atomic"
	"syscall"
	"unsafe"

	iouring "github.com/iceber/iouring-go/syscall"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
)

// recvGroup is the number of the only buffer group.
const recvGroup = 0

// recvRing is the receive buffers of a loop, which the kernel picks from when bytes have arrived and not
// before: a thousand idle sockets hold none.
//
//	ring   entries of (address, length, id); the tail, which the kernel watches, lies in the last two
//	       bytes of entry 0
//	mem    the buffers, id after id
type recvRing struct {
	mem   []byte
	ring  []byte
	size  int
	tail  uint16
	dirty bool
}

func (r *recvRing) register(fd, count, size int) (err error) {
	r.size = (size + buf.PageSize - 1) &^ (buf.PageSize - 1)
	if r.mem, err = buf.AlignedBytes(count * r.size); err != nil {
		return errs.Wrap(errs.IO, err, "ring: no memory for %d receive buffers of %d bytes", count, size)
	}
	if r.ring, err = buf.AlignedBytes(count * int(unsafe.Sizeof(bufEntry{}))); err != nil {
		return errs.Wrap(errs.IO, err, "ring: no memory for the ring of receive buffers")
	}
	reg := bufReg{addr: uint64(uintptr(unsafe.Pointer(&r.ring[0]))), entries: uint32(count), group: recvGroup}
	if err := iouring.IOURingRegister(fd, registerPbufRing, unsafe.Pointer(&reg), 1); err != nil {
		if errors.Is(err, syscall.EINVAL) {
			return missing("REGISTER_PBUF_RING (Linux 5.19)")
		}
		return errs.Wrap(errs.Unsupported, err, "ring: cannot register receive buffers")
	}
	for id := range count {
		r.giveBackOf(uint16(id), count)
	}
	r.publish()
	return nil
}

func (r *recvRing) unregister(fd int) {
	if r.ring != nil && fd >= 0 {
		reg := bufReg{group: recvGroup}
		_ = iouring.IOURingRegister(fd, unregisterPbufRing, unsafe.Pointer(&reg), 1)
	}
	for _, m := range [...][]byte{r.mem, r.ring} {
		if m != nil {
			_ = buf.FreeAligned(m)
		}
	}
	*r = recvRing{}
}

// bytes is the first n bytes of buffer id.
func (r *recvRing) bytes(id uint16, n int) []byte {
	off := int(id) * r.size
	return r.mem[off : off+n : off+n]
}

// giveBack offers buffer id to the kernel again; it sees it at the next publish.
func (r *recvRing) giveBack(id uint16) { r.giveBackOf(id, len(r.mem)/r.size) }

func (r *recvRing) giveBackOf(id uint16, count int) {
	entries := unsafe.Slice((*bufEntry)(unsafe.Pointer(&r.ring[0])), count)
	e := &entries[int(r.tail)&(count-1)]
	// Not the whole entry: the last field of entry 0 is the tail.
	e.addr = uint64(uintptr(unsafe.Pointer(&r.mem[int(id)*r.size])))
	e.len = uint32(r.size)
	e.bid = id
	r.tail++
	r.dirty = true
}

// publish shows the kernel what was given back. The tail is 16 bits wide and Go has no atomic of that
// width: it is stored together with the id in front of it, as one little-endian word.
func (r *recvRing) publish() {
	if !r.dirty {
		return
	}
	r.dirty = false
	first := (*bufEntry)(unsafe.Pointer(&r.ring[0]))
	word := (*uint32)(unsafe.Pointer(&first.bid))
	atomic.StoreUint32(word, uint32(first.bid)|uint32(r.tail)<<16)
}
