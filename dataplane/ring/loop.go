package ring

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
)

// Loop is one thread with its ring. Post, TryPost, PostFunc, Call, Stop, OnLoop and Stats may be called
// from any goroutine, all else from the loop's own callbacks only.
type Loop struct {
	opts Options
	pool *buf.Pool
	eng  engine
	why  error // why eng is not what it was to be at first

	// The loop's own.
	base         time.Time // Now is baseNanos + time since base
	baseNanos    int64
	now          int64
	boot         int64 // 0 = not read in this pass
	yielded      int64 // the time of the last yield
	queue        opList
	deferred     opList
	held         opList
	holds        uint64
	hooks        [stages][]*Hook
	spareHooks   []*Hook
	timers       timerHeap
	spin         spin
	cancelMissed bool
	closing      bool
	counts       Stats
	landedFn     func(*Op, int32, []byte) // l.landed, bound once

	// Shared.
	inbox    inbox
	pub      published
	tid      atomic.Int64
	stopping atomic.Bool
	ended    chan struct{}

	mu      sync.Mutex
	started bool
}

// deferRounds bounds how often a pass turns to completions and stage 0 hooks that its own completions
// brought about: devices that answer at once (the in-memory drive) would keep it from the kernel for ever.
const deferRounds = 16

// New makes a loop. Start it with Start or Run.
func New(opts Options) (*Loop, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	opts.ensureDefaults()
	l := &Loop{opts: opts, pool: opts.Pool, ended: make(chan struct{})}
	l.inbox.init(opts.InboxMax)
	l.landedFn = l.landed
	l.spin = spin{on: opts.Spin, gap: spinCap}
	l.eng = newUring(&l.opts)
	if l.opts.IO == IOPlain {
		l.eng = newPlain(&l.opts)
	}
	return l, nil
}

// Name is what Options said; Pool the loop's pages.
func (l *Loop) Name() string    { return l.opts.Name }
func (l *Loop) Pool() *buf.Pool { return l.pool }

// Start runs the loop on a thread of its own and returns when it is ready, or with the reason why it
// cannot be.
func (l *Loop) Start() error {
	ready := make(chan error, 1)
	go func() {
		if err := l.run(func() { ready <- nil }); err != nil {
			ready <- err
		}
	}()
	return <-ready
}

// Run runs the loop on the calling goroutine, locked to its thread, until Stop. The error is that of the
// start; a loop that has run ends with nil.
func (l *Loop) Run() error { return l.run(func() {}) }

func (l *Loop) run(ready func()) error {
	l.mu.Lock()
	if l.started || l.stopping.Load() {
		l.mu.Unlock()
		return errs.New(errs.Closed, "ring: loop %s was started or stopped before; make a new one",
			l.opts.Name)
	}
	l.started = true
	l.mu.Unlock()
	defer close(l.ended)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	restore, err := l.place()
	if err != nil {
		l.inbox.close()
		return err
	}
	defer restore()
	defer favour()()
	if err := l.open(); err != nil {
		l.inbox.close()
		return err
	}
	l.tid.Store(int64(unix.Gettid()))
	l.startClock()
	ready()
	for !l.stopping.Load() {
		l.pass()
	}
	l.shutdown()
	l.tid.Store(0)
	l.eng.shut()
	return nil
}

// open opens the engine, or the plain one in its place where the machine does not let it work. What may pass,
// as a lack of descriptors, is an error: nobody would look again.
func (l *Loop) open() error {
	err := l.eng.open()
	if err == nil || l.opts.IO != IOAuto || errs.Of(err) != errs.Unsupported {
		return err
	}
	p := newPlain(&l.opts)
	if perr := p.open(); perr != nil {
		return perr
	}
	l.eng, l.why = p, err
	return nil
}

// Plain reports whether a loop that has started does without io_uring, and why if it was not told to: then its
// owner warns the operator. Any goroutine.
func (l *Loop) Plain() (plain bool, why error) {
	return l.opts.IO == IOPlain || l.why != nil, l.why
}

// Stop ends the loop and waits until it has ended. Operations in flight are canceled and every Op
// under way ends; messages accepted before run; timers do not fire any more. Called on the loop itself
// it does not wait. It may be called again.
func (l *Loop) Stop() {
	l.mu.Lock()
	started, again := l.started, l.stopping.Swap(true)
	l.mu.Unlock()
	l.inbox.close()
	if !started {
		if !again {
			close(l.ended)
		}
		return
	}
	l.rouse()
	if !l.OnLoop() {
		<-l.ended
	}
}

// OnLoop reports whether the caller runs on the loop's thread.
func (l *Loop) OnLoop() bool { return l.tid.Load() == int64(unix.Gettid()) }

// Now is the time at the start of the pass, in nanoseconds of CLOCK_MONOTONIC.
func (l *Loop) Now() int64 { return l.now }

// BootNow is the time in nanoseconds of CLOCK_BOOTTIME, which also runs while the machine is suspended:
// leases count on it. It is read at most once per pass.
func (l *Loop) BootNow() int64 {
	if l.boot == 0 {
		l.boot = clockNanos(unix.CLOCK_BOOTTIME)
	}
	return l.boot
}

// BootFresh is the time in nanoseconds of CLOCK_BOOTTIME as of this call. A process may be stopped at any instruction,
// for longer than a lease lasts; who is about to rely on one reads the clock after what it relies on, not at the
// beginning of the pass. It costs a system call.
func (l *Loop) BootFresh() int64 { return BootTime() }

