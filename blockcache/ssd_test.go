package blockcache

import (
	"testing"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
)

// warm reads n blocks of SCO 1 in order, rounds times.
func (w *world) warm(v *Tenant, n, rounds int) {
	for range rounds {
		for off := 0; off < n; off += testParts {
			w.read(v, at{1, 1, uint32(off)}, testParts)
		}
	}
	w.settle()
}

// asked is how many blocks the backend was asked for by a function.
func (w *world) asked(f func()) int {
	before := w.back.blocks
	f()
	return w.back.blocks - before
}

// A working set that RAM cannot hold and the SSD can comes from the SSD after a few rounds, also after a restart; a
// scan is not written.
func TestWorkingSetOnSSD(t *testing.T) {
	w := newWorld(t, 256<<10, 60, nil) // 64 blocks of RAM, 855 of SSD
	v := w.tenant(1, everything)
	for off := 0; off < 20000; off += testParts {
		w.read(v, at{9, 9, uint32(off)}, testParts)
	}
	if n := w.c.tier.Stats.Stored.Load(); n > 200 {
		t.Errorf("a scan of 20000 blocks stored %d", n)
	}
	const set = 400
	w.warm(v, set, 4)
	if n := w.asked(func() { w.warm(v, set, 1) }); n > set/10 {
		t.Errorf("%d of %d blocks came from the backend", n, set)
	}
	if h := v.Stats.SSD.Hits.Load(); h < set/2 {
		t.Errorf("%d hits of the SSD", h)
	}
	w.close()
	w.open()
	v = w.tenant(1, everything)
	w.loop.Call(func() {
		if u := w.c.tier.Policy().AccountUsed(v.ssd); u < set/2*ids.BlockSize {
			t.Errorf("after a restart the vDisk is charged with %d bytes", u)
		}
	})
	if n := w.asked(func() { w.warm(v, set, 1) }); n > set/2 {
		t.Errorf("after a restart %d of %d blocks came from the backend", n, set)
	}
	if w.c.Stats.Rotten.Load() != 0 {
		t.Error("rot on a good drive")
	}
}

// Every block of the file has a flipped bit: none is served, all are dropped.
func TestFlipsAreNeverServed(t *testing.T) {
	w := newWorld(t, 256<<10, 60, nil)
	v := w.tenant(1, everything)
	const set = 400
	w.warm(v, set, 4)
	b, err := dio.AlignedBuf(ids.BlockSize)
	if err != nil {
		t.Fatal(err)
	}
	defer dio.FreeBuf(b)
	for off := int64(4096); off < w.mem.Size(); off += ids.BlockSize {
		w.mem.ReadAt(b, off)
		b[off/ids.BlockSize%ids.BlockSize] ^= 0x10
		w.mem.WriteAt(b, off)
	}
	w.warm(v, set, 1) // verifies every byte
	if n := w.c.Stats.Rotten.Load(); n < set/4 {
		t.Errorf("%d rotten blocks found", n)
	}
	rot := w.c.Stats.Rotten.Load()
	w.loop.Call(func() { w.c.Shrink(1000) })
	w.close()
	w.open() // every header is flipped as well
	v = w.tenant(1, everything)
	w.warm(v, set, 2)
	if n := w.c.Stats.Rotten.Load(); n > rot {
		t.Errorf("%d rotten blocks after a restart on damaged headers", n)
	}
}

// A read that meets a region being overwritten is a miss and no rot; EIO is a miss; many in a row end the tier.
func TestReadErrors(t *testing.T) {
	w := newWorld(t, 256<<10, 60, func(w *world) { w.file = dio.NewFaulty(w.mem, 1) })
	v := w.tenant(1, everything)
	const set = 400
	w.warm(v, set, 4)
	w.file.(*dio.Faulty).Set(dio.Rule{On: dio.Reads, Do: dio.FailIO, Nth: 1, Times: 3})
	w.warm(v, set, 1)
	if n := w.c.Stats.Errors.Load(); n != 3 || !w.c.tier.Usable() {
		t.Errorf("%d errors, usable %v", n, w.c.tier.Usable())
	}
	w.file.(*dio.Faulty).Set(dio.Rule{On: dio.Reads, Do: dio.FailIO, Chance: 1})
	w.warm(v, set, 2)
	if n := w.c.Stats.Errors.Load(); n != 3+failuresMax || w.c.tier.Usable() {
		t.Errorf("%d errors, usable %v", n, w.c.tier.Usable())
	}
}

// slowFile takes time on the virtual clock, or for ever.
type slowFile struct {
	dio.File
	w     *world
	takes int64
	stall bool
	stuck []func()
}

func (s *slowFile) ReadV(l *ring.Loop, op *ring.Op, v *buf.Vec, off int64) {
	if s.stall {
		pages := buf.Vec{Segs: append([]buf.Seg(nil), v.Segs...)}
		token := l.Hold(op)
		s.stuck = append(s.stuck, func() {
			if l.Unhold(op, token) {
				s.File.ReadV(l, op, &pages, off)
			}
		})
		return
	}
	s.w.clock += s.takes
	s.File.ReadV(l, op, v, off)
}

