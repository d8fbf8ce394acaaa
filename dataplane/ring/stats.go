package ring

import "sync/atomic"

// Stats are counts since the loop started.
type Stats struct {
	Passes  uint64
	Enters  uint64 // io_uring_enter calls; plain: those of epoll_wait
	SQEs    uint64 // operations handed to the kernel; plain: begun
	CQEs    uint64 // completions taken from it
	Sleeps  uint64 // enters that were allowed to wait
	Spins   uint64 // enters that did not wait although nothing was left to do
	Wakeups uint64 // times another goroutine had to write the eventfd
}

// published holds the counters where others can read them. The loop counts in plain integers and
// stores them here once per pass: an atomic add per operation would cost more than the operation's
// own bookkeeping.
type published struct {
	passes, enters, sqes, cqes, sleeps, spins, wakeups atomic.Uint64
}

func (p *published) store(s *Stats) {
	p.passes.Store(s.Passes)
	p.enters.Store(s.Enters)
	p.sqes.Store(s.SQEs)
	p.cqes.Store(s.CQEs)
	p.sleeps.Store(s.Sleeps)
	p.spins.Store(s.Spins)
	p.wakeups.Store(s.Wakeups)
}

// Stats is a snapshot as of the last pass. Any goroutine.
func (l *Loop) Stats() Stats {
	return Stats{
		Passes:  l.pub.passes.Load(),
		Enters:  l.pub.enters.Load(),
		SQEs:    l.pub.sqes.Load(),
		CQEs:    l.pub.cqes.Load(),
		Sleeps:  l.pub.sleeps.Load(),
		Spins:   l.pub.spins.Load(),
		Wakeups: l.pub.wakeups.Load(),
	}
}
