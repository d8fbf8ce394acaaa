package ring

import (
	"sync"
	"sync/atomic"
)

// inbox is a bounded queue of messages from many goroutines to one loop.
//
// The obvious channel costs a wake-up per message, and a loop that sleeps in the kernel cannot select on
// it. Here posters append under a lock, the loop swaps the whole slice, and the eventfd is written only
// if the loop has announced that it sleeps. The loop announces, looks again, and then sleeps; a poster
// appends, and then looks for the announcement. One of the two sees the other: both sides use
// sequentially consistent atomics.
type inbox struct {
	sleeping atomic.Bool  // the loop's announcement
	waiting  atomic.Int64 // len(items), to look without the lock

	mu     sync.Mutex
	room   sync.Cond
	items  []Message
	max    int
	closed bool

	spare []Message // the loop's
}

func (b *inbox) init(max int) {
	b.max = max
	b.room.L = &b.mu
}

// put appends m, waiting for room unless the caller is the loop. False if the inbox is or gets closed.
func (b *inbox) put(m Message, wait, force bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.items) >= b.max && !b.closed && !force {
		if !wait {
			return false
		}
		b.room.Wait()
	}
	if b.closed {
		return false
	}
	b.items = append(b.items, m)
	b.waiting.Store(int64(len(b.items)))
	return true
}

// full is a guess, good enough to decide whether a slow question is worth asking.
func (b *inbox) full() bool { return b.waiting.Load() >= int64(b.max) }

// close refuses all later messages and lets blocked posters go. What was accepted will still run.
func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.room.Broadcast()
}

// run takes everything that waits and runs it on the loop. What that posts waits for the next pass.
func (b *inbox) run() {
	if b.waiting.Load() == 0 {
		return
	}
	b.mu.Lock()
	items := b.items
	b.items = b.spare[:0]
	b.waiting.Store(0)
	if len(items) >= b.max {
		b.room.Broadcast()
	}
	b.mu.Unlock()
	for _, m := range items {
		m.RunOnLoop()
	}
	clear(items)
	b.spare = items
}

type funcMessage func()

func (f funcMessage) RunOnLoop() { f() }

// Post hands m to the loop, which runs it in its next pass, in the order of posting. True means that it
// will run, even if the loop is stopped next; false that the loop was stopped. Any goroutine: while
// InboxMax messages wait, it blocks, unless the caller is the loop itself.
//
// A loop that posts to another one can be blocked by it: use TryPost there.
func (l *Loop) Post(m Message) bool {
	// Who waits on the loop's own thread waits for ever.
	force := l.inbox.full() && l.OnLoop()
	if !l.inbox.put(m, true, force) {
		return false
	}
	l.rouse()
	return true
}

// TryPost is Post that returns false rather than wait.
func (l *Loop) TryPost(m Message) bool {
	if !l.inbox.put(m, false, false) {
		return false
	}
	l.rouse()
	return true
}

// PostFunc is Post of a function; the function value is what it allocates.
func (l *Loop) PostFunc(f func()) bool { return l.Post(funcMessage(f)) }

// Call runs f on the loop and waits for its end; false if the loop was stopped and f did not run. On the
// loop itself it runs at once.
func (l *Loop) Call(f func()) bool {
	if l.OnLoop() {
		f()
		return true
	}
	done := make(chan struct{})
	if !l.PostFunc(func() { defer close(done); f() }) {
		return false
	}
	select {
	case <-done:
	case <-l.ended:
		// It ran last of all, or the loop never came to life.
		select {
		case <-done:
		default:
			return false
		}
	}
	return true
}

// rouse wakes the loop if it announced that it sleeps; of many posters one writes.
func (l *Loop) rouse() {
	if l.inbox.sleeping.Load() && l.inbox.sleeping.CompareAndSwap(true, false) {
		l.eng.wake()
	}
}
