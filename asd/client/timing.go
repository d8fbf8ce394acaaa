package client

import (
	"syscall"
	"time"

	"vstor/dataplane/ids"
	"vstor/dataplane/stat"
)

// ReaderStats are the figures of a Reader. The loop writes, anyone may Load.
type ReaderStats struct {
	Reads      stat.Counter // that ended with their bytes
	Bytes      stat.Counter
	Errors     stat.Counter // that ended without
	Timeouts   stat.Counter // of those, for want of an answer in time
	Stalls     stat.Counter // times that the connection went silent
	Canceled   stat.Counter // by Cancel
	Breaks     stat.Counter // connections that ended
	Connects   stat.Counter // connections made
	BadAnswers stat.Counter // connections closed for what came on them
	InFlight   stat.Gauge   // requests under way
	Late       stat.Gauge   // of those, the ones whose read has ended
	Short      ShortStats

	// Latency is from ReadRange to the answer's first byte. Mean and P95 follow the last hundred or so,
	// timeouts included with the time they took; for whoever has to decide how long to wait.
	Latency stat.Histogram
	Mean    stat.Gauge // ns
	P95     stat.Gauge // ns
}

// ShortStats are the figures of reads that this process does itself; Reads and Bytes of ReaderStats are without them.
type ShortStats struct {
	Reads      stat.Counter // ranges that were found, and whose read began
	Bytes      stat.Counter
	Misses     stat.Counter // ranges that were not found: read over the socket
	Late       stat.Counter // of Reads, those that ended after their lease had: their bytes were not used
	Asked      stat.Counter // fragments that the ASD was asked for
	Forgotten  stat.Counter // fragments that it had deleted
	Dropped    stat.Counter // leases and all under them, with their connection
	Entries    stat.Gauge   // fragments whose place is known
	TableBytes stat.Gauge   // that these take
}

// Stats are the Reader's figures. Any goroutine.
func (r *Reader) Stats() *ReaderStats { return &r.stats }

// timed notes how long a read took, in ns.
func (r *Reader) timed(ns int64) {
	st := &r.stats
	st.Latency.Record(ns)
	mean, p95 := st.Mean.Load(), st.P95.Load()
	if mean == 0 {
		st.Mean.Set(max(ns, 1))
		st.P95.Set(max(ns, 1))
		return
	}
	mean += (ns - mean) / 32
	// The estimate rests where one of twenty lies above: a step up for those, a nineteenth of it down for
	// the others.
	if step := max(mean/8, 19); ns > p95 {
		p95 += step
	} else {
		p95 -= step / 19
	}
	st.Mean.Set(max(mean, 1))
	st.P95.Set(max(p95, 1))
}

// armTimer arms the one timer for whatever is due first. It fires early where that has come in the meantime, and
// is armed anew: moving it for each read would cost more.
func (r *Reader) armTimer() {
	if r.live.head == nil || r.timer.Armed() {
		return
	}
	r.due = r.stallsAt()
	if s := r.oldest(); s != nil {
		r.due = min(r.due, s.start+int64(r.opt.ReadTimeout))
	}
	r.loop.After(&r.timer, time.Duration(r.due-r.loop.Now()))
}

// oldest is the read that is out of time first. One whose data is coming has all the time that it needs: if
// it stops coming the connection has stalled.
func (r *Reader) oldest() *slot {
	s := r.live.head
	if s != nil && s == r.landing {
		s = s.next
	}
	return s
}

// landingRate is in bytes per second. Data that goes straight to the caller's pages shows no sign of life before
// its last byte, so the wait for it grows with its length, as if it came no faster than this.
const landingRate = 4 << 20

// stallsAt is when the connection will have been silent for too long.
func (r *Reader) stallsAt() int64 {
	at := r.since + int64(r.opt.StallAfter)
	if r.landing != nil {
		at += int64(r.landing.n) * int64(time.Second) / landingRate
	}
	return at
}

// tick is the timer's.
func (r *Reader) tick() {
	now := r.loop.Now()
	if now-r.due > int64(r.opt.StallAfter)/4 {
		// This loop did not run itself when it should have: what has come may still lie in the socket.
		r.since = max(r.since, now-int64(r.opt.StallAfter)/2)
	}
	if now >= r.stallsAt() {
		r.stall()
	}
	for s := r.oldest(); s != nil && now-s.start >= int64(r.opt.ReadTimeout); s = r.oldest() {
		r.timeout(s)
		r.abandon(s, -int32(syscall.ETIMEDOUT))
	}
	r.armTimer()
}

// timeout notes that the drive did not answer a read in time.
func (r *Reader) timeout(s *slot) {
	r.stats.Timeouts.Inc()
	r.timed(r.loop.Now() - s.start)
	if s.state != slotWaiting {
		r.sick, r.probed = true, s.key
	}
}

// stall ends all reads, so that others are asked, and asks the peer for a sign of life. A process that was
// stopped gives it when it goes on. If the kernel waits for bytes of an answer in a caller's pages,
// only the end of the connection brings them back.
func (r *Reader) stall() {
	r.stats.Stalls.Inc()
	r.stalled = true
	for s := r.live.head; s != nil; {
		next := s.next
		r.timeout(s)
		r.abandon(s, -int32(syscall.ETIMEDOUT))
		s = next
	}
	if r.landing != nil {
		r.conn.Abort(errStalled)
		return
	}
	if !r.pinged && !r.ping.Queued() {
		r.pinged = true
		r.conn.Send(&r.ping)
	}
}

// probe sends a read that nobody waits for while the drive is sick and owes no answer to any other.
func (r *Reader) probe() {
	if !r.sick || r.out > 0 || r.conn == nil || r.conn.Ended() || r.closing || r.stopped {
		return
	}
	s := r.get()
	if s == nil {
		return
	}
	s.state, s.probe = slotLate, true
	s.key, s.off, s.n = r.probed, 0, ids.BlockSize
	r.send(s, 0)
}
