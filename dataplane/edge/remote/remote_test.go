package remote

import (
	"context"
	"runtime"
	"testing"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
)

// What the edge knows is read while the router does nothing at all.
func TestReadsWithoutTheRouter(t *testing.T) {
	w := newWorld(t)
	e := w.mustOpen('a')
	e.do(block.Write, 10, 20, 5)
	e.do(block.Trim, 15, 2, 0)
	e.know(10, 5, 5)
	e.know(15, 2, 0)
	resume := make(chan struct{})
	w.v.loop.PostFunc(func() { <-resume })
	defer close(resume)
	asked := e.r.Stats.Asked.Load()
	e.reads(10, 5, 5)
	e.reads(15, 2, 0)
	e.reads(17, 13, 5)
	if e.r.Stats.Asked.Load() != asked || e.r.Stats.Located.Load() == 0 || e.r.Stats.Zeros.Load() == 0 {
		t.Error("the router was asked")
	}
}

// A change is seen at once, whatever was kept; and once the lease has run out nothing is.
func TestChangesAndLease(t *testing.T) {
	w := newWorld(t)
	e := w.mustOpen('a')
	for fill := byte(1); fill < 20; fill++ {
		e.do(block.Write, 100, 300, fill)
		e.reads(100, 300, fill)
		e.know(100, 300, fill)
	}
	e.do(block.WriteZeroes, 200, 10, 0)
	e.reads(200, 10, 0)
	w.forward.Add(int64(21 * time.Second))
	asked := e.r.Stats.Asked.Load()
	e.reads(100, 10, 19)
	if e.r.Stats.Asked.Load() == asked || e.r.Stats.LeaseLost.Load() == 0 {
		t.Error("a location was used after the lease had run out")
	}
	e.know(100, 10, 19) // it is renewed
}

// A read that was on its way when the lease ran out is not answered with what it found.
func TestLeaseRunsOutUnderARead(t *testing.T) {
	w := newWorld(t)
	e := w.mustOpen('a')
	e.do(block.Write, 0, 8, 1)
	e.know(0, 8, 1)
	e.loop.Call(func() { e.hold = true })
	q := e.start(block.Read, 0, 8, 0)
	w.eventually("no fetch", func() (ok bool) {
		e.loop.Call(func() { ok = len(e.ends) > 0 })
		return ok
	})
	w.forward.Add(int64(21 * time.Second))
	e.loop.Call(func() { e.hold = false; e.loop.AtPassEnd(&e.hook) })
	if q.wait() != errs.OK || e.disk.Stats.LeaseLost.Load() != 1 {
		t.Errorf("%v; %d reads were asked again", q.Err, e.disk.Stats.LeaseLost.Load())
	}
}

// The clock is read anew when reads leave, not when they come; and a pass whose time lags behind answers nothing under
// a lease that has run out.
func TestReadsLookAtTheClockAsTheyLeave(t *testing.T) {
	w := newWorld(t)
	fresh, opened := 0, w.clock()
	e, err := w.open('a', func(o *Options) {
		o.Clock = func() int64 { fresh++; return w.clock() }
		o.PassClock = func() int64 { return opened }
	})
	must(t, err)
	e.do(block.Write, 0, 64, 1)
	e.know(0, 64, 1)
	e.loop.Call(func() {
		before := fresh
		var res block.Resolution
		for range 32 {
			res.Reset()
			e.r.Resolve(0, 8, &res, nil)
		}
		if fresh != before || res.Pieces[0].Kind != block.Stored {
			t.Errorf("32 look-ups read the clock %d times, and found %v", fresh-before, res.Pieces[0].Kind)
		}
	})
	w.forward.Add(int64(21 * time.Second))
	e.reads(0, 8, 1)
	if e.disk.Stats.LeaseLost.Load() != 1 {
		t.Error("a read left under a lease that had run out")
	}
}

func TestOpenRefused(t *testing.T) {
	w := newWorld(t)
	a := w.mustOpen('a')
	for _, tc := range []struct {
		change func(*Options)
		want   errs.Kind
	}{
		{func(o *Options) { o.VDisk = "w" }, errs.Absent},
		{func(o *Options) { o.Secret = make([]byte, 31) }, errs.Invalid},
		{func(o *Options) { o.Secret = append(make([]byte, 31), 1) }, errs.Refused},
		{func(o *Options) { o.Deployment = [16]byte{1} }, errs.Refused},
		{func(*Options) {}, errs.Busy},
	} {
		if _, err := w.open('b', tc.change); errs.Of(err) != tc.want {
			t.Errorf("%v, want %v", err, tc.want)
		}
	}
	a.do(block.Write, 0, 1, 1)
	w.down.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, w.options(w.host(), 'c')); errs.Of(err) != errs.Unreachable {
		t.Error(err)
	}
}

