package client

import (
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"vstor/asd/server"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// lenient times: nothing ends early because the machine is slow.
var lenient = ReaderOptions{StallAfter: 30 * time.Second, ReadTimeout: 40 * time.Second}

// Many reads of any size at once, far more than may be in flight, and errors among them.
func TestReader(t *testing.T) {
	for _, few := range []bool{false, true} {
		w := newWorld(t, settings{server: func(o *server.Options) {
			if few {
				o.MaxRequests, o.MaxBytes = 3, 600<<10
			}
		}})
		a, g := w.up(), newRig(t)
		sizes := []int{4096, 68 << 10, 1 << 20, 3 << 20}
		for i, n := range sizes {
			must(t, a.Put(timed(t), fput(t, i, n)))
		}
		r := g.reader(a, lenient)
		g.ready(r)
		rng := rand.New(rand.NewPCG(1, 2))
		for range 20 {
			var qs []*reading
			g.loop.Call(func() {
				for range 30 {
					i := rng.IntN(len(sizes))
					blocks := sizes[i] / 4096
					off := rng.IntN(blocks)
					qs = append(qs, g.start(r, i, sizes[i], off*4096, 4096*(1+rng.IntN(min(blocks-off, 100)))))
				}
				qs = append(qs, g.start(r, 55, 0, 0, 4096), g.start(r, 0, 4096, 4096, 4096))
			})
			for _, q := range qs {
				<-q.done
				switch {
				case q.i == 55:
					if q.res != -int32(syscall.ENOENT) {
						t.Fatalf("an absent fragment: %d", q.res)
					}
				case q.off == 4096 && q.i == 0:
					if q.res != -int32(syscall.EINVAL) {
						t.Fatalf("beyond the end: %d", q.res)
					}
				default:
					g.same(q)
				}
			}
		}
		st := r.Stats()
		if st.Reads.Load() != 600 || st.Errors.Load() != 40 || st.Timeouts.Load() != 0 || st.InFlight.Load() != 0 ||
			st.Mean.Load() <= 0 || st.P95.Load() <= 0 {
			t.Errorf("%d reads, %d errors, %d timeouts, %d in flight, %d ns", st.Reads.Load(), st.Errors.Load(),
				st.Timeouts.Load(), st.InFlight.Load(), st.Mean.Load())
		}
	}
}

// A Reader that has as many reads as it may.
func TestReaderFull(t *testing.T) {
	w := newWorld(t, settings{})
	a, g := w.up(), newRig(t)
	must(t, a.Put(timed(t), fput(t, 1, 64<<10)))
	o := lenient
	o.InFlight, o.Reads = 2, 5
	r := g.reader(a, o)
	g.ready(r)
	w.relay.stop()
	var qs []*reading
	g.loop.Call(func() {
		for range 6 {
			qs = append(qs, g.start(r, 1, 64<<10, 0, 64<<10))
		}
	})
	<-qs[5].done
	if qs[5].res != -int32(syscall.EBUSY) {
		t.Errorf("the sixth of five: %d", qs[5].res)
	}
	g.loop.Call(func() {
		if r.out != 2 {
			t.Errorf("%d in flight, 2 were allowed", r.out)
		}
	})
	w.relay.goOn()
	for _, q := range qs[:5] {
		<-q.done
		g.same(q)
	}
}

// A process that stops: reads end soon, the Reader is not ready, and is again when it goes on.
func TestReaderStall(t *testing.T) {
	w := newWorld(t, settings{})
	a, g := w.up(), newRig(t)
	must(t, a.Put(timed(t), fput(t, 1, 1<<20)))
	r := g.reader(a, ReaderOptions{StallAfter: 50 * time.Millisecond, ReadTimeout: 30 * time.Second})
	g.ready(r)
	w.relay.stop()
	var qs []*reading
	begun := time.Now()
	g.loop.Call(func() {
		for i := range 5 {
			qs = append(qs, g.start(r, 1, 1<<20, i*8192, 256<<10))
		}
	})
	for _, q := range qs {
		<-q.done
		if q.res != -int32(syscall.ETIMEDOUT) {
			t.Fatalf("ended with %d", q.res)
		}
	}
	t.Logf("ended after %v", time.Since(begun).Round(time.Millisecond))
	if g.isReady(r) {
		t.Error("ready in a stall")
	}
	q := g.read(r, 1, 1<<20, 0, 4096)
	if q.res != -int32(syscall.EHOSTUNREACH) {
		t.Errorf("a read in a stall: %d", q.res)
	}
	w.relay.goOn()
	g.insist(r)
	if st := r.Stats(); st.Stalls.Load() < 1 || st.Connects.Load() != 1 {
		t.Errorf("%d stalls, %d connections", st.Stalls.Load(), st.Connects.Load())
	}
	until(t, "late answers", func() bool { return r.Stats().Late.Load() == 0 && r.Stats().InFlight.Load() == 0 })
}

// A stall in the middle of the data of an answer: the pages come back all the same.
func TestReaderStallInData(t *testing.T) {
	w := newWorld(t, settings{})
	a, g := w.up(), newRig(t)
	must(t, a.Put(timed(t), fput(t, 1, 1<<20)))
	for range 10 {
		r := g.reader(a, ReaderOptions{StallAfter: 50 * time.Millisecond, ReadTimeout: 30 * time.Second})
		g.ready(r)
		var q *reading
		g.loop.Call(func() { q = g.start(r, 1, 1<<20, 0, 1<<20) })
		for landing := false; !landing && q.ends.Load() == 0; {
			g.loop.Call(func() { landing = r.landing != nil })
		}
		w.relay.stop()
		<-q.done
		w.relay.goOn()
		if q.res > 0 {
			g.same(q)
		}
		g.insist(r)
		g.closeReader(r)
	}
}

// A drive that hangs in a process that lives: reads time out, the Reader is not ready, and is again when the drive
// answers.
func TestReaderSickDrive(t *testing.T) {
	w := newWorld(t, settings{})
	a, g := w.up(), newRig(t)
	must(t, a.Put(timed(t), fput(t, 1, 1<<20)))
	r := g.reader(a, ReaderOptions{StallAfter: 20 * time.Second, ReadTimeout: 50 * time.Millisecond})
	g.ready(r)
	w.drive.Set(dio.Rule{On: dio.Reads, Do: dio.Stall, Chance: 1})
	if q := g.read(r, 1, 1<<20, 0, 4096); q.res != -int32(syscall.ETIMEDOUT) {
		t.Fatalf("ended with %d", q.res)
	}
	if g.isReady(r) {
		t.Error("ready although its drive hangs")
	}
	if !a.Up() {
		t.Error("the process answers, and is called down")
	}
	w.drive.Set()
	w.drive.Release()
	g.insist(r)
}

// insist reads fragment 1, of 1 MiB. Where the machine is slow, a reader in a hurry takes that for a stall.
func (g *rig) insist(r *Reader) {
	g.t.Helper()
	var q *reading
	until(g.t, "a read", func() bool {
		g.ready(r)
		q = g.read(r, 1, 1<<20, 0, 1<<20)
		return q.res != -int32(syscall.ETIMEDOUT) && q.res != -int32(syscall.EHOSTUNREACH)
	})
	g.same(q)
}

// Cancel at any moment: every read ends once, with its bytes or without, and nothing is left behind.
func TestReaderCancel(t *testing.T) {
	w := newWorld(t, settings{})
	a, g := w.up(), newRig(t)
	must(t, a.Put(timed(t), fput(t, 1, 1<<20)))
	o := lenient
	o.InFlight = 4
	r := g.reader(a, o)
	g.ready(r)
	rng := rand.New(rand.NewPCG(3, 4))
	canceled := 0
	for range 60 {
		var qs []*reading
		g.loop.Call(func() {
			for range 12 {
				qs = append(qs, g.start(r, 1, 1<<20, 0, 4096*(1+rng.IntN(256))))
			}
		})
		for range 8 {
			g.loop.Call(func() { r.Cancel(qs[rng.IntN(len(qs))].token) })
		}
		for _, q := range qs {
			<-q.done
			if q.res == -int32(syscall.ECANCELED) {
				canceled++
			} else {
				g.same(q)
			}
		}
		g.loop.Call(func() {
			for _, q := range qs { // of what has ended means nothing
				r.Cancel(q.token)
			}
			r.Cancel(0)
			r.Cancel(1<<63 + 5)
		})
	}
	if canceled == 0 {
		t.Error("nothing was canceled: the test shows nothing")
	}
	until(t, "late answers", func() bool { return r.Stats().Late.Load() == 0 && r.Stats().InFlight.Load() == 0 })
}

// A process that is killed and restarted again and again under reads.
func TestReaderKilled(t *testing.T) {
	w := newWorld(t, settings{})
	a, g := w.up(), newRig(t)
	must(t, a.Put(timed(t), fput(t, 1, 1<<20)))
	r := g.reader(a, lenient)
	for range 5 {
		g.ready(r)
		var qs []*reading
		g.loop.Call(func() {
			for range 20 {
				qs = append(qs, g.start(r, 1, 1<<20, 0, 1<<20))
			}
		})
		w.relay.kill()
		for _, q := range qs {
			<-q.done
			if q.res > 0 {
				g.same(q)
			} else if errs.FromErrno(syscall.Errno(-q.res)) != errs.Unreachable {
				t.Fatalf("ended with %d", q.res)
			}
		}
		w.relay.listen()
	}
	g.ready(r)
	g.same(g.read(r, 1, 1<<20, 0, 1<<20))
}

// Close and the loop's end, with reads in every state.
func TestReaderCloseAndStop(t *testing.T) {
	for _, at := range []string{"idle", "reads", "stopped", "down", "sick"} {
		for _, stop := range []bool{false, true} {
			w := newWorld(t, settings{})
			a, g := w.up(), newRig(t)
			must(t, a.Put(timed(t), fput(t, 1, 1<<20)))
			o := lenient
			o.InFlight = 5
			if at == "sick" {
				o.ReadTimeout = 10 * time.Millisecond
				w.drive.Set(dio.Rule{On: dio.Reads, Do: dio.Stall, Chance: 1})
			}
			r := g.reader(a, o)
			g.ready(r)
			switch at {
			case "stopped":
				w.relay.stop()
			case "down":
				w.relay.kill()
			}
			var qs []*reading
			g.loop.Call(func() {
				for range 20 {
					if at != "idle" {
						qs = append(qs, g.start(r, 1, 1<<20, 0, 512<<10))
					}
				}
			})
			if at == "sick" {
				<-qs[0].done
			}
			if stop {
				g.loop.Stop()
			} else {
				g.closeReader(r)
			}
			for _, q := range qs {
				<-q.done
				switch errs.FromErrno(syscall.Errno(max(-q.res, 0))) {
				case errs.OK:
					g.same(q)
				case errs.Closed, errs.Canceled, errs.Unreachable:
				default:
					t.Errorf("%s stop=%v: ended with %d", at, stop, q.res)
				}
			}
			if !stop {
				if q := g.read(r, 1, 1<<20, 0, 4096); q.res != -int32(syscall.ESHUTDOWN) {
					t.Errorf("a read after Close: %d", q.res)
				}
			}
		}
	}
}

// Everything at once: calls, reads on two loops, cancels, stops, kills.
func TestChaos(t *testing.T) {
	w := newWorld(t, settings{client: hasty})
	a := w.up()
	insist(t, func() error { return a.Put(timed(t), fput(t, 1, 1<<20)) })
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for i := range 2 {
		g := newRig(t)
		r := g.reader(a, ReaderOptions{InFlight: 6, StallAfter: 30 * time.Millisecond,
			ReadTimeout: 60 * time.Millisecond})
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(uint64(i), 9))
			for ; ; time.Sleep(time.Duration(rng.IntN(3000)) * time.Microsecond) {
				select {
				case <-stop:
					return
				default:
				}
				var qs []*reading
				g.loop.Call(func() {
					for range 1 + rng.IntN(10) {
						qs = append(qs, g.start(r, 1, 1<<20, 0, 4096*(1+rng.IntN(256))))
					}
				})
				if rng.IntN(2) == 0 {
					g.loop.Call(func() { r.Cancel(qs[0].token) })
				}
				for _, q := range qs {
					<-q.done
					if q.res > 0 {
						g.same(q)
					}
				}
			}
		}()
	}
	for i := range 3 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				k := 100*i + n%50 + 2
				if a.Put(bg, fput(t, k, 64<<10)) == nil {
					dst := make([]byte, 64<<10)
					if err := a.Get(bg, key(k), 0, dst); err == nil && string(dst) != string(payload(k, 64<<10)) {
						t.Error("wrong bytes")
					} else if errs.Of(err) == errs.Absent {
						t.Error("what was put is absent")
					}
					a.Delete(bg, []layout.FragKey{key(k)})
				}
				time.Sleep(time.Millisecond)
			}
		}()
	}
	rng := rand.New(rand.NewPCG(7, 7))
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
		switch rng.IntN(4) {
		case 0:
			w.relay.kill()
			time.Sleep(time.Duration(rng.IntN(50)) * time.Millisecond)
			w.relay.listen()
		case 1:
			w.relay.stop()
			time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
			w.relay.goOn()
		}
	}
	close(stop)
	wg.Wait()
	w.up()
	whole(t, a)
}

// An ASD that came up between the look of a dialing goroutine and its arrival on the loop is dialed again from
// there, and the second goroutine has the arrival for itself. (The race detector finds it out.)
func TestReaderDialsFromArrival(t *testing.T) {
	w := newWorld(t, settings{})
	a, g := w.up(), newRig(t)
	var r *Reader
	var err error
	g.loop.Call(func() {
		a.up.Store(false)
		r, err = a.NewReader(g.loop, lenient)
		time.Sleep(20 * time.Millisecond) // the goroutine sees an ASD that is down, and posts
		a.up.Store(true)
	})
	must(t, err)
	g.readers = append(g.readers, r)
	g.ready(r)
}
