package store

import (
	"context"
	"sync"

	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// putting is a put under way, with all the memory that it needs: it is used again. It belongs to the
// goroutine that calls PutThen, from post on to the committer.
type putting struct {
	op
	s       *Store
	p       *layout.FragPut
	then    PutDone
	head    Header
	runs    [maxExtents]run
	extents [maxExtents]layout.Extent

	// Under keyLocks.
	key    ramKey
	locked bool
	below  *putting      // in the chain
	over   chan struct{} // closed at the end; made by who waits
}

// keyLocks lets one put of a key go on at a time. The obvious map from key to channel allocates with each put.
type keyLocks struct {
	sync.Mutex
	chains [shardCount]*putting
}

// lock waits until no other put of t's key is under way, or for ctx.
func (l *keyLocks) lock(ctx context.Context, t *putting) error {
	t.key = packKey(t.p.Key)
	head := &l.chains[t.key.shard()]
	for {
		l.Lock()
		other := *head
		for other != nil && other.key != t.key {
			other = other.below
		}
		if other == nil {
			t.below, t.locked = *head, true
			*head = t
			l.Unlock()
			return nil
		}
		if other.over == nil {
			other.over = make(chan struct{})
		}
		over := other.over
		l.Unlock()
		select {
		case <-over:
		case <-ctx.Done():
			return errs.Wrap(errs.Canceled, ctx.Err(), "store: put %v: gave up waiting for another", t.p.Key)
		}
	}
}

// unlock lets the next put of t's key go on, if t had got so far itself.
func (l *keyLocks) unlock(t *putting) {
	if !t.locked {
		return
	}
	l.Lock()
	at := &l.chains[t.key.shard()]
	for *at != t {
		at = &(*at).below
	}
	*at = t.below
	if t.over != nil {
		close(t.over)
	}
	t.below, t.over, t.locked = nil, nil, false
	l.Unlock()
}

// putsKept is how many free puttings, and waiters, a store keeps: 1 KiB and 100 bytes each.
const putsKept = 64

// freeList keeps what is used again, at most putsKept of it.
type freeList[T any] struct {
	sync.Mutex
	free []*T
	make func() *T
}

func (f *freeList[T]) get() *T {
	f.Lock()
	defer f.Unlock()
	n := len(f.free)
	if n == 0 {
		return f.make()
	}
	t := f.free[n-1]
	f.free = f.free[:n-1]
	return t
}

func (f *freeList[T]) give(t *T) {
	f.Lock()
	defer f.Unlock()
	if len(f.free) < putsKept {
		f.free = append(f.free, t)
	}
}

// waiter is a Put that waits.
type waiter struct{ end chan error }

func (w *waiter) PutDone(err error) { w.end <- err }

func (s *Store) initPuts() {
	s.puts.make = func() *putting { return &putting{} }
	s.waiters.make = func() *waiter { return &waiter{end: make(chan error, 1)} }
}
