package edge

import (
	"testing"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
)

// A driver that has no room for one more who waits for a page of the map says so. That is no error of the read, which
// asks again.
func TestReadWhoseMapIsBusy(t *testing.T) {
	r := newRig(t, 2)
	done := make(chan struct{}, 1)
	r.drv.miss, r.drv.fails, r.drv.busy = 0, 0, 3
	o := &one{req: block.Request{Op: block.Read, Len: 8192, Done: waiter{done}}}
	r.run([]*one{o}, done)
	r.loop.Call(func() {
		if n := len(r.content(&o.req)); n != 8192 || r.drv.busy != 0 || o.req.Err != errs.OK {
			t.Errorf("%d bytes, %v; it was to be busy %d times more", n, o.req.Err, r.drv.busy)
		}
	})
}
