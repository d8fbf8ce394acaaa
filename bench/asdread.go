package bench

import (
	"context"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/cespare/xxhash/v2"

	"vstor/asd/client"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/ring"
	"vstor/dataplane/stat"
)

const (
	fragSize   = 1 << 20 // payload of a fragment, bytes
	fragBlocks = fragSize / ids.BlockSize
	// readPatience is for one read: a slow one shall be seen in the latencies, not fail the run.
	readPatience = 5 * time.Second
)

// reads is what fio's job would be: so many reads of random blocks under way, each followed by another, on a
// loop of their own; the loop owns all of it while it runs.
type reads struct {
	a      *oneASD
	pool   *buf.Pool
	reader *client.Reader
	rng    *rand.Rand
	slots  []readSlot
	live   int
	began  time.Time
	until  time.Duration // since began; no read starts later
	last   time.Duration // end of the last read
	hist   stat.Histogram
	err    error // the first
	done   chan struct{}
}

type readSlot struct {
	op    ring.Op
	of    *reads
	page  buf.Vec
	block int
	start time.Duration // since began
}

// runReads reads random 4 KiB blocks of what fill has put, depth at a time, and verifies each.
func (a *oneASD) runReads(ctx context.Context, depth int, d time.Duration) (result, error) {
	pool, err := buf.NewPool(8<<20, 1<<20)
	if err != nil {
		return result{}, err
	}
	defer pool.Close()
	loop, err := ring.New(ring.Options{Name: "bench", Pool: pool, CPUs: []int{fioCPU}})
	if err != nil {
		return result{}, err
	}
	if err := loop.Start(); err != nil {
		return result{}, err
	}
	defer loop.Stop()
	r := &reads{a: a, pool: pool, until: d, done: make(chan struct{}), slots: make([]readSlot, depth),
		rng: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))}
	loop.Call(func() {
		o := client.ReaderOptions{StallAfter: readPatience, ReadTimeout: readPatience}
		r.reader, err = a.client.NewReader(loop, o)
	})
	if err != nil {
		return result{}, err
	}
	defer r.close(loop)
	if err := r.connect(ctx, loop); err != nil {
		return result{}, err
	}
	loop.Call(r.begin)
	halt := context.AfterFunc(ctx, func() { loop.PostFunc(func() { r.until = 0 }) })
	<-r.done // each read ends within readPatience
	halt()
	if err := ctx.Err(); err != nil {
		return result{}, err
	}
	var s stat.Snapshot
	r.hist.AddTo(&s)
	return summary(&s, ids.BlockSize, r.last), r.err
}

// connect waits until the Reader has its connection.
func (r *reads) connect(ctx context.Context, loop *ring.Loop) error {
	for end := time.Now().Add(startTimeout); time.Now().Before(end); {
		ready := false
		loop.Call(func() { ready = r.reader.Ready() })
		if ready {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return errs.New(errs.Unreachable, "the reads have no connection after %v: %v", startTimeout, r.a.client.Err())
}

// close gives all back.
func (r *reads) close(loop *ring.Loop) {
	closed := make(chan struct{})
	loop.Call(func() { r.reader.Close(func() { close(closed) }) })
	<-closed
	loop.Call(func() {
		for i := range r.slots {
			r.pool.ReleaseVec(&r.slots[i].page)
		}
	})
}

func (r *reads) begin() {
	r.began = time.Now()
	for i := range r.slots {
		s := &r.slots[i]
		s.of, s.op.Done = r, s
		if !r.pool.Alloc(&s.page, 1) {
			r.err = errs.New(errs.Full, "no pages for %d reads", len(r.slots))
			break
		}
		r.live++
		s.next(0)
	}
	if r.live == 0 {
		close(r.done)
	}
}

func (s *readSlot) next(now time.Duration) {
	s.block = s.of.rng.IntN(len(s.of.a.sums))
	s.start = now
	key, off := fillKey(s.block/fragBlocks), uint32(s.block%fragBlocks)*ids.BlockSize
	s.of.reader.ReadRange(&s.op, key, off, ids.BlockSize, &s.page)
}

// RingDone verifies the block and asks for another.
func (s *readSlot) RingDone(_ *ring.Op, res int32) {
	r := s.of
	switch {
	case res != ids.BlockSize:
		r.fail(errs.Wrap(errs.IO, syscall.Errno(max(-res, 0)), "a read of block %d ended with %d", s.block, res))
	case uint32(xxhash.Sum64(r.pool.SegBytes(s.page.Segs[0]))) != r.a.sums[s.block]:
		r.fail(errs.New(errs.Corrupt, "block %d of the ASD fails its checksum", s.block))
	}
	now := time.Since(r.began)
	r.last = now
	r.hist.Record(int64(now - s.start))
	if r.err == nil && now < r.until {
		s.next(now)
		return
	}
	if r.live--; r.live == 0 {
		close(r.done)
	}
}

func (r *reads) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// fillKey names fragment i of those that are read.
func fillKey(i int) layout.FragKey {
	return layout.FragKey{Namespace: 1, SCO: ids.SCONum(i + 1), Put: 1}
}

// summary is a result from latencies.
func summary(s *stat.Snapshot, size int64, took time.Duration) result {
	n := float64(s.Count)
	r := result{IOs: int64(s.Count), Bytes: int64(s.Count) * size, IOPS: n / took.Seconds(),
		MBps: n * float64(size) / 1e6 / took.Seconds(), Mean: s.Mean() / 1e3}
	r.setPercentiles(percentiles(func(p float64) float64 { return float64(s.Quantile(p / 100)) }))
	return r
}
