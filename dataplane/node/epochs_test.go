package node

import (
	"context"
	"errors"
	"testing"
	"time"

	"vstor/dataplane/config"
	"vstor/dataplane/layout"
)

func TestEpochQuorum(t *testing.T) {
	big, tiny := layout.Policy{K: 4, M: 2, C: 5, X: 1}, layout.Policy{K: 2, M: 2, C: 3, X: 1}
	for _, test := range []struct {
		asds     int
		policies []layout.Policy
		want     int
	}{
		{6, []layout.Policy{big, tiny}, 4}, {4, []layout.Policy{tiny}, 2}, {12, []layout.Policy{big}, 10},
		{1, []layout.Policy{{K: 1, M: 0, C: 1, X: 1}}, 1}, {3, []layout.Policy{{K: 1, M: 2, C: 2, X: 1}}, 2},
		{2, []layout.Policy{{K: 1, M: 1, C: 1, X: 2}}, 2},
	} {
		n := &Node{cfg: config.Config{Policies: test.policies}, drives: make([]*drive, test.asds)}
		if got := n.epochQuorum(); got != test.want {
			t.Errorf("%d ASDs, %v: %d must answer, want %d", test.asds, test.policies, got, test.want)
		}
	}
}

// With half of the ASDs away nobody knows whether the metadata store is an old one: a vDisk that opens takes an
// epoch out of the way, and its garbage stays. Who has seen another epoch than that one tells of an old store.
func TestEpochsOfASDsAway(t *testing.T) {
	ctx := context.Background()
	v, w := twoDisks(t)
	if w.d.epoch != w.d.before+1 {
		t.Fatalf("with all ASDs there an epoch is left out: %d after %d", w.d.epoch, w.d.before)
	}
	whole, err := v.n.epochsFit(ctx, v.d)
	if err != nil || !whole {
		t.Fatal(whole, err)
	}
	was := w.d.epoch
	for i, e := range v.n.askEpochs(ctx, v.d.ID).by {
		if e != v.d.epoch {
			t.Fatalf("ASD %d has seen epoch %d of v, which has %d", i, e, v.d.epoch)
		}
	}
	reborn(t, v, w, func(h *memHost) {
		for _, i := range []int{0, 1, 2} {
			h.hidden[v.n.drivePath(i)+"/data"] = true
		}
	})
	if w.d == nil || w.d.before != was || w.d.epoch <= was+1 {
		t.Fatalf("w: %+v", w.d)
	}
	done := make(collected)
	for range 2 {
		v.n.collectGarbage(ctx, done, true)
		if done[w.d.ID] != collectWaits {
			t.Fatalf("garbage with half of the ASDs away: %v", done)
		}
	}
	w.check()
	reborn(t, v, w, func(*memHost) {})
	defer v.n.Close()
	seen := v.n.askEpochs(ctx, v.d.ID).by[0]
	if seen == 0 {
		t.Fatal("nothing was put")
	}
	for _, test := range []struct {
		name string
		d    vdisk
		old  bool
	}{
		{"before it was opened", vdisk{before: seen, epoch: seen + 1}, false},
		{"its own", vdisk{before: seen - 1, epoch: seen}, false},
		{"beyond its own", vdisk{before: seen - 1, epoch: seen - 1}, true},
		{"one that was left out", vdisk{before: seen - 1, epoch: seen + 1000}, true},
	} {
		test.d.record = v.d.record
		if enough, err := v.n.epochsFit(ctx, &test.d); errors.Is(err, errOldStore) != test.old || enough == test.old {
			t.Errorf("%s: %v %v", test.name, enough, err)
		}
	}
	clear(done)
	for end := time.Now().Add(20 * time.Second); done[v.d.ID] != collectDone; time.Sleep(10 * time.Millisecond) {
		if v.n.collectGarbage(ctx, done, true); time.Now().After(end) {
			t.Fatalf("garbage with all ASDs there: %v", done)
		}
	}
}
