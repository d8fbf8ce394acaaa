package remote

import (
	"bytes"
	"context"
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

// The router is connected and silent. Writes that wait for the vDisk fail, and whoever is told of the first asks for
// more at once, so the line changes while it is looked through.
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
	writes, rest := b.manyWrites(func() {}, b.make(block.Read, 4, 1))
	for i, q := range writes {
		if k := q.wait(); k != errs.IO {
			t.Errorf("write %d ended with %v", i, k)
		}
	}
	close(resume)
	for _, q := range rest {
		if k := q.wait(); k != errs.OK && k != errs.IO {
			t.Error(k)
		}
	}
	b.reads(0, 1, 1)
}

// Changes that wait at the router, as they do while drives are full, leave room for what does not wait: however many
// there are, a read is answered.
func TestReadsPassStalledChanges(t *testing.T) {
	for _, tc := range []struct{ writes, blocks int }{{600, 1}, {24, 256}} {
		w := newWorldOf(t, 8192)
		// The router is never taken for silent: what comes back on another connection is sent before all else.
		e, err := w.open('a', func(o *Options) { o.RenewEvery = 10 * time.Second })
		must(t, err)
		e.do(block.Write, 0, 64, 1)
		// No location is told, so that reads go by way of the router.
		w.v.loop.Call(func() { w.v.hold, w.v.mute = true, true })
		t.Cleanup(func() { // what is held keeps everything else from ending, and a failure would hang
			for end := time.Now().Add(5 * time.Second); t.Failed() && time.Now().Before(end); time.Sleep(time.Millisecond) {
				w.v.loop.Call(w.v.release)
			}
		})
		var writes []*request
		for i := range tc.writes {
			writes = append(writes, e.start(block.Write, 64+i*tc.blocks, tc.blocks, 2))
		}
		w.eventually("the writes do not leave", func() bool { return e.on(func() bool { return e.r.waiting.n > 0 }) })
		e.reads(3, 8, 1)
		if writes[0].over() {
			t.Error("a write ended: this tests nothing")
		}
		w.eventually("the writes do not end", func() bool {
			w.v.loop.Call(w.v.release)
			return e.on(func() bool { return e.r.waiting.n+e.r.out.n == 0 })
		})
		for _, q := range writes {
			if k := q.wait(); k != errs.OK {
				t.Error(k)
			}
		}
	}
}

// After the router's death all that it had not acknowledged is sent again, and may wait for long, as while drives are
// full. Reads of other blocks and flushes pass it, and a read of its blocks sees it.
func TestReadsPassRepeatedChanges(t *testing.T) {
	for _, n := range []int{1, 600} {
		w := newWorldOf(t, 8192)
		e, err := w.open('a', func(o *Options) { o.RenewEvery = 10 * time.Second })
		must(t, err)
		e.do(block.Write, 0, 64, 1)
		w.v.loop.Call(func() { w.v.hold, w.v.mute = true, true })
		t.Cleanup(func() {
			for end := time.Now().Add(5 * time.Second); t.Failed() && time.Now().Before(end); time.Sleep(time.Millisecond) {
				w.v.loop.Call(w.v.release)
			}
		})
		var all []*request
		for i := range n {
			all = append(all, e.start(block.Write, 64+i, 1, 2))
		}
		held := func(op block.MutationOp) (n int) {
			w.v.loop.Call(func() {
				for _, m := range w.v.held {
					if m.Op == op {
						n++
					}
				}
			})
			return n
		}
		w.eventually("the writes do not leave", func() bool { return held(block.Put) > 0 })
		w.down.Store(true)
		w.cut()
		w.v.loop.Call(func() { w.v.dying = true; w.v.lose() })
		w.restart(7, func() { w.v.dying = false })
		w.eventually("nothing is sent again", func() bool { return held(block.Put) > 0 })
		over, flush := e.start(block.Read, 60, 8, 0), e.start(block.Flush, 0, 0, 0)
		all = append(all, over, flush)
		read := e.start(block.Read, 3, 8, 0)
		w.eventually("a read waits", read.over)
		w.eventually("the flush waits", func() bool { return held(block.Sync) > 0 })
		if !bytes.Equal(read.data, bytes.Repeat([]byte{1}, 8*4096)) {
			t.Error("that is not what it was")
		}
		for _, q := range all {
			if q.over() {
				t.Fatalf("an operation %d ended: this tests nothing, or too much", q.Op)
			}
		}
		w.eventually("the writes do not end", func() bool {
			w.v.loop.Call(w.v.release)
			return e.on(func() bool { return e.r.waiting.n+e.r.replay.n+e.r.out.n == 0 })
		})
		for _, q := range all {
			if k := q.wait(); k != errs.OK {
				t.Error(k)
			}
		}
		if over.data[3*4096] != 1 || over.data[4*4096] != 2 {
			t.Error("what was sent again is not what is read")
		}
	}
}

