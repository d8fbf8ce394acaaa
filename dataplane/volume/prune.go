package volume

import (
	"vstor/dataplane/errs"
	"vstor/dataplane/volume/journal"
	"vstor/dataplane/volume/overlay"
)

// When drives are full, what would give space back may wait behind what needs it: SCOs commit in order, so
// a trim reaches the map only after the blocks that were written before it, trimmed or not. So a SCO that
// finds no room is made again without the blocks that newer batches have trimmed or written over, and when
// little of it is left it may use the room that is kept for cleaning.
//
// The newest version of such a block is in the journal above this SCO's sequences, and is replayed from
// there. It must survive power loss before this SCO commits, since from then on the older version is not
// replayed any more, flushed though it may have been: hence the sync.
//
// That does not help where the trims are of what was sealed long ago, and the blocks of the first SCO are live. So
// before it is tried again the holes of all batches that wait are committed ahead of them: in a cleaning SCO, which
// takes no turn and may use the room kept for cleaning. It covers no sequences, so the journal keeps what it has, and
// the holes come once more with their own batches, as if nothing had been. That they are durable in the journal first
// keeps power loss from leaving a trim without what was written before it.
//
// What such a hole must never take away is what was written after it. To rely on the order of commits is the obvious
// way, since while the first SCO waits nothing newer commits; but fsck puts a cleaning SCO whose number is lost behind
// all others. So a hole counts like a move, only as long as the map is as it was: while the hole's sequence is above
// all that are applied. Write SCOs are applied in the order of their sequences, so then nothing in the map is newer
// than the hole, and moves make nothing newer of it; what is newer is in the overlay, which is asked first, and is
// applied later, over the hole. The same goes for a replay from a checkpoint, which has the sequence that belongs to
// its commit.

// prune finds the blocks of the job's batch that newer batches cover, and commits the holes that wait. The job's turn
// has come. False: the vDisk is closed or its journal failed.
func (j *sealJob) prune() bool {
	v := j.v
	done := make(syncWait, 1)
	var holes []overlay.Hole
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
		holes = v.ov.HolesAbove(max(j.trimmed, v.appliedSeq), holesMax)
		v.jrn.Sync(&journal.Sync{Done: done})
	})
	if !ok || <-done != errs.OK {
		return false
	}
	j.trimAhead(holes)
	return true
}

// trimAhead commits holes ahead of the batches that they are of. The job does so once with each; another may have to
// do it again, since what they cover may be in batches that were committed meanwhile. If it cannot be done now, the
// next try may.
func (j *sealJob) trimAhead(holes []overlay.Hole) {
	v := j.v
	if len(holes) == 0 {
		return
	}
	content := &cleanContent{v: v, holes: scoHoles(overlay.Flatten(holes))}
	if err := v.commitCleaning(v.ctx, content); err != nil {
		if v.ctx.Err() == nil {
			v.opts.Log.Warn("trims could not be brought forward and are tried again", "vdisk", v.opts.Name, "error", err)
		}
		return
	}
	for _, h := range holes {
		j.trimmed = max(j.trimmed, h.Seq)
	}
}

// syncWait hands the end of a Sync to a goroutine.
type syncWait chan errs.Kind

func (c syncWait) JournalSynced(s *journal.Sync) { c <- s.Err }

// small reports whether so little of the batch is left that it may use the room kept for cleaning.
func (j *sealJob) small(blocks int) bool { return j.dropped != nil && blocks <= j.v.batchMax/8 }
