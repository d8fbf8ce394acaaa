package store

import (
	"errors"
	"math/rand/v2"
	"sync"

	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
)

var errDrive = errors.New("injected drive fault")

// testDrive is a drive in memory with a hook before each change, which may look at the drive, and fail
// it. The gate lets a test hold the drive still while it clones it together with the index.
type testDrive struct {
	*dio.Mem
	gate sync.RWMutex
	hook func(op string, off int64) error
}

func newDrive(size int64) *testDrive { return &testDrive{Mem: dio.NewMem(size)} }

func (d *testDrive) WriteAt(p []byte, off int64) error {
	if len(p) > maxWrite {
		return errors.New("a write of more than 1 MiB")
	}
	if d.hook != nil {
		if err := d.hook("write", off); err != nil {
			return err
		}
	}
	d.gate.RLock()
	defer d.gate.RUnlock()
	return d.Mem.WriteAt(p, off)
}

func (d *testDrive) Sync() error {
	if d.hook != nil {
		if err := d.hook("sync", 0); err != nil {
			return err
		}
	}
	d.gate.RLock()
	defer d.gate.RUnlock()
	return d.Mem.Sync()
}

// killed is the drive after kill -9, lost after a power loss.
func (d *testDrive) killed() *testDrive { return &testDrive{Mem: d.Mem.Clone()} }

func (d *testDrive) lost(rng *rand.Rand) *testDrive {
	o := []dio.CrashOptions{{LoseAll: true}, {KeepAll: true}, {}, {Lose: 20, Torn: 50}}[rng.IntN(4)]
	return &testDrive{Mem: d.Mem.CrashClone(rng, o)}
}

// bytes copies n bytes from off, wherever they begin.
func (d *testDrive) bytes(off int64, n int) []byte {
	first := off &^ (blockSize - 1)
	last := (off + int64(n) + blockSize - 1) &^ (blockSize - 1)
	b := mustAligned(int(last - first))
	defer buf.FreeAligned(b)
	if err := d.Mem.ReadAt(b[:last-first], first); err != nil {
		panic(err)
	}
	return append([]byte{}, b[off-first:][:n]...)
}

// flip turns one bit, durably.
func (d *testDrive) flip(off int64, bit int) {
	first := off &^ (blockSize - 1)
	b := mustAligned(blockSize)
	defer buf.FreeAligned(b)
	if err := d.Mem.ReadAt(b[:blockSize], first); err != nil {
		panic(err)
	}
	b[off-first] ^= 1 << bit
	d.set(first, b[:blockSize])
}

// set writes whole blocks, durably.
func (d *testDrive) set(off int64, p []byte) {
	b := mustAligned(len(p))
	defer buf.FreeAligned(b)
	copy(b, p)
	if err := errors.Join(d.Mem.WriteAt(b[:len(p)], off), d.Mem.Sync()); err != nil {
		panic(err)
	}
}

func mustAligned(n int) []byte {
	b, err := buf.AlignedBytes(n)
	if err != nil {
		panic(err)
	}
	return b
}