// What is sent again may wait at the router for longer than the edge lets it: the connection stays, and reads go on.
func TestRepeatedChangesOutlastTheStall(t *testing.T) {
	w := newWorld(t)
	e, err := w.open('a', func(o *Options) { o.RenewEvery, o.StallTimeout = 2*time.Second, 500*time.Millisecond })
	must(t, err)
	e.do(block.Write, 0, 8, 1)
	w.v.loop.Call(func() { w.v.hold, w.v.mute = true, true })
	write := e.start(block.Write, 4, 1, 2)
	arrived := func() (ok bool) {
		w.v.loop.Call(func() { ok = len(w.v.held) > 0 })
		return ok
	}
	w.eventually("the write does not leave", arrived)
	w.down.Store(true)
	w.cut()
	w.v.loop.Call(func() { w.v.dying = true; w.v.lose() })
	w.restart(7, func() { w.v.dying = false })
	w.eventually("nothing is sent again", arrived)
	connects := e.r.Stats.Connects.Load()
	held := e.start(block.Read, 4, 1, 0)
	time.Sleep(1500 * time.Millisecond) // it is looked at every 400 ms
	e.reads(0, 4, 1)
	if n := e.r.Stats.Connects.Load(); n != connects || write.over() || held.over() {
		t.Errorf("%d connections more; the write is over: %v, the read of its block: %v", n-connects, write.over(),
			held.over())
	}
	w.v.loop.Call(func() { w.v.hold = false; w.v.release() })
	for _, q := range []*request{write, held} {
		if k := q.wait(); k != errs.OK {
			t.Error(k)
		}
	}
	e.reads(4, 1, 2)
}

func (q *request) over() bool {
	select {
	case <-q.done:
		return true
	default:
		return false
	}
}

// Changes that the router has no room for wait here. When those it has fail, as drives stayed full for so long, the
// others have waited as long: they fail too, and do not begin to wait there.
func TestStallOfWaitingChanges(t *testing.T) {
	w := newWorldOf(t, 8192)
	e, err := w.open('a', func(o *Options) { o.RenewEvery, o.StallTimeout = 10*time.Second, 2*time.Second })
	must(t, err)
	e.do(block.Write, 0, 64, 1)
	w.v.loop.Call(func() { w.v.hold, w.v.fail = true, errs.Full })
	var writes []*request
	for i := range 24 {
		writes = append(writes, e.start(block.Write, 64+i*256, 256, 2))
	}
	w.eventually("the writes do not leave", func() bool {
		return e.on(func() bool { return e.r.waiting.changes > 0 })
	})
	time.Sleep(2100 * time.Millisecond)
	young := e.start(block.Write, 0, 1, 3)
	w.eventually("the last does not wait", func() bool {
		return e.on(func() bool { return e.r.waiting.tail.count == 1 })
	})
	w.v.loop.Call(w.v.release)
	for _, q := range writes {
		if k := q.wait(); k != errs.Full {
			t.Error(k)
		}
	}
	w.v.loop.Call(func() { w.v.hold, w.v.fail = false, errs.OK; w.v.release() })
	if k := young.wait(); k != errs.OK {
		t.Error("what had not waited so long:", k)
	}
	e.reads(0, 1, 3)
}

// manyWrites submits writes and reads, each write before a read; at the end of the first write told is called and more
// comes.
func (e *host) manyWrites(told func(), more *request) (writes, rest []*request) {
	for i := range 4 {
		writes, rest = append(writes, e.make(block.Write, i, 1)), append(rest, e.make(block.Read, i, 1))
	}
	writes[0].then = func() { told(); more.submit(2) }
	e.loop.Call(func() {
		for i := range writes {
			writes[i].submit(2)
			rest[i].submit(0)
		}
	})
	return writes, append(rest, more)
}

// The router's own process has the vDisk open, so that a passive edge's wish to change it is refused: what waits for
// that fails, and what only reads goes on. What is asked for after that is another wish.
func TestAcquireIsRefused(t *testing.T) {
	w := newWorld(t)
	b, err := w.open('b', func(o *Options) { o.Mode = proto.Passive })
	must(t, err)
	must(t, w.v.door.OpenLocal(context.Background()))
	part := b.part(7, 1, 3)
	if k := part.wait(); k != errs.Refused {
		t.Error(k)
	}
	writes, rest := b.manyWrites(w.v.door.CloseLocal, b.make(block.Write, 6, 1))
	for i, q := range writes {
		if k := q.wait(); k != errs.Refused {
			t.Errorf("write %d ended with %v", i, k)
		}
	}
	for i, q := range rest {
		if k := q.wait(); k != errs.OK {
			t.Errorf("request %d beside them ended with %v", i, k)
		}
	}
	b.reads(6, 1, 2)
	b.reads(7, 1, 0)
}

// The router's machine dies after the handshake and says nothing about it. The edge tries another connection, as it
// does later in a session.
func TestSilenceWhileOpening(t *testing.T) {
	w := newWorld(t)
	e, err := w.open('a', func(o *Options) { o.RenewEvery = 20 * time.Millisecond })
	must(t, err)
	e.do(block.Write, 0, 1, 1)
	resume := make(chan struct{})
	w.v.loop.PostFunc(func() { <-resume }) // who shakes hands is there
	w.cut()
	w.eventually("it waits for ever", func() bool { return e.r.Stats.Connects.Load() >= 4 })
	close(resume)
	e.reads(0, 1, 1)
}

// A router that has another edge's lease run out first is there, and is not left for that.
func TestOpeningWaitsForALease(t *testing.T) {
	w := newWorld(t)
	a := w.mustOpen('a')
	a.do(block.Write, 0, 1, 1)
	resume := make(chan struct{})
	a.loop.PostFunc(func() { <-resume })
	defer close(resume)
	w.cut()
	const every = 50 * time.Millisecond
	time.AfterFunc(3*silence*every, func() {
		w.forward.Add(int64(23 * time.Second))
		w.v.door.Edges() // looks at the clock
	})
	b, err := w.open('b', func(o *Options) { o.RenewEvery = every })
	must(t, err)
	if n := b.r.Stats.Connects.Load(); n != 1 {
		t.Errorf("it opened with its connection number %d", n)
	}
	b.reads(0, 1, 1)
}
