package volume

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Sealer bounds the sealing of all vDisks of a router: so many SCOs are coded at once, first come, first served, and
// written on the way. Two under way keep the coders and the drives busy, more would only hold more memory.
//
// The obvious way is one goroutine for each slot, which keeps a batch until it is committed. But what cannot be stored,
// or waits for the one that must commit before it, would keep them all; and the vDisk that stands behind them may be
// the one whose trims give the room that they lack. So a batch has a slot only until the last of it was coded.
type Sealer struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	slots  int

	mu      sync.Mutex
	free    int // slots
	keepers map[*Keeper]bool
	full    time.Time       // when noRoom last told them
	waiting []chan struct{} // who waits for a slot, in the order of their asking; closed when it is theirs
	closed  bool
}

// NewSealer makes one with n slots. Close ends it.
func NewSealer(n int) *Sealer {
	s := &Sealer{slots: n, free: n, keepers: map[*Keeper]bool{}}
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

// watch makes k one of those that noRoom tells.
func (s *Sealer) watch(k *Keeper) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keepers[k] = true
}

// noRoomPause bounds how often trims are sealed before their time: each makes a small SCO.
const noRoomPause = time.Second

// noRoom has the trims of all vDisks sealed, on whatever loop they are: the drives are full.
func (s *Sealer) noRoom() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.full) < noRoomPause {
		return
	}
	s.full = time.Now()
	for k := range s.keepers {
		k.loop.PostFunc(k.sealTrims)
	}
}

// background runs f beside all else, until Close; after it, not at all. It never blocks: loops call it.
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
