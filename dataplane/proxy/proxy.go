package proxy

import (
	"context"
	"sync"
	"time"

	"vstor/dataplane/erasure"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// Proxy puts and gets objects. Safe for concurrent use.
type Proxy struct {
	opts   Options
	codecs erasure.Registry
	mem    *memory
	coder  *coder
	count  counters

	ctx    context.Context // ends with Close: the context of all that outlives its call
	cancel context.CancelFunc
	stop   chan struct{} // closed by Close, under mu
	back   chan struct{} // of one: an ASD answers again
	wg     sync.WaitGroup

	repair sync.Mutex // guards the one repair buffer

	mu         sync.Mutex
	closed     bool                           // guarded by mu
	namespaces map[ids.NamespaceID]*namespace // guarded by mu
	flight     map[flightKey]*Pending         // guarded by mu: puts neither settled nor cleaned up
	lag        map[ids.ASDID]int              // guarded by mu: writes that their put no longer waits for
	seed       uint64                         // guarded by mu
}

type flightKey struct {
	ns  ids.NamespaceID
	put ids.PutID
}

// New starts a Proxy: its workers, and the task that resumes deletes.
func New(opts Options) (*Proxy, error) {
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	n := opts.Preset.FragsMaxOf()
	px := &Proxy{
		opts:       opts,
		mem:        newMemory(opts.ChunkBuffers, n, int(opts.Preset.MaxFragment)),
		stop:       make(chan struct{}),
		back:       make(chan struct{}, 1),
		namespaces: make(map[ids.NamespaceID]*namespace),
		flight:     make(map[flightKey]*Pending),
		lag:        make(map[ids.ASDID]int),
		seed:       opts.Seed,
	}
	px.ctx, px.cancel = context.WithCancel(context.Background())
	px.coder = startCoder(opts.Workers, n, &px.count.codingNanos)
	if opts.RetryInterval > 0 {
		px.wg.Add(1)
		go px.resumeLoop()
	}
	return px, nil
}

// MemoryBytes is what the Proxy's buffers take at most; they are taken when first needed.
func (px *Proxy) MemoryBytes() int64 {
	n := px.opts.Preset.FragsMaxOf()
	return px.mem.bytes() + int64(px.opts.Workers)*coderBytes(n) + getBytesMax(n)
}

// begin starts a call or a background task; done ends it. Errors: Closed.
func (px *Proxy) begin() error {
	px.mu.Lock()
	defer px.mu.Unlock()
	if px.closed {
		return errs.New(errs.Closed, "proxy: closed")
	}
	px.wg.Add(1)
	return nil
}

func (px *Proxy) done() { px.wg.Done() }

// background runs f on a goroutine of its own unless the Proxy is closing, which is reported.
func (px *Proxy) background(f func()) bool {
	if px.begin() != nil {
		return false
	}
	go func() {
		defer px.done()
		f()
	}()
	return true
}

// Close ends the calls under way with Canceled, and the workers. Puts that were not committed are left
// to garbage collection. It waits for the writes that ASDs still hold, as long as ctx allows; then it
// returns Busy, and their buffers stay mapped, because somebody may yet write into them.
func (px *Proxy) Close(ctx context.Context) error {
	px.mu.Lock()
	if px.closed {
		px.mu.Unlock()
		return nil
	}
	px.closed = true
	close(px.stop)
	px.mu.Unlock()
	px.cancel()
	idle := make(chan struct{})
	go func() {
		px.wg.Wait()
		px.coder.close()
		close(idle)
	}()
	select {
	case <-idle:
		return px.mem.unmap()
	case <-ctx.Done():
		return errs.Wrap(errs.Busy, ctx.Err(), "proxy: %d fragment buffers are still held by ASDs", px.mem.out())
	}
}

// join is a context that ends with ctx or with the Proxy.
func (px *Proxy) join(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(px.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// asd finds an ASD in the current list; nil if it was removed.
func (px *Proxy) asd(id ids.ASDID) *ASD {
	list := px.opts.ASDs()
	for i := range list {
		if list[i].ID == id {
			return &list[i]
		}
	}
	return nil
}

// nextSeed is another seed for each placement.
func (px *Proxy) nextSeed() uint64 {
	px.mu.Lock()
	defer px.mu.Unlock()
	px.seed += 0x9e3779b97f4a7c15
	return px.seed
}

// lagging is the number of fragment writes that nobody waits for.
func (px *Proxy) lagging() int64 {
	px.mu.Lock()
	defer px.mu.Unlock()
	n := 0
	for _, v := range px.lag {
		n += v
	}
	return int64(n)
}

func (px *Proxy) addLag(id ids.ASDID, n int) {
	px.mu.Lock()
	defer px.mu.Unlock()
	if px.lag[id] += n; px.lag[id] == 0 {
		delete(px.lag, id)
	}
}

// candidates is how placement sees the ASDs for a put that needs need bytes on each: those to avoid, those
// that still hold a write from before, and full ones are as good as dead. With full, full ones count.
func (px *Proxy) candidates(list []ASD, avoid map[ids.ASDID]error, need int64, class layout.Class,
	full bool) []layout.Candidate {
	px.mu.Lock()
	defer px.mu.Unlock()
	out := make([]layout.Candidate, len(list))
	for i, a := range list {
		c := layout.Candidate{ID: a.ID, Node: a.Node, Free: a.Free, Alive: a.Alive && px.lag[a.ID] == 0}
		cause := avoid[a.ID]
		short := class == layout.ClassClient && a.Free < need
		if class != layout.ClassClient {
			c.Free = max(c.Free, 1) // the ASD has a reserve for these, and knows it better
		}
		if full {
			c.Free = max(c.Free, 1)
			c.Alive = c.Alive && (cause == nil || errs.Of(cause) == errs.Full)
		} else {
			c.Alive = c.Alive && cause == nil && !short
		}
		out[i] = c
	}
	return out
}

func (px *Proxy) inFlight(ns ids.NamespaceID, put ids.PutID) bool {
	px.mu.Lock()
	defer px.mu.Unlock()
	return px.flight[flightKey{ns, put}] != nil
}

func (px *Proxy) setFlight(p *Pending) {
	px.mu.Lock()
	defer px.mu.Unlock()
	px.flight[flightKey{p.spec.Namespace, p.man.Put}] = p
}

func (px *Proxy) endFlight(p *Pending) {
	px.mu.Lock()
	defer px.mu.Unlock()
	delete(px.flight, flightKey{p.spec.Namespace, p.man.Put})
}

// ASDReturned says that an ASD answers again: what was to be deleted there while it did not is deleted now and not with
// the next turn. It never blocks.
func (px *Proxy) ASDReturned() {
	select {
	case px.back <- struct{}{}:
	default:
	}
}

func (px *Proxy) resumeLoop() {
	defer px.done()
	t := time.NewTicker(px.opts.RetryInterval)
	defer t.Stop()
	for {
		select {
		case <-px.stop:
			return
		case <-t.C:
		case <-px.back:
		}
		if _, err := px.resumeDeletes(px.ctx); err != nil {
			px.opts.Log("proxy: resuming deletes: %v", err)
		}
	}
}
