package volume

import (
	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/ring"
	"vstor/dataplane/volume/journal"
	"vstor/dataplane/volume/overlay"
)

// part is one journal entry of a mutation. Nearly every mutation is one part; a write too large for a
// journal record is several, each with a sequence of its own.
type part struct {
	journal.Entry
	v     *Volume
	mut   *block.Mutation
	last  bool // of its mutation
	next  *part
	sync  journal.Sync
	later ring.Op
}

func (v *Volume) getPart() *part {
	if p := v.free; p != nil {
		v.free, p.next = p.next, nil
		return p
	}
	p := &part{v: v}
	p.Entry.Done = p
	p.sync.Done = p
	p.later.Done = p
	return p
}

func (v *Volume) putPart(p *part) {
	p.mut = nil
	p.Data.Reset()
	p.next, v.free = v.free, p
}

// Mutate starts a change; see block.Mutation. On the loop.
func (v *Volume) Mutate(m *block.Mutation) {
	m.Err = errs.OK
	switch {
	case v.fenced != errs.OK:
		v.refuse(m, v.fenced)
	case m.Op == block.Sync:
		p := v.getPart()
		p.mut = m
		v.jrn.Sync(&p.sync)
	case m.Op == block.Put:
		v.put(m)
	default:
		v.hole(m)
	}
}

// refuse ends a mutation that is not taken.
func (v *Volume) refuse(m *block.Mutation, k errs.Kind) {
	m.Err = k
	v.pool.ReleaseVec(&m.Data)
	p := v.getPart()
	p.mut = m
	v.loop.Defer(&p.later, 0)
}

// RingDone is the deferred end of a refused mutation.
func (p *part) RingDone(*ring.Op, int32) {
	m := p.mut
	p.v.putPart(p)
	m.Done.MutationDone(m)
}

// JournalSynced ends a Sync.
func (p *part) JournalSynced(s *journal.Sync) {
	m := p.mut
	m.Err = s.Err
	p.v.putPart(p)
	m.Done.MutationDone(m)
}

func (v *Volume) put(m *block.Mutation) {
	n := int(m.Count)
	if n <= v.partMax {
		p := v.newEntry(m, journal.Write, m.Addr, m.Count)
		p.Data.Segs, m.Data.Segs = m.Data.Segs, p.Data.Segs[:0]
		p.Sums = m.Sums
		p.last = true
		v.jrn.Append(&p.Entry)
		return
	}
	from := 0
	for from < n {
		take := min(v.partMax, n-from)
		p := v.newEntry(m, journal.Write, m.Addr+ids.BlockAddr(from), uint64(take))
		p.Sums = m.Sums[from : from+take]
		slicePages(&p.Data, &m.Data, from, take)
		from += take
		p.last = from == n
		v.jrn.Append(&p.Entry)
	}
	m.Data.Reset()
}

// slicePages appends take whole pages of src, from page from on, to dst. References pass over.
func slicePages(dst, src *buf.Vec, from, take int) {
	for _, s := range src.Segs {
		n := s.Pages()
		if from >= n {
			from -= n
			continue
		}
		k := min(n-from, take)
		dst.Add(buf.Seg{Page: s.Page + buf.Page(from), Len: uint32(k * buf.PageSize)})
		take -= k
		from = 0
		if take == 0 {
			return
		}
	}
}

func (v *Volume) hole(m *block.Mutation) {
	kind := journal.Trim
	if m.Op == block.ZeroFill {
		kind = journal.Zero
	}
	p := v.newEntry(m, kind, m.Addr, m.Count)
	p.Sums = nil
	p.last = true
	v.jrn.Append(&p.Entry)
}

func (v *Volume) newEntry(m *block.Mutation, k journal.Kind, addr ids.BlockAddr, n uint64) *part {
	v.seq++
	v.inFlight++
	p := v.getPart()
	p.mut, p.last = m, false
	p.Vol, p.Seq, p.Kind, p.Addr, p.Blocks = v.opts.ID, v.seq, k, addr, uint32(n)
	p.Err = errs.OK
	return p
}

// JournalDone puts a part that is durable into the overlay. Entries end in the order of their
// sequences, so the overlay sees them in that order too.
func (p *part) JournalDone(*journal.Entry) {
	v, m := p.v, p.mut
	v.inFlight--
	if p.Err == errs.OK {
		v.entered = p.Seq
		v.enter(&p.Entry)
	} else {
		m.Err = p.Err
		v.pool.ReleaseVec(&p.Data)
	}
	v.keeper.arm()
	last := p.last
	v.putPart(p)
	if last {
		m.Done.MutationDone(m)
	}
	v.whenIdle()
}

// enter puts a journal entry into the overlay, which takes over its pages. A batch closes before an
// entry that does not fit, never inside one: a SCO covers whole sequences.
func (v *Volume) enter(e *journal.Entry) {
	open := v.ov.Open()
	if e.Kind != journal.Write {
		if len(open.Holes()) >= holesMax {
			v.closeBatch()
		}
		v.ov.PutHole(overlay.Hole{Addr: e.Addr, Count: uint64(e.Blocks), Seq: e.Seq, Kind: holeKind(e.Kind),
			Pos: uint32(e.Pos)}, v.loop.Now())
		v.armAge()
		return
	}
	if len(open.Entries())+int(e.Blocks) > v.batchMax {
		v.closeBatch()
	}
	i := uint32(0)
	for _, s := range e.Data.Segs {
		for j := range s.Pages() {
			v.ov.Put(overlay.Entry{
				Addr: e.Addr + ids.BlockAddr(i), Seq: e.Seq, Sum: e.Sums[i],
				Page: s.Page + buf.Page(j), Pos: uint32(e.Pos) + i,
			}, v.loop.Now())
			i++
		}
	}
	e.Data.Reset()
	v.Stats.Blocks.Add(uint64(e.Blocks))
	v.armAge()
	v.keepRAM()
}

func holeKind(k journal.Kind) overlay.HoleKind {
	if k == journal.Zero {
		return layout.OffZero
	}
	return layout.OffTrimmed
}

// holeCopyMax is the most blocks of one hole record in the journal.
const holeCopyMax = 1 << 31

func journalKind(k overlay.HoleKind) journal.Kind {
	if k == layout.OffZero {
		return journal.Zero
	}
	return journal.Trim
}

// whenIdle runs what waits until neither the journal nor a goroutine has anything of this vDisk under way.
func (v *Volume) whenIdle() {
	if v.inFlight > 0 || v.copying != nil || v.working > 0 || len(v.idle) == 0 {
		return
	}
	fs := v.idle
	v.idle = nil
	for _, f := range fs {
		f()
	}
}
