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
// left. So the log settles where blocks come as fast as they go, whatever that rate is; nobody has to measure it. The
// curve is that of ZFS's write throttle (dmu_tx_delay):
//
//	wait for a block = mid * x / (1 - x), at most brakeMost * mid
//
//	x       0 ........ 1/2 ........ 1         of the last quarter of what Append can fill
//	wait    0          mid          brakeMost * mid
//
// It begins about where volumes are asked to let go of the tail: a log that is half full for a while costs nobody
// anything. What gives nothing back, as a vDisk that is parked, costs all of the loop for as long as it stays.
type brake struct {
	mid    time.Duration
	since  int64      // loop time from which they count
	blocks uint32     // that left the line last
	timer  ring.Timer // wakes the journal when the next may leave
	off    bool
}

const (
	brakeFrom = 0.75 // of what Append can fill
	tightFrom = 0.875
	// brakeMid is 64 MB a second. In a large log less will do: the last quarter, where nothing comes back, lasts
	// about three times brakeAll before the line stalls, whatever its size.
	brakeMid  = 64 * time.Microsecond
	brakeAll  = 4 * time.Second
	brakeMost = 32
	// brakeLeast is not worth a timer: it is added to what the next ones wait.
	brakeLeast = 50 * time.Microsecond
)

func (j *Journal) initBrake() {
	last := (1 - brakeFrom) * float64(j.segs.fillable())
	j.brake.mid = min(brakeMid, time.Duration(float64(brakeAll)/last))
	j.brake.timer.Fire = j.wake
}

// held reports whether the line has to wait, and sees to it that it is asked again: by the timer, or by cameBack.
// Only a running journal holds anything: what ends does so at once.
func (j *Journal) held() bool {
	b := &j.brake
	if b.blocks == 0 || b.off || j.first() == nil || j.st != running {
		return false
	}
	left := j.owed()
	if left < int64(brakeLeast) {
		return false
	}
	if !b.timer.Armed() {
		j.counts.Braked++
	}
	j.loop.After(&b.timer, time.Duration(left))
	return true
}

// owed is how long what has left makes the next wait yet, by what is left now and not then.
func (j *Journal) owed() int64 {
	b := &j.brake
	return b.since + int64(b.blocks)*int64(b.wait(j.segs.filled())) - j.loop.Now()
}

// slow books n blocks of payload that leave the line, before the log has them. What those before them still owe,
// less than brakeLeast, is a time from now on: at the price of a fuller log, blocks of long ago would add up to a
// standstill.
func (j *Journal) slow(n uint32) {
	if n > 0 {
		j.brake.since, j.brake.blocks = j.loop.Now()+max(0, j.owed()), n
	}
}

// wait is for one block.
func (b *brake) wait(filled float64) time.Duration {
	x := max(0, filled-brakeFrom) / (1 - brakeFrom)
	return time.Duration(float64(b.mid) * x / max(1-x, x/brakeMost))
}

// cameBack is told that something may be needed no more: the line may have to wait less.
func (j *Journal) cameBack() {
	j.trim()
	if j.brake.timer.Armed() {
		j.wake()
	}
}

// Tight reports whether little is left, and the line slowed down a lot. Loop only.
func (j *Journal) Tight() bool { return j.stalled != 0 || j.segs.filled() >= tightFrom }

// Hurry has the line wait for nothing but space, from now on: its driver stops. Loop only.
func (j *Journal) Hurry() {
	j.brake.off = true
	j.wake()
}
