package volume

import (
	"slices"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/volume/overlay"
	"vstor/dataplane/volume/pagemap"
	"vstor/dataplane/volume/sco"
)

// applied is a committed SCO on its way into the map. A SCO names 16k random blocks: applied at once it
// would hold the loop for milliseconds, so it goes in slices, one a pass. Readers notice nothing: the
// overlay still holds the batch and is asked first; the blocks of a cleaning SCO lie in two places.
type applied struct {
	v        *Volume
	manifest *layout.Manifest
	commit   ids.CommitNum
	header   sco.Header
	index    []byte // as in the object

	batch  *overlay.Batch // nil for cleaning, and when a vDisk is opened
	stored Stored         // nil when a vDisk is opened
	done   func()         // may be nil

	entries []pagemap.Entry
	moves   []pagemap.Move
	holes   []sco.Hole
	begun   bool
	need    []pagemap.PageNo
	loading int
}

// applySlice is how many blocks enter the map in one pass, about 100 us.
const applySlice = 1024

// decode turns the index into what the map takes. Any goroutine.
func (a *applied) decode() error {
	if a.header.Kind == sco.Cleaning {
		a.moves = make([]pagemap.Move, 0, a.header.Entries)
	} else {
		a.entries = make([]pagemap.Entry, 0, a.header.Entries)
	}
	a.need = make([]pagemap.PageNo, 0, 64)
	return a.header.ParseIndex(a.index, func(off uint16, e sco.Entry) {
		if a.header.Kind == sco.Cleaning {
			a.moves = append(a.moves, pagemap.Move{Addr: e.Addr, Old: e.Old, Off: off})
		} else {
			a.entries = append(a.entries, pagemap.Entry{Addr: e.Addr, Off: off, Sum: e.Sum})
		}
	}, func(h sco.Hole) { a.holes = append(a.holes, h) })
}

// enqueue puts the SCO behind those committed before it. On the loop.
func (a *applied) enqueue() {
	v := a.v
	v.opts.Reader.Install(a.manifest)
	v.applyQ = append(v.applyQ, a)
	v.applyNext()
}

// applyNext begins with the oldest SCO that is not in the map, if none is being applied.
func (v *Volume) applyNext() {
	if v.applying || len(v.applyQ) == 0 || v.closed {
		return
	}
	v.applying = true
	v.applyQ[0].step()
}

// step applies a slice and comes back in a later pass, until all is in the map.
func (a *applied) step() {
	v, m := a.v, a.v.m
	if v.closed {
		return
	}
	if !a.begun {
		if m.Full() {
			m.WhenRoom(a.step)
			return
		}
		a.begin()
	}
	switch {
	case len(a.entries) > 0:
		n := min(applySlice, len(a.entries))
		m.Apply(a.commit, a.header.SCO, a.entries[:n])
		a.entries = a.entries[n:]
	case len(a.moves) > 0:
		n := min(applySlice, len(a.moves))
		settled, need := m.ApplyMoves(a.commit, a.header.SCO, a.moves[:n], a.need[:0])
		a.moves = a.moves[settled:]
		if settled < n {
			a.load(need)
			return
		}
	}
	if len(a.entries)+len(a.moves) > 0 {
		v.loop.PostFunc(a.step)
		return
	}
	a.end()
}

func (a *applied) begin() {
	a.begun = true
	a.v.m.AddSCO(pagemap.SCO{Num: a.header.SCO, Commit: a.commit, Blocks: a.header.Entries,
		First: a.header.SeqLo, Last: a.header.SeqHi})
	for _, h := range a.holes {
		if a.header.Kind == sco.Cleaning && h.Seq <= a.v.appliedSeq {
			continue // its batch is in the map, and maybe what was written into it since: see prune.go
		}
		a.v.m.ApplyTrim(a.commit, h.Addr, h.Count, uint16(h.Kind))
	}
}

// load brings the map's pages that moves need into RAM, then goes on. A page that cannot be read now may
// be later; until then this vDisk's SCOs wait, and its journal holds what comes. One that is corrupt stays
// so: its moves are given up, the blocks stay where they were, and so does the SCO they were to leave.
func (a *applied) load(need []pagemap.PageNo) {
	a.loading = len(need)
	again := false
	for _, p := range need {
		a.v.m.Load(p, func(err error) {
			switch errs.Of(err) {
			case errs.OK:
			case errs.Corrupt:
				a.v.opts.Log.Error("a page of the map is corrupt", "vdisk", a.v.opts.Name, "error", err)
				a.moves = slices.DeleteFunc(a.moves, func(m pagemap.Move) bool { return pagemap.PageOf(m.Addr) == p })
			default:
				again = true
				a.v.opts.Log.Warn("the map cannot be read; it is tried again", "vdisk", a.v.opts.Name, "error", err)
			}
			if a.loading--; a.loading > 0 {
				return
			}
			if again {
				a.v.after(time.Second, a.step)
				return
			}
			a.step()
		})
	}
}

// end ends the SCO's commit in the map and lets go of what stood in for it.
func (a *applied) end() {
	v := a.v
	v.appliedSeq = max(v.appliedSeq, a.header.SeqHi)
	v.m.Commit(a.commit, v.appliedSeq)
	if a.batch != nil {
		free := v.pool.Free()
		v.ov.DropOldest(a.batch)
		v.jobs--
		v.keeper.sealing(-1, v.pool.Free() > free)
		v.Stats.Queue.Set(int64(v.jobs))
		v.Stats.Sealed.Inc()
		v.keeper.trouble(errs.OK)
		v.Stats.SealedBlocks.Add(uint64(a.header.Entries))
		v.release(a)
	}
	v.hook("apply")
	v.applyQ = v.applyQ[1:]
	v.applying = false
	if a.done != nil {
		a.done()
	}
	v.Kick()
	v.applyNext()
}

// release gives the journal's space back once all fragments of the SCO are written or known to be lost, in
// the order of commits. If the journal runs short before that, the SCO's c fragments have to do.
func (v *Volume) release(a *applied) {
	v.waiting = append(v.waiting, a)
	select {
	case <-a.stored.Complete():
	default:
		v.opts.Sealer.whenClosed(a.stored.Complete(), func() { v.loop.PostFunc(v.releaseReady) })
	}
	v.releaseReady()
}

func (v *Volume) releaseReady() {
	for len(v.waiting) > 0 && !v.closed {
		a := v.waiting[0]
		select {
		case <-a.stored.Complete():
		default:
			if !v.keeper.desperate() {
				return
			}
			v.Stats.TrimIncomplete.Inc()
		}
		v.committed = a.header.SeqHi
		v.jrn.Committed(v.opts.ID, v.committed)
		v.hook("trim")
		v.waiting = v.waiting[1:]
	}
}

// loadPage brings the page of addr into RAM for a reader.
func (v *Volume) loadPage(addr ids.BlockAddr, l block.Loaded) {
	v.m.Load(pagemap.PageOf(addr), func(err error) { l.MapLoaded(errs.Of(err)) })
}

// after runs f on the loop in a while.
func (v *Volume) after(d time.Duration, f func()) {
	t := &timerFunc{}
	t.Fire = f
	v.loop.After(&t.Timer, d)
}
