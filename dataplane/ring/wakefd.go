package ring

import (
	"sync"

	"golang.org/x/sys/unix"
)

// wakeFD is the eventfd that ends a sleep. A poster that has decided to write may be preempted until the
// loop is gone and the number belongs to somebody's file: so it writes under a lock that the close takes.
type wakeFD struct {
	armed    bool // uring's: a read of it is in the kernel
	shutting bool // uring's

	mu sync.Mutex
	fd int
}

func (w *wakeFD) set(fd int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fd = fd
}

func (w *wakeFD) write() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd < 0 {
		return
	}
	one := [8]byte{0: 1}
	// It cannot be full: the loop would have to be woken 2^64 times in one sleep.
	_, _ = unix.Write(w.fd, one[:])
}

func (w *wakeFD) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd >= 0 {
		_ = unix.Close(w.fd)
		w.fd = -1
	}
}
