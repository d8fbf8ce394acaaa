package volume

import (
	"context"
	"slices"
	"sync"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
	"vstor/dataplane/layout"
	"vstor/dataplane/volume/overlay"
	"vstor/dataplane/volume/sco"
)

// closeBatch ends the open batch and queues it for sealing. On the loop.
func (v *Volume) closeBatch() {
	if v.ov.Open().Empty() {
		return
	}
	pages := v.ov.Open().Resident() > 0
	j := &sealJob{v: v, batch: v.ov.Close(), turn: v.chain.enter()}
	v.jobs++
	v.keeper.sealing(1, pages)
	v.closes++
	v.Stats.Queue.Set(int64(v.jobs))
	v.toSeal = append(v.toSeal, j)
	v.sealNext()
}

// sealNext starts on the oldest batches that wait. Of one vDisk one more is under way than there are slots, so that
// one which is stored and waits for its turn leaves no slot idle. Not more, and none more where room lacks: what is
// stored and cannot be committed yet takes room on the drives, and what cannot be stored would be tried for nothing.
// On the loop.
func (v *Volume) sealNext() {
	most := v.opts.Sealer.slots
	if v.keeper.why != errs.Full {
		most++
	}
	for len(v.toSeal) > 0 && v.begun < most && v.ctx.Err() == nil {
		j := v.toSeal[0]
		v.toSeal = slices.Delete(v.toSeal, 0, 1)
		v.begun++
		v.opts.Sealer.background(func(context.Context) { j.run() })
	}
	// Behind a batch that waits itself one more would bring nothing, and there would be many of them.
	if v.trimsDue && len(v.toSeal) == 0 && v.ctx.Err() == nil {
		v.trimsDue = false
		if len(v.ov.Open().Holes()) > 0 {
			v.closeBatch()
		}
	}
}

// armAge starts the clock of the open batch.
func (v *Volume) armAge() {
	if !v.ageArmed {
		v.ageArmed = true
		v.loop.After(&v.ageTimer, v.opts.SealAge)
	}
}

// age seals the open batch if it is old.
func (v *Volume) age() {
	v.ageArmed = false
	b := v.ov.Open()
	if b.Empty() || v.closed {
		return
	}
	left := v.opts.SealAge - time.Duration(v.loop.Now()-b.Since)
	if left > 0 {
		v.ageArmed = true
		v.loop.After(&v.ageTimer, left)
		return
	}
	v.closeBatch()
}

// sealJob turns one closed batch into a committed SCO.
type sealJob struct {
	v      *Volume
	batch  *overlay.Batch
	turn   *turn
	header sco.Header
	head   []byte

	dropped []bool  // by entry: left out, see prune.go; nil: none
	trimmed ids.Seq // holes up to here were committed ahead of their batches
	unread  int     // tries in a row that found a block of the journal that cannot be read
}

// sealUnreadMax is how many tries may fail because of a block in the journal that cannot be read, about 1.5 s,
// before it is given up. Its SCO would be tried for ever, and the journal's tail stay where it is.
const sealUnreadMax = 5

// retryMax bounds the pause between two tries to store or commit.
const retryMax = 2 * time.Second

// run has a goroutine of its own: store the batch, commit it when its turn comes, hand it to the loop.
// It gives up only if the vDisk is closed or another epoch owns it: until it succeeds the batch is in the
// journal, and when that is full writes wait.
func (j *sealJob) run() {
	v := j.v
	if !v.begin() {
		return
	}
	defer v.end()
	defer v.loop.PostFunc(func() {
		v.begun--
		v.sealNext()
	})
	v.hook("seal")
	for {
		stored := j.store()
		if stored == nil {
			return
		}
		v.hook("put")
		kind := errs.Closed
		if j.turn.wait(v.ctx) == nil {
			kind = v.commit(stored, func(c ids.CommitNum) *applied { return j.applied(stored, c) })
		}
		if kind == errs.OK {
			j.turn.pass()
			return
		}
		stored.Abandon()
		if kind != errs.Canceled { // else garbage collection took the put for a dead one's: once more
			return
		}
	}
}

// applied is the committed SCO as the loop takes it.
func (j *sealJob) applied(s Stored, c ids.CommitNum) *applied {
	return &applied{v: j.v, manifest: s.Manifest(), commit: c, header: j.header,
		index: j.head[ids.BlockSize:], batch: j.batch, stored: s}
}

// hold keeps the batch's pages where they are while a goroutine reads it, but for those that it has done with (Coded).
// False: the vDisk is closed.
func (j *sealJob) hold(sealing bool) bool {
	open := false
	ok := j.v.loop.Call(func() { open, j.batch.Sealing = !j.v.closed, sealing })
	return ok && open
}

