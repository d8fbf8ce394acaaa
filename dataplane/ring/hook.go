package ring

import "vstor/dataplane/invariants"

// Stages of a Hook, in the order they run.
const (
	StageDevice = 0 // journals write what the pass collected
	StageSocket = 1 // replies leave
	stages      = 2
)

// Hook runs once at the end of the pass it was armed in: first all of stage 0, and the completions they
// deferred, then all of stage 1. One that is armed while its own stage or a later one runs has its turn
// in the next pass, which follows at once.
type Hook struct {
	Run   func()
	Stage int
	armed bool
}

// Armed reports whether the hook is to run.
func (h *Hook) Armed() bool { return h.armed }

// AtPassEnd arms h; arming it twice is arming it once. Loop only.
func (l *Loop) AtPassEnd(h *Hook) {
	if h.armed {
		return
	}
	invariants.Assert(h.Stage >= 0 && h.Stage < stages, "ring: hook of a stage that does not exist")
	h.armed = true
	l.hooks[h.Stage] = append(l.hooks[h.Stage], h)
}

// runHooks runs what is armed for a stage, and not what that arms.
func (l *Loop) runHooks(stage int) {
	run := l.hooks[stage]
	if len(run) == 0 {
		return
	}
	l.hooks[stage] = l.spareHooks[:0]
	for _, h := range run {
		h.armed = false
		h.Run()
	}
	clear(run)
	l.spareHooks = run
}
