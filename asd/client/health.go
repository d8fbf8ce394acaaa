package client

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"time"

	"vstor/asd/proto"
	"vstor/dataplane/errs"
)

// health decides whether the ASD is up, on a connection of its own, until Close.
func (a *ASD) health() {
	defer close(a.ended)
	defer a.setDown(errs.New(errs.Closed, "the client is closed"))
	for wait := time.Duration(0); a.ctx.Err() == nil; {
		l, err := a.dial(a.ctx, a.opts.Patience, caps)
		if err == nil {
			wait = 0
			a.life.Store(l.peer.Incarnation)
			c := &conn{line: l}
			stop := context.AfterFunc(a.ctx, func() { l.raw.Close() })
			err = a.tend(c)
			stop()
			l.raw.Close()
		}
		if a.ctx.Err() != nil {
			return
		}
		a.setDown(err)
		wait = a.backOff(wait, err)
		// Many clients of one ASD that went away must not come back in step.
		pause(a.ctx, wait/2+rand.N(wait/2+1))
	}
}

// backOff is how long to wait after err, and `last` before.
func (a *ASD) backOff(last time.Duration, err error) time.Duration {
	switch errs.Of(err) {
	case errs.Refused, errs.Version, errs.Corrupt, errs.Invalid:
		return a.opts.RetryRefused // only an operator can change that
	}
	limit := a.opts.RetryMax
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
		limit = min(limit, max(retryRefusedMax, a.opts.RetryMin))
	}
	return min(max(2*last, a.opts.RetryMin), limit)
}

// pause sleeps, or less if ctx ends.
func pause(ctx context.Context, d time.Duration) {
	if d == 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// tend looks after a connected ASD until the connection ends, and says why it did.
func (a *ASD) tend(c *conn) error {
	for {
		s, err := a.look(c)
		if err != nil {
			return err
		}
		a.latest.Store(s)
		a.setUp()
		if err := c.rest(a.opts.StatEvery); err != nil {
			return err
		}
		a.trim(time.Now())
	}
}

// look asks for the ASD's state. An answer that is late takes the ASD down, and is waited for all the same: a
// process that was stopped goes on where it was, and is up again when it has answered.
func (a *ASD) look(c *conn) (*proto.Stat, error) {
	due := time.Now().Add(a.opts.AnswerWithin)
	c.nc.SetDeadline(due)
	if err := c.send(proto.TStat, c.request(), nil); err != nil {
		return nil, err
	}
	// The first receive is the one that waits.
	if err := c.fill(1); errors.Is(err, os.ErrDeadlineExceeded) {
		a.setDown(errs.New(errs.Unreachable, "no answer in %v", a.opts.AnswerWithin))
		due = due.Add(a.opts.Patience)
	}
	c.nc.SetDeadline(due.Add(a.opts.AnswerWithin))
	h, body, err := c.answer(proto.TStat)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, errs.New(errs.Unreachable, "no answer in %v", a.opts.AnswerWithin+a.opts.Patience)
	}
	if err != nil {
		return nil, err
	}
	s := new(proto.Stat)
	if err := s.Decode(body); err != nil || h.Data != 0 {
		return nil, c.nonsense("a stat reply of %d and %d bytes", len(body), h.Data)
	}
	return s, nil
}

// rest waits for d, or the end of the connection, whichever is first: a process that dies is noticed at once.
func (c *conn) rest(d time.Duration) error {
	c.nc.SetReadDeadline(time.Now().Add(d))
	switch err := c.fill(1); {
	case err == nil:
		return c.nonsense("bytes that nobody asked for")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	default:
		return err
	}
}

// setUp is called with every good look.
func (a *ASD) setUp() {
	if a.up.Load() {
		return
	}
	a.mu.Lock()
	a.period, a.fall = context.WithCancel(a.ctx)
	a.mu.Unlock()
	a.up.Store(true)
	a.opts.Log.Info("asd is up", "asd", a.opts.ID, "addr", a.opts.Addr)
	a.opts.OnState(true, nil)
	a.mu.Lock()
	rs := slices.Collect(maps.Keys(a.readers))
	a.mu.Unlock()
	for _, r := range rs { // unlocked: a loop that is full may be waiting for mu
		r.loop.Post((*upMessage)(r))
	}
}

// setDown makes all calls under way fail. It is told of every failed attempt to connect as well.
func (a *ASD) setDown(err error) {
	was, same := a.up.Swap(false), (*a.why.Load()).Error() == err.Error()
	a.setWhy(err)
	if was {
		a.closeConns()
	}
	if was || !same {
		a.opts.Log.Warn("asd is down", "asd", a.opts.ID, "addr", a.opts.Addr, "why", err)
		a.opts.OnState(false, err)
	}
}
