package link

import (
	"math/bits"

	"vstor/dataplane/ring"
)

// Hub is what the connections of one loop have in common. Its methods are the loop's but for NewHub; Counts
// may be read by anybody.
type Hub struct {
	Counts Counts

	loop    *ring.Loop
	max     int64
	held    int64
	stashes [][]byte // free
}

const (
	stashMin     = 4 << 10 // bytes; stashes are powers of two
	stashesKept  = 8       // free ones
	stashKeptMax = 256 << 10
)

// ConnMemory is what a connection may hold on the Go heap, in bytes: its state with a header and body that
// came in parts, and the arrays of its scatter lists.
const ConnMemory = 4096 + 3*batchSegs*12 + 2048

// NewHub makes a hub. Any goroutine, before or after the loop starts.
func NewHub(l *ring.Loop, o HubOptions) *Hub {
	if o.StashBytes <= 0 {
		o.StashBytes = defaultStash
	}
	return &Hub{loop: l, max: o.StashBytes}
}

// Memory is the most that the connections of a hub hold besides the loop's pool, in bytes.
func (o HubOptions) Memory(conns int) int64 {
	if o.StashBytes <= 0 {
		o.StashBytes = defaultStash
	}
	return o.StashBytes + stashesKept*stashKeptMax + int64(conns)*ConnMemory
}

// Stashed is how many bytes stalled connections hold.
func (h *Hub) Stashed() int64 { return h.held }

// getStash is a buffer of n bytes, or nil beyond the bound.
func (h *Hub) getStash(n int) []byte {
	size := max(stashMin, 1<<bits.Len(uint(n-1)))
	if h.held+int64(size) > h.max {
		return nil
	}
	h.held += int64(size)
	for i, b := range h.stashes {
		if cap(b) == size {
			last := len(h.stashes) - 1
			h.stashes[i] = h.stashes[last]
			h.stashes = h.stashes[:last]
			return b[:n]
		}
	}
	return make([]byte, n, size)
}

func (h *Hub) putStash(b []byte) {
	h.held -= int64(cap(b))
	if len(h.stashes) < stashesKept && cap(b) <= stashKeptMax {
		h.stashes = append(h.stashes, b)
	}
}
