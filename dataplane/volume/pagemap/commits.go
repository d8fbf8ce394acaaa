package pagemap

import (
	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
)

// commits are those after the checkpoint, each with the number of units (pages, or ranges of pages under
// one hole) whose oldest change not yet in the base pages is of that commit. The first commit with a
// unit holds the checkpoint back.
//
// The obvious way, the least over all dirty pages, walks them all; a heap costs memory per page. Counting
// by commit costs one add per page made dirty, and a walk over the commits between two checkpoints
// (hundreds) per batch.
type commits struct {
	first ids.CommitNum // commit of list[0]: checkpoint + 1
	ended ids.CommitNum // the last one that is applied whole
	list  []commit
}

type commit struct {
	units uint32
	seq   ids.Seq // last write sequence up to here, once ended
}

// at is the entry of c, made if c is the next.
func (w *commits) at(c ids.CommitNum) *commit {
	i := int(c - w.first)
	if c < w.first || i > len(w.list) {
		invariants.Assert(false, "commit %d after %d and %d more: commits are applied in order",
			c, w.first-1, len(w.list))
	}
	if i == len(w.list) {
		w.list = append(w.list, commit{})
	}
	return &w.list[i]
}

func (w *commits) add(c ids.CommitNum, n int) {
	e := w.at(c)
	if n < 0 && e.units < uint32(-n) {
		invariants.Assert(false, "commit %d has %d units, %d leave", c, e.units, -n)
	}
	e.units += uint32(n) // wraps into a subtraction
}

// end says that all of c is applied.
func (w *commits) end(c ids.CommitNum, seq ids.Seq) {
	w.at(c).seq = seq
	w.ended = c
}

// reach is the highest commit that no counted unit holds back.
func (w *commits) reach() ids.CommitNum {
	for i := range w.list {
		c := w.first + ids.CommitNum(i)
		if c > w.ended {
			break
		}
		if w.list[i].units > 0 {
			return c - 1
		}
	}
	return w.ended
}

// seq is the sequence that c ended with. REQUIRES: c is after the checkpoint and has ended.
func (w *commits) seq(c ids.CommitNum) ids.Seq { return w.list[c-w.first].seq }

// drop forgets the commits up to the new checkpoint.
func (w *commits) drop(to ids.CommitNum) {
	n := int(to + 1 - w.first)
	w.list = w.list[:copy(w.list, w.list[n:])]
	w.first = to + 1
}
