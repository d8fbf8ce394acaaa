package pracc

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"vstor/dataplane/buf"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
)

// directFile reads a real file past the page cache.
type directFile struct {
	memFile
	fd int
}

func (f *directFile) ReadV(l *ring.Loop, op *ring.Op, v *buf.Vec, off int64) {
	l.ReadV(op, f.fd, v, off)
}

// openDirect copies what the drives hold to real files, which are read instead.
func openDirect(b *testing.B, w *world) {
	for i, d := range w.drives {
		name := filepath.Join(b.TempDir(), ids.ASDID(i).String())
		if err := os.WriteFile(name, d.file.mem, 0o600); err != nil {
			b.Fatal(err)
		}
		fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_DIRECT|syscall.O_CLOEXEC, 0)
		if err != nil {
			b.Skipf("no O_DIRECT here: %v", err)
		}
		b.Cleanup(func() { syscall.Close(fd) })
		syscall.Fsync(fd)
		d.over = &directFile{fd: fd}
	}
}

// lane keeps one fetch of random place going.
type lane struct {
	c    *Client
	o    *object
	f    Fetch
	rng  *rand.Rand
	n    int // blocks
	left *int
	live *int
	done chan struct{}
}

func (l *lane) next() {
	off := l.rng.IntN(l.o.blocks() - l.n)
	l.f.NS, l.f.SCO, l.f.Off, l.f.Blocks = l.o.m.Namespace, l.o.m.SCO, uint32(off), uint32(l.n)
	l.f.Sums, l.f.Done = l.o.sums[off:off+l.n], l
	l.c.Fetch(&l.f)
}

func (l *lane) FetchDone(f *Fetch) {
	if f.Err != 0 {
		panic(f.Err)
	}
	if *l.left--; *l.left >= 0 {
		l.next()
		return
	}
	if *l.live--; *l.live == 0 {
		close(l.done)
	}
}

// rawLane is lane without PRACC: the loop and the drive alone.
type rawLane struct {
	lane
	op ring.Op
	w  *world
}

func (r *rawLane) start() {
	d := r.w.drives[r.rng.IntN(len(r.w.drives))]
	off := int64(r.rng.IntN(len(d.file.mem)/4096-r.n)) * 4096
	d.over.ReadV(r.w.loop, &r.op, &r.f.Dst, off)
}

func (r *rawLane) RingDone(*ring.Op, int32) {
	if *r.left--; *r.left >= 0 {
		r.start()
		return
	}
	if *r.live--; *r.live == 0 {
		close(r.done)
	}
}

func loopCPU(w *world) (d time.Duration) {
	w.loop.Call(func() {
		var ru syscall.Rusage
		syscall.Getrusage(1, &ru) // RUSAGE_THREAD
		d = time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	})
	return d
}

func benchFetch(b *testing.B, blocks, depth int, direct, raw, lost bool) {
	w := newWorld(b, 6, 64<<20, func(o *Options) {
		o.HedgePercent, _ = strconv.Atoi(os.Getenv("VSTOR_BENCH_HEDGES"))
	})
	w.drives[1].gone = lost
	o := w.put(1, 16384, pol42, 4<<20, 1<<30)
	if direct {
		openDirect(b, w)
	}
	w.loop.Call(func() { w.c.Install(o.m) })
	left, live, done := b.N, depth, make(chan struct{})
	var lanes []*rawLane
	before := loopCPU(w)
	b.ResetTimer()
	w.loop.Call(func() {
		for i := range depth {
			l := &rawLane{lane: lane{c: w.c, o: o, rng: rand.New(rand.NewPCG(uint64(i), 7)), n: blocks,
				left: &left, live: &live, done: done}, w: w}
			w.pool.Alloc(&l.f.Dst, blocks)
			lanes = append(lanes, l)
			if l.op.Done = l; raw {
				l.start()
			} else {
				l.next()
			}
		}
	})
	<-done
	b.StopTimer()
	b.ReportMetric(float64(loopCPU(w)-before)/float64(b.N+depth), "cpu-ns/op")
	b.SetBytes(int64(blocks) * 4096)
	b.ReportMetric(100*float64(w.c.stats.Hedges.Load())/float64(b.N+depth), "%hedged")
	w.loop.Call(func() {
		for _, l := range lanes {
			w.pool.ReleaseVec(&l.f.Dst)
		}
	})
}

func BenchmarkFetch(b *testing.B) {
	b.Run("4K/QD32/direct/loop-alone", func(b *testing.B) { benchFetch(b, 1, 32, true, true, false) })
	b.Run("4K/QD32/direct", func(b *testing.B) { benchFetch(b, 1, 32, true, false, false) })
	b.Run("4K/QD32/direct/one-drive-lost", func(b *testing.B) { benchFetch(b, 1, 32, true, false, true) })
	b.Run("1M/QD8/direct/loop-alone", func(b *testing.B) { benchFetch(b, 256, 8, true, true, false) })
	b.Run("1M/QD8/direct", func(b *testing.B) { benchFetch(b, 256, 8, true, false, false) })
	b.Run("1M/QD8/direct/one-drive-lost", func(b *testing.B) { benchFetch(b, 256, 8, true, false, true) })
	b.Run("4K/QD32/memory", func(b *testing.B) { benchFetch(b, 1, 32, false, false, false) })
}
