package dio

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/ring"
)

func fill(t testing.TB, b byte, blocks int) []byte {
	p := aligned(t, blocks*BlockSize)
	for i := range p {
		p[i] = b
	}
	return p
}

func mustWrite(t testing.TB, f File, p []byte, off int64) {
	t.Helper()
	if err := f.WriteAt(p, off); err != nil {
		t.Fatal(err)
	}
}

func readAll(t testing.TB, f File) []byte {
	t.Helper()
	p := aligned(t, int(f.Size()))
	if err := f.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestMemClone(t *testing.T) {
	m := NewMem(1 << 20)
	mustWrite(t, m, fill(t, 1, 4), 0)
	c := m.Clone()
	mustWrite(t, m, fill(t, 2, 4), 0)
	mustWrite(t, c, fill(t, 3, 1), 0)
	if got := readAll(t, c); got[0] != 3 || got[BlockSize] != 1 {
		t.Fatal("the clone does not hold what had ended")
	}
	if got := readAll(t, m); got[0] != 2 {
		t.Fatal("the clone writes to its original")
	}
	// What the clone did not sync it can still lose.
	if got := readAll(t, c.CrashClone(rand.New(rand.NewPCG(1, 1)), CrashOptions{LoseAll: true})); got[0] != 0 {
		t.Fatal("an unsynced write survived")
	}
	m.Close()
	if err := m.ReadAt(fill(t, 0, 1), 0); errs.Of(err) != errs.Closed {
		t.Fatalf("read after close: %v", err)
	}
	if err := c.Sync(); err != nil {
		t.Fatalf("the clone closed with its original: %v", err)
	}
}

// Synced blocks survive any crash; others hold one of the versions written since, or a mix of sectors of
// the synced one and one of those.
func TestMemCrash(t *testing.T) {
	const blocks = 256
	seen := map[string]int{}
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 9))
		m := NewMem(blocks * BlockSize)
		mustWrite(t, m, fill(t, 1, blocks), 0)
		if err := m.Sync(); err != nil {
			t.Fatal(err)
		}
		mustWrite(t, m, fill(t, 2, blocks/2), 0)
		mustWrite(t, m, fill(t, 3, blocks/4), 0)
		c := m.CrashClone(rng, CrashOptions{})
		again := m.CrashClone(rand.New(rand.NewPCG(seed, 9)), CrashOptions{})
		got := readAll(t, c)
		if !bytes.Equal(got, readAll(t, again)) {
			t.Fatal("the same seed gave another crash")
		}
		for b := range blocks {
			kinds := map[byte]bool{}
			for s := 0; s < BlockSize; s += sectorSize {
				sector := got[b*BlockSize+s : b*BlockSize+s+sectorSize]
				if !bytes.Equal(sector, bytes.Repeat(sector[:1], sectorSize)) {
					t.Fatal("a sector is torn")
				}
				kinds[sector[0]] = true
			}
			switch {
			case b >= blocks/2 && (len(kinds) != 1 || !kinds[1]):
				t.Fatalf("synced block %d was touched: %v", b, kinds)
			case b >= blocks/4 && kinds[3]:
				t.Fatalf("block %d holds what was never written there", b)
			case len(kinds) > 2 || kinds[2] && kinds[3]:
				t.Fatalf("block %d mixes %v", b, kinds)
			case len(kinds) == 2:
				seen["torn"]++
			case kinds[1]:
				seen["lost"]++
			case kinds[2]:
				seen["two"]++
			default:
				seen["three"]++
			}
		}
		if got := readAll(t, m); got[0] != 3 {
			t.Fatal("the crash of a clone touched the original")
		}
		if got := readAll(t, m.CrashClone(rng, CrashOptions{KeepAll: true})); got[0] != 3 {
			t.Fatal("KeepAll lost something")
		}
		if got := readAll(t, m.CrashClone(rng, CrashOptions{LoseAll: true})); got[0] != 1 {
			t.Fatal("LoseAll kept something")
		}
	}
	for _, kind := range []string{"torn", "lost", "two", "three"} {
		if seen[kind] == 0 {
			t.Errorf("40 crashes and never one of kind %q: %v", kind, seen)
		}
	}
}

