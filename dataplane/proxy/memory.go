package proxy

import (
	"context"
	"sync"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
	"vstor/dataplane/layout"
)

// fragBuf holds one fragment on its way to an ASD: headroom and payload outside the Go heap, the
// checksums of its regions, and what it says of its object. A slow ASD may read any of it for long, so
// each fragment has its own.
type fragBuf struct {
	mem  []byte
	sums []uint64
	desc []byte // of capacity layout.DescMax
}

// memory is every fragment buffer there is: taken when first needed, kept, bounded by
//
//	ChunkBuffers * n   for chunks that are coded or written; a lease stands for n of them
//	+ n                for fragments that a slow ASD still holds when their put has gone on (spare)
//	+ 1                for repair
//
// where n is the largest k+m of the preset. They lie in one mapping, so that each is a few contiguous pieces for the
// drive that it goes to (see buf); what was never needed of that takes no memory.
type memory struct {
	fragLen int // payload bytes of a buffer
	perLine int // n
	max     int

	tokens chan struct{} // one per lease that may be out

	mu    sync.Mutex
	slab  []byte     // guarded by mu: all of them; nil: none was needed yet
	free  []*fragBuf // guarded by mu
	made  int        // guarded by mu
	spare int        // guarded by mu: buffers that laggards may still take over
}

func newMemory(chunks, n, fragLen int) *memory {
	m := &memory{fragLen: fragLen, perLine: n, max: chunks*n + n + 1, spare: n,
		tokens: make(chan struct{}, chunks)}
	for range chunks {
		m.tokens <- struct{}{}
	}
	return m
}

func (m *memory) bytes() int64 { return int64(m.max) * int64(m.size()) }

// size is that of a buffer.
func (m *memory) size() int { return layout.FragHeaderSize + m.fragLen }

// get takes a buffer. The caller's lease, or its being the one repair, says that there is one.
func (m *memory) get() (*fragBuf, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.free); n > 0 {
		fb := m.free[n-1]
		m.free = m.free[:n-1]
		return fb, nil
	}
	invariants.Assert(m.made < m.max, "proxy: all %d fragment buffers are out", m.max)
	if m.slab == nil {
		slab, err := buf.BigBytes(m.max * m.size())
		if err != nil {
			return nil, errs.Wrap(errs.IO, err, "proxy: cannot map %d fragment buffers", m.max)
		}
		m.slab = slab
	}
	at := m.made * m.size()
	m.made++
	return &fragBuf{mem: m.slab[at : at+m.size() : at+m.size()], sums: make([]uint64, layout.Regions(m.fragLen)),
		desc: make([]byte, 0, layout.DescMax)}, nil
}

func (m *memory) put(fb *fragBuf) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free = append(m.free, fb)
}

// out is the number of buffers that are not free.
func (m *memory) out() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.made - len(m.free)
}

// unmap gives the memory back. REQUIRES: out is 0.
func (m *memory) unmap() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.slab == nil {
		return nil
	}
	invariants.Assert(m.made == len(m.free), "proxy: %d fragment buffers are out and would be gone", m.made-len(m.free))
	err := buf.FreeBig(m.slab)
	m.slab, m.free, m.made = nil, nil, 0
	if err != nil {
		return errs.Wrap(errs.IO, err, "proxy: unmap")
	}
	return nil
}

// lease is the right of one chunk to n buffers. When the put goes on without the laggards, their buffers
// pass to the spare if that has room, and the next chunk can start; if it has not, the lease
// stays out until they return: back-pressure, for a backend whose ASDs all hang.
type lease struct {
	mem     *memory
	out     int // guarded by mem.mu
	onSpare int // guarded by mem.mu: how many of out are the spare's
	passed  bool
}

// lease waits for a token. Errors: Canceled.
func (m *memory) lease(ctx context.Context) (*lease, error) {
	select {
	case <-m.tokens:
		return &lease{mem: m}, nil
	case <-ctx.Done():
		return nil, errs.Wrap(errs.Canceled, ctx.Err(), "proxy: waiting for a chunk buffer")
	}
}

// tryLease is lease that does not wait; nil if there is no token.
func (m *memory) tryLease() *lease {
	select {
	case <-m.tokens:
		return &lease{mem: m}
	default:
		return nil
	}
}

func (l *lease) get() (*fragBuf, error) {
	fb, err := l.mem.get()
	if err == nil {
		l.mem.mu.Lock()
		l.out++
		invariants.Assert(l.out <= l.mem.perLine, "proxy: a chunk takes %d buffers of %d", l.out, l.mem.perLine)
		l.mem.mu.Unlock()
	}
	return fb, err
}

func (l *lease) put(fb *fragBuf) {
	m := l.mem
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free = append(m.free, fb)
	l.out--
	switch {
	case l.onSpare > 0:
		l.onSpare--
		m.spare++
	case l.passed && l.out == 0:
		m.tokens <- struct{}{} // never blocks: the channel holds every token
	}
}

// pass says that the chunk takes no more buffers. Call it once.
func (l *lease) pass() {
	m := l.mem
	m.mu.Lock()
	defer m.mu.Unlock()
	invariants.Assert(!l.passed, "proxy: a chunk's lease was passed twice")
	l.passed = true
	switch {
	case l.out == 0:
		m.tokens <- struct{}{}
	case m.spare >= l.out:
		m.spare -= l.out
		l.onSpare = l.out
		m.tokens <- struct{}{}
	}
}
