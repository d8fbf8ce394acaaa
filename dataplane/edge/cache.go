package edge

import "vstor/dataplane/errs"

// A client says that it will read a range soon. What makes a first read slower than a second is today the
// page of the map that is not in RAM, so that is what comes. Nothing that happens on the way is the client's
// concern: it asked for speed, and what is broken it learns when it reads.

// startCache brings near what tells where the range lies.
func (x *io) startCache() {
	if x.r.Len == 0 {
		x.count = 0
		x.d.loop.Defer(&x.op, 0)
		return
	}
	x.d.driver.Warm(x.first, x.count, x)
}

// cacheWarmed ends it: the client need not wait for more. The map tells now where the blocks lie, and the first of
// them come into the block cache behind its back.
func (x *io) cacheWarmed(k errs.Kind) {
	if k == errs.Closed {
		x.r.Err = k
	}
	if k == errs.OK {
		n := min(x.count, warmBlocks)
		first := min(n, aheadBlocks)
		x.d.readAhead(x.first, first, n-first)
	}
	x.finish()
}
