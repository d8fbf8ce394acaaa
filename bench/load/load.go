// Package load asks an NBD export for IOs at a fixed rate, whether those before have been answered or not: an open
// loop. A closed loop, as fio's, asks for nothing while the server stands still, and so leaves out of its latencies
// what clients who come by the clock would have waited (coordinated omission). Here a latency counts from the moment at
// which the IO should have started, also when the connection, the generator or a bound held it up.
//
// github.com/HdrHistogram/hdrhistogram-go keeps the latencies: three digits of any value, in bounded memory.
package load

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"vstor/bench/nbdc"
	"vstor/dataplane/errs"
)

// Options of a run.
type Options struct {
	Network, Addr, Export string
	Conns                 int     // default 1
	Rate                  float64 // IOs per second, evenly spaced
	For                   time.Duration
	Block                 int  // bytes
	Write                 bool // writes of random bytes; otherwise reads
	// InFlight bounds what waits for an answer, on all connections; default 1024. An IO that finds so many waiting is
	// late, and its latency says so.
	InFlight int
}

// Result of a run.
type Result struct {
	Latency *hdrhistogram.Histogram // ns, from the intended start
	Late    *hdrhistogram.Histogram // ns from the intended start to the real one: what of it is the generator's
	Took    time.Duration           // to the last answer
	Series  []float64               // answers in each whole second
}

const (
	longest  = int64(5 * time.Minute) // latency that is told apart, ns
	digits   = 3
	patience = 30 * time.Second // for answers, when the last IO has started
)

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, longest, digits) }

// record keeps a latency; one beyond the longest counts as that.
func record(h *hdrhistogram.Histogram, d time.Duration) {
	h.RecordValue(min(max(int64(d), 1), longest))
}

// lane is a connection with what was measured on it.
type lane struct {
	conn *nbdc.Conn
	mu   sync.Mutex
	hist *hdrhistogram.Histogram // guarded by mu, as what follows
	by   []float64               // answers by second
	last time.Duration
	err  error
}

// run is a run under way.
type run struct {
	o     Options
	lanes []*lane
	slots chan []byte // buffers of those IOs that may start
	began time.Time
	late  *hdrhistogram.Histogram
	wait  sync.WaitGroup
	fails atomic.Bool
}

// Run runs until Options.For is over and all is answered.
func Run(ctx context.Context, o Options) (*Result, error) {
	if o.Rate <= 0 || o.For <= 0 || o.Block <= 0 {
		return nil, errs.New(errs.Invalid, "load: %g IOs per second of %d bytes for %v is no load", o.Rate, o.Block, o.For)
	}
	o.Conns, o.InFlight = max(o.Conns, 1), max(o.InFlight, 0)
	if o.InFlight == 0 {
		o.InFlight = 1024
	}
	r := &run{o: o, slots: make(chan []byte, o.InFlight), late: newHistogram()}
	defer r.close()
	for range o.Conns {
		c, err := nbdc.Dial(o.Network, o.Addr, o.Export)
		if err != nil {
			return nil, err
		}
		r.lanes = append(r.lanes, &lane{conn: c, hist: newHistogram(), by: make([]float64, int(o.For/time.Second))})
		if c.Size < int64(o.Block) {
			return nil, errs.New(errs.Invalid, "load: the export has %d bytes, and blocks have %d", c.Size, o.Block)
		}
	}
	random := rand.NewChaCha8([32]byte{byte(time.Now().UnixNano())})
	for range o.InFlight {
		b := make([]byte, o.Block)
		random.Read(b)
		r.slots <- b
	}
	ctx, cancel := context.WithTimeout(ctx, o.For+2*patience)
	defer cancel()
	defer context.AfterFunc(ctx, r.abort)() // a server that stopped reading would hold up pace for good
	r.began = time.Now()
	if err := r.pace(ctx); err != nil {
		return nil, err
	}
	if err := r.drain(); err != nil {
		return nil, err
	}
	return r.result()
}

// close ends the connections, after which nothing of a run is under way.
func (r *run) close() {
	for _, l := range r.lanes {
		l.conn.Close()
	}
	r.wait.Wait()
}

func (r *run) abort() {
	for _, l := range r.lanes {
		l.conn.Abort()
	}
}

// pace starts the IOs by the clock. It has a thread to itself, as the runtime's timers wake by the millisecond.
func (r *run) pace(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	exactSleep()
	rng := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	n := int64(r.o.Rate * r.o.For.Seconds())
	for i := range n {
		at := time.Duration(float64(i) / r.o.Rate * float64(time.Second))
		if d := at - time.Since(r.began); d > 0 {
			ts := syscall.NsecToTimespec(int64(d))
			syscall.Nanosleep(&ts, nil) // woken early it starts early by that much
		}
		var b []byte
		select {
		case b = <-r.slots:
		case <-ctx.Done():
			return ctx.Err()
		}
		if r.fails.Load() {
			return nil // the result tells the error
		}
		l := r.lanes[i%int64(len(r.lanes))]
		record(r.late, time.Since(r.began)-at)
		r.start(l, b, rng.Int64N(l.conn.Size/int64(r.o.Block))*int64(r.o.Block), at)
	}
	return nil
}

func (r *run) start(l *lane, b []byte, off int64, at time.Duration) {
	cmd := nbdc.CmdRead
	if r.o.Write {
		cmd = nbdc.CmdWrite
	}
	r.wait.Add(1)
	l.conn.Go(cmd, b, off, func(err error) {
		now := time.Since(r.began)
		l.mu.Lock()
		if err != nil && l.err == nil {
			l.err = err
			r.fails.Store(true)
		}
		record(l.hist, now-at)
		if second := int(now / time.Second); second < len(l.by) {
			l.by[second]++
		}
		l.last = now
		l.mu.Unlock()
		r.slots <- b
		r.wait.Done()
	})
}

// drain waits for the answers that are due.
func (r *run) drain() error {
	all := make(chan struct{})
	go func() {
		r.wait.Wait()
		close(all)
	}()
	select {
	case <-all:
		return nil
	case <-time.After(patience):
		return errs.New(errs.Unreachable, "load: IOs are not answered %v after the last one started", patience)
	}
}

func (r *run) result() (*Result, error) {
	sum := &Result{Latency: newHistogram(), Late: r.late, Series: make([]float64, int(r.o.For/time.Second))}
	for _, l := range r.lanes {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.err != nil {
			return nil, l.err
		}
		sum.Latency.Merge(l.hist)
		sum.Took = max(sum.Took, l.last)
		for i, n := range l.by {
			sum.Series[i] += n
		}
	}
	return sum, nil
}

// exactSleep has the kernel wake this thread when it is told to, and not up to 50 us later.
func exactSleep() {
	const setTimerSlack = 29 // prctl's PR_SET_TIMERSLACK
	syscall.RawSyscall(syscall.SYS_PRCTL, setTimerSlack, 1, 0)
}
