package pracc

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/ring"
)

// fakeRemote serves a memDrive as another process would: what it has is copied, its errors are errnos, and a
// stalled drive holds its reads. It belongs to the loop.
type fakeRemote struct {
	w       *world
	d       *memDrive
	unready bool
	answer  errs.Kind // what every read ends with, if not OK
	short   bool      // gives less than was asked for
	hang    bool      // reads end when they are canceled, or by patience
	patient time.Duration
	held    []*remoteRead
	token   uint64
	cancels int
}

type remoteRead struct {
	*heldRead
	token uint64
	timer ring.Timer
}

func (r *fakeRemote) Ready() bool { return !r.unready && !r.d.gone }

func (r *fakeRemote) ReadRange(op *ring.Op, key layout.FragKey, off, n uint32, v *buf.Vec) uint64 {
	r.token++
	data, res := r.look(key, off, n)
	if !r.hang && !r.d.file.stall {
		for _, s := range v.Segs {
			data = data[copy(r.w.loop.Pool().SegBytes(s), data):]
		}
		r.w.loop.Defer(op, res)
		return r.token
	}
	q := &remoteRead{heldRead: r.w.hold(op, v.Segs, data, res, false), token: r.token}
	q.v = v
	r.held = append(r.held, q)
	if r.patient > 0 {
		q.timer.Fire = func() { r.end(q.token, -int32(syscall.ETIMEDOUT)) }
		r.w.loop.After(&q.timer, r.patient)
	}
	return r.token
}

// look is the drive's answer.
func (r *fakeRemote) look(key layout.FragKey, off, n uint32) (all []byte, res int32) {
	if r.answer != errs.OK {
		return nil, -int32(r.answer.Errno())
	}
	exts, pin, kind := r.d.Locate(key, off, n, nil)
	if kind != errs.OK {
		return nil, -int32(kind.Errno())
	}
	defer r.d.Unpin(pin)
	for _, e := range exts {
		for b := e.Off / 4096; b < (e.Off+int64(e.Len))/4096; b++ {
			if r.d.file.dead || r.d.file.eio[b] {
				return nil, -int32(syscall.EIO)
			}
		}
		all = append(all, r.d.file.mem[e.Off:e.Off+int64(e.Len)]...)
	}
	if r.short {
		return all, int32(n) - 4096
	}
	return all, int32(n)
}

func (r *fakeRemote) end(token uint64, res int32) {
	for i, q := range r.held {
		if q.token != token {
			continue
		}
		r.held = append(r.held[:i:i], r.held[i+1:]...)
		r.w.loop.StopTimer(&q.timer)
		q.res = res
		q.heldRead.end(r.w)
		return
	}
}

func (r *fakeRemote) Cancel(token uint64) {
	r.cancels++
	r.end(token, -int32(syscall.ECANCELED))
}

// resume ends a stall.
func (r *fakeRemote) resume() {
	for len(r.held) > 0 {
		r.end(r.held[0].token, r.held[0].res)
	}
}

// newRemoteWorld is a world whose drives but the first local ones are reached through fakeRemotes.
func newRemoteWorld(t testing.TB, drives, local int, poolBytes int64, change func(*Options)) (*world, []*fakeRemote) {
	var w *world
	var rs []*fakeRemote
	w = newWorld(t, drives, poolBytes, func(o *Options) {
		drive := o.Drives
		o.Drives = func(id ids.ASDID) Drive {
			if int(id) >= local {
				return nil
			}
			return drive(id)
		}
		o.Remotes = func(id ids.ASDID) Remote {
			if int(id) >= len(rs) {
				return nil
			}
			return rs[id]
		}
		o.Patience = -1
		if change != nil {
			change(o)
		}
	})
	for _, d := range w.drives {
		rs = append(rs, &fakeRemote{w: w, d: d})
	}
	return w, rs
}

