package client

import (
	"context"
	"sync"
	"sync/atomic"

	"vstor/asd/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// ASD is an ASD that another process serves. Its methods may be called from any goroutine, and those that take
// a context block: not for loops.
type ASD struct {
	opts Options

	up     atomic.Bool
	why    atomic.Pointer[error] // why it is not up
	latest atomic.Pointer[proto.Stat]
	life   atomic.Uint64 // incarnation of the process that health is connected to

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	ended  chan struct{} // health has returned

	slots chan struct{} // one for each call under way

	mu      sync.Mutex
	closed  bool                 // guarded by mu
	period  context.Context      // guarded by mu: ends when the ASD goes down; nil before it was up
	fall    context.CancelFunc   // guarded by mu: ends it
	idle    []*conn              // guarded by mu: free, used last at the end
	conns   map[*conn]struct{}   // guarded by mu: of the pool, idle or not
	readers map[*Reader]struct{} // guarded by mu

	retries sharedCount // calls that were tried again on a fresh connection
}

// New makes an ASD and starts to look for it; it does not wait until it answers. Errors: Invalid.
func New(o Options) (*ASD, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o.TLS = tlsConfig(&o)
	a := &ASD{opts: o, ended: make(chan struct{}), slots: make(chan struct{}, o.BulkConns),
		conns:   map[*conn]struct{}{},
		readers: map[*Reader]struct{}{}}
	a.setWhy(errs.New(errs.Unreachable, "no connection yet"))
	a.ctx, a.cancel = context.WithCancel(context.Background())
	go a.health()
	return a, nil
}

// Close ends calls under way with Closed and waits for the health goroutine. Readers are closed by their
// loops, before or after; they are not ready any more.
func (a *ASD) Close() error {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.cancel()
	<-a.ended
	a.closeConns()
	return nil
}

// ID is the ASD's number.
func (a *ASD) ID() ids.ASDID { return a.opts.ID }

// Up reports whether the ASD answers: connected, and the last look at its health was answered in time.
func (a *ASD) Up() bool { return a.up.Load() }

// Err says why the ASD is not up; nil if it is.
func (a *ASD) Err() error {
	if a.up.Load() {
		return nil
	}
	return *a.why.Load()
}

// Stat is the newest state that the ASD sent, at most StatEvery old while it is up; false if it never did.
// No IO.
func (a *ASD) Stat() (proto.Stat, bool) {
	if s := a.latest.Load(); s != nil {
		return *s, true
	}
	return proto.Stat{}, false
}

func (a *ASD) setWhy(err error) { a.why.Store(&err) }

// downError is what a call gets without asking. The cause is text only: a refused handshake must not look
// like a refused put.
func (a *ASD) downError() error {
	if a.isClosed() {
		return errs.New(errs.Closed, "asd %d: its client is closed", a.opts.ID)
	}
	return errs.New(errs.Unreachable, "asd %d is down: %v", a.opts.ID, *a.why.Load())
}

func (a *ASD) isClosed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.closed
}
