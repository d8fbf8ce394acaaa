package pracc

import (
	"math/rand/v2"
	"testing"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// Everything at once, by a seed: fetches of many objects, stalls, losses within m per object, repairs that
// change manifests, manifests forgotten and answered late, a tiny cache, few slots, a small pool; then
// the loop is stopped or the Client closed in the midst of it.
func TestChaos(t *testing.T) {
	seeds := 24
	if testing.Short() {
		seeds = 4
	}
	for seed := range seeds {
		for _, remote := range []bool{false, true} {
			if remote && seed%3 == 2 {
				continue // these take longer
			}
			chaos(t, uint64(seed), remote)
			if t.Failed() {
				t.Fatalf("seed %d remote %v", seed, remote)
			}
		}
	}
}

type chaosWorld struct {
	*world
	rems []*fakeRemote // nil: all drives are local
	objs []*object
	lost []map[int]bool // of each object: fragments of chunk 0.. that are not well
	fls  []*flight
	time *fakeTime
	deaf bool // drives that hang do not let go of what is called off
}

func chaos(t *testing.T, seed uint64, remote bool) {
	change := func(o *Options) {
		o.CacheBytes, o.Ranges, o.Rebuilds, o.ScratchBytes, o.Lookups = 4096, 3, 2, 256<<10, 2
		o.StuckReads, o.StuckBytes = 4, 512<<10
	}
	cw := &chaosWorld{}
	if remote { // but for two
		cw.world, cw.rems = newRemoteWorld(t, 8, 2, 24<<20, func(o *Options) { change(o); o.Patience = time.Hour })
	} else {
		cw.world = newWorld(t, 8, 24<<20, change)
	}
	w := cw.world
	cw.time, cw.deaf = w.freeze(), seed%4 == 0
	w.rng = rand.New(rand.NewPCG(seed, 3))
	for i := range 8 {
		pol := layout.Policy{K: uint8(1 + w.rng.IntN(5)), M: uint8(1 + w.rng.IntN(3)), C: 5, X: 1}
		pol.C = pol.K
		cw.objs = append(cw.objs, w.put(ids.SCONum(i+1), 1+w.rng.IntN(400), pol,
			uint32(1+w.rng.IntN(64))*4096, 4096*(1+w.rng.IntN(64))))
		cw.lost = append(cw.lost, map[int]bool{})
	}
	for range 300 {
		w.loop.Call(cw.step)
	}
	if seed%2 == 0 {
		w.loop.Call(cw.resume)
		for _, fl := range cw.fls {
			select {
			case <-fl.done:
			case <-time.After(2 * time.Minute):
				t.Fatalf("blocks %d+%d of %d never came", fl.Off, fl.Blocks, fl.SCO)
			}
		}
	} else if w.rng.IntN(2) == 0 {
		w.loop.Stop()
	} else {
		w.loop.Call(func() { w.c.Close(nil) })
		w.loop.Call(cw.resume)
		for _, fl := range cw.fls {
			<-fl.done
		}
	}
	for _, fl := range cw.fls {
		o := cw.objs[fl.SCO-1]
		switch {
		case fl.ends != 1:
			t.Errorf("a fetch ended %d times", fl.ends)
		case fl.Err == errs.OK:
			w.same(fl, o)
		case seed%2 == 0 && fl.Err == errs.IO:
			// More slots than m changed while it was under way. Now that it is calm it must be there.
			w.want(o, int(fl.Off), int(fl.Blocks))
		case fl.Err == errs.IO && w.c.stats.Retries.Load() >= refreshesMax:
			// The same, and there is nobody left to ask.
		case fl.Err != errs.Closed || seed%2 == 0:
			t.Errorf("blocks %d+%d of %d: %v", fl.Off, fl.Blocks, fl.SCO, fl.Err)
		}
	}
}

func (w *chaosWorld) resume() {
	for _, d := range w.drives {
		d.file.resume()
	}
	for _, r := range w.rems {
		r.unready, r.hang = false, false
		r.resume()
	}
}

// trouble does something to a Remote.
func (w *chaosWorld) trouble(r *fakeRemote) {
	switch w.rng.IntN(5) {
	case 0:
		r.unready = true
	case 1:
		r.hang, r.patient = true, time.Duration(w.rng.IntN(3000))*time.Microsecond
	default:
		r.unready, r.hang = false, false
		r.resume()
	}
}

// step does one thing at random; on the loop.
func (w *chaosWorld) step() {
	i := w.rng.IntN(len(w.objs))
	o := w.objs[i]
	frag := w.rng.IntN(o.m.Policy.N())
	d := w.drives[w.rng.IntN(len(w.drives))]
	if w.rems != nil && w.rng.IntN(4) == 0 {
		w.trouble(w.rems[w.rng.IntN(len(w.rems))])
	}
	switch w.rng.IntN(14) {
	case 0:
		d.file.stall, d.file.deaf = true, w.deaf
	case 12: // with some hedges to be had, or none
		w.c.pacing.allowed = w.rng.IntN(3) * 2 * hedgeCost
		fallthrough
	case 13:
		w.time.now += w.rng.Int64N(int64(15 * time.Millisecond))
		w.c.sweep()
		w.c.probeAll()
		w.c.settle()
	case 1, 2, 3:
		d.file.resume()
		for _, r := range w.rems {
			if r.d == d {
				r.resume()
			}
		}
	case 4: // lose a slot of every chunk, at most m of an object
		if len(w.lost[i]) < int(o.m.Policy.M) && !w.lost[i][frag] {
			w.lost[i][frag] = true
			mode := []string{"absent", "eio", "rot"}[w.rng.IntN(3)]
			for chunk := range o.m.Geometry().Chunks {
				w.hurt(o, chunk, frag, mode)
			}
		}
	case 5: // repair one
		for f := range w.lost[i] {
			w.repair(o, f)
			delete(w.lost[i], f)
			break
		}
	case 6:
		w.c.Forget(o.m.Namespace, o.m.SCO)
	case 7:
		w.c.Install(o.m)
	default:
		if n := o.blocks(); w.pool.Free() > 3*n {
			off := w.rng.IntN(n)
			w.fls = append(w.fls, w.start(o, off, 1+w.rng.IntN(n-off), w.rng.IntN(2) == 0))
		}
	}
}

// repair stores fragment frag of all chunks under its next version, as maintenance does: the fragments
// first, then the manifest, then the old ones go.
func (w *chaosWorld) repair(o *object, frag int) {
	old := o.m
	next := old.Clone()
	next.Version++
	for chunk := range old.Geometry().Chunks {
		next.Frag(chunk, frag).Version++
		w.driveOf(o, chunk, frag).put(next.FragKey(chunk, frag), w.encode(o, chunk)[frag], 64<<10)
	}
	o.m = next
	w.auth.set(next)
	for chunk := range old.Geometry().Chunks {
		delete(w.drives[old.Target(chunk, frag).ASD].frags, old.FragKey(chunk, frag))
	}
}
