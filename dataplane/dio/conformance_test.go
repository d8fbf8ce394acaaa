package dio

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ring"
)

const testSize = 8 << 20

// TestConformance runs one suite over all Files.
func TestConformance(t *testing.T) {
	makers := map[string]func(t *testing.T) File{
		"disk": func(t *testing.T) File { return tempDisk(t, testSize) },
		"mem":  func(t *testing.T) File { return NewMem(testSize) },
		"slow mem": func(t *testing.T) File {
			m := NewMem(testSize)
			m.SetDelay(100 * time.Microsecond)
			return m
		},
		"faulty":      func(t *testing.T) File { return NewFaulty(NewMem(testSize), 1) },
		"faulty disk": func(t *testing.T) File { return NewFaulty(tempDisk(t, testSize), 1) },
		// Every operation takes the way round through a goroutine.
		"delayed": func(t *testing.T) File {
			return NewFaulty(NewMem(testSize), 1, Rule{Do: Delay, Chance: 1, Delay: time.Microsecond})
		},
	}
	suite := map[string]func(*testing.T, File){
		"blocking":   testBlocking,
		"loop":       testLoop,
		"ranges":     testRanges,
		"mixed":      testMixed,
		"concurrent": testConcurrent,
	}
	for name, mk := range makers {
		for part, f := range suite {
			t.Run(name+"/"+part, func(t *testing.T) {
				file := mk(t)
				f(t, file)
				if err := file.Close(); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// tempDisk makes a file; the test is skipped where there is no direct IO.
func tempDisk(t testing.TB, size int64) *Disk {
	t.Helper()
	d, err := Create(filepath.Join(tempDir(t), "drive"), size, Options{})
	if errs.Of(err) == errs.Unsupported {
		t.Skip("SKIPPED: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// tempDir is TempDir, or a folder here if that is in memory.
func tempDir(t testing.TB) string {
	dir := t.TempDir()
	if directCapable(dir, dir) == nil {
		return dir
	}
	dir, err := os.MkdirTemp(".", "test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func aligned(t testing.TB, n int) []byte {
	t.Helper()
	b, err := AlignedBuf(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { FreeBuf(b) })
	return b
}

func random(t testing.TB, rng *rand.Rand, n int) []byte {
	b := aligned(t, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func testBlocking(t *testing.T, f File) {
	rng := rand.New(rand.NewPCG(1, 2))
	if f.Size() != testSize {
		t.Fatalf("size %d", f.Size())
	}
	model := make([]byte, testSize)
	got := aligned(t, testSize)
	if err := f.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, model) {
		t.Fatal("a new file is not zeros")
	}
	for range 40 {
		n := (1 + rng.IntN(64)) * BlockSize
		off := rng.Int64N((testSize-int64(n))/BlockSize+1) * BlockSize
		p := random(t, rng, n)
		if err := f.WriteAt(p, off); err != nil {
			t.Fatal(err)
		}
		copy(model[off:], p)
		if rng.IntN(5) == 0 {
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, model) {
		t.Fatal("other bytes were read than written")
	}
	if err := f.ReadAt(nil, testSize); err != nil {
		t.Fatalf("nothing at the end: %v", err)
	}
}

// testLoopOn is a loop with a pool and a way to run one operation at a time.
type testLoopOn struct {
	*ring.Loop
	done chan int32
	op   ring.Op
}

func (l *testLoopOn) RingDone(_ *ring.Op, res int32) { l.done <- res }

func startLoop(t testing.TB) *testLoopOn {
	t.Helper()
	pool, err := buf.NewPool(32<<20, 0)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ring.New(ring.Options{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Stop(); pool.Close() })
	out := &testLoopOn{Loop: l, done: make(chan int32, 1)}
	out.op.Done = out
	return out
}

// do starts one operation on the loop and waits for its end.
func (l *testLoopOn) do(t testing.TB, start func(*ring.Loop, *ring.Op)) int32 {
	t.Helper()
	if !l.Call(func() { start(l.Loop, &l.op) }) {
		t.Fatal("the loop is stopped")
	}
	select {
	case r := <-l.done:
		return r
	case <-time.After(30 * time.Second):
		t.Fatal("no completion in 30 s")
		return 0
	}
}

func (l *testLoopOn) pages(t testing.TB, data []byte) *buf.Vec {
	t.Helper()
	v := new(buf.Vec)
	l.Call(func() {
		if !l.Pool().Alloc(v, len(data)/BlockSize) {
			t.Error("pool is empty")
			return
		}
		n := 0
		for _, s := range v.Segs {
			n += copy(l.Pool().SegBytes(s), data[n:])
		}
	})
	return v
}

func (l *testLoopOn) bytes(v *buf.Vec) (out []byte) {
	for _, s := range v.Segs {
		out = append(out, l.Pool().SegBytes(s)...)
	}
	return out
}

func (l *testLoopOn) release(v *buf.Vec) { l.Call(func() { l.Pool().ReleaseVec(v) }) }

func testLoop(t *testing.T, f File) {
	l := startLoop(t)
	rng := rand.New(rand.NewPCG(3, 4))
	model := make([]byte, testSize)
	for range 30 {
		n := (1 + rng.IntN(100)) * BlockSize
		off := rng.Int64N((testSize-int64(n))/BlockSize+1) * BlockSize
		p := random(t, rng, n)
		v := l.pages(t, p)
		if r := l.do(t, func(l *ring.Loop, op *ring.Op) { f.WriteV(l, op, v, off) }); int(r) != n {
			t.Fatalf("write: %d of %d", r, n)
		}
		l.release(v)
		copy(model[off:], p)
		if r := l.do(t, func(l *ring.Loop, op *ring.Op) { f.Datasync(l, op) }); r != 0 {
			t.Fatalf("datasync: %d", r)
		}
		n = (1 + rng.IntN(100)) * BlockSize
		off = rng.Int64N((testSize-int64(n))/BlockSize+1) * BlockSize
		v = l.pages(t, make([]byte, n))
		if r := l.do(t, func(l *ring.Loop, op *ring.Op) { f.ReadV(l, op, v, off) }); int(r) != n {
			t.Fatalf("read: %d of %d", r, n)
		}
		if !bytes.Equal(l.bytes(v), model[off:off+int64(n)]) {
			t.Fatal("other bytes were read than written")
		}
		l.release(v)
	}
}

func testRanges(t *testing.T, f File) {
	l := startLoop(t)
	cases := []struct {
		n   int
		off int64
	}{
		{BlockSize, testSize}, {2 * BlockSize, testSize - BlockSize}, {BlockSize, -BlockSize},
		{512, 0}, {BlockSize, 512}, {BlockSize, 1 << 62}, {0, testSize + BlockSize},
	}
	for _, c := range cases {
		p := aligned(t, c.n)
		if err := f.ReadAt(p, c.off); errs.Of(err) != errs.Invalid {
			t.Errorf("read of %d at %d: %v", c.n, c.off, err)
		}
		if err := f.WriteAt(p, c.off); errs.Of(err) != errs.Invalid {
			t.Errorf("write of %d at %d: %v", c.n, c.off, err)
		}
		v := l.pages(t, make([]byte, 2*BlockSize))
		cut := &buf.Vec{Segs: []buf.Seg{{Page: v.Segs[0].Page, Len: uint32(c.n)}}}
		read := func(l *ring.Loop, op *ring.Op) { f.ReadV(l, op, cut, c.off) }
		if r := l.do(t, read); r != -int32(syscall.EINVAL) {
			t.Errorf("read of %d at %d on a loop: %d", c.n, c.off, r)
		}
		write := func(l *ring.Loop, op *ring.Op) { f.WriteV(l, op, cut, c.off) }
		if r := l.do(t, write); r != -int32(syscall.EINVAL) {
			t.Errorf("write of %d at %d on a loop: %d", c.n, c.off, r)
		}
		l.release(v)
	}
}

// testMixed: what one half writes the other reads.
func testMixed(t *testing.T, f File) {
	l := startLoop(t)
	rng := rand.New(rand.NewPCG(5, 6))
	p := random(t, rng, 16*BlockSize)
	if err := f.WriteAt(p, BlockSize); err != nil {
		t.Fatal(err)
	}
	v := l.pages(t, make([]byte, len(p)))
	if r := l.do(t, func(l *ring.Loop, op *ring.Op) { f.ReadV(l, op, v, BlockSize) }); int(r) != len(p) {
		t.Fatalf("read: %d", r)
	}
	if !bytes.Equal(l.bytes(v), p) {
		t.Fatal("the loop reads other bytes than were written")
	}
	if r := l.do(t, func(l *ring.Loop, op *ring.Op) { f.WriteV(l, op, v, testSize/2) }); int(r) != len(p) {
		t.Fatalf("write: %d", r)
	}
	got := aligned(t, len(p))
	if err := f.ReadAt(got, testSize/2); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, p) {
		t.Fatal("other bytes come back than the loop wrote")
	}
}

// testConcurrent: goroutines and a loop, each in a place of its own.
func testConcurrent(t *testing.T, f File) {
	l := startLoop(t)
	const workers, each = 4, 20
	errc := make(chan error, workers)
	for w := range workers {
		p, got := aligned(t, 4*BlockSize), aligned(t, 4*BlockSize)
		go func() {
			for i := range each {
				for j := range p {
					p[j] = byte(w + i + j>>4)
				}
				off := int64(w*4) * BlockSize
				err := f.WriteAt(p, off)
				if err == nil {
					err = f.ReadAt(got, off)
				}
				if err == nil && !bytes.Equal(got, p) {
					err = errs.New(errs.Corrupt, "worker %d read other bytes than it wrote", w)
				}
				if err == nil && i%8 == 0 {
					err = f.Sync()
				}
				if err != nil {
					errc <- err
					return
				}
			}
			errc <- nil
		}()
	}
	v := l.pages(t, bytes.Repeat([]byte{7}, 8*BlockSize))
	for range each {
		if r := l.do(t, func(l *ring.Loop, op *ring.Op) { f.WriteV(l, op, v, testSize/2) }); r < 0 {
			t.Fatalf("write: %d", r)
		}
		if r := l.do(t, func(l *ring.Loop, op *ring.Op) { f.Datasync(l, op) }); r < 0 {
			t.Fatalf("datasync: %d", r)
		}
	}
	for range workers {
		if err := <-errc; err != nil {
			t.Error(err)
		}
	}
}
