package volume

import (
	"context"
	"slices"
	"sync"
)

// Sealer bounds the sealing of all vDisks of a router: so many SCOs are coded and stored at once, first come, first
// served. Two under way keep the coders and the drives busy, more would only hold more memory.
//
// The obvious way is that many goroutines, each of which takes a batch and keeps it until it is committed. But what
// cannot be stored, or waits for the one that must commit before it, would keep them all; and the vDisk that stands
// behind them may be the one whose trims give the room that they lack. So a batch has a slot only while it is being
// stored.
type Sealer struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	slots  int

	mu      sync.Mutex
	free    int             // slots
	waiting []chan struct{} // who waits for a slot, in the order of their asking; closed when it is theirs
	closed  bool
}

// NewSealer makes one with n slots. Close ends it.
func NewSealer(n int) *Sealer {
	s := &Sealer{slots: n, free: n}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// acquire takes a slot, which release gives back. False: ctx ended first. Blocking.
func (s *Sealer) acquire(ctx context.Context) bool {
	s.mu.Lock()
	if s.free > 0 {
		s.free--
		s.mu.Unlock()
		return true
	}
	mine := make(chan struct{})
	s.waiting = append(s.waiting, mine)
	s.mu.Unlock()
	select {
	case <-mine:
		return true
	case <-ctx.Done():
		s.leave(mine)
		return false
	}
}

// leave takes mine out of those that wait; a slot that it was given meanwhile goes to the next.
func (s *Sealer) leave(mine chan struct{}) {
	s.mu.Lock()
	at := slices.Index(s.waiting, mine)
	if at >= 0 {
		s.waiting = slices.Delete(s.waiting, at, at+1)
	}
	s.mu.Unlock()
	if at < 0 {
		s.release()
	}
}

func (s *Sealer) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		s.free++
		return
	}
	close(s.waiting[0])
	s.waiting = slices.Delete(s.waiting, 0, 1)
}

// background runs f, which takes a slot for what is heavy, until Close; after it, not at all. It never blocks: loops
// call it.
func (s *Sealer) background(f func(context.Context)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		f(s.ctx)
	}()
}

// whenClosed runs f once c is closed.
func (s *Sealer) whenClosed(c <-chan struct{}, f func()) {
	s.background(func(ctx context.Context) {
		select {
		case <-c:
			f()
		case <-ctx.Done():
		}
	})
}

// Close cancels what is under way and waits for it. What was not sealed is in the journal.
func (s *Sealer) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
}