func TestRemoteHealthy(t *testing.T) {
	for _, local := range []int{0, 3} {
		w, _ := newRemoteWorld(t, 6, local, 16<<20, nil)
		o := w.put(1, 1000, pol42, 256<<10, 20<<10)
		w.want(o, 0, 1)
		w.want(o, 0, 1000)
		w.want(o, 63, 2)
		if n := w.c.stats.Rebuilds.Load(); n != 0 {
			t.Fatalf("%d rebuilds of a healthy object", n)
		}
	}
}

// Every way a Remote can fail, at up to m and at more fragments: what is read is right, and only what an ASD said
// of a fragment is reported as rot.
func TestRemoteFailures(t *testing.T) {
	type mode struct {
		name string
		set  func(r *fakeRemote)
		kind errs.Kind // with more than m of them
		rot  errs.Kind // reported
	}
	answer := func(k errs.Kind) func(*fakeRemote) { return func(r *fakeRemote) { r.answer = k } }
	modes := []mode{
		{"not ready", func(r *fakeRemote) { r.unready = true }, errs.Unreachable, errs.OK},
		{"short", func(r *fakeRemote) { r.short = true }, errs.Unreachable, errs.OK},
		{"timeout", func(r *fakeRemote) { r.hang, r.patient = true, time.Millisecond }, errs.Unreachable, errs.OK},
		{"absent", answer(errs.Absent), errs.IO, errs.Absent},
		{"corrupt", answer(errs.Corrupt), errs.Corrupt, errs.Corrupt},
		{"invalid", answer(errs.Invalid), errs.IO, errs.Corrupt},
		{"io", answer(errs.IO), errs.IO, errs.IO},
	}
	for _, k := range []errs.Kind{errs.Unreachable, errs.Busy, errs.Refused, errs.Closed, errs.Canceled, errs.Full,
		errs.Version, errs.Unsupported, errs.Exists} {
		modes = append(modes, mode{k.String(), answer(k), errs.Unreachable, errs.OK})
	}
	for _, m := range modes {
		for lost := 1; lost <= 3; lost++ {
			t.Run(fmt.Sprintf("%s/%d", m.name, lost), func(t *testing.T) {
				w, rs := newRemoteWorld(t, 6, 0, 16<<20, nil)
				o := w.put(1, 64, pol42, 1<<20, 1<<20)
				w.loop.Call(func() {
					for _, r := range rs[:lost] {
						m.set(r)
					}
				})
				fl := w.fetch(o, 0, 64)
				if lost <= 2 {
					w.same(fl, o)
				} else if fl.Err != m.kind {
					t.Fatalf("%v, want %v", fl.Err, m.kind)
				}
				w.loop.Call(func() {
					for _, rot := range w.rots {
						if m.rot == errs.OK || rot.kind != m.rot || int(rot.asd) >= lost {
							t.Errorf("reported: %v", rot)
						}
					}
					if m.rot != errs.OK && len(w.rots) != lost {
						t.Errorf("%d of %d fragments were reported", len(w.rots), lost)
					}
				})
			})
		}
	}
}

// Bytes that come wrong from a Remote are found, replaced and reported like those of a drive.
func TestRemoteRot(t *testing.T) {
	w, _ := newRemoteWorld(t, 6, 0, 16<<20, nil)
	o := w.put(1, 64, pol42, 1<<20, 1<<20)
	w.flip(o, 0, 1, 3)
	w.want(o, 0, 64)
	w.loop.Call(func() {
		if len(w.rots) != 1 || w.rots[0] != (rotReport{o.m.FragKey(0, 1), 1, errs.Corrupt}) {
			t.Errorf("reports: %v", w.rots)
		}
	})
}

