package ring

// engine carries operations out and brings them back. The loop above it decides everything else: passes,
// order, retries, what a short transfer means. uring is the one to have; plain, fed by blocking workers, is
// for machines that forbid io_uring. One suite of tests holds both to what follows.
//
// All methods but wake are called on the loop's thread, open first and shut last.
type engine interface {
	// open makes the engine ready, on the thread that will use it.
	open() error
	// start takes op's remaining segments out. It returns false, and has done nothing, if there is no
	// room; room comes with the next enter or the next landing. op's links are in use until start returns,
	// and then the engine's until op lands.
	start(op *Op) bool
	// cancel asks that a flying op ends soon; it lands either way. False if there is no room to ask.
	cancel(op *Op) bool
	// enter hands over what was started. With wait it sleeps until something landed, wake was called or
	// nanos passed (negative: no limit).
	enter(wait bool, nanos int64)
	// reap calls landed for what has come back, at most once per op. sel is the receive buffer of
	// a codeRecvSelect and goes back to the engine when landed returns.
	reap(landed func(op *Op, res int32, sel []byte))
	// each calls f for every flying op.
	each(f func(op *Op))
	// flying is how many operations are out, reading how many of them read a drive; an engine that takes a thread for
	// each says 0.
	flying() int
	reading() int
	// wake ends a sleep, the present one or the next. Any goroutine, also after shut.
	wake()
	// shut gives everything back to the system. Nothing may be flying.
	shut()
	// counters writes the engine's counters into s.
	counters(s *Stats)
}
