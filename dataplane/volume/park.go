package volume

import (
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/volume/journal"
	"vstor/dataplane/volume/overlay"
)

// A vDisk that cannot be opened, because its map is damaged or too many ASDs are gone to read a SCO's index,
// still has acknowledged writes in the journal that it shares. They must stay, and they must not stay where they
// are: the journal is a ring, and what nobody moves stops it for all. So its entries are parked: held in an
// overlay that nobody reads or seals, from where the Keeper copies them forward. They stay parked until a Volume
// that does open has all its SCOs and takes them over.

// Park holds log for a vDisk that does not open. opts needs neither Map nor Objects. On the loop.
func Park(opts Options, k *Keeper, log []LogEntry) *Volume {
	v := New(opts)
	v.parked = true
	k.Add(v)
	sortLog(log)
	for i := range log {
		v.enterLogged(&log[i])
	}
	return v
}

// Unpark ends what Park began and hands the entries to done, with the places where they are now, for
// Recover. On the loop; done is called there too, maybe at once.
func (v *Volume) Unpark(done func([]LogEntry)) {
	v.closed = true
	v.cancel()
	v.idle = append(v.idle, func() {
		v.keeper.Remove(v)
		done(v.log())
		v.ov.DropAll()
	})
	v.whenIdle()
}

// takeParked ends the parking of this vDisk and returns what was parked, or log if it was not.
func (v *Volume) takeParked(log []LogEntry) ([]LogEntry, error) {
	got := make(chan []LogEntry, 1)
	ok := v.loop.Call(func() {
		if p := v.keeper.parked[v.opts.ID]; p != nil {
			p.Unpark(func(parked []LogEntry) { got <- parked })
			return
		}
		got <- log
	})
	if !ok {
		return nil, errs.Closed
	}
	return <-got, nil
}

// log is the overlay as the journal would have told it, one entry per block. Blocks that a later hole covers are
// left out if both are in one batch; holes come in the order of their sequences, and before what was written into them.
func (v *Volume) log() []LogEntry {
	var out []LogEntry
	v.ov.Held(func(b *overlay.Batch) {
		for _, h := range b.Holes() {
			for off := uint64(0); off < h.Count; off += holeCopyMax {
				out = append(out, LogEntry{Seq: h.Seq, Kind: journalKind(h.Kind), Addr: h.Addr + ids.BlockAddr(off),
					Blocks: uint32(min(h.Count-off, holeCopyMax)), Pos: journal.Pos(h.Pos)})
			}
		}
		for _, e := range b.Entries() {
			if e.Live() {
				out = append(out, LogEntry{Seq: e.Seq, Kind: journal.Write, Addr: e.Addr, Blocks: 1,
					Pos: journal.Pos(e.Pos), Sums: []uint32{e.Sum}})
			}
		}
	})
	sortLog(out)
	return out
}
