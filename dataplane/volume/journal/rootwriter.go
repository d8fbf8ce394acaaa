package journal

import (
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
	"vstor/dataplane/ring"
)

var rootPlaces = [2]int64{RootA, RootB}

type rootKind uint8

const (
	rootAttach rootKind = iota // a new incarnation
	rootTrim                   // a new tail
	rootClose                  // clean
)

// rootWriter renews the root, both copies, one update at a time:
//
//	sync > write one copy > sync > write the other > sync > space is free
//
// The first sync is for what lets the tail move: a copied entry, or a newer write over an old one, must
// be durable before a root that skips the old one can be. Alternating between the copies would take one
// write less, but then the loss of the newer copy would bring back a root whose tail was overwritten, and
// whose incarnation is over. Segments are large, so roots are rare, and one update frees all there is.
type rootWriter struct {
	j    *Journal
	op   ring.Op
	page buf.Seg
	vec  buf.Vec
	sync Sync
	kind rootKind
	busy bool
	step int // 0 first sync; 1, 2: the copy being written and synced
	turn int // the copy that is written first
	tail int
	root Root
}

func (w *rootWriter) init(j *Journal, page buf.Seg) {
	w.j, w.page = j, page
	w.op.Done = w
	w.sync.Done = w
}

// begin starts an update unless one is under way; then its end looks again.
func (w *rootWriter) begin(kind rootKind) {
	j := w.j
	if w.busy || j.failed != nil {
		return
	}
	w.busy, w.kind, w.step = true, kind, 0
	// The tail is that of now: the sync that follows covers what it rests on.
	j.segs.advanceTail(j.ended)
	w.tail = j.segs.tail
	t := &j.segs.state[w.tail]
	w.root = j.root
	w.root.TailSegment, w.root.TailRecord, w.root.TailLap = uint32(w.tail), t.first, t.lap
	w.sync.force = kind == rootAttach
	j.syncs.add(&w.sync)
}

// JournalSynced goes on to the next copy.
func (w *rootWriter) JournalSynced(s *Sync) {
	if s.Err != errs.OK || w.j.failed != nil {
		w.stop()
		return
	}
	switch w.step {
	case 0:
		w.fill()
		w.turn = 0
		if w.j.good[0] && !w.j.good[1] {
			w.turn = 1 // the only good copy is not to be torn
		}
		w.write(w.turn)
	case 1:
		w.write(1 - w.turn)
	default:
		w.finish()
	}
}

// fill makes the new root, of what the first sync made durable.
func (w *rootWriter) fill() {
	j := w.j
	w.root.Sequence++
	w.root.Durable = j.durable
	w.root.Clean = w.kind == rootClose
	if w.kind == rootAttach {
		w.root.Incarnation++
		w.root.First, w.root.Chain = j.next, j.lastSum
		w.root.BootID = j.opt.BootID
	}
	if w.kind == rootClose {
		invariants.Assert(j.durable == j.next-1, "journal: a clean root at %d, with records up to %d",
			j.durable, j.next-1)
	}
	w.root.Encode(j.loop.Pool().Bytes(w.page.Page))
}

func (w *rootWriter) write(copy int) {
	w.step++
	w.vec.Reset()
	w.vec.Segs = append(w.vec.Segs, w.page)
	w.j.file.WriteV(w.j.loop, &w.op, &w.vec, rootPlaces[copy])
}

// RingDone takes the end of a copy's write.
func (w *rootWriter) RingDone(_ *ring.Op, res int32) {
	j := w.j
	if res != BlockSize {
		j.fail(errs.New(errs.IO, "journal: the write of the root ended with %s", outcome(res)))
	}
	if j.failed != nil {
		w.stop()
		return
	}
	w.sync.force = true
	j.syncs.add(&w.sync)
}

func (w *rootWriter) stop() {
	w.busy = false
	w.j.wake()
}

func (w *rootWriter) finish() {
	j := w.j
	w.busy = false
	j.root = w.root
	j.good = [2]bool{true, true}
	j.counts.Roots++
	j.segs.freed(w.tail)
	switch {
	case w.kind == rootClose:
		j.shut(errs.OK)
		return
	case w.kind == rootAttach && j.closer == nil:
		j.st = running
	case w.kind == rootAttach:
		j.st = closing
	}
	j.trim()
	j.wake()
}

// trim frees the segments that nobody needs: at once if they are many or space is short, otherwise when
// the keeper's time comes, so that one root serves for several.
func (j *Journal) trim() {
	j.segs.advanceTail(j.ended)
	pending := j.segs.pending()
	if pending == 0 || j.st != running || j.roots.busy {
		return
	}
	n := len(j.segs.state)
	if pending >= max(1, n/8) || j.segs.free() <= j.segs.reserve+n/4 || j.stalled != 0 || j.opt.MarkAfter < 0 {
		j.roots.begin(rootTrim)
		return
	}
	j.timer.arm()
}
