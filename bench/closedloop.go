package bench

import (
	"context"
	"math/rand/v2"
	"time"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
	"vstor/dataplane/stat"
)

// closedLoop keeps IOs under way on a ring loop, each followed by another: what fio's job is, of what fio does not
// reach. The loop owns all of it while it runs.
type closedLoop struct {
	// start begins an IO of a lane; its end is told to ended, never inside the call.
	start  func(lane int)
	began  time.Time
	until  time.Duration   // since began; no IO starts later
	starts []time.Duration // of the IO of each lane
	pages  []buf.Vec       // an IO's worth of each lane's own, where they hold some
	live   int
	last   time.Duration // end of the last IO
	hist   stat.Histogram
	err    error // the first
	done   chan struct{}
}

// holdPages takes the pages of an IO for each of so many lanes. What it took is there after an error too.
func (c *closedLoop) holdPages(pool *buf.Pool, lanes, bytes int) error {
	c.pages = make([]buf.Vec, lanes)
	for i := range c.pages {
		if err := takePages(pool, &c.pages[i], bytes); err != nil {
			return err
		}
	}
	return nil
}

// takePages takes pages for so many bytes, with random content: a drive may know zeros. On the loop.
func takePages(pool *buf.Pool, v *buf.Vec, bytes int) error {
	if !pool.Alloc(v, bytes/ids.BlockSize) {
		return errs.New(errs.Full, "there are no pages for an IO of %d bytes more", bytes)
	}
	random := rand.NewChaCha8([32]byte{byte(rand.Uint32())})
	for _, s := range v.Segs {
		random.Read(pool.SegBytes(s))
	}
	return nil
}

// dropPages gives them back.
func (c *closedLoop) dropPages(pool *buf.Pool) {
	for i := range c.pages {
		pool.ReleaseVec(&c.pages[i])
	}
}

// run keeps the part's lanes going for its time, and returns when the last IO has ended: each has to end in bounded
// time.
func (c *closedLoop) run(ctx context.Context, loop *ring.Loop, p *Part) (result, error) {
	c.until, c.starts, c.live, c.done = p.For, make([]time.Duration, p.Depth), p.Depth, make(chan struct{})
	loop.Call(func() {
		c.began = time.Now()
		for lane := range p.Depth {
			c.start(lane)
		}
	})
	halt := context.AfterFunc(ctx, func() { loop.PostFunc(func() { c.until = 0 }) })
	<-c.done
	halt()
	if err := ctx.Err(); err != nil {
		return result{}, err
	}
	var s stat.Snapshot
	c.hist.AddTo(&s)
	return summary(&s, int64(p.Block), c.last), c.err
}

// ended notes the end of a lane's IO and starts another. The first error ends them all.
func (c *closedLoop) ended(lane int, err error) {
	if c.err == nil {
		c.err = err
	}
	now := time.Since(c.began)
	c.last = now
	c.hist.Record(int64(now - c.starts[lane]))
	if c.err == nil && now < c.until {
		c.starts[lane] = now
		c.start(lane)
		return
	}
	c.leave()
}

// over says that no IO is to start any more.
func (c *closedLoop) over() bool { return c.err != nil || time.Since(c.began) >= c.until }

// leave ends a lane that has nothing under way.
func (c *closedLoop) leave() {
	if c.live--; c.live == 0 {
		close(c.done)
	}
}

// summary is a result from latencies.
func summary(s *stat.Snapshot, size int64, took time.Duration) result {
	n := float64(s.Count)
	r := result{IOs: int64(s.Count), Bytes: int64(s.Count) * size, IOPS: n / took.Seconds(),
		MBps: n * float64(size) / 1e6 / took.Seconds(), Mean: s.Mean() / 1e3}
	r.setPercentiles(percentiles(func(p float64) float64 { return float64(s.Quantile(p / 100)) }))
	return r
}

// offsets are where one IO after the other goes.
type offsets struct {
	block int   // bytes
	size  int64 // of what they go over, bytes
	order bool  // one behind the other, and round again
	at    int64
}

func (p *Part) offsets() offsets { return offsets{block: p.Block, size: p.Bytes, order: p.Sequential} }

// next is a multiple of the block.
func (o *offsets) next() int64 {
	n := o.size / int64(o.block)
	if !o.order {
		return rand.Int64N(n) * int64(o.block)
	}
	at := o.at % n * int64(o.block)
	o.at++
	return at
}
