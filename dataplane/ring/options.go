package ring

import (
	"math/bits"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
)

// IO says what carries a Loop's operations.
type IO uint8

const (
	IOAuto  IO = iota // io_uring, or the plain engine where io_uring is forbidden or lacks something
	IOUring           // io_uring, or an error
	IOPlain           // workers and epoll: system calls for each operation, a half to four fifths of the speed
)

// Options say what a Loop is made of. Zero values take the default.
type Options struct {
	// Name is for messages. Default "loop".
	Name string
	// IO chooses the engine. Default IOAuto.
	IO IO
	// CPUs are those that the loop's thread keeps to, by number. Default none: the kernel decides, see thread.go.
	CPUs []int
	// Spin lets the loop go round without a sleep while it has much to do (spin.go): for one that has a CPU to itself,
	// or as good as.
	Spin bool
	// Entries is the size of the submission queue; rounded up to a power of two. Four times as many
	// operations can be in the kernel at once, more wait in line. Default 1024.
	Entries int
	// Pool is where the pages of ReadV, WriteV, RecvV and SendV lie. It belongs to the loop once it
	// runs, and to the maker again after Stop. Required.
	Pool *buf.Pool
	// RecvBufs receive buffers of RecvBufSize bytes are shared by all sockets of the loop: RecvBufs is
	// rounded up to a power of two. Defaults 32 and 128 KiB.
	RecvBufs    int
	RecvBufSize int
	// InboxMax is how many posted messages may wait before posters block. Default 4096.
	InboxMax int
}

const (
	entriesMax  = 32768
	recvBufsMax = 32768
	// SlotsPerEntry operations may be in flight per entry of the submission queue: idle sockets keep
	// theirs for hours, so there must be more of them than one batch needs.
	SlotsPerEntry = 4
)

func (o *Options) ensureDefaults() {
	if o.Name == "" {
		o.Name = "loop"
	}
	if o.Entries == 0 {
		o.Entries = 1024
	}
	if o.RecvBufs == 0 {
		o.RecvBufs = 32
	}
	if o.RecvBufSize == 0 {
		o.RecvBufSize = 128 << 10
	}
	if o.InboxMax == 0 {
		o.InboxMax = 4096
	}
	o.Entries = ceilPow2(o.Entries)
	o.RecvBufs = ceilPow2(o.RecvBufs)
}

// Validate says what is wrong with the options, in the terms of who set them.
func (o *Options) Validate() error {
	switch {
	case o.Pool == nil:
		return errs.New(errs.Invalid, "ring: a loop needs a page pool")
	case o.Entries < 0 || o.Entries > entriesMax:
		return errs.New(errs.Invalid, "ring: %d submission entries; between 1 and %d would be right",
			o.Entries, entriesMax)
	case o.RecvBufs < 0 || o.RecvBufs > recvBufsMax:
		return errs.New(errs.Invalid, "ring: %d receive buffers; between 1 and %d would be right",
			o.RecvBufs, recvBufsMax)
	case o.RecvBufSize < 0 || o.RecvBufSize > 64<<20:
		return errs.New(errs.Invalid, "ring: receive buffers of %d bytes; at most 64 MiB would be right",
			o.RecvBufSize)
	case o.IO > IOPlain:
		return errs.New(errs.Invalid, "ring: there is no engine %d; IOAuto, IOUring or IOPlain would be right", o.IO)
	case o.InboxMax < 0:
		return errs.New(errs.Invalid, "ring: an inbox of %d messages; a positive number would be right",
			o.InboxMax)
	}
	return nil
}

// Memory is how many bytes outside the Go heap a loop with these options maps at most, its Pool's size apart and what
// that maps beyond it included: the plain engine maps one receive buffer and no rings.
func (o Options) Memory() int64 {
	o.ensureDefaults()
	return int64(o.RecvBufs)*int64(o.RecvBufSize) + scratchSize +
		int64(o.Entries)*sqeSize + int64(o.Entries)*SlotsPerEntry*cqeSize + buf.Spare
}

func ceilPow2(n int) int {
	if n <= 1 {
		return n
	}
	return 1 << bits.Len(uint(n-1))
}
