package client

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"vstor/asd/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

type sharedCount = atomic.Uint64

// begin gives the call a connection of its own, with the deadline set. finish ends it.
func (a *ASD) begin(ctx context.Context) (*conn, error) {
	if !a.up.Load() {
		return nil, a.downError()
	}
	if err := ctx.Err(); err != nil {
		return nil, a.outOfTime(ctx, err, "before it began")
	}
	select {
	case a.slots <- struct{}{}:
	default:
		select {
		case a.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, a.outOfTime(ctx, ctx.Err(), "waiting for a connection")
		case <-a.ctx.Done():
			return nil, a.downError()
		}
	}
	c, err := a.take(ctx)
	if err != nil {
		<-a.slots
		return nil, err
	}
	now := time.Now()
	end := now.Add(a.opts.CallTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	c.arg = uint32(max(end.Sub(now).Milliseconds(), 1))
	c.got = false
	c.nc.SetDeadline(end)
	c.watch.on(ctx, c.raw)
	return c, nil
}

// take finds an idle connection, the one used last, or makes one.
func (a *ASD) take(ctx context.Context) (*conn, error) {
	a.mu.Lock()
	if n := len(a.idle); n > 0 && !a.closed {
		c := a.idle[n-1]
		a.idle = a.idle[:n-1]
		a.mu.Unlock()
		return c, nil
	}
	period := a.period
	a.mu.Unlock()
	return a.grow(ctx, period)
}

// grow makes a pooled connection, unless the ASD goes down meanwhile.
func (a *ASD) grow(ctx, period context.Context) (*conn, error) {
	dialing, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(period, cancel)()
	l, err := a.dial(dialing, min(a.opts.CallTimeout, a.opts.Patience), caps)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, a.outOfTime(ctx, err, "connecting")
	case period.Err() != nil:
		return nil, a.downError()
	default:
		return nil, errs.New(errs.Unreachable, "asd %d: %v", a.opts.ID, err)
	}
	c := &conn{line: l}
	a.mu.Lock()
	if period.Err() == nil {
		a.conns[c] = struct{}{}
		a.mu.Unlock()
		return c, nil
	}
	a.mu.Unlock() // closeConns has passed, and its end would be missed
	c.raw.Close()
	return nil, a.downError()
}

// finish ends the call of begin, a request of type t that came to err. again means that it shall be done once
// more: a connection that lay idle has turned out to be a dead one, before a byte of an answer. Every request
// may be repeated.
func (a *ASD) finish(ctx context.Context, c *conn, t uint8, err error) (again bool, _ error) {
	c.watch.off(ctx)
	if c.broken == nil && c.r != c.w {
		c.nonsense("%d bytes that nobody asked for", c.w-c.r)
		err = c.broken
	}
	again = c.broken != nil && c.reused && !c.got && !errors.Is(c.broken,
		os.ErrDeadlineExceeded) && ctx.Err() == nil &&
		a.up.Load()
	a.give(c)
	<-a.slots
	switch {
	case err == nil:
		return false, nil
	case c.broken == nil:
		return false, errs.New(errs.Of(err), "asd %d: %s: %v", a.opts.ID, proto.TypeName(t), err)
	case again:
		a.retries.Add(1)
		return true, nil
	case ctx.Err() != nil:
		return false, a.outOfTime(ctx, ctx.Err(), proto.TypeName(t))
	case a.isClosed():
		return false, a.downError()
	}
	return false, errs.New(errs.Unreachable, "asd %d: %s: %v", a.opts.ID, proto.TypeName(t), err)
}

// about adds what a failed call was about.
func about(key layout.FragKey, err error) error {
	if err == nil {
		return nil
	}
	return errs.Wrap(errs.Of(err), err, "fragment %v", key)
}

// give puts c back, or closes it if it is broken.
func (a *ASD) give(c *conn) {
	a.mu.Lock()
	_, pooled := a.conns[c]
	keep := c.broken == nil && pooled // closeConns took it out otherwise
	if keep {
		c.reused, c.used = true, time.Now()
		a.idle = append(a.idle, c)
	} else {
		delete(a.conns, c)
	}
	a.mu.Unlock()
	if !keep {
		c.raw.Close()
		c.watch.end()
	}
}

// closeConns closes all pooled connections: calls on them fail at once.
func (a *ASD) closeConns() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fall != nil {
		a.fall()
	}
	for c := range a.conns {
		c.raw.Close()
	}
	clear(a.conns)
	for _, c := range a.idle {
		c.watch.end()
	}
	a.idle = nil
}

// trim closes connections that nobody has used for long.
func (a *ASD) trim(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, c := range a.idle { // used longest ago first
		if now.Sub(c.used) < a.opts.IdleTimeout {
			break
		}
		c.raw.Close()
		c.watch.end()
		delete(a.conns, c)
		n++
	}
	a.idle = append(a.idle[:0], a.idle[n:]...)
}

// outOfTime is the error of a call whose context has ended: who cancels gets Canceled, who set a time and
// got no answer in it Unreachable.
func (a *ASD) outOfTime(ctx context.Context, err error, what string) error {
	if ctx.Err() == context.Canceled {
		return errs.Wrap(errs.Canceled, ctx.Err(), "asd %d: %s: given up", a.opts.ID, what)
	}
	return errs.Wrap(errs.Unreachable, context.DeadlineExceeded, "asd %d: %s: no answer in time (%v)",
		a.opts.ID, what, err)
}
