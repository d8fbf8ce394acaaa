package journal

import (
	"time"

	"vstor/dataplane/ring"
)

// brake slows the line of Append down before the log is full.
//
// Without it writes go at the speed of the drive until nothing is free, and then stand still, all of them, until a
// SCO is committed: a second and more where the drives behind are slow or nearly full. What a SCO gives back is gone
// in a moment, and they stand again. With it every block that leaves makes the next one wait, the longer the less is
// left. So the log settles where blocks come as fast as they go, whatever that rate is; nobody has to measure it.
// The curve is that of ZFS's write throttle (dmu_tx_delay):
//
//	wait for a block = mid * x / (1 - x), at most most
//
//	x       0 ........ 1/2 ........ 1         of the last quarter of what Append can fill
//	wait    0          mid          most
//
// It begins where volumes are asked to let go of the tail, and not before: a log that is only half full for a while
// costs nobody anything.
type brake struct {
	mid, most time.Duration
	until     int64      // loop time before which nothing of the line leaves
	timer     ring.Timer // wakes the journal then
	off       bool
}

const (
	brakeFrom = 0.75                  // of what Append can fill
	brakeMid  = 64 * time.Microsecond // 64 MB a second
	brakeMost = 16 * time.Millisecond // 256 KB a second: the last blocks go, and the line stalls as it should
)

func (j *Journal) initBrake() {
	j.brake.mid, j.brake.most = brakeMid, brakeMost
	j.brake.timer.Fire = j.wake
}

// held reports whether the line has to wait, and sees to it that it is asked again. Only a running journal holds
// anything: what ends does so at once.
func (j *Journal) held() bool {
	b, now := &j.brake, j.loop.Now()
	if b.until <= now || b.off || j.queue.head == nil || j.st != running {
		return false
	}
	if !b.timer.Armed() {
		j.counts.Braked++
		j.loop.After(&b.timer, time.Duration(b.until-now))
	}
	return true
}

// slow books n blocks of payload that left the line.
func (j *Journal) slow(n uint32) {
	x := (j.segs.filled() - brakeFrom) / (1 - brakeFrom)
	if x > 0 && n > 0 {
		j.brake.until = max(j.brake.until, j.loop.Now()) + int64(n)*int64(j.brake.wait(x))
	}
}

// wait is for one block.
func (b *brake) wait(x float64) time.Duration {
	if x >= 1 {
		return b.most
	}
	return time.Duration(min(float64(b.mid)*x/(1-x), float64(b.most)))
}

// Hurry has the line wait for nothing but space, from now on: its driver stops. Loop only.
func (j *Journal) Hurry() {
	j.brake.off = true
	j.wake()
}
