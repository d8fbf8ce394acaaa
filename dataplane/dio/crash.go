package dio

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
)

// CrashOptions say what a power loss does to writes that no Sync covered. Each block is decided by itself.
// The zero value is lost or kept at even chances, and torn now and then.
type CrashOptions struct {
	// Lose is the chance in percent that a block keeps its last synced content. Default 50.
	Lose int
	// Torn is the chance in percent that a block which is not lost mixes old and new sectors of
	// 512 bytes. Default 10.
	Torn int
	// LoseAll loses every unsynced write, KeepAll none that ended; neither tears.
	LoseAll, KeepAll bool
}

const sectorSize = 512

// CrashClone is a new drive as a power loss would leave this one now; this one goes on unchanged. The
// same rng state and content give the same clone. Writes of loops that are under way are torn apart too.
func (m *Mem) CrashClone(rng *rand.Rand, o CrashOptions) *Mem {
	if o.Lose == 0 {
		o.Lose = 50
	}
	if o.Torn == 0 {
		o.Torn = 10
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	out := NewMem(m.size)
	out.durable = m.durable.clone()
	if o.LoseAll {
		return out
	}
	// In order, so that the same seed gives the same clone.
	for _, b := range slices.Sorted(maps.Keys(m.dirty)) {
		d := m.dirty[b]
		if o.KeepAll {
			out.durable.put(b, d.versions[len(d.versions)-1].data[:])
			continue
		}
		// A cache may have written back any version.
		out.strike(rng, o, b, d.versions[rng.IntN(len(d.versions))].data[:])
	}
	if o.KeepAll {
		return out
	}
	for _, p := range m.inflightWrites() {
		for i := 0; i < len(p.data); i += BlockSize {
			out.strike(rng, o, (p.off+int64(i))/BlockSize, p.data[i:i+BlockSize])
		}
	}
	return out
}

// strike lets one unsynced block survive, get lost or tear.
func (m *Mem) strike(rng *rand.Rand, o CrashOptions, b int64, data []byte) {
	if rng.IntN(100) < o.Lose {
		return
	}
	if rng.IntN(100) >= o.Torn {
		m.durable.put(b, data)
		return
	}
	var mix [BlockSize]byte
	copy(mix[:], m.durable.block(b))
	for s := 0; s < BlockSize; s += sectorSize {
		if rng.IntN(2) == 0 {
			copy(mix[s:s+sectorSize], data[s:])
		}
	}
	m.durable.put(b, mix[:])
}

// Clone is a new drive as a kill -9 of the process would leave this one now: every write that ended is
// there, none that is under way. What was not synced can still be lost by a later crash.
func (m *Mem) Clone() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := NewMem(m.size)
	out.durable = m.durable.clone()
	out.seq = m.seq
	for b, d := range m.dirty {
		out.dirty[b] = &dirtyBlock{slices.Clone(d.versions)}
	}
	return out
}

// inflightWrites lists the writes under way, in an order that does not depend on the map's.
func (m *Mem) inflightWrites() []*memOp {
	return slices.SortedFunc(maps.Keys(m.inflight), func(a, b *memOp) int {
		return cmp.Compare(a.order, b.order)
	})
}
