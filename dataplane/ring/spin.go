package ring

import "time"

// spin decides whether a loop that has nothing to do sleeps in the kernel or goes round again at once.
//
// To be woken costs a loop and whoever wakes it some microseconds, on a virtual machine several times that, and the
// device's side pays too: the interrupt of a completion has to wake a CPU. Under load the next completion is nearer.
// The obvious ways are both wrong: to go round always burns a core for a client that sends one request at a time, and
// for one that sends none; to look for as long as a wake-up costs and then sleep was measured as no gain, for
// completions come in bursts, and it is the sleep between two of them that is dear. So a loop goes round as long as
// completions come closer than spinGap in the mean, drives are read, and until spinFor after the last. Where only
// clients are waited for a sleep is better: it lets requests gather, and their replies leave together.
//
// Somebody else may want the CPU. Where drives are written, other threads of this process do: there is coding and
// sealing to be done. Where not, a pass that takes much longer than it should tells. Both have the loop sleep for a
// while.
type spin struct {
	on     bool
	n      int64 // completions since a pass took them in
	wrote  bool  // a write of a drive was among them
	gap    int64 // time between completions: a moving mean, in ns
	last   int64 // when the last came
	turned int64 // when the loop went round without a sleep, if that was its last step
	until  int64 // the time until which it sleeps
}

const (
	// spinGap is the mean time between completions below which the loop goes round. One read at a time of a drive that
	// takes 60 us ends two operations, a request and a read, in 70.
	spinGap = int64(25 * time.Microsecond)
	spinFor = int64(time.Millisecond)
	// spinCap is the longest gap that counts, and the first: after a pause the first completions decide.
	spinCap = 8 * spinGap
	// spinShare is the weight of a completion in the mean, one part of so many.
	spinShare = 64
	// A round that takes spinTaken was most likely taken from us by another thread, which has the CPU for spinOff.
	spinTaken = int64(time.Millisecond)
	spinOff   = int64(20 * time.Millisecond)
)

// count notes a completion.
func (s *spin) count(op *Op) {
	s.n++
	if op.code == codeWrite || op.code == codeDatasync {
		s.wrote = true
	}
}

// came takes in what came back by now, the begin of a pass's work.
func (s *spin) came(now int64) {
	if s.wrote || s.turned > 0 && now-s.turned > spinTaken {
		s.until = now + spinOff
	}
	s.turned, s.wrote = 0, false
	if s.n > 0 {
		s.gap += (min((now-s.last)/s.n, spinCap) - s.gap) * min(s.n, spinShare) / spinShare
		s.last, s.n = now, 0
	}
}

// worth reports whether the loop is to go round at once, if drives are read.
func (s *spin) worth(now int64) bool {
	return s.on && s.gap < spinGap && now-s.last < spinFor && now >= s.until
}
