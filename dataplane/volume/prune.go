package volume

import (
	"vstor/dataplane/errs"
	"vstor/dataplane/volume/journal"
)

// When drives are full, what would give space back may wait behind what needs it: SCOs commit in order, so
// a trim reaches the map only after the blocks that were written before it, trimmed or not. So a SCO that
// finds no room is made again without the blocks that newer batches have trimmed or written over, and when
// little of it is left it may use the room that is kept for cleaning.
//
// The newest version of such a block is in the journal above this SCO's sequences, and is replayed from
// there. It must survive power loss before this SCO commits, since from then on the older version is not
// replayed any more, flushed though it may have been: hence the sync.

// prune finds the blocks of the job's batch that newer batches cover. False: the vDisk is closed or its
// journal failed.
func (j *sealJob) prune() bool {
	v := j.v
	done := make(syncWait, 1)
	ok := v.loop.Call(func() {
		if v.closed {
			done <- errs.Closed
			return
		}
		if !v.keeper.started { // it is being opened: the journal cannot sync yet
			done <- errs.OK
			return
		}
		j.dropped = v.ov.Covered(j.batch, j.dropped[:0])
		v.jrn.Sync(&journal.Sync{Done: done})
	})
	return ok && <-done == errs.OK
}

// syncWait hands the end of a Sync to a goroutine.
type syncWait chan errs.Kind

func (c syncWait) JournalSynced(s *journal.Sync) { c <- s.Err }

// small reports whether so little of the batch is left that it may use the room kept for cleaning.
func (j *sealJob) small(blocks int) bool { return j.dropped != nil && blocks <= j.v.batchMax/8 }
