package volume

import (
	"cmp"
	"context"
	"math/bits"
	"slices"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/volume/journal"
	"vstor/dataplane/volume/overlay"
)

// LogEntry is what the journal holds of one mutation of a vDisk, collected while it was replayed.
type LogEntry struct {
	Seq    ids.Seq
	Kind   journal.Kind
	Addr   ids.BlockAddr
	Blocks uint32
	Pos    journal.Pos
	Sums   []uint32
	Bad    uint32 // bit i: block i fails its checksum
}

// recoverStep bounds one step of Recover: a look at the manifests, or one SCO.
const recoverStep = 20 * time.Second

// Recover brings a new Volume to where it was: SCOs committed after the map's checkpoint are applied
// again, then what the journal has above them enters the overlay: log, or what is parked of this vDisk, which
// stays so until then. It is called once, from a goroutine, before the first Mutate; unless the vDisk is parked
// or new the journal is replayed and not yet attached. After an error what was parked still is.
//
// How long all of it takes nobody can say, there may be thousands of SCOs, so what is bounded is each step: one
// that takes recoverStep ends in an error.
func (v *Volume) Recover(ctx context.Context, log []LogEntry) error {
	ckpt, _ := v.m.Checkpoint()
	last := ckpt.Commit
	step, end := context.WithTimeout(ctx, recoverStep)
	floor, err := v.opts.Objects.Floor(step, v.opts.ID)
	if end(); err != nil {
		return err
	}
	if last < floor {
		return errs.New(errs.Corrupt, "vDisk %s: its map is at commit %d; it had been at %d, and SCOs up to there were "+
			"deleted since: the map lost its newest changes", v.opts.Name, last, floor)
	}
	v.floor = floor
	seq := ckpt.Seq
	v.loop.Call(func() { v.appliedSeq = seq })
	for {
		step, end := context.WithTimeout(ctx, recoverStep)
		list, err := v.opts.Objects.Committed(step, v.opts.ID, last, 256)
		if end(); err != nil {
			return err
		}
		for _, m := range list {
			if m.Commit != last+1 {
				return errs.New(errs.Corrupt, "vDisk %s: SCO %d has commit %d, after %d; one between them is lost",
					v.opts.Name, m.SCO, m.Commit, last)
			}
			if err := v.applyAgain(ctx, m); err != nil {
				return err
			}
			last, seq = m.Commit, max(seq, m.SeqLast)
		}
		if len(list) < 256 {
			break
		}
	}
	if log, err = v.takeParked(log); err != nil {
		return err
	}
	v.loop.Call(func() {
		v.chain.mu.Lock()
		v.chain.commit = last
		v.chain.mu.Unlock()
		v.committed, v.seq, v.entered = seq, seq, seq
		v.jrn.Committed(v.opts.ID, seq) // replay counted all that is there as needed
	})
	v.enterLog(log)
	return nil
}

// applyAgain reads a SCO's index and applies it to the map.
func (v *Volume) applyAgain(ctx context.Context, m *layout.Manifest) error {
	ctx, end := context.WithTimeout(ctx, recoverStep)
	defer end()
	header, index, err := v.readIndex(ctx, m)
	if err != nil {
		return errs.Wrap(errs.Of(err), err, "vDisk %s: the index of SCO %d cannot be read", v.opts.Name, m.SCO)
	}
	done := make(chan struct{})
	a := &applied{v: v, manifest: m, commit: m.Commit, header: header, index: index, done: func() { close(done) }}
	if err := a.decode(); err != nil {
		return err
	}
	if !v.loop.PostFunc(a.enqueue) {
		return errs.Closed
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return errs.Wrap(errs.IO, ctx.Err(), "vDisk %s: its map did not take SCO %d", v.opts.Name, m.SCO)
	}
}

// enterLog puts what the journal has above the committed SCOs into the overlay, in the order of
// sequences; of copies of one entry the last counts, its place lives longest.
func (v *Volume) enterLog(log []LogEntry) {
	sortLog(log)
	for len(log) > 0 {
		n := logSlice(log)
		part := log[:n]
		v.loop.Call(func() {
			for i := range part {
				v.enterLogged(&part[i])
			}
		})
		log = log[n:]
	}
}

// logSlice is how many entries go in at once. All of one sequence do, of which a copy forward has made one for each
// block: between two slices the loop may close a batch, and a SCO covers whole sequences.
func logSlice(log []LogEntry) int {
	n := min(1024, len(log))
	for n < len(log) && log[n].Seq == log[n-1].Seq {
		n++
	}
	return n
}

func sortLog(log []LogEntry) {
	slices.SortStableFunc(log, func(a, b LogEntry) int { return cmp.Compare(a.Seq, b.Seq) })
}

func (v *Volume) enterLogged(e *LogEntry) {
	if e.Seq <= v.committed {
		return
	}
	v.seq, v.entered = max(v.seq, e.Seq), max(v.entered, e.Seq)
	v.Stats.Rotten.Add(uint64(bits.OnesCount32(e.Bad)))
	open := v.ov.Open()
	_, hi := open.SeqRange()
	fits := len(open.Entries())+int(e.Blocks) <= v.batchMax
	if e.Kind != journal.Write {
		fits = len(open.Holes()) < holesMax
	}
	switch {
	case fits || e.Seq <= hi:
	case v.parked:
		v.ov.Close() // nobody seals it, but a hole goes into a sorted list, which must stay short
	default:
		v.closeBatch()
	}
	if e.Kind != journal.Write {
		v.ov.PutHole(overlay.Hole{Addr: e.Addr, Count: uint64(e.Blocks), Seq: e.Seq, Kind: holeKind(e.Kind),
			Pos: uint32(e.Pos)}, v.loop.Now())
	} else {
		for i := range e.Blocks {
			v.ov.Put(overlay.Entry{Addr: e.Addr + ids.BlockAddr(i), Seq: e.Seq, Sum: e.Sums[i],
				Pos: uint32(e.Pos) + i}, v.loop.Now())
		}
	}
	if !v.parked {
		v.armAge()
	}
}
