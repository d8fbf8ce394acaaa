// Package erasure codes pieces of chunks: k data shards into m parity shards, and back from any k of
// the k+m. It is thin over klauspost/reedsolomon, which does the arithmetic in vector code; what is added is
// the two shapes vstor needs: whole pieces of about 64 KiB per shard, coded while they are in L2, and
// one range of one lost shard, rebuilt from k others without allocating.
package erasure

import (
	"math/bits"
	"sync"

	"github.com/klauspost/reedsolomon"

	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
)

// ShardsMax is the largest k+m: a set of shards is one machine word.
const ShardsMax = 64

// rowsMax bounds the decoding rows a Codec remembers. (8,2) has 90 and (16,4) about 97,000; a set of
// drives that stays lost uses a handful.
const rowsMax = 4096

// Codec codes with one k and m. Safe for concurrent use; nothing in it starts a goroutine.
type Codec struct {
	k, m int
	enc  reedsolomon.Encoder // nil for k = 1 and for m = 0
	gen  [][]byte            // generator matrix, k+m rows of k: identity, then the parity rows
	low  reedsolomon.LowLevel

	mu   sync.RWMutex
	rows map[rowKey][]byte // guarded by mu; a row never changes once it is in
}

type rowKey struct {
	have uint64 // set of the k source shards
	want uint8
}

// New makes a Codec for k data and m parity shards. k = 1 is replication, m = 0 striping.
func New(k, m int) (*Codec, error) {
	if k < 1 || m < 0 || k+m > ShardsMax {
		return nil, errs.New(errs.Invalid, "erasure: k=%d and m=%d; k must be at least 1 and k+m at most %d",
			k, m, ShardsMax)
	}
	c := &Codec{k: k, m: m, rows: make(map[rowKey][]byte)}
	if k > 1 && m > 0 {
		// One goroutine: a piece is too small to be worth splitting, and the caller has
		// as many workers as there are cores.
		enc, err := reedsolomon.New(k, m, reedsolomon.WithMaxGoroutines(1), reedsolomon.WithInversionCache(false))
		if err != nil {
			return nil, errs.Wrap(errs.Invalid, err, "erasure: k=%d, m=%d", k, m)
		}
		c.enc = enc
	}
	if err := c.readGenerator(); err != nil {
		return nil, err
	}
	return c, nil
}

// K and M are the numbers of data and parity shards.
func (c *Codec) K() int { return c.k }
func (c *Codec) M() int { return c.m }

// readGenerator finds the matrix by coding unit vectors: the library keeps its own to itself, and
// building one here would have to follow every change over there.
func (c *Codec) readGenerator() error {
	n := c.k + c.m
	c.gen = make([][]byte, n)
	for i := range c.gen {
		c.gen[i] = make([]byte, c.k)
	}
	shards := make([][]byte, n)
	for i := range shards {
		shards[i] = make([]byte, 1)
	}
	for col := range c.k {
		for i := range c.k {
			shards[i][0] = 0
		}
		shards[col][0] = 1
		if err := c.Encode(shards); err != nil {
			return err
		}
		for i := range shards {
			c.gen[i][col] = shards[i][0]
		}
	}
	return nil
}

// Encode fills the m parity shards from the k data shards before them. All k+m have one length, which
// is best about 64 KiB, so that all of them stay in L2. The caller keeps the buffers.
func (c *Codec) Encode(shards [][]byte) error {
	if err := c.check(shards); err != nil {
		return err
	}
	switch {
	case c.m == 0:
		return nil
	case c.k == 1:
		for _, p := range shards[1:] {
			copy(p, shards[0])
		}
		return nil
	}
	if err := c.enc.Encode(shards); err != nil {
		return errs.Wrap(errs.Invalid, err, "erasure: encode")
	}
	return nil
}

func (c *Codec) check(shards [][]byte) error {
	if len(shards) != c.k+c.m {
		return errs.New(errs.Invalid, "erasure: %d shards; (%d,%d) has %d", len(shards), c.k, c.m, c.k+c.m)
	}
	for i := range shards {
		if len(shards[i]) != len(shards[0]) || len(shards[i]) == 0 {
			return errs.New(errs.Invalid, "erasure: shard %d has %d bytes, shard 0 has %d; all must have the same, not 0",
				i, len(shards[i]), len(shards[0]))
		}
	}
	return nil
}

// Reconstruct fills dst with shard want, a range of any length and place, from the same range of k
// other shards: src[i] belongs to shard have[i]. have names k different shards in any order; if want is
// among them, its range is copied. Nothing is verified: the caller has checked the sources and
// checks dst. Allocates only when it meets a pattern for the first time.
func (c *Codec) Reconstruct(dst []byte, want int, have []int, src [][]byte) error {
	if len(have) != c.k || len(src) != c.k || want < 0 || want >= c.k+c.m {
		return errs.New(errs.Invalid, "erasure: shard %d from %d shards and %d ranges; (%d,%d) needs %d of each",
			want, len(have), len(src), c.k, c.m, c.k)
	}
	var set uint64
	for i, h := range have {
		if h < 0 || h >= c.k+c.m || set&(1<<h) != 0 {
			return errs.New(errs.Invalid, "erasure: source %d is shard %d, which does not exist or was given before", i, h)
		}
		if len(src[i]) != len(dst) {
			return errs.New(errs.Invalid, "erasure: range of shard %d has %d bytes, the wanted one %d", h, len(src[i]), len(dst))
		}
		set |= 1 << h
		if h == want {
			copy(dst, src[i])
			return nil
		}
	}
	row, err := c.row(set, want)
	if err != nil {
		return err
	}
	c.combine(dst, row, set, have, src)
	return nil
}

// combine computes dst = sum of row[s] * src of shard s, block by block, so that dst stays in L1 over
// the k passes.
func (c *Codec) combine(dst, row []byte, set uint64, have []int, src [][]byte) {
	const step = 8 << 10
	for at := 0; at < len(dst); at += step {
		end := min(at+step, len(dst))
		for i, h := range have {
			f := row[bits.OnesCount64(set&(1<<h-1))] // rows are in ascending order of shards
			if i == 0 {
				c.low.GalMulSlice(f, src[i][at:end], dst[at:end])
			} else {
				c.low.GalMulSliceXor(f, src[i][at:end], dst[at:end])
			}
		}
	}
}

// row is the k factors that make shard want of the shards in set, in ascending order of shard.
func (c *Codec) row(set uint64, want int) ([]byte, error) {
	key := rowKey{set, uint8(want)}
	c.mu.RLock()
	row := c.rows[key]
	c.mu.RUnlock()
	if row != nil {
		return row, nil
	}
	inv, ok := invert(c.pick(set))
	if !ok { // any k rows of the generator are independent, or the code is none
		return nil, errs.New(errs.Corrupt, "erasure: shards %#x of (%d,%d) do not determine shard %d", set, c.k, c.m, want)
	}
	row = mulRow(c.gen[want], inv)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.rows) >= rowsMax {
		clear(c.rows)
	}
	c.rows[key] = row
	if invariants.Enabled {
		invariants.Assert(len(row) == c.k, "erasure: row of %d for k=%d", len(row), c.k)
	}
	return row, nil
}

// pick copies the generator's rows of the shards in set.
func (c *Codec) pick(set uint64) [][]byte {
	out := make([][]byte, 0, c.k)
	for s := range c.k + c.m {
		if set&(1<<s) != 0 {
			out = append(out, append([]byte(nil), c.gen[s]...))
		}
	}
	return out
}