// Changes that lost their acknowledgement are sent again, in order, before any other; a read of their blocks waits for
// them.
func TestReplay(t *testing.T) {
	w := newWorld(t)
	e := w.mustOpen('a')
	e.do(block.Write, 0, 1, 1)
	w.v.loop.Call(func() { w.v.hold = true })
	first, second := e.start(block.Write, 0, 600, 2), e.start(block.Write, 0, 1, 3)
	flush := e.start(block.Flush, 0, 0, 0)
	w.eventually("nothing arrives", func() (ok bool) {
		w.v.loop.Call(func() { ok = len(w.v.held) >= 4 })
		return ok
	})
	w.cut()
	read := e.start(block.Read, 0, 1, 0)
	w.v.loop.Call(func() { w.v.hold = false; w.v.release() }) // the old session comes to rest
	for _, q := range []*request{first, second, flush, read} {
		if k := q.wait(); k != errs.OK {
			t.Fatalf("operation %d: %v", q.Op, k)
		}
	}
	if read.data[0] != 3 || e.r.Stats.Replayed.Load() < 4 || e.r.Stats.Connects.Load() < 2 {
		t.Errorf("read %d, %d sent again", read.data[0], e.r.Stats.Replayed.Load())
	}
	e.reads(1, 599, 2)
}

// Damage on the way is noticed by whoever it comes to, and undone by another connection.
func TestDamage(t *testing.T) {
	w := newWorld(t)
	e := w.mustOpen('a')
	w.spoil.Store(2)
	e.do(block.Write, 0, 8, 9)
	e.reads(0, 8, 9)
	w.spoil.Store(1)
	e.reads(0, 8, 9)
	if w.v.door.Stats.BadPeers.Load()+e.r.Stats.Corrupt.Load() == 0 && w.spoil.Load() == 0 {
		t.Error("nobody noticed")
	}
	w.spoil.Store(0)
	e.reads(0, 8, 9)
}

func TestTakeover(t *testing.T) {
	w := newWorld(t)
	a := w.mustOpen('a')
	a.do(block.Write, 0, 10, 1)
	a.know(0, 10, 1)
	b, err := w.open('b', func(o *Options) { o.Takeover = true })
	must(t, err)
	b.do(block.Write, 0, 10, 2)
	for range 3 {
		if k := a.start(block.Write, 0, 10, 3).wait(); k != errs.IO {
			t.Error("a fenced edge writes:", k)
		}
		if k := a.start(block.Read, 0, 1, 0).wait(); k != errs.IO {
			t.Error("a fenced edge reads:", k)
		}
	}
	b.reads(0, 10, 2)
	if i := a.r.Info(); i.Fenced == nil {
		t.Error("it does not know why")
	}
}

// A passive opener reads what the holder writes; when it writes itself the holder is asked to yield, and does so
// between two changes.
func TestLiveMigration(t *testing.T) {
	w := newWorld(t)
	a := w.mustOpen('a')
	a.do(block.Write, 0, 10, 1)
	a.know(0, 10, 1)
	b, err := w.open('b', func(o *Options) { o.Mode = proto.Passive })
	must(t, err)
	b.reads(0, 10, 1)
	a.do(block.Write, 0, 10, 2)
	b.reads(0, 10, 2)
	if b.r.Stats.Located.Load()+b.r.Stats.Lookups.Load() != 0 {
		t.Error("a passive opener keeps something")
	}
	b.do(block.Write, 0, 10, 3)
	a.reads(0, 10, 3)
	a.do(block.Write, 5, 1, 4) // and back
	b.reads(5, 1, 4)
	b.do(block.Flush, 0, 0, 0)
}

// on runs f on the edge's loop and returns what it says.
func (e *host) on(f func() bool) (ok bool) {
	e.loop.Call(func() { ok = f() })
	return ok
}

