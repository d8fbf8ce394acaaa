package ring

import "time"

// Timer calls Fire on the loop once its time has come. The zero Timer with Fire set is ready for use.
type Timer struct {
	Fire func()
	at   int64 // on the clock of Now
	idx  int   // place in the heap, from 1; 0 = not armed
}

// Armed reports whether the timer is to fire.
func (t *Timer) Armed() bool { return t.idx != 0 }

// timerHeap is a binary heap by time, from index 1. container/heap would box every timer.
type timerHeap struct {
	a []*Timer
}

func (h *timerHeap) len() int { return max(len(h.a)-1, 0) }

func (h *timerHeap) first() *Timer { return h.a[1] }

func (h *timerHeap) add(t *Timer) {
	if len(h.a) == 0 {
		h.a = append(h.a, nil)
	}
	h.a = append(h.a, t)
	t.idx = len(h.a) - 1
	h.up(t.idx)
}

func (h *timerHeap) remove(t *Timer) {
	i, n := t.idx, len(h.a)-1
	last := h.a[n]
	h.a[n] = nil
	h.a = h.a[:n]
	t.idx = 0
	if last == t {
		return
	}
	h.put(i, last)
	h.down(i)
	h.up(last.idx)
}

func (h *timerHeap) put(i int, t *Timer) {
	h.a[i] = t
	t.idx = i
}

func (h *timerHeap) up(i int) {
	t := h.a[i]
	for i > 1 && h.a[i/2].at > t.at {
		h.put(i, h.a[i/2])
		i /= 2
	}
	h.put(i, t)
}

func (h *timerHeap) down(i int) {
	t := h.a[i]
	for {
		c := 2 * i
		if c >= len(h.a) {
			break
		}
		if c+1 < len(h.a) && h.a[c+1].at < h.a[c].at {
			c++
		}
		if h.a[c].at >= t.at {
			break
		}
		h.put(i, h.a[c])
		i = c
	}
	h.put(i, t)
}

// After arms t to fire d from Now; armed already, it moves. It never fires inside the call, nor once the
// loop is stopping. Loop only.
func (l *Loop) After(t *Timer, d time.Duration) {
	if t.idx != 0 {
		l.timers.remove(t)
	}
	t.at = l.now + max(int64(d), 0)
	l.timers.add(t)
}

// StopTimer disarms t; it is fine if it is not armed. Loop only.
func (l *Loop) StopTimer(t *Timer) {
	if t.idx != 0 {
		l.timers.remove(t)
	}
}

// runTimers fires what is due, at most as many as were armed when it began: a timer that re-arms itself
// with no delay waits for the next pass.
func (l *Loop) runTimers() {
	for n := l.timers.len(); n > 0 && l.timers.len() > 0; n-- {
		t := l.timers.first()
		if t.at > l.now {
			return
		}
		l.timers.remove(t)
		t.Fire()
	}
}