// BootTime is the time in nanoseconds of CLOCK_BOOTTIME, for those without a loop.
func BootTime() int64 { return clockNanos(unix.CLOCK_BOOTTIME) }

// startClock ties the runtime's clock, which is read without a system call, to CLOCK_MONOTONIC.
func (l *Loop) startClock() {
	l.base = time.Now()
	l.baseNanos = clockNanos(unix.CLOCK_MONOTONIC)
	l.now = l.baseNanos
}

func (l *Loop) readClock() int64 { return l.baseNanos + int64(time.Since(l.base)) }

func clockNanos(clock int32) int64 {
	var ts unix.Timespec
	err := unix.ClockGettime(clock, &ts)
	invariants.Assert(err == nil, "ring: the kernel does not tell the time")
	return ts.Nano()
}

// Defer ends op later in this pass, with result res: for devices that know the answer at once, as a
// Completer is never called inside the call that started the Op. op is idle.
func (l *Loop) Defer(op *Op, res int32) {
	op.admit()
	op.state, op.res = opDeferred, res
	l.deferred.push(op)
}

// pass is one turn; the package comment draws it.
func (l *Loop) pass() {
	l.now, l.boot = l.readClock(), 0
	l.eng.reap(l.landedFn)
	l.spin.came(l.now)
	l.inbox.run()
	if !l.closing {
		l.runTimers()
	}
	for range deferRounds {
		l.runDeferred()
		l.runHooks(StageDevice)
		if l.deferred.head == nil && len(l.hooks[StageDevice]) == 0 {
			break
		}
	}
	l.runHooks(StageSocket)
	l.launchQueued()
	l.retryCancels()
	l.counts.Passes++
	l.eng.counters(&l.counts)
	l.pub.store(&l.counts)
	l.yield()
	l.enter()
}

// yieldEvery is well below the 10 ms after which the Go scheduler calls a goroutine overdue.
const yieldEvery = int64(5 * time.Millisecond)

// yield lets the Go scheduler see that this goroutine gives way. A loop spends its life in system calls, whose
// ends do not count as scheduling: after 10 ms sysmon takes every P it comes back with for overdue,
// and goes on to look every 20 us, for ever, in each process with a loop (measured: 5 to 10 % of a core).
func (l *Loop) yield() {
	if l.now-l.yielded >= yieldEvery {
		l.yielded = l.now
		runtime.Gosched()
	}
}

// enter submits, and sleeps if there is nothing left to do.
func (l *Loop) enter() {
	if l.busy() || l.drained() {
		l.eng.enter(false, 0)
		return
	}
	nanos := int64(-1)
	if l.timers.len() > 0 && !l.closing {
		// The pass may have been long; its clock is not good enough to sleep by.
		if nanos = l.timers.first().at - l.readClock(); nanos <= 0 {
			l.eng.enter(false, 0)
			return
		}
	}
	if l.spin.worth(l.now) && l.eng.reading() > 0 {
		l.counts.Spins++
		l.spin.turned = l.now
		l.eng.enter(false, 0)
		return
	}
	l.inbox.sleeping.Store(true)
	if l.inbox.waiting.Load() > 0 || (l.stopping.Load() && !l.closing) {
		l.inbox.sleeping.Store(false)
		l.eng.enter(false, 0)
		return
	}
	l.counts.Sleeps++
	l.eng.enter(true, nanos)
	l.inbox.sleeping.Store(false)
}

func (l *Loop) busy() bool {
	return l.deferred.head != nil || len(l.hooks[StageDevice]) > 0 || len(l.hooks[StageSocket]) > 0 ||
		l.cancelMissed || l.inbox.waiting.Load() > 0
}

// drained reports that a loop that stops has nothing more to wait for.
func (l *Loop) drained() bool { return l.closing && l.eng.flying() == 0 }

// runDeferred ends what was deferred before it began, and leaves what that defers to the next round.
func (l *Loop) runDeferred() {
	for n := l.deferred.n; n > 0; n-- {
		op := l.deferred.pop()
		op.state = opIdle
		op.Done.RingDone(op, op.res)
	}
}

// launchQueued starts those that found no room, oldest first.
func (l *Loop) launchQueued() {
	for op := l.queue.head; op != nil && l.eng.start(op); op = l.queue.head {
		l.queue.remove(op)
		op.state = opFlying
	}
}

// shutdown brings every Op to its end: what nobody carries ends now, what flies is called back.
func (l *Loop) shutdown() {
	// Stop closes it too, but perhaps only after this thread has seen its flag and an empty inbox.
	l.inbox.close()
	l.closing = true
	for op := l.queue.head; op != nil; op = l.queue.head {
		l.Cancel(op)
	}
	for op := l.held.head; op != nil; op = l.held.head {
		l.Cancel(op)
	}
	l.eng.each(l.Cancel)
	for rounds := 0; l.eng.flying() > 0 || l.busy(); rounds++ {
		// Each turn ends something; a Completer that starts a canceled Op again and again does not.
		invariants.Assert(rounds < 1<<24, "ring: a Completer keeps starting Ops on a loop that stops")
		l.pass()
	}
}

// retryCancels asks again for those that found no room to ask.
func (l *Loop) retryCancels() {
	if !l.cancelMissed {
		return
	}
	l.cancelMissed = false
	l.eng.each(func(op *Op) {
		if op.canceled {
			l.sendCancel(op)
		}
	})
}
