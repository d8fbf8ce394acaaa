package volume

import (
	"context"
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
	j := &sealJob{v: v, batch: v.ov.Close(), turn: v.chain.enter()}
	v.jobs++
	v.closes++
	v.Stats.Queue.Set(int64(v.jobs))
	v.opts.Sealer.submit(j.run)
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
}

// retryMax bounds the pause between two tries to store or commit.
const retryMax = 2 * time.Second

// run works in a Sealer's goroutine: store the batch, commit it when its turn comes, hand it to the loop.
// It gives up only if the router stops or another epoch owns the vDisk: until it succeeds the batch is in
// the journal, and when that is full writes wait.
func (j *sealJob) run(ctx context.Context) {
	v := j.v
	gone := false
	if !v.loop.Call(func() { gone, j.batch.Sealing = v.closed, true }) || gone {
		return
	}
	v.hook("seal")
	stored := j.storeAndCommit(ctx)
	if stored == nil {
		return
	}
	v.hook("commit")
	a := &applied{v: v, manifest: stored.Manifest(), commit: j.turn.c.commit, header: j.header,
		index: j.head[ids.BlockSize:], batch: j.batch, stored: stored}
	invariants.Assert(a.decode() == nil, "an index that was just built does not parse")
	v.loop.PostFunc(a.enqueue)
	j.turn.pass()
}

// storeAndCommit does both until it is done, or nil if it never will be.
func (j *sealJob) storeAndCommit(ctx context.Context) Stored {
	for {
		stored := j.store(ctx)
		if stored == nil || j.turn.wait(ctx) != nil {
			return nil
		}
		j.v.hook("put")
		switch j.v.commit(ctx, stored, j.turn) {
		case errs.OK:
			return stored
		case errs.Canceled: // garbage collection took the put for a dead one's
			stored.Abandon()
		default:
			return nil
		}
	}
}

// store puts the SCO, for as long as it takes.
func (j *sealJob) store(ctx context.Context) Stored {
	v := j.v
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, retryMax) {
		stored, err := j.tryStore(ctx)
		if err == nil {
			return stored
		}
		v.Stats.SealRetries.Add(1)
		v.opts.Log.Warn("a SCO could not be stored and is tried again", "vdisk", v.opts.Name, "error", err)
		v.loop.PostFunc(func() { v.keeper.trouble(errs.Of(err)) })
		if !sleep(ctx, pause) {
			return nil
		}
	}
}

func (j *sealJob) tryStore(ctx context.Context) (Stored, error) {
	v := j.v
	n, err := v.scos.take(ctx)
	if err != nil {
		return nil, err
	}
	c := newBatchContent(v, j.batch, n)
	defer c.close()
	j.header, j.head = c.header, c.head
	s, err := v.opts.Objects.Put(ctx, PutSpec{Namespace: v.opts.ID, SCO: n, Epoch: v.opts.Epoch,
		Class: layout.ClassClient, SeqLo: c.header.SeqLo, SeqHi: c.header.SeqHi, Content: c})
	if err == nil && c.rotten > 0 {
		v.Stats.Rotten.Add(uint64(c.rotten))
		v.opts.Log.Error("blocks in the journal fail their checksums; reading them is an error until they are written again",
			"vdisk", v.opts.Name, "blocks", c.rotten)
	}
	return s, err
}

// commit makes a stored SCO the next of the vDisk, however long that takes. Only while its turn is held. OK;
// Canceled: it must be stored anew; Refused, Closed: it never will be.
func (v *Volume) commit(ctx context.Context, s Stored, t *turn) errs.Kind {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, retryMax) {
		err := v.opts.Objects.Commit(ctx, s, t.next())
		switch errs.Of(err) {
		case errs.OK:
			t.used()
			return errs.OK
		case errs.Canceled:
			if ctx.Err() == nil {
				return errs.Canceled
			}
		case errs.Refused:
			v.opts.Log.Error("another owner has taken this vDisk; it takes no more writes here",
				"vdisk", v.opts.Name, "error", err)
			v.loop.PostFunc(func() { v.fence() })
			return errs.Refused
		}
		v.Stats.SealRetries.Add(1)
		v.opts.Log.Warn("a SCO could not be committed and is tried again", "vdisk", v.opts.Name, "error", err)
		if !sleep(ctx, pause) {
			return errs.Closed
		}
	}
}

// fence stops all mutations: a higher epoch owns the vDisk.
func (v *Volume) fence() { v.fenced = errs.Refused }

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
