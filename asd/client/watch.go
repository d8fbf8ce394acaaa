package client

import (
	"context"
	"net"
	"sync"
)

// watch closes a connection when the context of the call on it ends. The obvious context.AfterFunc allocates
// for each call; here a goroutine stays with the connection, asleep on two channels.
type watch struct {
	arms chan armed    // nil: no goroutine yet
	offs chan struct{} // one for each arm

	mu  sync.Mutex
	gen uint64 // guarded by mu: goes up with the end of each call
}

type armed struct {
	done <-chan struct{}
	gen  uint64
}

// on starts to watch for one call; off ends it.
func (w *watch) on(ctx context.Context, raw net.Conn) {
	done := ctx.Done()
	if done == nil {
		return
	}
	if w.arms == nil {
		w.arms, w.offs = make(chan armed, 4), make(chan struct{}, 4)
		go w.run(raw, w.arms, w.offs)
	}
	w.arms <- armed{done, w.gen}
}

func (w *watch) off(ctx context.Context) {
	if ctx.Done() == nil {
		return
	}
	w.mu.Lock()
	w.gen++ // from now on it is another call's connection
	w.mu.Unlock()
	w.offs <- struct{}{}
}

// end lets the goroutine go. Between calls.
func (w *watch) end() {
	if w.arms != nil {
		close(w.arms)
		w.arms = nil
	}
}

func (w *watch) run(raw net.Conn, arms <-chan armed, offs <-chan struct{}) {
	for a := range arms {
		select {
		case <-offs:
			continue
		case <-a.done:
		}
		w.mu.Lock()
		if w.gen == a.gen {
			raw.Close()
		}
		w.mu.Unlock()
		<-offs
	}
}
