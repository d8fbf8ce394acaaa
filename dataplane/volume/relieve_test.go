package volume

import (
	"context"
	"testing"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/volume/pagemap"
)

// Where one ASD of many does not answer, SCOs are stored with c fragments and wait for the last one. The journal gets
// their space back before its line stands, for while it is only slow it may never stand.
func TestSpaceComesBackBeforeTheLineStands(t *testing.T) {
	r := newRig(t, 64<<20, 1<<20)
	r.objects.late = make(chan struct{})
	defer close(r.objects.late)
	tight := func() (tight bool) { r.loop.Call(func() { tight = r.jrn.Tight() }); return tight }
	for at := ids.BlockAddr(0); !tight(); at += 64 {
		if at > 8<<10 {
			t.Fatal("a journal of 16 MiB is not tight after 32")
		}
		r.do(block.Put, at, 64)
	}
	r.settle("what c fragments keep is given back", func() bool { return r.v.Stats.TrimIncomplete.Load() > 0 })
	r.loop.Call(func() {
		if n := r.jrn.Stats().Stalls; n != 0 {
			t.Errorf("writes stood still %d times", n)
		}
	})
}

// What a SCO keeps that waits for the last of its fragments is not let go of by copying what lies beside it, which
// nobody would count.
func TestCopyingLetsGoOfNoFragments(t *testing.T) {
	r := newRig(t, 64<<20, 1<<20)
	r.objects.late = make(chan struct{})
	defer close(r.objects.late)
	r.do(block.Put, 0, 215)
	r.loop.Call(r.v.Seal)
	r.settle("the SCO is in the map", func() bool { return len(r.v.waiting) == 1 })
	r.do(block.Put, 1000, 10) // these two are idle, in the first segment and beyond it
	r.do(block.Put, 2000, 40)
	pins := func() (segments int) {
		r.loop.Call(func() { _, segments = r.jrn.Usage(r.v.opts.ID) })
		return segments
	}
	before := pins()
	r.loop.Call(r.keeper.relieve)
	r.settle("nothing is copied", func() bool { return r.v.copying == nil })
	if n := pins(); before != 2 || n != before || r.v.Stats.TrimIncomplete.Load() != 0 {
		t.Errorf("it pinned %d segments, and pins %d", before, n)
	}
}

// Many vDisks, each with too little for a SCO worth its while, fill a journal. Its tail is alive from end to end then:
// to copy it forward frees what it takes. It is sealed, and writes go on long before they are old enough for that.
func TestManySmallBatchesFillAJournal(t *testing.T) {
	r := newRig(t, 64<<20, 8<<20)
	const vols, each = 90, 54 // blocks; a quarter of a batch is 55, the journal has 4096
	var closes []func()
	for id := ids.VolumeID(2); id < 2+vols; id++ {
		m, _, err := r.db.Open(pagemap.Options{ID: pagemap.MapID(id), Size: ids.BlockAddr(r.size / 4096),
			Budget: r.budget, Poster: r, LoadsMax: 64})
		r.must(err)
		v := r.add(id, m, &memObjects{data: map[ids.SCONum][]byte{}})
		r.must(v.Recover(context.Background(), nil))
		closes = append(closes, func() {
			done := make(chan struct{})
			r.loop.Call(func() { v.Close(func() { close(done) }) })
			<-done
		})
		if q := v.batchMax / 4; each >= q {
			t.Fatalf("a quarter of a batch is %d blocks", q)
		}
		c := r.startOn(v, block.Put, 0, each, 1)
		select {
		case <-c.done:
		case <-time.After(20 * time.Second):
			t.Fatalf("vDisk %d of %d: a write stands still", id-1, vols)
		}
		if c.Err != errs.OK {
			t.Fatal(c.Err)
		}
	}
	for _, f := range closes {
		f()
	}
}
