package dio

import (
	"sync"
	"syscall"
	"time"

	"vstor/dataplane/errs"
)

// Mem is a drive in memory, sparse, for tests. It has a volatile cache like a real one: a write is in
// there when it ended, and safe from power loss after the next Sync that began later. Any goroutine and
// any number of loops may use it at once.
//
// What a test reads after CrashClone is the nastiest that a drive may do, and what it reads without a
// crash is what any drive must do.
type Mem struct {
	size int64

	mu       sync.Mutex
	durable  sparse
	dirty    map[int64]*dirtyBlock // by block number
	seq      uint64                // of the last write
	inflight map[*memOp]struct{}   // writes of loops that did not end
	idle     []*memOp
	delay    time.Duration
	closed   bool
}

// dirtyBlock is what was written to a block since it was last synced, oldest first. A cache may write back
// any of them, so the older ones are kept, up to a bound.
type dirtyBlock struct {
	versions []version
}

type version struct {
	seq  uint64
	data *[BlockSize]byte
}

const versionsMax = 4

// NewMem makes a drive of size bytes, all zeros. size is a positive multiple of 4096.
func NewMem(size int64) *Mem {
	if size <= 0 || size%BlockSize != 0 {
		panic("BUG: dio: size of a Mem is no positive multiple of 4096")
	}
	return &Mem{size: size, durable: sparse{}, dirty: map[int64]*dirtyBlock{}, inflight: map[*memOp]struct{}{}}
}

// SetDelay makes every operation from now on take d.
func (m *Mem) SetDelay(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.delay = d
}

func (m *Mem) Size() int64 { return m.size }

// Close refuses all later use of this handle; clones are drives of their own.
func (m *Mem) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// enter waits out the delay and takes the lock.
func (m *Mem) enter() error {
	m.mu.Lock()
	if d := m.delay; d > 0 {
		m.mu.Unlock()
		time.Sleep(d)
		m.mu.Lock()
	}
	if m.closed {
		m.mu.Unlock()
		return errs.Wrap(errs.Closed, syscall.EBADF, "dio: the memory drive is closed")
	}
	return nil
}

func (m *Mem) ReadAt(p []byte, off int64) error {
	if err := checkRange(m.size, off, len(p)); err != nil {
		return err
	}
	if err := m.enter(); err != nil {
		return err
	}
	defer m.mu.Unlock()
	m.read(p, off)
	return nil
}

func (m *Mem) WriteAt(p []byte, off int64) error {
	if err := checkRange(m.size, off, len(p)); err != nil {
		return err
	}
	if err := m.enter(); err != nil {
		return err
	}
	defer m.mu.Unlock()
	m.write(p, off)
	return nil
}

func (m *Mem) Sync() error {
	m.mu.Lock()
	upTo := m.seq
	m.mu.Unlock()
	if err := m.enter(); err != nil {
		return err
	}
	defer m.mu.Unlock()
	m.flush(upTo)
	return nil
}

// read copies what a reader sees now. REQUIRES: mu, as those below.
func (m *Mem) read(p []byte, off int64) {
	for b := off / BlockSize; len(p) > 0; b++ {
		switch src := m.latest(b); src {
		case nil:
			clear(p[:BlockSize])
		default:
			copy(p, src[:])
		}
		p = p[BlockSize:]
	}
}

func (m *Mem) latest(b int64) *[BlockSize]byte {
	if d := m.dirty[b]; d != nil {
		return d.versions[len(d.versions)-1].data
	}
	if old := m.durable.block(b); old != nil {
		return (*[BlockSize]byte)(old)
	}
	return nil
}

// write puts p into the cache.
func (m *Mem) write(p []byte, off int64) {
	m.seq++
	for b := off / BlockSize; len(p) > 0; b++ {
		m.writeBlock(b, (*[BlockSize]byte)(p))
		p = p[BlockSize:]
	}
}

func (m *Mem) writeBlock(b int64, data *[BlockSize]byte) {
	d := m.dirty[b]
	if d == nil {
		d = &dirtyBlock{}
		m.dirty[b] = d
	}
	fresh := *data
	if len(d.versions) == versionsMax {
		d.versions = append(d.versions[:0], d.versions[1:]...)
	}
	d.versions = append(d.versions, version{m.seq, &fresh})
}

// flush makes the writes up to a sequence durable, and leaves younger ones in the cache.
func (m *Mem) flush(upTo uint64) {
	for b, d := range m.dirty {
		n := 0
		for n < len(d.versions) && d.versions[n].seq <= upTo {
			n++
		}
		if n == 0 {
			continue
		}
		m.durable.put(b, d.versions[n-1].data[:])
		if n == len(d.versions) {
			delete(m.dirty, b)
			continue
		}
		d.versions = append(d.versions[:0], d.versions[n:]...)
	}
}

// Used is how many bytes of memory the drive's content takes.
func (m *Mem) Used() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := int64(len(m.durable)) * chunkSize
	for _, d := range m.dirty {
		n += int64(len(d.versions)) * BlockSize
	}
	return n
}
