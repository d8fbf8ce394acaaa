package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/stat"
)

const (
	// putsKept is how many fragments a putter leaves standing before it deletes them together, as the
	// collection of garbage would.
	putsKept = 32
	// putRoom is for fragments that were put and not deleted yet, in bytes: twice what eight putters hold,
	// and what the drive keeps in reserve.
	putRoom = 1 << 30
	fillers = 8
)

// putter puts fragments, one at a time. One goroutine's.
type putter struct {
	a    *oneASD
	buf  []byte // headroom and payload, off-heap
	put  layout.FragPut
	keys []layout.FragKey // that stand
	hist stat.Histogram
}

func (a *oneASD) newPutter() (*putter, error) {
	b, err := buf.AlignedBytes(layout.FragHeaderSize + fragSize)
	if err != nil {
		return nil, err
	}
	p := &putter{a: a, buf: b}
	p.put = layout.FragPut{Buf: b, Sums: make([]uint64, layout.Regions(fragSize)), Epoch: 1}
	seed := [32]byte{}
	binary.LittleEndian.PutUint64(seed[:], rand.Uint64())
	rand.NewChaCha8(seed).Read(p.payload())
	for i := range p.put.Sums {
		p.sum(i)
	}
	return p, nil
}

func (p *putter) close() { buf.FreeAligned(p.buf) }

func (p *putter) payload() []byte { return p.buf[layout.FragHeaderSize:] }

func (p *putter) sum(region int) {
	p.put.Sums[region] = xxhash.Sum64(p.payload()[region*layout.RegionSize:][:layout.RegionSize])
}

// fill puts the fragments that reads meet, as many bytes as a volume has, in place of those of before. No two blocks
// are alike. It is done in each round, as our volumes are written anew: what a virtual drive was not asked for since
// twenty minutes may lie elsewhere, and was seen to take four times as long.
func (a *oneASD) fill(ctx context.Context) error {
	n := int(a.opt.Size / fragSize)
	if err := a.unfill(ctx); err != nil {
		return err
	}
	a.fills++
	a.sums = make([]uint32, n*fragBlocks)
	var next atomic.Int64
	return a.together(fillers, func(p *putter) error {
		for {
			i := int(next.Add(1) - 1)
			if i >= n {
				return nil
			}
			for b := range fragBlocks {
				block := p.payload()[b*ids.BlockSize:][:ids.BlockSize]
				binary.LittleEndian.PutUint64(block, uint64(i*fragBlocks+b))
				a.sums[i*fragBlocks+b] = uint32(xxhash.Sum64(block))
			}
			for r := range p.put.Sums {
				p.sum(r)
			}
			p.put.Key = a.fillKey(i)
			if err := a.client.Put(ctx, &p.put); err != nil {
				return err
			}
		}
	}, nil)
}

// unfill deletes what fill has put.
func (a *oneASD) unfill(ctx context.Context) error {
	for i := 0; i < len(a.sums)/fragBlocks; {
		var keys []layout.FragKey
		for ; i < len(a.sums)/fragBlocks && len(keys) < putsKept; i++ {
			keys = append(keys, a.fillKey(i))
		}
		if err := a.client.Delete(ctx, keys); err != nil {
			return err
		}
	}
	return nil
}

// runPuts puts fragments, depth at a time, and deletes them behind. What it takes to delete counts in the
// time.
func (a *oneASD) runPuts(ctx context.Context, depth int, d time.Duration) (result, error) {
	var next atomic.Uint32
	next.Store(a.puts)
	var sum stat.Snapshot
	began := time.Now()
	var took atomic.Int64
	err := a.together(depth, func(p *putter) error {
		for time.Since(began) < d {
			if err := p.another(ctx, next.Add(1)); err != nil {
				return err
			}
		}
		for now := int64(time.Since(began)); ; {
			if had := took.Load(); now <= had || took.CompareAndSwap(had, now) {
				break
			}
		}
		return nil
	}, func(p *putter) error {
		p.hist.AddTo(&sum)
		return p.finish(ctx)
	})
	a.puts = next.Load()
	if err != nil {
		return result{}, err
	}
	return summary(&sum, fragSize, time.Duration(took.Load())), nil
}

// another puts a fragment that no other is like: of its first region only, or the sums would be what is
// measured.
func (p *putter) another(ctx context.Context, n uint32) error {
	binary.LittleEndian.PutUint32(p.payload(), n)
	p.sum(0)
	p.put.Key = layout.FragKey{Namespace: 2, SCO: ids.SCONum(n), Put: 1}
	start := time.Now()
	if err := p.a.client.Put(ctx, &p.put); err != nil {
		return err
	}
	p.hist.Record(int64(time.Since(start)))
	if p.keys = append(p.keys, p.put.Key); len(p.keys) < putsKept {
		return nil
	}
	err := p.a.client.Delete(ctx, p.keys)
	p.keys = p.keys[:0]
	return err
}

// finish looks whether the last fragment holds what was put, and deletes what stands.
func (p *putter) finish(ctx context.Context) error {
	if len(p.keys) == 0 {
		return nil
	}
	got := make([]byte, fragSize)
	if err := p.a.client.Get(ctx, p.put.Key, 0, got); err != nil {
		return err
	}
	if !bytes.Equal(got, p.payload()) {
		return errs.New(errs.Corrupt, "fragment %v is not what was put", p.put.Key)
	}
	return p.a.client.Delete(ctx, p.keys)
}

// together runs work on n putters at a time, then after on one after the other; the first error counts.
func (a *oneASD) together(n int, work, after func(*putter) error) error {
	putters := make([]*putter, n)
	for i := range putters {
		p, err := a.newPutter()
		if err != nil {
			return err
		}
		defer p.close()
		putters[i] = p
	}
	failed := make([]error, n)
	var wait sync.WaitGroup
	for i, p := range putters {
		wait.Go(func() { failed[i] = work(p) })
	}
	wait.Wait()
	for i, p := range putters {
		if failed[i] != nil {
			return failed[i]
		}
		if after == nil {
			continue
		}
		if err := after(p); err != nil {
			return err
		}
	}
	return nil
}
