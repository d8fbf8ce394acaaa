package dio

import (
	"bytes"
	"errors"
	"math/bits"
	"syscall"
	"testing"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/ring"
)

// bothHalves runs a test once on the blocking half and once on a loop. rw moves p and says how it went.
func bothHalves(t *testing.T, test func(t *testing.T, rw func(f File, a access, p []byte, off int64) error)) {
	t.Run("blocking", func(t *testing.T) {
		test(t, func(f File, a access, p []byte, off int64) error {
			switch a {
			case onRead:
				return f.ReadAt(p, off)
			case onWrite:
				return f.WriteAt(p, off)
			}
			return f.Sync()
		})
	})
	t.Run("loop", func(t *testing.T) {
		l := startLoop(t)
		test(t, func(f File, a access, p []byte, off int64) error {
			v := l.pages(t, p)
			defer l.release(v)
			res := l.do(t, func(l *ring.Loop, op *ring.Op) {
				switch a {
				case onRead:
					f.ReadV(l, op, v, off)
				case onWrite:
					f.WriteV(l, op, v, off)
				default:
					f.Datasync(l, op)
				}
			})
			if res < 0 {
				return syscall.Errno(-res)
			}
			if a != onSync && int(res) != len(p) {
				t.Fatalf("%d of %d bytes", res, len(p))
			}
			copy(p, l.bytes(v))
			return nil
		})
	})
}

func TestFaultEIO(t *testing.T) {
	bothHalves(t, func(t *testing.T, rw func(File, access, []byte, int64) error) {
		m := NewMem(1 << 20)
		f := NewFaulty(m, 1,
			Rule{On: Writes, Do: FailIO, Nth: 2},
			Rule{On: Syncs, Do: FailIO, Nth: 1, Times: 2},
			Rule{On: Reads, Do: FailIO, Chance: 1, Off: 8 * BlockSize, Len: BlockSize})
		p := fill(t, 1, 2)
		for i, want := range []bool{true, false, true} {
			if err := rw(f, onWrite, p, int64(i)*2*BlockSize); (err == nil) != want {
				t.Fatalf("write %d: %v", i, err)
			}
		}
		if got := readAll(t, m); got[0] != 1 || got[2*BlockSize] != 0 || got[4*BlockSize] != 1 {
			t.Fatal("a failed write had an effect, or a good one had none")
		}
		for i, want := range []bool{false, false, true} {
			if err := rw(f, onSync, nil, 0); (err == nil) != want {
				t.Fatalf("sync %d: %v", i, err)
			}
		}
		if err := rw(f, onRead, p, 6*BlockSize); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := rw(f, onRead, p, 7*BlockSize); !errors.Is(err, syscall.EIO) {
				t.Fatalf("read of a bad range: %v", err)
			}
		}
		if n := f.Fired(FailIO); n != 6 {
			t.Fatalf("%d faults counted", n)
		}
	})
}

func TestFaultTornWrite(t *testing.T) {
	bothHalves(t, func(t *testing.T, rw func(File, access, []byte, int64) error) {
		partial := false
		for seed := range uint64(20) {
			m := NewMem(1 << 20)
			mustWrite(t, m, fill(t, 9, 8), 0)
			f := NewFaulty(m, seed, Rule{Do: TornWrite, Nth: 1})
			if err := rw(f, onWrite, fill(t, 1, 4), BlockSize); err == nil {
				t.Fatal("a torn write reported success")
			}
			got := readAll(t, m)
			n := bytes.IndexByte(got[BlockSize:], 9)
			if n < 0 || n >= 4*BlockSize || n%sectorSize != 0 {
				t.Fatalf("torn at byte %d", n)
			}
			rest := got[BlockSize+n : 8*BlockSize]
			if !bytes.Equal(rest, bytes.Repeat([]byte{9}, len(rest))) || got[0] != 9 {
				t.Fatal("a torn write touched what lies outside")
			}
			partial = partial || n%BlockSize != 0
		}
		if !partial {
			t.Fatal("20 torn writes, and none within a block")
		}
	})
}

