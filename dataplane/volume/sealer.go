package volume

import (
	"context"
	"sync"
)

// Sealer runs the sealing of all vDisks of a router on a fixed number of goroutines: two SCOs under way
// keep the coders and the drives busy at once, more would only hold more memory. Jobs are taken in the
// order of submission, so within a vDisk the one that must commit first is never behind.
type Sealer struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	queue  []func() // bounded by the journal: every job holds journal space
	wake   *sync.Cond
	closed bool
}

// NewSealer starts n goroutines. Close ends them.
func NewSealer(n int) *Sealer {
	s := &Sealer{}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wake = sync.NewCond(&s.mu)
	for range n {
		s.wg.Add(1)
		go s.work()
	}
	return s
}

func (s *Sealer) work() {
	defer s.wg.Done()
	for {
		s.mu.Lock()
		for len(s.queue) == 0 && !s.closed {
			s.wake.Wait()
		}
		if s.closed {
			s.mu.Unlock()
			return
		}
		job := s.queue[0]
		s.queue[0] = nil
		s.queue = s.queue[1:]
		s.mu.Unlock()
		job()
	}
}

// submit queues a job. It never blocks: loops call it.
func (s *Sealer) submit(job func()) {
	s.mu.Lock()
	s.queue = append(s.queue, job)
	s.mu.Unlock()
	s.wake.Signal()
}

// background runs f beside the queue, until Close.
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

// Close cancels what is under way and waits for it. Queued jobs are dropped: what they would have
// sealed is in the journal.
func (s *Sealer) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.wake.Broadcast()
	s.wg.Wait()
}
