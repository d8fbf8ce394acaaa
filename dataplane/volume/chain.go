package volume

import (
	"context"

	"vstor/dataplane/ids"
)

// chain keeps the SCOs of a vDisk in order: they are coded and stored in parallel, but each commits only
// after the one before it did, whatever finishes first (parallel transform, ordered finish). Commit
// numbers are given out by whoever's turn it is, so a SCO that is given up leaves no gap.
type chain struct {
	tail   chan struct{} // closed when the last turn given out has passed; nil: nobody before
	commit ids.CommitNum // the last one used; the turn's holder alone touches it
}

// turn is a place in the chain.
type turn struct {
	c      *chain
	before chan struct{}
	passed chan struct{}
}

// enter takes the next place. On the loop.
func (c *chain) enter() *turn {
	t := &turn{c: c, before: c.tail, passed: make(chan struct{})}
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

// next is the commit number to use; used makes it so. Only while the turn is held.
func (t *turn) next() ids.CommitNum { return t.c.commit + 1 }
func (t *turn) used()               { t.c.commit++ }

// pass lets the next one go. A turn whose wait failed never passes: what comes after it must not
// commit either.
func (t *turn) pass() { close(t.passed) }
