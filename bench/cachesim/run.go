package cachesim

import (
	"runtime"
	"sync"

	"vstor/blockcache/policy"
	"vstor/dataplane/ids"
)

// Policies are those compared, in the order of the table.
var Policies = []string{"LRU", "ARC", "S3-FIFO", "vstor"}

// Granules are the block sizes compared, in bytes. The largest is a whole fragment, which is filled as a whole.
var Granules = []int64{32 << 10, 64 << 10, 128 << 10, 256 << 10, fragment}

const fragment = 4 << 20

// Fractions are the sizes of the caches, of all different blocks of a trace.
var Fractions = []float64{0.01, 0.025, 0.05, 0.1, 0.2, 0.4}

// Cell is what one cache did.
type Cell struct {
	Policy     string  `json:"policy"`
	BlockBytes int64   `json:"block_bytes"`
	CacheBytes int64   `json:"cache_bytes"`
	HitRatio   float64 `json:"hit_ratio"`
	// Amplified is the bytes read from the backend for each byte that was missing.
	Amplified float64 `json:"bytes_read_per_byte_missing"`
}

// Result is a trace with all caches.
type Result struct {
	Trace       string `json:"trace"`
	Reads       int    `json:"reads"`
	BytesRead   int64  `json:"bytes_read"`
	UniqueBytes int64  `json:"unique_bytes"`
	Cells       []Cell `json:"cells"` // by policy, block size, cache size
}

// Run replays a trace against all policies, block sizes and cache sizes, as many at once as there are cores.
func Run(t *Trace) (*Result, error) {
	r := &Result{Trace: t.Name, Reads: t.Reads, BytesRead: t.Blocks * ids.BlockSize, UniqueBytes: t.Unique * ids.BlockSize}
	for _, p := range Policies {
		for _, g := range Granules {
			for _, f := range Fractions {
				// A cache of fewer than eight fragments says nothing about caches of fragments, but a line wants its point.
				bytes := max(int64(f*float64(r.UniqueBytes)), fragment+1<<16)
				r.Cells = append(r.Cells, Cell{Policy: p, BlockBytes: g, CacheBytes: bytes})
			}
		}
	}
	var wg sync.WaitGroup
	fails := make([]error, len(r.Cells))
	slots := make(chan struct{}, runtime.NumCPU())
	for i := range r.Cells {
		wg.Go(func() {
			slots <- struct{}{}
			fails[i] = t.replay(&r.Cells[i])
			<-slots
		})
	}
	wg.Wait()
	for _, err := range fails {
		if err != nil {
			return nil, err
		}
	}
	return r, nil
}

// replay is one cache.
func (t *Trace) replay(c *Cell) error {
	s := size{capacity: c.CacheBytes, part: ids.BlockSize}
	parts := c.BlockBytes / ids.BlockSize
	s.entry = policy.EntryBytes + 8 + 8*parts
	whole := c.BlockBytes == fragment
	if whole {
		s.part, s.entry = fragment/policy.Parts, policy.EntryBytes+8
	}
	k, err := newCache(c.Policy, s)
	if err != nil {
		return err
	}
	if o, ok := k.(*ours); ok {
		defer o.pol.Free()
	}
	var hits, fetched int64
	for _, r := range t.reads {
		for n := uint64(0); n < uint64(r.n); {
			object, part := (r.at+n)/uint64(parts), (r.at+n)%uint64(parts)
			run := min(uint64(parts)-part, uint64(r.n)-n)
			n += run
			if whole {
				if k.access(object, ^uint64(0)) != 0 {
					hits += int64(run)
				} else {
					fetched += parts
				}
				continue
			}
			found := int64(popcount(k.access(object, ^uint64(0)>>(64-run)<<part)))
			hits += found
			fetched += int64(run) - found
		}
	}
	c.HitRatio = float64(hits) / float64(t.Blocks)
	c.Amplified = float64(fetched) / float64(max(t.Blocks-hits, 1))
	return nil
}

func newCache(policy string, s size) (cache, error) {
	switch policy {
	case "LRU":
		return newLRU(s), nil
	case "ARC":
		return newARC(s), nil
	case "S3-FIFO":
		return newS3FIFO(s), nil
	}
	return newOurs(s)
}