// The bypass: behind an SSD of 20 ms and a backend of 1 ms, reads go at the backend's speed, all but a few; once the
// SSD is fast again it is used again. In virtual time.
func TestSlowSSDIsBypassed(t *testing.T) {
	const ms = int64(1e6)
	var slow *slowFile
	w := newWorld(t, 256<<10, 60, func(w *world) {
		slow = &slowFile{File: w.mem, w: w, takes: ms / 10}
		w.file = slow
	})
	w.back.takes = ms
	v := w.tenant(1, everything)
	const set = 400
	round := func() (perRead int64) {
		start := w.clock
		w.warm(v, set, 1)
		return (w.clock - start) / (set / testParts)
	}
	for range 5 {
		round()
	}
	if n := round(); n > ms/5 {
		t.Errorf("with a fast SSD a read takes %d us", n/1000)
	}
	w.loop.Call(func() { slow.takes = 20 * ms })
	round()
	written := w.c.tier.Stats.Written.Load()
	var sum int64
	for range 10 {
		sum += round()
	}
	if sum /= 10; sum > 2*ms {
		t.Errorf("with a slow SSD a read takes %d us; the backend takes 1000", sum/1000)
	}
	w.loop.Call(w.c.Publish)
	s := &w.c.Stats
	if v.Stats.Bypassed.Load() < 5*set || s.Probes.Load() == 0 || s.Slow.Load() != 1 || s.WritesSkipped.Load() == 0 {
		t.Errorf("bypassed %d, probes %d, slow %d, writes skipped %d", v.Stats.Bypassed.Load(), s.Probes.Load(),
			s.Slow.Load(), s.WritesSkipped.Load())
	}
	if n := w.c.tier.Stats.Written.Load(); n > written {
		t.Errorf("%d regions written to a drive that is too slow already", n-written)
	}
	w.loop.Call(func() { slow.takes = ms / 10 })
	for i := 0; w.clock > 0; i++ {
		if round() < ms/2 {
			break
		}
		if i == 200 {
			t.Fatal("the SSD is fast again and still bypassed")
		}
	}
}

// A read of the SSD that hangs is left alone: the client gets its blocks from the backend, and what the drive writes
// into the old pages later harms nobody.
func TestStalledSSD(t *testing.T) {
	var slow *slowFile
	w := newWorld(t, 256<<10, 60, func(w *world) {
		slow = &slowFile{File: w.mem, w: w}
		w.file = slow
		w.opts.SSDReads = 5
	})
	v := w.tenant(1, everything)
	const set = 400
	w.warm(v, set, 4)
	w.loop.Call(func() { w.c.Shrink(1000); slow.stall = true })
	var list []*reader
	w.loop.Call(func() {
		for off := 0; off < set; off += testParts {
			r := w.reader(at{1, 1, uint32(off)}, testParts)
			r.start(v, false)
			list = append(list, r)
		}
		// Somebody waits for one of those.
		r := w.reader(at{1, 1, 2}, 4)
		r.start(v, false)
		list = append(list, r)
		if n := len(slow.stuck); n == 0 || n > 5 || w.c.Stats.QueueFull.Load() == 0 {
			t.Errorf("%d reads of the SSD under way, 5 are allowed; %d found the queue full", n, w.c.Stats.QueueFull.Load())
		}
		w.clock += 1e9
		w.c.checkLate()
	})
	for _, r := range list {
		r.finish()
	}
	if n := int(w.c.Stats.Late.Load()); n != len(slow.stuck) {
		t.Errorf("%d late reads, %d hang", n, len(slow.stuck))
	}
	w.check()
	w.loop.Call(func() {
		if w.c.ssdReads != len(slow.stuck) {
			t.Errorf("%d reads noted, %d hang", w.c.ssdReads, len(slow.stuck))
		}
		slow.stall = false
		for _, f := range slow.stuck {
			f()
		}
	})
	w.settle()
	w.warm(v, set, 1)
}

// pump starts the same fetches again and again.
type pump struct {
	w    *world
	v    *Tenant
	sums []uint32
	f    block.Fetch
	dst  buf.Vec
	at   uint32
	n    uint32 // blocks of the set
	left int
	done chan struct{}
}

func (p *pump) next() {
	w := p.w
	for {
		if p.left--; p.left < 0 {
			p.done <- struct{}{}
			return
		}
		p.at = (p.at + testParts) % p.n
		sums := p.sums[p.at : p.at+testParts]
		n := w.c.Get(p.v, 1, 1, p.at, sums, &p.dst)
		if n == testParts {
			w.pool.ReleaseVec(&p.dst)
			continue
		}
		w.pool.ReleaseVec(&p.dst)
		w.pool.Alloc(&p.dst, testParts)
		p.f = block.Fetch{NS: 1, SCO: 1, Off: p.at, Count: testParts, Sums: sums, Dst: &p.dst, Done: p}
		w.c.Fetch(p.v, &p.f)
		return
	}
}

func (p *pump) FetchDone(*block.Fetch) {
	p.w.pool.ReleaseVec(&p.dst)
	p.next()
}

// A hit allocates nothing, nor does a miss that fills, evicts and writes to the SSD, nor a hit of the SSD.
func TestNothingIsAllocated(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for name, c := range map[string]struct {
		regions int
		blocks  uint32
	}{
		"hit in RAM":        {0, 32},
		"fill and evict":    {0, 4000},
		"SSD":               {60, 400},
		"fill, evict, wash": {12, 4000},
	} {
		w := newWorld(t, 256<<10, c.regions, nil)
		p := &pump{w: w, v: w.tenant(1, everything), n: c.blocks, done: make(chan struct{}, 1)}
		p.sums = at{1, 1, 0}.sums(int(c.blocks))
		run := func() {
			p.left = 1000
			w.loop.Call(p.next)
			<-p.done
		}
		for range 4 {
			run()
		}
		allowed := 20.0 // Call itself allocates a little
		if c.regions > 0 {
			// The drive in memory allocates for each block written; count those.
			w.loop.Call(func() {})
			before := w.c.tier.Stats.Written.Load()
			run()
			allowed += 60 * float64(w.c.tier.Stats.Written.Load()-before+2)
		}
		if n := testing.AllocsPerRun(5, run); n > allowed {
			t.Errorf("%s: a thousand reads allocate %v times, %v are allowed", name, n, allowed)
		}
	}
}
