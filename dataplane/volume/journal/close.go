package journal

import (
	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
)

// Close ends the journal: entries that find space are written, those that do not end with Closed, what is
// under way ends, and everything is made durable with a root that says that nothing is missing. Then s
// ends. Nothing is drained: what is not Committed is replayed by the next Open. A journal that has failed
// closes without a root, and s ends with IO. Close it once. Loop only.
func (j *Journal) Close(s *Sync) {
	invariants.Assert(j.st >= attaching && j.closer == nil && s.Done != nil,
		"journal: Close before Attach, or twice")
	s.Err = errs.OK
	j.closer = s
	if j.st == running {
		j.st = closing
	}
	j.timer.stop()
	j.loop.StopTimer(&j.brake.timer)
	j.timer.wanted = false
	j.wake()
}

// finishClose takes the last steps once nothing is under way.
func (j *Journal) finishClose() {
	quiet := j.ended+1 == j.next && j.first() == nil && j.copies.head == nil &&
		!j.syncs.busy && j.syncs.waiting.head == nil && !j.roots.busy
	switch {
	case j.closer == nil || j.st == closed || !quiet:
	case j.failed != nil:
		j.shut(errs.IO)
	case j.st == closing:
		j.roots.begin(rootClose)
	}
}

// shut gives the pages back and tells whoever closed.
func (j *Journal) shut(kind errs.Kind) {
	j.st = closed
	j.timer.stop()
	j.loop.Pool().ReleaseVec(&j.pages)
	j.wake() // for what is appended from JournalSynced
	j.closer.Err = kind
	j.closer.Done.JournalSynced(j.closer)
}
