package proxy

import (
	"runtime"
	"sync"
	"syscall"
	"time"

	"vstor/dataplane/erasure"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
	"vstor/dataplane/sum"
)

// niceCoding is the priority of the coding threads: with GOMAXPROCS above the number of cores the
// kernel schedules, and the loops must win.
const niceCoding = 10

// codeTask asks a worker to code one chunk.
type codeTask struct {
	codec *erasure.Codec
	src   Source
	geo   layout.Geometry
	chunk int
	frags []*fragBuf // k+m; nil where nobody takes the fragment
	sums  []uint64   // out: FragSum of each fragment, also of those that nobody takes
	err   error      // out
	done  chan struct{}
}

// coder runs the coding workers.
type coder struct {
	tasks chan *codeTask
	stop  chan struct{}
	wg    sync.WaitGroup
	nanos *counter
}

func startCoder(workers, n int, nanos *counter) *coder {
	c := &coder{tasks: make(chan *codeTask), stop: make(chan struct{}), nanos: nanos}
	for range workers {
		c.wg.Add(1)
		go c.work(n)
	}
	return c
}

// close ends the workers. REQUIRES: nobody waits in tasks.
func (c *coder) close() {
	close(c.stop)
	c.wg.Wait()
}

// coderBytes is what one worker's scratch pieces take.
func coderBytes(n int) int64 { return int64(n) * layout.RegionSize }

func (c *coder) work(n int) {
	defer c.wg.Done()
	// Never unlocked: the thread dies with the goroutine and takes its priority along.
	runtime.LockOSThread()
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), niceCoding); err != nil {
		_ = err // refused in some sandboxes: slower loops, nothing wrong
	}
	w := worker{shards: make([][]byte, n), hashed: make([]uint64, n), scratch: make([]fragBuf, n)}
	for {
		select {
		case t := <-c.tasks:
			start := time.Now()
			t.err = w.code(t)
			c.nanos.Add(int64(time.Since(start)))
			close(t.done)
		case <-c.stop:
			return
		}
	}
}

type worker struct {
	shards  [][]byte
	hashed  []uint64  // of the shards
	scratch []fragBuf // one piece and the sums of a fragment that nobody takes
}

// code gathers, codes and hashes a chunk piece by piece. A piece is 64 KiB per shard: k+m of them stay in L2
// through all three steps. Shard by shard would fetch every byte from memory three times.
func (w *worker) code(t *codeTask) error {
	k, n := t.codec.K(), t.codec.K()+t.codec.M()
	shards := w.shards[:n]
	for off, region := int64(0), 0; off < t.geo.FragLen; off, region = off+layout.RegionSize, region+1 {
		size := int(min(layout.RegionSize, t.geo.FragLen-off))
		for f := range n {
			shards[f] = w.piece(t, f, off, size)
		}
		for f := range k {
			at := int64(t.chunk)*t.geo.ChunkLen + int64(f)*t.geo.FragLen + off
			if err := fill(t.src, shards[f], at, t.geo.Size); err != nil {
				return err
			}
		}
		if err := t.codec.Encode(shards); err != nil {
			return err
		}
		sum.Each(w.hashed, shards)
		for f := range n {
			w.sums(t, f)[region] = w.hashed[f]
		}
	}
	regions := layout.Regions(int(t.geo.FragLen))
	for f := range n {
		t.sums[f] = layout.FragSum(w.sums(t, f)[:regions])
	}
	return nil
}

func (w *worker) piece(t *codeTask, f int, off int64, size int) []byte {
	if fb := t.frags[f]; fb != nil {
		at := layout.FragHeaderSize + int(off)
		return fb.mem[at : at+size]
	}
	s := &w.scratch[f]
	if s.mem == nil {
		s.mem = make([]byte, layout.RegionSize)
	}
	return s.mem[:size]
}

func (w *worker) sums(t *codeTask, f int) []uint64 {
	if fb := t.frags[f]; fb != nil {
		return fb.sums
	}
	s := &w.scratch[f]
	if need := layout.Regions(int(t.geo.FragLen)); len(s.sums) < need {
		s.sums = make([]uint64, need)
	}
	return s.sums
}

// fill reads [at, at+len(dst)) of an object of size bytes; what lies behind its end is zeros.
func fill(src Source, dst []byte, at, size int64) error {
	n := int(max(0, min(int64(len(dst)), size-at)))
	clear(dst[n:])
	if n == 0 {
		return nil
	}
	if err := src.Fill(dst[:n], at); err != nil {
		return errs.Wrap(errs.Of(err), err, "proxy: object bytes %d to %d", at, at+int64(n))
	}
	return nil
}