// Sources that are not ready are not asked, and when too few are left nobody is read in vain.
func TestRemoteSourcesThatAreReady(t *testing.T) {
	w, rs := newRemoteWorld(t, 6, 0, 16<<20, nil)
	o := w.put(1, 64, pol42, 1<<20, 1<<20)
	asked := func(i int) int { return w.drives[i].asked }
	w.loop.Call(func() { rs[0].unready, rs[1].unready = true, true })
	w.want(o, 0, 4)
	if asked(0)+asked(1) != 0 || asked(2)*asked(3)*asked(4)*asked(5) != 1 {
		t.Errorf("asked: %d %d %d %d %d %d", asked(0), asked(1), asked(2), asked(3), asked(4), asked(5))
	}
	w.loop.Call(func() { rs[2].unready = true })
	if fl := w.fetch(o, 0, 4); fl.Err != errs.Unreachable {
		t.Fatal(fl.Err)
	}
	if asked(3)*asked(4)*asked(5) != 1 {
		t.Error("sources were read although k cannot answer")
	}
}

// Too few ASDs answer for a moment: the fetch waits, and gets its bytes. For longer: an error in bounded time.
func TestPatience(t *testing.T) {
	w, rs := newRemoteWorld(t, 6, 0, 16<<20, func(o *Options) { o.Patience = time.Minute })
	o := w.put(1, 64, pol42, 1<<20, 1<<20)
	set := func(unready bool) {
		w.loop.Call(func() {
			for _, r := range rs[:3] {
				r.unready = unready
			}
		})
	}
	set(true)
	var fl *flight
	w.loop.Call(func() { fl = w.start(o, 0, 64, true) })
	for w.c.stats.Parked.Load() < 3 {
		time.Sleep(time.Millisecond)
	}
	set(false)
	<-fl.done
	w.same(fl, o)

	w, rs = newRemoteWorld(t, 6, 0, 16<<20, func(o *Options) { o.Patience = 120 * time.Millisecond })
	o = w.put(1, 64, pol42, 1<<20, 1<<20)
	set(true)
	if fl := w.fetch(o, 0, 64); fl.Err != errs.Unreachable || w.c.stats.Parked.Load() == 0 {
		t.Fatal(fl.Err, w.c.stats.Parked.Load())
	}
	parked := w.c.stats.Parked.Load()
	if fl := w.fetch(o, 0, 64); fl.Err != errs.Unreachable || w.c.stats.Parked.Load() != parked {
		t.Fatal("waited again for whom one had waited for in vain", fl.Err)
	}
	w.loop.Call(func() { // what is lost for good is not waited for
		for _, r := range rs[:3] {
			r.unready, r.answer = false, errs.Absent
		}
	})
	parked = w.c.stats.Parked.Load()
	if fl := w.fetch(o, 0, 64); fl.Err != errs.IO || w.c.stats.Parked.Load() != parked {
		t.Fatal(fl.Err)
	}
}

// Close cancels what Remotes have, and a stop ends it; nothing is left.
func TestRemoteCloseAndStop(t *testing.T) {
	for _, stop := range []bool{false, true} {
		for _, at := range []string{"read", "source", "parked"} {
			t.Run(fmt.Sprintf("%s/stop=%v", at, stop), func(t *testing.T) {
				w, rs := newRemoteWorld(t, 6, 0, 32<<20, func(o *Options) { o.Patience = time.Hour })
				o := w.put(1, 2000, pol42, 1<<20, 64<<10)
				w.want(o, 0, 1)
				var fls []*flight
				w.loop.Call(func() {
					for i, r := range rs {
						r.hang = at == "read" || i > 2
						r.unready = at == "source" && i < 2 || at == "parked"
					}
					for i := range 10 {
						fls = append(fls, w.start(o, 100*i, 100+i, true))
					}
				})
				if at == "parked" {
					for w.c.stats.Parked.Load() < 10 {
						time.Sleep(time.Millisecond)
					}
				}
				if stop {
					w.loop.Stop()
				} else {
					closed := make(chan struct{})
					w.loop.Call(func() { w.c.Close(func() { close(closed) }) })
					<-closed
				}
				for i, fl := range fls {
					<-fl.done
					if fl.ends != 1 || fl.Err != errs.Closed && fl.Err != errs.OK {
						t.Errorf("fetch %d: %d ends, %v", i, fl.ends, fl.Err)
					}
				}
				if w.c.reading != 0 || w.pool.Free() != w.pages {
					t.Errorf("%d pages are held by the ended Client", w.pages-w.pool.Free())
				}
			})
		}
	}
}

