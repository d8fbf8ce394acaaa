package ring

import "syscall"

// Hold takes an idle Op into the loop's care although no engine carries it: its owner will end it later,
// by a timer or a message. Cancel, and a loop that stops, end it with -ECANCELED meanwhile. The token
// names this holding for Unhold. Loop only.
func (l *Loop) Hold(op *Op) (token uint64) {
	op.admit()
	l.holds++
	op.hold = l.holds
	if l.closing {
		l.Defer(op, -int32(syscall.ECANCELED))
		return op.hold
	}
	op.state = opHeld
	l.held.push(op)
	return op.hold
}

// Unhold ends the holding that token names and makes op idle again, for Defer or another start. False if
// it has ended already: then op may be in any state and the caller must leave it alone. Loop only.
func (l *Loop) Unhold(op *Op, token uint64) bool {
	if op.state != opHeld || op.hold != token {
		return false
	}
	l.held.remove(op)
	op.state = opIdle
	return true
}
