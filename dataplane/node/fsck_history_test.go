package node

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/proxy"
	"vstor/dataplane/volume/pagemap"
)

// oldTale is a history in the making: the map's checkpoint is commit 10, sequence 1000; it lists SCO 5 (commit 9,
// alive), 6 (10, dead), 7 (11, sequences 1001 to 1100).
func oldTale() *history {
	return &history{
		ckpt: pagemap.Checkpoint{Commit: 10, Seq: 1000},
		mapped: []pagemap.Kept{
			{SCO: pagemap.SCO{Num: 5, Commit: 9, First: 800, Last: 900}, Live: 3},
			{SCO: pagemap.SCO{Num: 6, Commit: 10, First: 901, Last: 1000}},
			{SCO: pagemap.SCO{Num: 7, Commit: 11, First: 1001, Last: 1100}},
		},
		rec: &proxy.Records{Objects: map[ids.SCONum]proxy.Object{}, Bad: map[ids.SCONum]error{},
			Order: map[ids.CommitNum]ids.SCONum{}, BadOrder: map[ids.CommitNum]bool{}, Dead: map[ids.PutID]bool{}},
		log:    seqLog{},
		agrees: func(*candidate) bool { return true },
	}
}

// seqLog is a journal that holds these sequences.
type seqLog []ids.Seq

func (l seqLog) Has(lo, hi ids.Seq) bool {
	return slices.ContainsFunc(l, func(s ids.Seq) bool { return s >= lo && s <= hi })
}
func (l seqLog) Pending(lo, hi ids.Seq) bool { return l.Has(lo, lo) }

func write(sco ids.SCONum, epoch ids.Epoch, lo, hi ids.Seq) candidate {
	return candidate{SCO: sco, Whole: true, Object: proxy.Object{Put: ids.PutID(sco) + 100, Kind: layout.KindWrite,
		Epoch: epoch, SeqFirst: lo, SeqLast: hi}}
}

func moves(sco ids.SCONum) candidate {
	c := write(sco, 1, 0, 0)
	c.Kind = layout.KindCleaning
	return c
}

func part(c candidate) candidate {
	c.Whole, c.Why = false, "too few"
	return c
}

// commit enters a SCO as the metadata store has it.
func (h *history) commit(c candidate, n ids.CommitNum) {
	c.Commit = n
	h.rec.Objects[c.SCO] = c.Object
	h.rec.Order[n] = c.SCO
}

// garble makes the entry of a commit one that cannot be read.
func (h *history) garble(n ids.CommitNum) {
	delete(h.rec.Order, n)
	h.rec.BadOrder[n] = true
}