// The last change before a yield fails: the vDisk is given up all the same.
func TestYieldAfterAFailedChange(t *testing.T) {
	w := newWorld(t)
	a := w.mustOpen('a')
	b, err := w.open('b', func(o *Options) { o.Mode = proto.Passive })
	must(t, err)
	w.v.loop.Call(func() { w.v.hold, w.v.fail = true, errs.Full })
	last := a.start(block.Write, 0, 1, 1)
	w.eventually("nothing arrives", func() (ok bool) {
		w.v.loop.Call(func() { ok = len(w.v.held) > 0 })
		return ok
	})
	other := b.start(block.Write, 0, 1, 2)
	w.eventually("nobody is asked to yield", func() bool { return a.on(func() bool { return a.r.yielding }) })
	w.v.loop.Call(func() { w.v.hold = false; w.v.release() })
	w.v.loop.Call(func() { w.v.fail = errs.OK })
	if k := last.wait(); k != errs.Full {
		t.Error(k)
	}
	if k := other.wait(); k != errs.OK {
		t.Error(k)
	}
}

// The holder comes back with changes to be sent again, and is asked to yield at once: it does when they are there.
func TestYieldAfterReplay(t *testing.T) {
	w := newWorld(t)
	a := w.mustOpen('a')
	b, err := w.open('b', func(o *Options) { o.Mode = proto.Passive })
	must(t, err)
	w.v.loop.Call(func() { w.v.hold = true })
	last := a.start(block.Write, 0, 1, 1)
	w.eventually("nothing arrives", func() (ok bool) {
		w.v.loop.Call(func() { ok = len(w.v.held) > 0 })
		return ok
	})
	w.cut()
	w.eventually("a does not come back", func() bool { return a.on(func() bool { return a.r.open.pending }) })
	other := b.start(block.Write, 0, 1, 2)
	w.eventually("b does not ask", func() bool { return b.on(func() bool { return b.r.acquiring.pending }) })
	w.v.loop.Call(func() { w.v.hold = false; w.v.release() })
	for _, q := range []*request{last, other} {
		if k := q.wait(); k != errs.OK {
			t.Error(k)
		}
	}
	b.reads(0, 1, 2)
}

