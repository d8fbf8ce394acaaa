package node

import (
	"slices"

	"vstor/dataplane/ids"
	"vstor/dataplane/volume/journal"
	"vstor/dataplane/volume/sco"
)

// fsckLog is what the journal of a deployment that does not run holds of one vDisk.
type fsckLog struct {
	entries []fsckEntry
	seqs    []ids.Seq                 // sorted, each once
	newest  map[ids.BlockAddr]ids.Seq // of blocks written
	copied  bool                      // some entries were copied forward, and others may have gone for it
}

// fsckEntry is a journal entry without its payload.
type fsckEntry struct {
	seq    ids.Seq
	kind   journal.Kind
	addr   ids.BlockAddr
	blocks uint32
	sums   []uint32
}

// readLogs reads the journals. It needs as much memory as a start does.
func (c *checker) readLogs() (map[ids.VolumeID]*fsckLog, error) {
	out := map[ids.VolumeID]*fsckLog{}
	for i := range c.n.cfg.Loops {
		c.progress("reading journal %d of %d", i+1, c.n.cfg.Loops)
		if err := c.readLog(c.n.journalPath(i), out); err != nil {
			return nil, err
		}
	}
	for _, l := range out {
		l.index()
	}
	return out, nil
}

func (c *checker) readLog(path string, out map[ids.VolumeID]*fsckLog) error {
	f, err := c.n.host.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	j, err := journal.Open(f, c.n.journalOptions(path))
	if err != nil {
		return err
	}
	return j.Replay(func(e journal.ReplayEntry) error {
		l := out[e.Vol]
		if l == nil {
			l = &fsckLog{}
			out[e.Vol] = l
		}
		l.copied = l.copied || e.Copied
		l.entries = append(l.entries, fsckEntry{e.Seq, e.Kind, e.Addr, e.Blocks, slices.Clone(e.Sums)})
		return nil
	})
}

func (l *fsckLog) index() {
	l.newest = map[ids.BlockAddr]ids.Seq{}
	for i := range l.entries {
		e := &l.entries[i]
		l.seqs = append(l.seqs, e.seq)
		for b := range e.sums {
			a := e.addr + ids.BlockAddr(b)
			l.newest[a] = max(l.newest[a], e.seq)
		}
	}
	slices.Sort(l.seqs)
	l.seqs = slices.Compact(l.seqs)
}

// first is the lowest sequence that the log has; 0: it has none.
func (l *fsckLog) first() ids.Seq {
	if l == nil || len(l.seqs) == 0 {
		return 0
	}
	return l.seqs[0]
}

// Has implements logView.
func (l *fsckLog) Has(lo, hi ids.Seq) bool {
	if l == nil || lo > hi {
		return false
	}
	i, _ := slices.BinarySearch(l.seqs, lo)
	return i < len(l.seqs) && l.seqs[i] <= hi
}

// Pending implements logView. The journal gives up its oldest records first, so if it has the first
// sequence it has all, but for those that were copied forward without what they covered.
func (l *fsckLog) Pending(lo, hi ids.Seq) bool {
	return l.Has(lo, lo) || l != nil && l.copied && l.Has(lo, hi)
}

// agrees reports whether a write SCO can have been made of what the log holds of its sequences. The log is
// the truth: a client was told that it is there. What the SCO lacks of it must be covered by newer
// entries of the log, as pruning leaves it.
func (l *fsckLog) agrees(h *sco.Header, index []byte) bool {
	if l == nil {
		return true
	}
	entries := map[ids.BlockAddr]sco.Entry{}
	var holes []sco.Hole
	err := h.ParseIndex(index, func(_ uint16, e sco.Entry) { entries[e.Addr] = e },
		func(o sco.Hole) { holes = append(holes, o) })
	if err != nil {
		return false
	}
	later := func(a ids.BlockAddr, seq ids.Seq) bool {
		return slices.ContainsFunc(holes, func(o sco.Hole) bool {
			return o.Seq >= seq && a >= o.Addr && uint64(a-o.Addr) < o.Count
		})
	}
	for i := range l.entries {
		e := &l.entries[i]
		if e.seq < h.SeqLo || e.seq > h.SeqHi {
			continue
		}
		for b, sum := range e.sums {
			a := e.addr + ids.BlockAddr(b)
			has, ok := entries[a]
			same := ok && (has.Seq > e.seq || has.Seq == e.seq && has.Sum == sum)
			if !same && !later(a, e.seq) && l.newest[a] <= h.SeqHi {
				return false
			}
		}
		if e.kind == journal.Trim || e.kind == journal.Zero {
			if _, ok := entries[e.addr]; !ok && !later(e.addr, e.seq) && l.newest[e.addr] <= h.SeqHi {
				return false
			}
		}
	}
	return true
}
