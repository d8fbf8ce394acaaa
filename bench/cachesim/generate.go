package cachesim

import (
	"math"
	"math/rand/v2"
	"sort"
)

// The traces made up have a disk of 4 GiB, and read extents of 32 KiB of it in pieces.
const (
	extents      = 128 << 10
	extentBlocks = 8
	diskBlocks   = extents * extentBlocks
)

// Generated makes the traces that need no file, n requests each, the same ones every time.
func Generated(n int) []*Trace {
	return []*Trace{
		hotSpots("zipf", n, 0),
		hotSpots("zipf and a scan by 128 KiB", n, 32),
		hotSpots("zipf and a scan by 4 KiB", n, 1),
		loop(n),
		moving(n),
	}
}

// zipf draws extents, the i-th most wanted in proportion to 1/i^0.9, scattered over the disk.
type zipf struct {
	rng *rand.Rand
	cdf []float64
}

func newZipf(seed uint64) *zipf {
	z := &zipf{rng: rand.New(rand.NewPCG(seed, 1)), cdf: make([]float64, extents)}
	sum := 0.0
	for i := range z.cdf {
		sum += math.Pow(float64(i+1), -0.9)
		z.cdf[i] = sum
	}
	for i := range z.cdf {
		z.cdf[i] /= sum
	}
	return z
}

// rank is which extent, by how much it is wanted.
func (z *zipf) rank() uint64 { return uint64(sort.SearchFloat64s(z.cdf, z.rng.Float64())) }

// scatter is where the extent of a rank lies: an odd factor permutes a power of two.
func scatter(rank uint64) uint64 { return rank * 0x9e3779b1 % extents }

// read is a read of 4 to 16 KiB in an extent.
func (z *zipf) read(a *Access, extent uint64) {
	n := uint32(1 + z.rng.IntN(4))
	*a = Access{Addr: extent*extentBlocks + uint64(z.rng.IntN(extentBlocks-int(n)+1)), Count: n}
}

// hotSpots reads some extents often and most rarely; with scan > 0, of four blocks read three are of somebody who reads
// all of the disk in order, scan blocks at a time.
func hotSpots(name string, n int, scan uint32) *Trace {
	z := newZipf(1)
	i, at, owed := 0, uint64(0), 0
	return NewTrace(name, func(a *Access) bool {
		if i++; i > n {
			return false
		}
		if scan > 0 && owed >= int(scan) {
			*a = Access{Addr: at, Count: scan}
			at = (at + uint64(scan)) % diskBlocks
			owed -= int(scan)
			return true
		}
		z.read(a, scatter(z.rank()))
		owed += 3 * int(a.Count)
		return true
	})
}

// loop reads a quarter of the disk over and over, by 64 KiB, and hot spots between.
func loop(n int) *Trace {
	z := newZipf(2)
	i, at := 0, uint64(0)
	return NewTrace("loop over 1 GiB and zipf", func(a *Access) bool {
		if i++; i > n {
			return false
		}
		if i%4 == 0 {
			*a = Access{Addr: at, Count: 16}
			at = (at + 16) % (diskBlocks / 4)
			return true
		}
		z.read(a, scatter(z.rank()))
		return true
	})
}

// moving has hot spots that are elsewhere after each tenth of the trace.
func moving(n int) *Trace {
	z := newZipf(3)
	i := 0
	return NewTrace("zipf that moves ten times", func(a *Access) bool {
		if i++; i > n {
			return false
		}
		phase := uint64(i * 10 / (n + 1))
		z.read(a, scatter((z.rank()+phase*extents/10)%extents))
		return true
	})
}