// A sync that begins before a write ended does not cover it.
func TestMemSyncCoversWhatHadEnded(t *testing.T) {
	l := startLoop(t)
	m := NewMem(1 << 20)
	v := l.pages(t, fill(t, 5, 1))
	var sync ring.Op
	done := make(chan int32, 1)
	sync.Done = doneFunc(func(_ *ring.Op, res int32) { done <- res })
	both := func(l *ring.Loop, op *ring.Op) {
		m.WriteV(l, op, v, 0)
		m.Datasync(l, &sync)
	}
	if r := l.do(t, both); r != BlockSize {
		t.Fatal(r)
	}
	if r := <-done; r != 0 {
		t.Fatal(r)
	}
	lose := func() byte {
		return readAll(t, m.CrashClone(rand.New(rand.NewPCG(1, 1)), CrashOptions{LoseAll: true}))[0]
	}
	if lose() == 5 {
		t.Fatal("the sync covered a write that had not ended")
	}
	if r := l.do(t, func(l *ring.Loop, op *ring.Op) { m.Datasync(l, op) }); r != 0 {
		t.Fatal(r)
	}
	if lose() != 5 {
		t.Fatal("the sync did not cover a write that had ended")
	}
}

type doneFunc func(*ring.Op, int32)

func (f doneFunc) RingDone(op *ring.Op, res int32) { f(op, res) }

// A loop stops while slow operations are under way: all end, and the drive is fit for use.
func TestMemStopUnderWay(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Hour} {
		l := startLoop(t)
		m := NewMem(1 << 20)
		m.SetDelay(delay)
		v := l.pages(t, fill(t, 5, 8))
		ends := 0
		var ops [24]ring.Op
		l.Call(func() {
			for i := range ops {
				ops[i].Done = doneFunc(func(*ring.Op, int32) { ends++ })
				switch i % 3 {
				case 0:
					m.WriteV(l.Loop, &ops[i], v, int64(i)*BlockSize)
				case 1:
					m.ReadV(l.Loop, &ops[i], v, 0)
				default:
					m.Datasync(l.Loop, &ops[i])
				}
			}
		})
		l.Stop()
		if ends != len(ops) {
			t.Fatalf("%d of %d ended", ends, len(ops))
		}
		m.SetDelay(0)
		if len(m.inflight) != 0 {
			t.Fatalf("%d writes are under way for ever", len(m.inflight))
		}
		mustWrite(t, m, fill(t, 6, 1), 0)
		if readAll(t, m)[0] != 6 {
			t.Fatal("the drive is broken")
		}
	}
}

func TestMemIsSparse(t *testing.T) {
	m := NewMem(1 << 40)
	mustWrite(t, m, fill(t, 1, 1), 1<<39)
	if err := m.Sync(); err != nil {
		t.Fatal(err)
	}
	if n := m.Used(); n != chunkSize {
		t.Fatalf("%d bytes used for one block", n)
	}
	for range 100 {
		mustWrite(t, m, fill(t, 2, 1), 0)
	}
	if n := m.Used(); n != chunkSize+versionsMax*BlockSize {
		t.Fatalf("%d bytes used for a block written often", n)
	}
}

func TestMemLoopDoesNotAllocate(t *testing.T) {
	l := startLoop(t)
	m := NewMem(1 << 20)
	v := l.pages(t, fill(t, 5, 2))
	start := func(op *ring.Op) { m.ReadV(l.Loop, op, v, 0) }
	msg := &again{l: l, start: start}
	round := func() {
		l.Post(msg)
		<-l.done
	}
	round()
	if n := testing.AllocsPerRun(100, round); n > 0 && !raceEnabled {
		t.Fatalf("%v allocations per read", n)
	}
}

type again struct {
	l     *testLoopOn
	start func(*ring.Op)
}

func (a *again) RunOnLoop() { a.start(&a.l.op) }
