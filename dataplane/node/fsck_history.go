package node

import (
	"cmp"
	"math"
	"slices"

	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/proxy"
	"vstor/dataplane/volume/pagemap"
)

// history is what is left of a vDisk's commits, from which fsck finds out what they were. Pure: it looks at
// nothing but its fields.
//
// Three things remember a commit: the manifest, the order of commits, and the map, which lists every SCO up to
// some commit P at or after its checkpoint, but for those deleted, in which nothing lay at the checkpoint. The
// map's word stands: its pages name these SCOs, and it asserts their numbers. So up to P all is known:
//
//	map lists it, blocks of it live or behind the checkpoint   it must be there
//	map lists it, all dead                                     its delete may have been under way: need not be
//	map does not list it                                       it was deleted; a manifest of it is an old copy's
//
// Behind P the order of commits says what was committed, if the metadata store lost nothing. What it does not
// name is what a crash left of puts that never were. If it lost something, write SCOs follow one another by
// their sequences: see chain. Cleaning SCOs nobody names are let go of: their moves count only where blocks lie
// at the old place, nothing was deleted from there before the map knew, so without them blocks lie there still; and
// holes that one brought forward come again, with the write SCO or the journal entries that they are of.
type history struct {
	ckpt   pagemap.Checkpoint
	mapped []pagemap.Kept // in the order of their commits
	rec    *proxy.Records
	intact bool // the metadata store lost nothing of this namespace
	cands  []candidate
	log    logView
	agrees func(*candidate) bool // whether the journal tells the same story; asked only of whole ones

	bySCO map[ids.SCONum][]candidate // cands, once decide has begun
}

// candidate is a put that ASDs hold fragments of and that no manifest names.
type candidate struct {
	proxy.Object
	SCO   ids.SCONum
	Whole bool // a manifest can be made of it
	Why   string
}

// logView is what the journal holds of a vDisk.
type logView interface {
	// Has reports whether it holds an entry with a sequence from lo to hi.
	Has(lo, hi ids.Seq) bool
	// Pending reports whether it holds what a SCO of these sequences was made of, as it does until that
	// is committed.
	Pending(lo, hi ids.Seq) bool
}

// verdict is what must change so that the metadata store says what was.
type verdict struct {
	restore []restored                   // manifests to be made
	commits map[ids.SCONum]ids.CommitNum // manifests that are whole, with another number
	order   map[ids.CommitNum]ids.SCONum // entries to be set; SCO 0: taken out
	drop    []ids.SCONum                 // manifests of what is dead
	lost    []lostSCO                    // what was committed and cannot be made again
	gaps    int                          // sequences that chain found nobody to have, a stretch each
	last    ids.Seq                      // the last one that a SCO has
	top     ids.CommitNum                // the last commit
}

type restored struct {
	SCO    ids.SCONum
	Put    ids.PutID
	Commit ids.CommitNum
}

type lostSCO struct {
	SCO    ids.SCONum
	Commit ids.CommitNum
	Why    string
}

// step is a SCO in its place among the commits.
type step struct {
	candidate
	commit ids.CommitNum // as known; 0: not known
	known  bool          // its manifest is whole
	hole   bool          // it cannot be made again
}

func (s *step) write() bool { return !s.hole && s.Kind == layout.KindWrite }

func (h *history) decide() *verdict {
	v := &verdict{commits: map[ids.SCONum]ids.CommitNum{}, order: map[ids.CommitNum]ids.SCONum{}}
	h.bySCO = make(map[ids.SCONum][]candidate)
	for _, c := range h.cands {
		h.bySCO[c.SCO] = append(h.bySCO[c.SCO], c)
	}
	numbers := h.numbers()
	top := h.ckpt.Commit
	kept := make(map[ids.SCONum]*pagemap.Kept, len(h.mapped))
	for i := range h.mapped {
		kept[h.mapped[i].Num] = &h.mapped[i]
		top = max(top, h.mapped[i].Commit)
	}
	var tail []step
	for sco, c := range numbers {
		if c <= top {
			h.settle(v, sco, c, kept[sco])
		} else {
			tail = append(tail, h.step(sco, c))
		}
	}
	slices.SortFunc(tail, func(a, b step) int { return cmp.Compare(a.commit, b.commit) })
	if !h.intact {
		tail = h.chain(v, tail, numbers)
	}
	h.number(v, tail, top)
	h.unreadable(v)
	slices.SortFunc(v.restore, func(a, b restored) int { return cmp.Compare(a.Commit, b.Commit) })
	slices.SortFunc(v.lost, func(a, b lostSCO) int { return cmp.Compare(a.Commit, b.Commit) })
	slices.Sort(v.drop)
	return v
}

// numbers is the commit number of every SCO of which somebody knows it.
func (h *history) numbers() map[ids.SCONum]ids.CommitNum {
	out := make(map[ids.SCONum]ids.CommitNum)
	for c, sco := range h.rec.Order {
		out[sco] = c
	}
	for sco, o := range h.rec.Objects {
		if o.Commit != 0 {
			out[sco] = o.Commit
		}
	}
	for _, k := range h.mapped {
		out[k.Num] = k.Commit
	}
	return out
}