// A Remote that hangs is hedged, and called off when it is overtaken: its pages are back before it has answered. Out of
// the fast set what it has is called off at once, and rebuilt in place.
func TestRemoteHedge(t *testing.T) {
	w, rs := newRemoteWorld(t, 6, 0, 16<<20, nil)
	o := w.put(1, 64, pol42, 1<<20, 1<<20)
	w.want(o, 0, 64)
	ft := w.freeze()
	w.rich()
	var k *keeper
	begin := func() { w.loop.Call(func() { k = w.keep(o, 2, 7) }) }
	w.loop.Call(func() { rs[0].hang = true })
	begin()
	for range 5 {
		ft.pass(3 * time.Millisecond)
	}
	<-k.done
	k.check()
	k.release()
	s := &w.c.stats
	if s.Hedges.Load() != 1 || s.HedgeWins.Load() != 1 || rs[0].cancels != 1 || s.StuckReads.Load() != 0 {
		t.Errorf("hedges %d, won %d, called off %d, stuck %d", s.Hedges.Load(), s.HedgeWins.Load(), rs[0].cancels,
			s.StuckReads.Load())
	}
	w.loop.Call(func() { w.c.pacing.allowed = 0 })
	begin()
	for range 20 {
		ft.pass(3 * time.Millisecond)
	}
	<-k.done
	k.check()
	k.release()
	if s.Hedges.Load() != 1 || s.HedgeWins.Load() != 1 || s.Around.Load() != 1 || w.fast(0) {
		t.Errorf("hedges %d, won %d, around %d, fast %v", s.Hedges.Load(), s.HedgeWins.Load(), s.Around.Load(), w.fast(0))
	}
	begin() // without waiting for it now
	<-k.done
	k.check()
	k.release()
	w.loop.Call(func() {
		rs[0].hang = false
		rs[0].resume()
	})
	for range 20 {
		ft.pass(10 * time.Millisecond)
	}
	if !w.fast(0) || s.Around.Load() != 2 {
		t.Errorf("fast %v, around %d", w.fast(0), s.Around.Load())
	}
}

// A 4 KiB fetch from a Remote allocates nothing.
func TestRemoteAllocatesNothing(t *testing.T) {
	w, rs := newRemoteWorld(t, 6, 0, 16<<20, nil)
	o := w.put(1, 256, pol42, 1<<20, 1<<20)
	w.want(o, 0, 256)
	q := &quickRemote{fakeRemote: rs[0]}
	w.loop.Call(func() { w.c.opt.Remotes = func(ids.ASDID) Remote { return q } })
	p := &pump{c: w.c, done: make(chan struct{}, 1)}
	run := func() {
		p.left = 1000
		w.loop.Call(func() { w.c.Fetch(&p.f) })
		<-p.done
	}
	w.loop.Call(func() {
		w.pool.Alloc(&p.f.Dst, 1)
		p.f.NS, p.f.SCO, p.f.Off, p.f.Blocks, p.f.Sums, p.f.Done = 9, 1, 7, 1, o.sums[7:8], p
		copy(w.pool.SegBytes(p.f.Dst.Segs[0]), o.data[7*4096:])
	})
	run()
	if n := testing.AllocsPerRun(10, run); n > 20 {
		t.Errorf("a thousand fetches allocate %v times", n)
	}
	w.loop.Call(func() { w.pool.ReleaseVec(&p.f.Dst) })
}

// quickRemote leaves the pages as they are.
type quickRemote struct{ *fakeRemote }

func (q *quickRemote) ReadRange(op *ring.Op, _ layout.FragKey, _, n uint32, _ *buf.Vec) uint64 {
	q.w.loop.Defer(op, int32(n))
	return 1
}
