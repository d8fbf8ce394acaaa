package volume

import (
	"context"
	"sync"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// chain keeps the SCOs of client writes in order: they are coded and stored in parallel, but each commits only
// after the one before it did, whatever finishes first (parallel transform, ordered finish).
//
// A cleaning SCO takes no turn. Its moves count only where a block still lies at the old place, so it
// may commit between any two; and it must not wait behind a SCO that waits for the very space that
// cleaning gives back; nor must the trims that such a SCO brings forward, see prune.go. What all share
// is one step under mu: the next commit number, the commit and the hand-over to the loop, so that the
// map applies SCOs in the order of their numbers.
type chain struct {
	tail chan struct{} // closed when the last turn given out has passed; nil: nobody before. On the loop

	mu     sync.Mutex
	commit ids.CommitNum // guarded by mu: the last one used
}

// turn is a place in the chain.
type turn struct {
	before chan struct{}
	passed chan struct{}
}

// enter takes the next place. On the loop.
func (c *chain) enter() *turn {
	t := &turn{before: c.tail, passed: make(chan struct{})}
	c.tail = t.passed
	return t
}

// wait returns when all turns before have passed, or when ctx ends.
func (t *turn) wait(ctx context.Context) error {
	if t.before == nil {
		return nil
	}
	select {
	case <-t.before:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pass lets the next one go. A turn that is given up never passes: what comes after it must not commit
// either, and ends with the vDisk's context.
func (t *turn) pass() { close(t.passed) }

// next runs commit with the next number and, if it went well, publish, as one step.
func (c *chain) next(commit func(ids.CommitNum) errs.Kind, publish func(ids.CommitNum)) errs.Kind {
	c.mu.Lock()
	defer c.mu.Unlock()
	kind := commit(c.commit + 1)
	if kind == errs.OK {
		c.commit++
		publish(c.commit)
	}
	return kind
}
