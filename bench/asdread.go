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
)

const (
	fragSize   = 1 << 20 // payload of a fragment, bytes
	fragBlocks = fragSize / ids.BlockSize
	// readPatience is for one read: a slow one shall be seen in the latencies, not fail the run.
	readPatience = 5 * time.Second
)

// asdReads are reads of random blocks of the one ASD; see closedLoop.
type asdReads struct {
	closedLoop
	a      *oneASD
	pool   *buf.Pool
	reader *client.Reader
	lanes  []asdRead
}

type asdRead struct {
	of    *asdReads
	lane  int
	op    ring.Op
	block int
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
	r := &asdReads{a: a, pool: pool, lanes: make([]asdRead, depth)}
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
	loop.Call(func() { err = r.holdPages(pool, depth, ids.BlockSize) })
	if err != nil {
		return result{}, err
	}
	for i := range r.lanes {
		l := &r.lanes[i]
		l.of, l.lane, l.op.Done = r, i, l
	}
	r.start = r.read
	return r.run(ctx, loop, &Part{Block: ids.BlockSize, Depth: depth, For: d}) // each read ends within readPatience
}

// connect waits until the Reader has its connection.
func (r *asdReads) connect(ctx context.Context, loop *ring.Loop) error {
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
func (r *asdReads) close(loop *ring.Loop) {
	closed := make(chan struct{})
	loop.Call(func() { r.reader.Close(func() { close(closed) }) })
	<-closed
	loop.Call(func() { r.dropPages(r.pool) })
}

func (r *asdReads) read(lane int) {
	l := &r.lanes[lane]
	l.block = rand.IntN(len(r.a.sums))
	key, off := r.a.fillKey(l.block/fragBlocks), uint32(l.block%fragBlocks)*ids.BlockSize
	r.reader.ReadRange(&l.op, key, off, ids.BlockSize, &r.pages[lane])
}

// RingDone verifies the block.
func (l *asdRead) RingDone(_ *ring.Op, res int32) {
	var err error
	switch {
	case res != ids.BlockSize:
		err = errs.Wrap(errs.IO, syscall.Errno(max(-res, 0)), "a read of block %d ended with %d", l.block, res)
	case uint32(xxhash.Sum64(l.of.pool.SegBytes(l.of.pages[l.lane].Segs[0]))) != l.of.a.sums[l.block]:
		err = errs.New(errs.Corrupt, "block %d of the ASD fails its checksum", l.block)
	}
	l.of.ended(l.lane, err)
}

// fillKey names fragment i of those that are read.
func (a *oneASD) fillKey(i int) layout.FragKey {
	return layout.FragKey{Namespace: 1, SCO: ids.SCONum(i + 1), Put: ids.PutID(a.fills)}
}