// unbroken reports whether the commits that are known follow one another from the first, none lost, and with
// them the sequences of what was written; last is the last of these. REQUIRES: decide has been called.
func (h *history) unbroken() (last ids.Seq, ok bool) {
	numbers := h.numbers()
	steps := make([]step, 0, len(numbers))
	for sco, c := range numbers {
		steps = append(steps, h.step(sco, c))
	}
	slices.SortFunc(steps, func(a, b step) int { return cmp.Compare(a.commit, b.commit) })
	for i := range steps {
		s := &steps[i]
		if s.hole || s.commit != ids.CommitNum(i+1) || s.write() && s.SeqFirst > last+1 {
			return last, false
		}
		if s.write() {
			last = max(last, s.SeqLast)
		}
	}
	return last, true
}

// letGo is how many cleaning SCOs there are whose commit, if there was one, nobody remembers.
func (h *history) letGo() (n uint64) {
	numbers := h.numbers()
	for sco, puts := range h.bySCO {
		if _, named := numbers[sco]; !named && puts[0].Kind == layout.KindCleaning {
			n++
		}
	}
	return n
}

// best is the put of a SCO to make its manifest from: of several the last one, since the others were given
// up before it began.
func (h *history) best(sco ids.SCONum) (candidate, bool) {
	found := candidate{SCO: sco, Why: "no ASD has anything of it"}
	for _, c := range h.bySCO[sco] {
		if h.rec.Dead[c.Put] {
			continue
		}
		if c.Whole && (!found.Whole || c.Put > found.Put) || !c.Whole && !found.Whole {
			found = c
		}
	}
	return found, found.Whole
}

// step is a SCO that was committed, behind what the map lists.
func (h *history) step(sco ids.SCONum, c ids.CommitNum) step {
	if o, ok := h.rec.Objects[sco]; ok {
		return step{candidate: candidate{Object: o, SCO: sco, Whole: true}, commit: c, known: true}
	}
	best, ok := h.best(sco)
	return step{candidate: best, commit: c, hole: !ok}
}

// settle judges a SCO at or below the last commit that the map lists. kept is nil if the map does not list it.
func (h *history) settle(v *verdict, sco ids.SCONum, c ids.CommitNum, kept *pagemap.Kept) {
	o, known := h.rec.Objects[sco]
	_, bad := h.rec.Bad[sco]
	needed := kept != nil && (c > h.ckpt.Commit || kept.Live > 0)
	if !known && needed || !known && kept != nil && bad {
		if best, ok := h.best(sco); ok {
			v.restore = append(v.restore, restored{sco, best.Put, c})
			return
		} else if needed {
			v.lost = append(v.lost, lostSCO{sco, c, best.Why}) // a manifest that is bad stays, for whoever can read it
			return
		}
	}
	switch {
	case known && kept != nil:
		if o.Commit != c {
			v.commits[sco] = c
		}
		if h.rec.Order[c] != sco {
			v.order[c] = sco
		}
	default:
		if known || bad {
			v.drop = append(v.drop, sco)
		}
		if h.rec.Order[c] == sco {
			v.order[c] = 0
		}
	}
}

// chain puts write SCOs that nobody names between those of the tail. A vDisk's write SCOs are sealed from
// consecutive stretches of its sequences and commit in that order, and until one is committed the journal
// holds what it was made of. So one after the other is taken for committed, until
//
//	the journal holds something from before it that no SCO has: so this one was not committed, nor any behind it
//	the journal holds other content for its sequences: power loss took what it was made of before it was
//	committed, and the sequences were given out again
//
// A SCO that was stored and not committed may be taken for one that was: the journal has the same, and what
// lies behind it is replayed as ever. One that only a part of is left was never committed if the journal
// holds what it was made of. Else something is lost, and its number is left out, so that the vDisk does not
// open as if nothing were.
func (h *history) chain(v *verdict, tail []step, numbers map[ids.SCONum]ids.CommitNum) []step {
	at := h.ckpt.Seq
	for _, k := range h.mapped {
		at = max(at, k.Last)
	}
	unknown, moves := h.unknown(numbers, at)
	var out []step
	take := func(s step) {
		if s.Kind == layout.KindWrite {
			if s.SeqFirst > at+1 {
				v.gaps++
			}
			at = max(at, s.SeqLast)
		}
		out = append(out, s)
	}
	next := func(before ids.Seq) {
		for len(tail) > 0 && !(tail[0].write() && tail[0].SeqFirst > before) {
			take(tail[0])
			tail = tail[1:]
		}
	}
	for i := range unknown {
		c := &unknown[i]
		next(c.SeqFirst)
		if c.SeqFirst <= at {
			continue
		}
		_, bad := h.rec.Bad[c.SCO]
		certain := bad || slices.ContainsFunc(tail, func(s step) bool { return s.write() })
		if !certain && h.log.Has(at+1, c.SeqFirst-1) {
			break
		}
		if !c.Whole {
			if !certain && h.log.Pending(c.SeqFirst, c.SeqLast) {
				continue
			}
			c.hole = true
		} else if !certain && !h.agrees(&c.candidate) {
			break
		}
		take(*c)
	}
	next(math.MaxUint64)
	v.last = at
	return append(append(out, moves...), h.unplaced(v, out, numbers, at)...)
}