// A vDisk that becomes read-only under an edge refuses its changes, and the session goes on.
func TestBecomesReadOnly(t *testing.T) {
	w := newWorld(t)
	e := w.mustOpen('a')
	e.do(block.Write, 0, 300, 1)
	w.v.loop.Call(func() { w.v.constant = true })
	for _, op := range []block.Op{block.Write, block.Trim, block.WriteZeroes} {
		if k := e.start(op, 0, 300, 2).wait(); k != errs.Invalid {
			t.Errorf("operation %d: %v", op, k)
		}
	}
	e.reads(0, 300, 1)
	if n := e.r.Stats.Connects.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestRestOfTheDriver(t *testing.T) {
	w := newWorld(t)
	e := w.mustOpen('a')
	q := e.do(block.Extents, 0, blocks, 0)
	if len(q.Extents) != 1 || q.Extents[0].Len != blocks*2048 || q.Extents[0].State != block.Hole|block.ReadsZero {
		t.Error(q.Extents)
	}
	e.do(block.Cache, 0, 500, 0)
	if _, err := e.r.Manifest(context.Background(), 7, 1); errs.Of(err) != errs.Absent {
		t.Error(err)
	}
}

// Redirect moves an edge to another address; nothing of its client's is lost.
func TestRedirect(t *testing.T) {
	w := newWorld(t)
	e := w.mustOpen('a')
	e.do(block.Write, 0, 1, 1)
	w.v.loop.Call(func() { w.v.door.Redirect("elsewhere") })
	w.eventually("it stays", func() bool { return e.r.Stats.Connects.Load() == 2 })
	e.do(block.Write, 0, 1, 2)
	e.reads(0, 1, 2)
	var addr string
	e.loop.Call(func() { addr = e.r.addr })
	if addr != "elsewhere" {
		t.Error(addr)
	}
}

// An object is settled once the edge has dropped it, and at once where no edge is.
func TestSettle(t *testing.T) {
	w := newWorld(t)
	must(t, w.v.door.Settle(context.Background(), 7, 1))
	e := w.mustOpen('a')
	e.do(block.Write, 0, 10, 1)
	e.know(0, 10, 1)
	must(t, w.v.door.Settle(context.Background(), 7, 1))
	var known int64
	e.loop.Call(func() { known = e.r.opt.Cache.blocks })
	asked := e.r.Stats.Asked.Load()
	e.reads(0, 10, 1)
	if known != 0 || e.r.Stats.Asked.Load() == asked {
		t.Errorf("%d blocks are still known", known)
	}
	// A stopped edge holds it up until its lease has run out.
	resume := make(chan struct{})
	e.loop.PostFunc(func() { <-resume })
	settled := make(chan error, 1)
	go func() { settled <- w.v.door.Settle(context.Background(), 7, 1) }()
	select {
	case <-settled:
		t.Error("it was not waited for")
	case <-time.After(50 * time.Millisecond):
	}
	w.forward.Add(int64(23 * time.Second))
	w.v.door.Edges()
	must(t, <-settled)
	close(resume)
}

// Local connections and edges exclude each other.
func TestLocal(t *testing.T) {
	w := newWorld(t)
	must(t, w.v.door.OpenLocal(context.Background()))
	if _, err := w.open('a', func(o *Options) { o.Takeover = true }); errs.Of(err) != errs.Busy {
		t.Error(err)
	}
	w.v.door.CloseLocal()
	w.mustOpen('a')
	if err := w.v.door.OpenLocal(context.Background()); errs.Of(err) != errs.Busy {
		t.Error(err)
	}
}

// spinner repeats one request on the edge's loop.
type spinner struct {
	block.Request
	e    *host
	left int
	done chan struct{}
}

func (s *spinner) Completed(r *block.Request) {
	s.e.pool.ReleaseVec(&r.Data)
	if s.left--; s.left < 0 {
		s.done <- struct{}{}
		return
	}
	s.submit()
}

func (s *spinner) submit() {
	if s.Op == block.Write && !s.e.pool.Alloc(&s.Data, int(s.Len/4096)) {
		panic("no pages")
	}
	s.e.disk.Submit(&s.Request)
}

// Neither edge nor router allocates for a request; the router's volume, which is the test's, does.
func TestNoAllocation(t *testing.T) {
	if raceEnabled || invariants.Enabled {
		t.Skip("SKIPPED: the detector and the checks allocate themselves")
	}
	w := newWorld(t)
	e := w.mustOpen('a')
	e.do(block.Write, 0, 64, 1)
	e.know(0, 64, 1)
	s := &spinner{Request: block.Request{Op: block.Read, Len: 16384}, e: e, done: make(chan struct{}, 1)}
	s.Done = s
	run := func(n int) {
		e.loop.Call(func() { s.left = n; s.submit() })
		<-s.done
	}
	measure := func(what string, most float64) {
		run(500)
		n := 5000
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		run(n)
		runtime.ReadMemStats(&after)
		if per := float64(after.Mallocs-before.Mallocs) / float64(n); per > most {
			t.Errorf("%s: %.2f allocations", what, per)
		}
	}
	measure("a read by location", 0.05)
	s.Op, s.Len = block.Write, 4096
	measure("a write", 3.05) // the test's volume: two closures and a slice
	w.v.loop.Call(func() { w.v.mute = true })
	e.do(block.Write, 0, 64, 1)
	s.Op = block.Read
	measure("a read by way of the router", 1.2) // the test's volume: a closure
}

// An opener leaves while a change and a look-up of its are under way: it goes when they are answered, and nobody waits
// for its lease.
func TestLeavesUnderWork(t *testing.T) {
	w := newWorld(t)
	a := w.mustOpen('a')
	b, err := w.open('b', func(o *Options) { o.Mode = proto.Passive })
	must(t, err)
	b.do(block.Write, 100, 1, 2)
	w.v.loop.Call(func() { w.v.hold = true })
	last := b.start(block.Write, 101, 1, 2)
	w.eventually("nothing arrives", func() (ok bool) {
		w.v.loop.Call(func() { ok = len(w.v.held) > 0 })
		return ok
	})
	time.AfterFunc(100*time.Millisecond, func() { w.v.loop.Call(func() { w.v.hold = false; w.v.release() }) })
	b.r.Shut()
	if k := last.wait(); k != errs.OK {
		t.Error(k)
	}
	begin := time.Now()
	a.do(block.Write, 0, 1, 1)
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("the next one had to wait for %v", d)
	}
}