func TestFaultMisdirect(t *testing.T) {
	bothHalves(t, func(t *testing.T, rw func(File, access, []byte, int64) error) {
		for seed := range uint64(20) {
			m := NewMem(16 * BlockSize)
			f := NewFaulty(m, seed,
				Rule{On: Writes, Do: Misdirect, Nth: 1},
				Rule{On: Reads, Do: Misdirect, Nth: 2})
			if err := rw(f, onWrite, fill(t, 1, 1), 5*BlockSize); err != nil {
				t.Fatal(err)
			}
			got := readAll(t, m)
			if got[5*BlockSize] != 0 || bytes.Count(got, []byte{1}) != BlockSize {
				t.Fatal("the write went where it should")
			}
			at := int64(bytes.IndexByte(got, 1))
			p := fill(t, 0, 1)
			if err := rw(f, onRead, p, at); err != nil || p[0] != 1 {
				t.Fatal("the first read was to be good", err)
			}
			if err := rw(f, onRead, p, at); err != nil || p[0] != 0 {
				t.Fatal("the second read was to go astray", err)
			}
		}
	})
}

func TestFaultFlipBit(t *testing.T) {
	bothHalves(t, func(t *testing.T, rw func(File, access, []byte, int64) error) {
		f := NewFaulty(NewMem(16*BlockSize), 7, Rule{Do: FlipBit, Chance: 1})
		p := fill(t, 0, 4)
		if err := rw(f, onRead, p, 0); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, b := range p {
			n += bits.OnesCount8(b)
		}
		if n != 1 {
			t.Fatalf("%d bits flipped", n)
		}
	})
}

func TestFaultLostWriteAndDelay(t *testing.T) {
	bothHalves(t, func(t *testing.T, rw func(File, access, []byte, int64) error) {
		m := NewMem(16 * BlockSize)
		f := NewFaulty(m, 7,
			Rule{On: Writes, Do: LostWrite, Nth: 1},
			Rule{Do: Delay, Chance: 1, Delay: time.Millisecond})
		for i := range 2 {
			if err := rw(f, onWrite, fill(t, 1, 1), int64(i)*BlockSize); err != nil {
				t.Fatal(err)
			}
		}
		if got := readAll(t, m); got[0] != 0 || got[BlockSize] != 1 {
			t.Fatal("the wrong write got lost")
		}
		if f.Fired(Delay) != 1 || f.Fired(LostWrite) != 1 {
			t.Fatal("counts")
		}
	})
}

func TestFaultStall(t *testing.T) {
	bothHalves(t, func(t *testing.T, rw func(File, access, []byte, int64) error) {
		f := NewFaulty(NewMem(16*BlockSize), 7, Rule{On: Writes, Do: Stall, Nth: 1})
		done := make(chan error, 1)
		p := fill(t, 1, 1)
		go func() { done <- rw(f, onWrite, p, 0) }()
		for f.Stalled() == 0 {
			time.Sleep(time.Millisecond)
		}
		select {
		case <-done:
			t.Fatal("it did not stall")
		default:
		}
		f.Release()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if readAll(t, f)[0] != 1 {
			t.Fatal("it has no effect after the release")
		}
	})
}

// A loop that stops ends a stalled operation; the drive may release it later.
func TestStallOutlivesTheLoop(t *testing.T) {
	l := startLoop(t)
	f := NewFaulty(NewMem(16*BlockSize), 7, Rule{Do: Stall, Chance: 1})
	v := l.pages(t, fill(t, 1, 1))
	l.Call(func() { f.ReadV(l.Loop, &l.op, v, 0) })
	l.Stop()
	if r := <-l.done; r != -int32(syscall.ECANCELED) {
		t.Fatalf("got %d, want ECANCELED", r)
	}
	f.Close()
	for f.Stalled() > 0 {
		time.Sleep(time.Millisecond)
	}
}

func TestFaultSeeds(t *testing.T) {
	run := func(seed uint64) (out []bool) {
		f := NewFaulty(NewMem(16*BlockSize), seed, Rule{On: Reads, Do: FailIO, Chance: 0.3})
		for range 100 {
			out = append(out, errs.Of(f.ReadAt(fill(t, 0, 1), 0)) == errs.IO)
		}
		return out
	}
	a, b, c := run(1), run(1), run(2)
	same := true
	n := 0
	for i := range a {
		if a[i] != b[i] {
			t.Fatal("the same seed gave other faults")
		}
		same = same && a[i] == c[i]
		if a[i] {
			n++
		}
	}
	if same || n < 10 || n > 60 {
		t.Fatalf("%d of 100 failed, other seed alike: %v", n, same)
	}
}
