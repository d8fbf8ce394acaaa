package pracc

import (
	"testing"
	"time"
)

// Two ASDs do not answer, two that do are out of the fast set, and there is no hedge to be had: too few are left in the
// set to go round the first two, and yet nobody waits for them for long.
func TestStuckReads(t *testing.T) {
	w := newWorld(t, 6, 32<<20, nil)
	o := w.put(1, 1024, pol42, 1<<20, 20<<10)
	w.want(o, 0, 1024)
	ft := w.freeze()
	var ks []*keeper
	w.loop.Call(func() {
		w.c.pacing.allowed, w.c.pacing.hope = 0, 0
		for i, t := range w.c.everyTarget() {
			if i < 4 {
				w.c.leave(t, w.c.now())
			}
		}
		for _, d := range w.drives[:2] {
			d.file.stall = true
		}
		for i := range 8 {
			ks = append(ks, w.keep(o, i*64, 16))
		}
	})
	for range 70 {
		ft.pass(10 * time.Millisecond)
	}
	for i, k := range ks {
		if !k.isDone() {
			t.Errorf("read %d waits for an ASD that does not answer", i)
		}
	}
	w.loop.Call(func() {
		for _, d := range w.drives {
			d.file.resume()
		}
	})
	for _, k := range ks {
		<-k.done
		k.check()
		k.release()
	}
}