// store puts the SCO, for as long as it takes. Between tries the batch's pages may leave RAM, and its slot is
// another's: the backend may be gone for hours.
func (j *sealJob) store() Stored {
	v := j.v
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, retryMax) {
		stored, err := j.tryStore(v.ctx)
		switch {
		case err == nil:
			return stored
		case v.ctx.Err() != nil:
			return nil
		case errs.Of(err) == errs.Refused:
			v.fence(err)
			return nil
		}
		v.Stats.SealRetries.Add(1)
		v.opts.Log.Warn("a SCO could not be stored and is tried again", "vdisk", v.opts.Name, "error", err)
		v.loop.PostFunc(func() { v.keeper.trouble(errs.Of(err)) })
		if !sleep(v.ctx, pause) {
			return nil
		}
		if errs.Of(err) == errs.Full && !j.makeRoom() {
			return nil
		}
	}
}

// makeRoom does what can be done on full drives before the next try. One that is not the vDisk's first waits until it
// is: stored before, it could not commit, and would have taken the room that the first needs. False: the vDisk is
// closed.
func (j *sealJob) makeRoom() bool {
	j.v.opts.Sealer.noRoom()
	return j.turn.wait(j.v.ctx) == nil && j.prune()
}

// tryStore stores the SCO once, as soon as there is a slot for it, which is another's when the last of it was coded:
// that begins while this is written. (If what is written last fails, the put is tried again without a slot; that is
// rare, and its buffers are bounded by the proxy.) Pages stay in RAM at most until it is stored, though it may have to
// wait for its commit: nobody reads them here any more.
func (j *sealJob) tryStore(ctx context.Context) (Stored, error) {
	v := j.v
	if !v.opts.Sealer.acquire(ctx) {
		return nil, ctx.Err()
	}
	release := sync.OnceFunc(v.opts.Sealer.release)
	defer release()
	if !j.hold(true) {
		return nil, errs.New(errs.Closed, "volume: the vDisk is closed")
	}
	defer j.hold(false)
	n, err := v.scos.take(ctx)
	if err != nil {
		return nil, err
	}
	c := newBatchContent(v, j.batch, n, j.dropped)
	defer c.close()
	c.allCoded = release
	c.giveUp = j.unread >= sealUnreadMax
	class := layout.ClassClient
	if j.small(len(c.order)) {
		class = layout.ClassCleaning
	}
	s, err := v.opts.Objects.Put(ctx, PutSpec{Namespace: v.opts.ID, SCO: n, Epoch: v.opts.Epoch,
		Kind: layout.KindWrite, Class: class, SeqLo: c.header.SeqLo, SeqHi: c.header.SeqHi, Content: c})
	if j.unread++; err == nil || c.unread == 0 {
		j.unread = 0
	}
	if err == nil {
		j.header, j.head = c.header, c.head
	}
	if err == nil && c.rotten > 0 {
		v.Stats.Rotten.Add(uint64(c.rotten))
		v.opts.Log.Error("blocks in the journal are lost; reading them is an error until they are written again",
			"vdisk", v.opts.Name, "blocks", c.rotten)
	}
	return s, err
}

// commit makes a stored SCO the next of the vDisk, however long that takes, and hands it to the loop. OK;
// Canceled: it must be stored anew; Refused, Closed: it never will be. Any goroutine.
func (v *Volume) commit(s Stored, build func(ids.CommitNum) *applied) errs.Kind {
	return v.chain.next(func(n ids.CommitNum) errs.Kind {
		for pause := 50 * time.Millisecond; ; pause = min(2*pause, retryMax) {
			err := v.opts.Objects.Commit(v.ctx, s, n)
			switch kind := errs.Of(err); {
			case kind == errs.OK:
				return errs.OK
			case v.ctx.Err() != nil:
				return errs.Closed
			case kind == errs.Refused:
				v.fence(err)
				return errs.Refused
			case kind == errs.Canceled:
				return errs.Canceled
			}
			v.Stats.SealRetries.Add(1)
			v.opts.Log.Warn("a SCO could not be committed and is tried again", "vdisk", v.opts.Name, "error", err)
			v.loop.PostFunc(func() { v.keeper.trouble(errs.Of(err)) })
			if !sleep(v.ctx, pause) {
				return errs.Closed
			}
		}
	}, func(n ids.CommitNum) {
		v.hook("commit")
		a := build(n)
		invariants.Assert(a.decode() == nil, "an index that was just built does not parse")
		v.loop.PostFunc(a.enqueue)
	})
}

// fence stops all mutations, sealing and cleaning: a higher epoch owns the vDisk. Any goroutine.
func (v *Volume) fence(err error) {
	v.opts.Log.Error("another owner has taken this vDisk; it takes no more writes here",
		"vdisk", v.opts.Name, "error", err)
	v.cancel()
	v.loop.PostFunc(func() { v.fenced = errs.Refused })
}

// begin and end frame the work of a goroutine on the vDisk: Close waits for it. False: it is closed.
func (v *Volume) begin() bool {
	open := false
	v.loop.Call(func() {
		if open = !v.closed; open {
			v.working++
		}
	})
	return open
}

func (v *Volume) end() {
	v.loop.PostFunc(func() {
		v.working--
		v.whenIdle()
	})
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Seal closes the open batch though it is small. On the loop.
func (v *Volume) Seal() { v.closeBatch() }
