package dio

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// Away is the lane of bulk writes that other processes do on a drive for this one: ASDs, which know nothing of one
// another, nor of a journal beside them. Who hands them the writes does: six ASDs of one drive would have two dozen
// fragments under way there, and a journal's record behind them. So it sends two large ones at a time for each drive:
// while one is written the next is on its way and verified. Smaller ones it does not hold up, since an ASD shares a
// sync of its drive among those that it has.
type Away struct{ lane *lane }

const (
	awayDepth  = 2
	awayLength = 256 << 10 // bytes; what is longer waits for a place
	// A write keeps its place for awayMost and as long as a slow drive takes, at awaySlow bytes a second, and no longer:
	// a process that hangs holds up its neighbours, and must not stop them.
	awayMost = 50 * time.Millisecond
	awaySlow = 40_000_000
)

// AwayTo is the lane of the drive that path is or lies on. nil: none is kept for it.
func AwayTo(path string) *Away {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return nil
	}
	if l := keptLane("away ", &st, awayDepth, 0); l != nil {
		return &Away{l}
	}
	return nil
}

// Begin waits until a write of n bytes may be sent, or ctx ends; end is to be called once when it is answered. Of a nil
// Away nothing waits. Any goroutine; not for loops.
func (a *Away) Begin(ctx context.Context, n int) (end func()) {
	if a == nil || n <= awayLength {
		return nothing
	}
	place := a.lane.enter(ctx, n)
	if place == nil {
		return nothing
	}
	late := time.AfterFunc(awayMost+time.Duration(n)*time.Second/awaySlow, func() { <-place })
	return func() {
		if late.Stop() {
			<-place
		}
	}
}

func nothing() {}