// unplaced is what becomes of manifests that cannot be read, of which nobody knows the number and which chain
// did not place. Those of cleaning SCOs, and of write SCOs that the map has let go of, nobody needs. Of others
// something is lost.
func (h *history) unplaced(v *verdict, out []step, numbers map[ids.SCONum]ids.CommitNum, at ids.Seq) (lost []step) {
	for sco := range h.rec.Bad {
		_, numbered := numbers[sco]
		if numbered || slices.ContainsFunc(out, func(s step) bool { return s.SCO == sco }) {
			continue
		}
		best, ok := h.best(sco)
		switch {
		case best.Kind == layout.KindCleaning && ok: // among the moves
		case best.Kind == layout.KindCleaning || best.Kind == layout.KindWrite && best.SeqFirst <= at:
			v.drop = append(v.drop, sco)
		default:
			lost = append(lost, step{candidate: best, hole: true})
		}
	}
	slices.SortFunc(lost, func(a, b step) int { return cmp.Compare(a.SCO, b.SCO) })
	return lost
}

// unknown are the write SCOs behind sequence at that nobody names, in the order in which chain asks for them;
// and the cleaning SCOs whose manifest is there, only not to be read, and whose place is not known. Left out is
// what an earlier epoch sealed of sequences that a later one sealed, too: the later one began where what
// was committed ended.
func (h *history) unknown(numbers map[ids.SCONum]ids.CommitNum, at ids.Seq) (writes, moves []step) {
	begins := map[ids.Epoch]ids.Seq{}
	note := func(o proxy.Object) {
		if was, ok := begins[o.Epoch]; o.Kind == layout.KindWrite && (!ok || o.SeqFirst < was) {
			begins[o.Epoch] = o.SeqFirst
		}
	}
	for _, c := range h.cands {
		note(c.Object)
	}
	for _, o := range h.rec.Objects {
		note(o)
	}
	overtaken := func(c *candidate) bool {
		for epoch, first := range begins {
			if epoch > c.Epoch && first <= c.SeqLast {
				return true
			}
		}
		return false
	}
	for _, c := range h.cands {
		_, bad := h.rec.Bad[c.SCO]
		if _, ok := numbers[c.SCO]; ok || h.rec.Dead[c.Put] {
			continue
		}
		if c.Kind == layout.KindCleaning && bad && c.Whole {
			moves = append(moves, step{candidate: c})
		}
		if c.Kind != layout.KindWrite || c.SeqFirst <= at {
			continue
		}
		if bad || !overtaken(&c) {
			writes = append(writes, step{candidate: c})
		}
	}
	slices.SortFunc(moves, func(a, b step) int { return cmp.Compare(a.SCO, b.SCO) })
	slices.SortFunc(writes, func(a, b step) int {
		whole := func(s step) int {
			if s.Whole {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(a.SeqFirst, b.SeqFirst), cmp.Compare(b.Epoch, a.Epoch), whole(b)-whole(a),
			cmp.Compare(b.SCO, a.SCO), cmp.Compare(b.Put, a.Put))
	})
	return writes, moves
}

// number gives the tail its commit numbers, one after the other, and says what that changes.
func (h *history) number(v *verdict, tail []step, top ids.CommitNum) {
	want := make(map[ids.CommitNum]ids.SCONum, len(tail))
	c := top
	for i := range tail {
		s := &tail[i]
		if c++; h.intact {
			c = s.commit
		}
		want[c] = s.SCO
		switch {
		case s.hole:
			v.lost = append(v.lost, lostSCO{s.SCO, c, s.Why})
		case !s.known:
			v.restore = append(v.restore, restored{s.SCO, s.Put, c})
		case h.rec.Objects[s.SCO].Commit != c:
			v.commits[s.SCO] = c
		}
		if h.rec.Order[c] != s.SCO {
			v.order[c] = s.SCO
		}
	}
	v.top = c
	for old := range h.rec.Order {
		if old > top && want[old] == 0 {
			v.order[old] = 0
		}
	}
}

// unreadable takes out the entries of the order that cannot be read and that nothing takes the place of: opening
// the vDisk would stumble over them. Those of what is lost stay, so that it does.
func (h *history) unreadable(v *verdict) {
	stays := make(map[ids.CommitNum]bool)
	for _, r := range v.restore {
		stays[r.Commit] = true
	}
	for _, l := range v.lost {
		stays[l.Commit] = true
	}
	for c := range h.rec.BadOrder {
		if _, set := v.order[c]; !set && !stays[c] {
			v.order[c] = 0
		}
	}
}
