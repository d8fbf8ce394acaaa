package ring

import (
	"time"

	"vstor/dataplane/buf"
)

// Joiner has the pages of a loop's pool that are used lie in big pages, a stretch at a time; see buf.Stretch. What a
// journal's records and large reads are made of lies in them.
type Joiner struct {
	loop  *Loop
	work  chan struct{} // there may be something to lend
	quit  chan struct{}
	ended chan struct{}
}

// joinShare is how many times as long as a stretch took there is a pause: a twentieth of a core goes to it. The kernel
// zeroes a stretch in 0.2 ms, but in 5 ms where the machine is virtual and its host gives the memory only then.
const joinShare = 19

// joinPause is the least pause: there may be nothing to lend any more when the loop comes to it, time and again.
const joinPause = 10 * time.Millisecond

// Join begins that for a loop that has started. Any goroutine; once for a loop.
func Join(l *Loop) *Joiner {
	j := &Joiner{loop: l, work: make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{})}
	l.Call(func() { l.pool.OnLendable(j.wake) })
	go j.run()
	return j
}

func (j *Joiner) wake() {
	select {
	case j.work <- struct{}{}:
	default:
	}
}

func (j *Joiner) run() {
	defer close(j.ended)
	for {
		select {
		case <-j.quit:
			return
		case <-j.work:
		}
		for ok := true; ok; {
			var took time.Duration
			took, ok = j.joinOne()
			select {
			case <-j.quit:
				return
			case <-time.After(max(joinShare*took, joinPause)):
			}
		}
	}
}

// joinOne joins a stretch, if one can be lent, and says how long that took.
func (j *Joiner) joinOne() (took time.Duration, ok bool) {
	pool := j.loop.pool
	var s buf.Stretch
	j.loop.Call(func() { s, ok = pool.Lend() })
	if !ok {
		return 0, false
	}
	begin := time.Now()
	s.Join()
	took = time.Since(begin)
	j.loop.Call(func() { pool.TakeBack(s) })
	return took, true
}

// Stop ends it and waits until it has ended; nothing is lent then. Before the loop's Stop, and not on the loop.
func (j *Joiner) Stop() {
	close(j.quit)
	<-j.ended
}
