package remote

import (
	"testing"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
)

func TestStall(t *testing.T) {
	w := newWorld(t)
	e, err := w.open('a', func(o *Options) { o.StallTimeout = 100 * time.Millisecond })
	must(t, err)
	e.do(block.Write, 0, 1, 1)
	w.down.Store(true)
	w.cut()
	write, read := e.start(block.Write, 0, 1, 2), e.start(block.Read, 5, 1, 0)
	if write.wait() != errs.IO || read.wait() != errs.IO || e.r.Stats.Stalled.Load() == 0 {
		t.Error(write.Err, read.Err)
	}
	w.down.Store(false)
	w.eventually("it does not come back", func() bool { return e.start(block.Write, 0, 1, 3).wait() == errs.OK })
	e.reads(0, 1, 3)
}

// A read that needs the router for a part of it ends when that part has waited long enough, once; and what was known of
// the rest stays known.
func TestStallOfAPart(t *testing.T) {
	w := newWorld(t)
	e, err := w.open('a', func(o *Options) { o.StallTimeout = 100 * time.Millisecond })
	must(t, err)
	e.do(block.Write, 0, 300, 1)
	e.know(0, 4, 1)
	e.loop.Call(func() { e.r.opt.Cache.drop(e.r.life, 4, 100) })
	w.down.Store(true)
	w.cut()
	q := e.start(block.Read, 0, 8, 0)
	if k := q.wait(); k != errs.IO {
		t.Error(k)
	}
	if n := e.disk.Stats.Retries.Load(); n != 0 {
		t.Errorf("it was asked again %d times", n)
	}
	e.reads(0, 4, 1)
	w.down.Store(false)
	e.reads(0, 8, 1)
}

// The router is connected and silent. A write that waits for the vDisk fails, and whoever is told asks for more at
// once, so what stood behind it leaves while it is looked through.
func TestStallOfAPassiveEdge(t *testing.T) {
	w := newWorld(t)
	w.mustOpen('a').do(block.Write, 0, 8, 1)
	b, err := w.open('b', func(o *Options) {
		o.Mode, o.StallTimeout, o.RenewEvery = proto.Passive, 300*time.Millisecond, 100*time.Millisecond
	})
	must(t, err)
	b.reads(0, 8, 1)
	resume := make(chan struct{})
	w.v.loop.PostFunc(func() { <-resume })
	more := b.make(block.Read, 4, 1)
	all := []*request{b.make(block.Write, 0, 1)}
	all[0].then = func() { more.submit(0) }
	for i := range 3 {
		all = append(all, b.make(block.Read, 1+i, 1))
	}
	b.loop.Call(func() {
		for _, q := range all {
			q.submit(2)
		}
	})
	if k := all[0].wait(); k != errs.IO {
		t.Errorf("the write ended with %v", k)
	}
	close(resume)
	for _, q := range append(all[1:], more) {
		if k := q.wait(); k != errs.OK && k != errs.IO {
			t.Error(k)
		}
	}
	b.reads(0, 1, 1)
}
