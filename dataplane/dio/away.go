package dio

import (
	"context"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Away is the lane of bulk writes that other processes do on a drive for this one: ASDs, which know nothing of one
// another, nor of a journal beside them. Who hands them the writes does: six ASDs of one drive would have a dozen
// megabytes under way there, and a journal's record behind them. So it sends two at a time for each drive: while one is
// written the next is on its way and verified.
type Away struct{ lane *lane }

const (
	awayDepth = 2
	// awayMost is how long a write keeps its place: a process that hangs must not stop the others.
	awayMost = 50 * time.Millisecond
)

// AwayTo is the lane of the drive that path is or lies on, or will lie on once it is there. nil: none is kept for it.
func AwayTo(path string) *Away {
	var st unix.Stat_t
	for unix.Stat(path, &st) != nil {
		parent := filepath.Dir(path)
		if parent == path {
			return nil
		}
		path = parent
	}
	if l := keptLane("away ", &st, awayDepth, 0); l != nil {
		return &Away{l}
	}
	return nil
}

// Begin waits until a write of n bytes may be sent, or ctx ends; end is to be called once when it is answered. Of a nil
// Away nothing waits. Any goroutine; not for loops.
func (a *Away) Begin(ctx context.Context, n int) (end func()) {
	if a == nil {
		return nothing
	}
	place := a.lane.enter(ctx, n)
	if place == nil {
		return nothing
	}
	late := time.AfterFunc(awayMost, func() { <-place })
	return func() {
		if late.Stop() {
			<-place
		}
	}
}

func nothing() {}
