package volume

import (
	"testing"

	"vstor/dataplane/block"
	"vstor/dataplane/ids"
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
