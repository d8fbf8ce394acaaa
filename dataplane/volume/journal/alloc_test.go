package journal

import (
	"path/filepath"
	"runtime/debug"
	"testing"
	"time"

	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
)

// realFile makes a journal on a direct-IO file, or skips where there is none.
func realFile(t testing.TB, size, segment int64) *dio.Disk {
	t.Helper()
	d, err := dio.Create(filepath.Join(t.TempDir(), "journal"), Capacity(size, segment), dio.Options{WriteThrough: true})
	if errs.Of(err) == errs.Unsupported {
		t.Skip("SKIPPED: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if err := Create(d, Options{SegmentSize: segment}); err != nil {
		t.Fatal(err)
	}
	return d
}

// load keeps a number of 4 KiB writes of one volume in flight, for ever the same pages.
type load struct {
	l       *ring.Loop
	j       *Journal
	entries []*loadEntry
	seq     ids.Seq
	left    int // entries still to be appended in this run
	flying  int
	done    chan errs.Kind
	kind    errs.Kind
	// Every so many entries, all but the last keep are committed.
	every, keep, committed ids.Seq
}

type loadEntry struct {
	Entry
	w *load
}

func newLoad(t testing.TB, l *ring.Loop, f dio.File, depth, blocks int, opt Options) *load {
	t.Helper()
	j, err := Open(f, opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Replay(func(ReplayEntry) error { return nil }); err != nil {
		t.Fatal(err)
	}
	w := &load{l: l, j: j, every: 1024, done: make(chan errs.Kind, 1)}
	l.Call(func() {
		if err := j.Attach(l); err != nil {
			t.Error(err)
			return
		}
		for i := range depth {
			e := &loadEntry{w: w}
			e.Entry = Entry{Vol: 1, Kind: Write, Addr: ids.BlockAddr(i), Blocks: uint32(blocks), Done: e}
			if !l.Pool().Alloc(&e.Data, blocks) {
				t.Error("pool is empty")
				return
			}
			for b := range blocks {
				p := l.Pool().Bytes(e.Data.PageAt(b * BlockSize))
				fillBlock(p, uint64(i*blocks+b))
				e.Sums = append(e.Sums, blockSum(p))
			}
			w.entries = append(w.entries, e)
		}
	})
	return w
}

func (w *load) RunOnLoop() {
	w.kind = errs.OK
	for _, e := range w.entries {
		w.next(e)
	}
}

func (w *load) next(e *loadEntry) {
	if w.left == 0 {
		if w.flying == 0 {
			w.flying = -1 // told once, and before the send: the next run may begin at once
			w.done <- w.kind
		}
		return
	}
	w.left--
	w.flying++
	w.seq++
	e.Seq = w.seq
	w.j.Append(&e.Entry)
}

func (e *loadEntry) JournalDone(*Entry) {
	w := e.w
	if e.Err != errs.OK {
		w.kind = e.Err
	}
	w.flying--
	if e.Seq%w.every == 0 && e.Seq > w.keep {
		w.committed = max(w.committed, e.Seq-w.keep)
		w.j.Committed(1, w.committed)
	}
	w.next(e)
}

// run appends n entries and waits for them. It allocates nothing itself.
func (w *load) run(t testing.TB, n int) {
	w.left, w.flying = n, 0
	w.l.Post(w)
	if k := <-w.done; k != errs.OK {
		t.Fatalf("the journal ended a write with %s: %v", k, w.j.Failed())
	}
}

func (w *load) close(t testing.TB) {
	s := &testSync{}
	done := make(chan errs.Kind, 1)
	s.then = func(s *testSync) { done <- s.Err }
	s.Sync.Done = s
	w.l.Call(func() {
		for _, e := range w.entries {
			w.l.Pool().ReleaseVec(&e.Data)
		}
		w.j.Close(&s.Sync)
	})
	if k := <-done; k != errs.OK {
		t.Fatalf("Close: %s", k)
	}
}

func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, syncless := range []bool{true, false} {
		l := startLoop(t, 64<<20)
		f := realFile(t, 16<<20, 1<<20)
		w := newLoad(t, l, f, 32, 1, Options{NoSyncNeeded: syncless, MarkAfter: time.Millisecond})
		w.run(t, 8192) // several laps: every slice has its size
		defer debug.SetGCPercent(debug.SetGCPercent(-1))
		if n := testing.AllocsPerRun(20, func() { w.run(t, 1024) }); n >= 1 {
			t.Errorf("%v allocations per 1024 entries", n)
		}
		w.close(t)
	}
}

// TestRealFile goes round a real file and replays what is there.
func TestRealFile(t *testing.T) {
	pool := startLoop(t, 64<<20)
	f := realFile(t, 4<<20, SegmentSizeMin)
	w := newLoad(t, pool, f, 32, 3, Options{})
	w.every = 64
	w.run(t, 5000)
	w.close(t)
	j, err := Open(f, Options{})
	if err != nil {
		t.Fatal(err)
	}
	last := ids.Seq(0)
	b, err := buf.AlignedBytes(3 * BlockSize)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = buf.FreeAligned(b) }()
	if err := j.Replay(func(e ReplayEntry) error {
		if e.Seq != last+1 && last != 0 || e.Bad != 0 {
			t.Errorf("%d after %d, bad %b", e.Seq, last, e.Bad)
		}
		last = e.Seq
		if err := f.ReadAt(b, j.Offset(e.Pos)); err != nil {
			return err
		}
		if blockSum(b[2*BlockSize:]) != e.Sums[2] {
			t.Errorf("entry %d cannot be read back at %d", e.Seq, e.Pos)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if last != 5000 {
		t.Fatalf("replayed up to %d", last)
	}
}

func benchAppend(b *testing.B, depth, blocks int, opt Options) {
	l := startLoop(b, 64<<20)
	f := realFile(b, 256<<20, 32<<20)
	w := newLoad(b, l, f, depth, blocks, opt)
	w.run(b, 70000/blocks) // one lap
	b.SetBytes(int64(blocks) * BlockSize)
	b.ReportAllocs()
	b.ResetTimer()
	before := w.j.counts
	w.run(b, b.N)
	b.StopTimer()
	after := w.j.counts
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "IOPS")
	b.ReportMetric(float64(after.Entries-before.Entries)/float64(after.Records-before.Records), "entries/record")
	w.close(b)
}

func BenchmarkAppend4KQD1(b *testing.B)   { benchAppend(b, 1, 1, Options{}) }
func BenchmarkAppend4KQD32(b *testing.B)  { benchAppend(b, 32, 1, Options{}) }
func BenchmarkAppend4KQD128(b *testing.B) { benchAppend(b, 128, 1, Options{}) }

// 64 entries of 128 KiB are eight writes of 1 MiB.
func BenchmarkAppend128KQD64(b *testing.B) { benchAppend(b, 64, 32, Options{}) }
func BenchmarkAppend128KQD64Big(b *testing.B) {
	benchAppend(b, 64, 32, Options{RecordBlocks: headerBlocks})
}

func BenchmarkReplay(b *testing.B) {
	l := startLoop(b, 64<<20)
	f := realFile(b, 256<<20, 32<<20)
	w := newLoad(b, l, f, 128, 1, Options{Reserve: 1})
	w.every = 1 << 40
	w.run(b, 50000)
	w.close(b)
	b.ResetTimer()
	for range b.N {
		j, err := Open(f, Options{Reserve: 1})
		if err != nil {
			b.Fatal(err)
		}
		if err := j.Replay(func(ReplayEntry) error { return nil }); err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(j.Replayed().Blocks) * BlockSize)
	}
}