// String is a verdict in short: +SCO@commit made again, !SCO@commit lost, -SCO dropped, SCO>commit another
// number, commit=SCO an entry set.
func (v *verdict) String() string {
	var out []string
	for _, r := range v.restore {
		out = append(out, fmt.Sprintf("+%d@%d", r.SCO, r.Commit))
	}
	for _, l := range v.lost {
		out = append(out, fmt.Sprintf("!%d@%d", l.SCO, l.Commit))
	}
	for _, n := range v.drop {
		out = append(out, fmt.Sprintf("-%d", n))
	}
	for n, c := range v.commits {
		out = append(out, fmt.Sprintf("%d>%d", n, c))
	}
	for c, n := range v.order {
		if !v.restores(n, c) {
			out = append(out, fmt.Sprintf("%d=%d", c, n))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestDecide(t *testing.T) {
	five, six, seven := write(5, 1, 800, 900), write(6, 1, 901, 1000), write(7, 1, 1001, 1100)
	whole := func(h *history) {
		h.commit(five, 9)
		h.commit(six, 10)
		h.commit(seven, 11)
		h.intact = true
	}
	for _, x := range []struct {
		name string
		set  func(h *history)
		want string
	}{
		{"whole", whole, ""},
		{"whole, with garbage of crashed puts", func(h *history) {
			whole(h)
			h.cands = []candidate{write(8, 2, 1101, 1200), moves(9)}
		}, ""},
		{"the dead one is deleted and the map does not know yet", func(h *history) {
			whole(h)
			delete(h.rec.Objects, 6)
			delete(h.rec.Order, 10)
			h.cands = []candidate{six}
		}, ""},
		{"a manifest is lost", func(h *history) {
			whole(h)
			delete(h.rec.Objects, 5)
			h.cands = []candidate{five}
		}, "+5@9"},
		{"manifest and entry are lost", func(h *history) {
			whole(h)
			delete(h.rec.Objects, 7)
			delete(h.rec.Order, 11)
			h.cands = []candidate{seven}
		}, "+7@11"},
		{"a manifest is lost and cannot be made", func(h *history) {
			whole(h)
			delete(h.rec.Objects, 5)
			h.cands = []candidate{part(five)}
		}, "!5@9"},
		{"a condemned put stays dead", func(h *history) {
			whole(h)
			delete(h.rec.Objects, 5)
			h.cands = []candidate{five}
			h.rec.Dead[five.Put] = true
		}, "!5@9"},
		{"of two puts the later one", func(h *history) {
			whole(h)
			delete(h.rec.Objects, 5)
			later := five
			later.Put = 999
			h.cands = []candidate{five, later}
		}, "+5@9"},
		{"the dead one's manifest is damaged, and nothing is left of it", func(h *history) {
			whole(h)
			delete(h.rec.Objects, 6)
			h.rec.Bad[6] = errs.Corrupt
		}, "-6 10=0"},
		{"an old copy of the store knows what was deleted", func(h *history) {
			whole(h)
			h.commit(write(3, 1, 100, 200), 4)
		}, "-3 4=0"},
		{"an entry of the order is lost", func(h *history) {
			whole(h)
			delete(h.rec.Order, 9)
		}, "9=5"},
		{"an entry of the order is damaged", func(h *history) {
			whole(h)
			h.garble(9)
		}, "9=5"},
		{"manifest and entry are damaged", func(h *history) {
			whole(h)
			delete(h.rec.Objects, 7)
			h.garble(11)
			h.cands = []candidate{seven}
		}, "+7@11"},
		{"the dead one is deleted but for a damaged entry", func(h *history) {
			whole(h)
			delete(h.rec.Objects, 6)
			h.garble(10)
		}, "10=0"},
		{"a manifest is lost and cannot be made, its entry damaged", func(h *history) {
			whole(h)
			delete(h.rec.Objects, 5)
			h.garble(9)
			h.cands = []candidate{part(five)}
		}, "!5@9"},
		{"behind the map the order counts", func(h *history) {
			whole(h)
			h.rec.Order[12] = 8
			h.cands = []candidate{write(8, 1, 1101, 1200), write(9, 1, 1201, 1300)}
		}, "+8@12"},

		{"all is lost", func(h *history) {
			h.cands = []candidate{five, six, seven, write(8, 1, 1101, 1200), write(10, 1, 1201, 1300), moves(9)}
		}, "+10@13 +5@9 +7@11 +8@12"},
		{"all is lost; what was deleted is there on an ASD that was away", func(h *history) {
			h.cands = []candidate{write(2, 1, 1, 100), moves(3), five, seven}
		}, "+5@9 +7@11"},
		{"the journal has what lies between: not committed", func(h *history) {
			h.cands = []candidate{five, seven, write(9, 1, 1201, 1300)}
			h.log = seqLog{1150, 1201, 1300}
		}, "+5@9 +7@11"},
		{"nobody has what lies between: superseded", func(h *history) {
			h.cands = []candidate{five, seven, write(9, 1, 1201, 1300)}
		}, "+5@9 +7@11 +9@12"},
		{"the journal tells another story", func(h *history) {
			h.cands = []candidate{five, seven, write(9, 1, 1101, 1300)}
			h.agrees = func(*candidate) bool { return false }
		}, "+5@9 +7@11"},
		{"stored in part, and in the journal", func(h *history) {
			h.cands = []candidate{five, seven, part(write(8, 1, 1101, 1200)), write(9, 1, 1201, 1300)}
			h.log = seqLog{1101, 1150, 1201}
		}, "+5@9 +7@11"},
		{"stored in part, and not in the journal: lost, with its number", func(h *history) {
			h.cands = []candidate{five, seven, part(write(8, 1, 1101, 1200)), write(9, 1, 1201, 1300)}
		}, "!8@12 +5@9 +7@11 +9@13 12=8"},
		{"an earlier epoch's garbage", func(h *history) {
			h.cands = []candidate{five, seven, write(8, 1, 1101, 1250), write(9, 2, 1101, 1180), write(10, 2, 1181, 1300)}
		}, "+10@13 +5@9 +7@11 +9@12"},
		{"an earlier epoch's garbage, and what should follow is lost", func(h *history) {
			h.cands = []candidate{five, seven, write(8, 1, 1101, 1250), write(10, 2, 1181, 1300)}
			h.log = seqLog{1101, 1181}
		}, "+5@9 +7@11"},
		{"two tries of one epoch", func(h *history) {
			h.cands = []candidate{five, seven, write(8, 1, 1101, 1200), write(9, 1, 1101, 1200)}
		}, "+5@9 +7@11 +9@12"},
		{"a later one is known, so those before it were committed", func(h *history) {
			h.commit(write(9, 1, 1201, 1300), 13)
			h.cands = []candidate{five, seven, write(8, 1, 1101, 1200)}
			h.log = seqLog{1150}
		}, "+5@9 +7@11 +8@12"},
		{"a cleaning SCO is lost, and its number with it", func(h *history) {
			h.commit(write(9, 1, 1101, 1300), 13)
			h.cands = []candidate{five, seven, moves(8)}
		}, "+5@9 +7@11 12=9 13=0 9>12"},
		{"a cleaning SCO is lost, its entry damaged: the vDisk would not open", func(h *history) {
			h.garble(12)
			h.cands = []candidate{five, seven, moves(8)}
		}, "+5@9 +7@11 12=0"},
		{"the last manifest is lost, its entry damaged", func(h *history) {
			h.garble(12)
			h.cands = []candidate{five, seven, write(8, 1, 1101, 1200)}
		}, "+5@9 +7@11 +8@12"},
		{"a known one cannot be made", func(h *history) {
			h.rec.Order[12] = 8
			h.cands = []candidate{five, seven, part(write(8, 1, 1101, 1200))}
		}, "!8@12 +5@9 +7@11"},
		{"damaged manifests of which nobody knows the number", func(h *history) {
			h.rec.Bad[8], h.rec.Bad[9], h.rec.Bad[3] = errs.Corrupt, errs.Corrupt, errs.Corrupt
			h.cands = []candidate{five, seven, write(8, 1, 1101, 1200), moves(9), write(3, 1, 5, 6)}
			h.log = seqLog{1101}
		}, "+5@9 +7@11 +8@12 +9@13 -3"},
		{"a damaged manifest of which nothing else is left", func(h *history) {
			h.rec.Bad[8] = errs.Corrupt
			h.cands = []candidate{five, seven}
		}, "!8@12 +5@9 +7@11 12=8"},
	} {
		h := oldTale()
		x.set(h)
		if got := h.decide().String(); got != x.want {
			t.Errorf("%s: %s; want %s", x.name, got, x.want)
		}
	}
}

// A commit behind all others, of which a damaged entry is all that is left, was one: its SCO is looked for.
func TestDamagedEntryIsALoss(t *testing.T) {
	h := oldTale()
	for i, k := range h.mapped {
		h.commit(write(k.Num, 1, k.First, k.Last), ids.CommitNum(9+i))
	}
	s := &space{rec: h.rec}
	for _, cell := range []*proxy.Cell{&h.rec.Owner, &h.rec.Puts, &h.rec.SCOs} {
		cell.Value = 1000
	}
	h.rec.Last.Value = 11
	if !s.intact(h) {
		t.Error("a whole history is not intact")
	}
	for _, c := range []proxy.Cell{{Value: 12}, {Value: 10}, {Err: errs.Absent}, {Err: errs.Corrupt}} {
		whole := h.rec.Last
		if h.rec.Last = c; s.intact(h) {
			t.Errorf("a last commit of %+v behind 11 is whole", c)
		}
		h.rec.Last = whole
	}
	h.garble(11)
	if !s.intact(h) {
		t.Error("a damaged entry of what the manifest knows counts as lost")
	}
	h.garble(12)
	if s.intact(h) {
		t.Error("a damaged entry behind all others counts as nothing")
	}
}
