package layout

import (
	"cmp"
	"math"
	"slices"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// Place chooses an ASD for each of the k+m slots of an object: living ones only, none twice, none of
// those in kept again, at most x on a node, nodes filled evenly, emptier ASDs more likely. Slots for
// which there is no ASD get TargetNone and stand last; fewer than c ASDs is an error of kind
// Unreachable.
//
// The choice depends on seed and the set of candidates alone, not on their order: each ASD draws a number
// from (seed, its id) and its rank is -ln(u)/free, which is weighted sampling without replacement.
// A plain draw by weight would put two fragments on one node while another node has none, so the
// ranks are served in rounds: one ASD of every node, then a second of every node, up to x.
func Place(p Policy, asds []Candidate, seed uint64) ([]Target, error) {
	chosen := place(p, asds, nil, seed, p.N())
	if len(chosen) < int(p.C) {
		return nil, errs.New(errs.Unreachable,
			"policy %v needs %d ASDs alive with at most %d on a node; there are %d", p, p.C, p.X, len(chosen))
	}
	out := make([]Target, p.N())
	for i, id := range chosen {
		out[i] = ASDTarget(id)
	}
	return out, nil
}

// Replace chooses ASDs for the slots of targets that are TargetNone, within x and beside those
// already there. It returns how many it could fill.
func Replace(p Policy, targets []Target, asds []Candidate, seed uint64) int {
	holes := 0
	for _, t := range targets {
		if t.Kind == TargetNone {
			holes++
		}
	}
	chosen := place(p, asds, targets, seed, holes)
	n := 0
	for i := range targets {
		if targets[i].Kind == TargetNone && n < len(chosen) {
			targets[i] = ASDTarget(chosen[n])
			n++
		}
	}
	return n
}

type ranked struct {
	rank float64
	id   ids.ASDID
	node ids.NodeID
}

func place(p Policy, asds []Candidate, kept []Target, seed uint64, want int) []ids.ASDID {
	perNode := make(map[ids.NodeID]int, len(asds))
	list := make([]ranked, 0, len(asds))
	for _, a := range asds {
		if slices.Contains(kept, ASDTarget(a.ID)) {
			perNode[a.Node]++
			continue
		}
		if a.Alive && a.Free > 0 {
			list = append(list, ranked{rank(seed, a), a.ID, a.Node})
		}
	}
	slices.SortFunc(list, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.id, b.id))
	})
	chosen := make([]ids.ASDID, 0, want)
	for round := 1; round <= int(p.X) && len(chosen) < want && len(list) > 0; round++ {
		rest := list[:0]
		for _, r := range list {
			if len(chosen) == want || perNode[r.node] >= round {
				rest = append(rest, r)
				continue
			}
			perNode[r.node]++
			chosen = append(chosen, r.id)
		}
		list = rest
	}
	return chosen
}

func rank(seed uint64, a Candidate) float64 {
	h := mix(seed ^ mix(uint64(a.ID)+1))
	u := (float64(h>>11) + 0.5) / (1 << 53) // in (0,1)
	return -math.Log(u) / float64(a.Free)
}

// mix is the finalizer of splitmix64: every bit of the input stirs every bit of the output.
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
