package fragcache

import (
	"sync"
	"sync/atomic"

	"vstor/dataplane/dio"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// Cache keeps fragments in a file. See the package comment.
type Cache struct {
	opt  Options
	file dio.File
	sb   Superblock

	index index
	segs  []segment
	byNS  atomic.Pointer[map[ids.NamespaceID]*tenant] // a new map for each change

	rooms  []*room
	idle   chan *room // those that are free
	filled chan *room // those that wait for the writer
	spare  []byte     // the writer's: a fragment that is filed again
	kicked chan struct{}
	wanted chan layout.FragKey
	scrap  chan *scratch
	count  counters

	bypassed atomic.Bool
	resting  atomic.Bool // the file does not take writes
	closed   atomic.Bool
	window   atomic.Uint32 // numbers the windows of Options.ReadsWanted

	stop chan struct{}
	wg   sync.WaitGroup

	mu       sync.Mutex
	tenants  []*tenant // guarded by mu, as all below; by tenant.at, the first is nobody
	quota    int64     // of vDisks without one of their own
	free     []uint32
	draining []uint32
	sealed   line
	open     int    // segment, or -1; changed by the writer alone
	last     uint64 // number given
	tries    int    // writes that failed since one did not
	readers  []*Reader
	shares   []int64 // weigh's
}

// counters are bumped per fragment, or when something is wrong; what is counted per read is a Reader's.
type counters struct {
	fills, fillBytes, busy, full, refused, tooLarge                          atomic.Uint64
	evicted, evictedBytes, refiled, refiledBytes, passed, reclaimed          atomic.Uint64
	corrupt, stale, readErrors, writeErrors, gets, getBytes, getMisses, late atomic.Uint64
	wanted, wantedLost, bypasses, probes                                     atomic.Uint64
}

// Stats is a snapshot. All but the gauges only grow.
type Stats struct {
	Hits, HitBytes uint64 // reads of ranges given out, by Locate and by Get
	Misses         uint64
	Bypassed       uint64 // reads that were sent to an ASD because the cache is slower
	Sampled        uint64 // reads that were sent to an ASD to see how fast it is

	Fills, FillBytes uint64 // fragments filed
	DroppedBusy      uint64 // fills that found no buffer
	DroppedFull      uint64 // fills for which there was no free segment
	Refused          uint64 // fills of a vDisk without cache, beyond its quota, or while the file is bypassed or broken
	TooLarge         uint64

	Evicted, EvictedBytes uint64 // fragments that went for room or quota
	Refiled, RefiledBytes uint64 // fragments filed again from a segment that was evicted
	PassedOver            uint64 // times that a segment was not evicted for what is in it
	Reclaimed             uint64 // segments evicted

	Corrupt     uint64 // entries dropped because their bytes do not match
	Stale       uint64 // entries dropped because the manifest has another checksum
	ReadErrors  uint64
	WriteErrors uint64
	Wanted      uint64 // fragments asked for because of reads
	WantedLost  uint64 // of those, the ones that found the queue full
	Bypasses    uint64 // times that a bypass began
	Probes      uint64 // reads of the minder's own

	Size         int64 // gauge: bytes that vDisks can share
	Used         int64 // gauge: bytes of live fragments, with headers
	Fragments    int   // gauge
	Segments     int   // gauge
	FreeSegments int   // gauge
	BypassedNow  bool
}

// New opens the cache in Options.File, or makes one there if what it holds is none of ours, and starts its writer
// and its minder. Errors: Invalid, IO.
func New(opt Options) (*Cache, error) {
	opt.EnsureDefaults()
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	c := &Cache{opt: opt, file: opt.File, open: -1, quota: opt.Quota, tenants: make([]*tenant, 1),
		kicked: make(chan struct{}, 1), wanted: make(chan layout.FragKey, wantedMax), stop: make(chan struct{})}
	c.byNS.Store(&map[ids.NamespaceID]*tenant{})
	if err := c.openFile(); err != nil {
		return nil, err
	}
	if err := c.makeBuffers(); err != nil {
		c.freeBuffers()
		for len(c.scrap) > 0 {
			dio.FreeBuf((<-c.scrap).mem)
		}
		return nil, err
	}
	c.wg.Add(2)
	go c.write()
	go c.mind()
	return c, nil
}

// wantedMax bounds the fragments that wait to be fetched because they are read.
const wantedMax = 64

func (c *Cache) makeBuffers() error {
	n := int(slotBytes(c.opt.MaxFragment))
	count := c.opt.rooms()
	c.idle, c.filled = make(chan *room, count), make(chan *room, count)
	c.scrap = make(chan *scratch, getScratches)
	var err error
	for range count {
		r := &room{sums: make([]uint64, regionsOf(uint32(c.opt.MaxFragment>>blockShift)))}
		if r.mem, err = dio.AlignedBuf(n); err != nil {
			return err
		}
		c.rooms = append(c.rooms, r)
		c.idle <- r
	}
	for range getScratches {
		s := new(scratch)
		if s.mem, err = dio.AlignedBuf(getScratch); err != nil {
			return err
		}
		c.scrap <- s
	}
	c.spare, err = dio.AlignedBuf(n)
	return err
}

// freeBuffers unmaps those of the writer. All must be back.
func (c *Cache) freeBuffers() {
	for _, r := range c.rooms {
		dio.FreeBuf(r.mem)
	}
	if c.spare != nil {
		dio.FreeBuf(c.spare)
	}
}

// Close files what was filled, seals the open segment and stops. It waits for every Room that is out to be given
// back, and for what is asked of the file. No Reader may have a pin any more.
func (c *Cache) Close() {
	c.closed.Store(true)
	close(c.stop)
	c.wg.Wait()
	for range getScratches {
		dio.FreeBuf((<-c.scrap).mem)
	}
	c.freeBuffers()
}

// kick has the writer look around.
func (c *Cache) kick() {
	select {
	case c.kicked <- struct{}{}:
	default:
	}
}

// Wanted gives the fragments that should be fetched into the cache, by Room and Fill: those that are read again and
// again if Options.OnRead says so, and those that were here and proved rotten. It is never closed.
func (c *Cache) Wanted() <-chan layout.FragKey { return c.wanted }

// want asks for a fragment. Any goroutine, a loop too.
func (c *Cache) want(key layout.FragKey) {
	if c.closed.Load() {
		return
	}
	select {
	case c.wanted <- key:
		c.count.wanted.Add(1)
	default:
		c.count.wantedLost.Add(1)
	}
}

// Stats takes a snapshot.
func (c *Cache) Stats() Stats {
	n := &c.count
	s := Stats{
		Hits: n.gets.Load(), HitBytes: n.getBytes.Load(), Misses: n.getMisses.Load(),
		Fills: n.fills.Load(), FillBytes: n.fillBytes.Load(), DroppedBusy: n.busy.Load(), DroppedFull: n.full.Load(),
		Refused: n.refused.Load(), TooLarge: n.tooLarge.Load(),
		Evicted: n.evicted.Load(), EvictedBytes: n.evictedBytes.Load(), Refiled: n.refiled.Load(),
		RefiledBytes: n.refiledBytes.Load(), PassedOver: n.passed.Load(), Reclaimed: n.reclaimed.Load(),
		Corrupt: n.corrupt.Load(), Stale: n.stale.Load(), ReadErrors: n.readErrors.Load(),
		WriteErrors: n.writeErrors.Load(), Wanted: n.wanted.Load(), WantedLost: n.wantedLost.Load(),
		Bypasses: n.bypasses.Load(), Probes: n.probes.Load(), BypassedNow: c.bypassed.Load(),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.readers {
		s.Hits += r.hits.Load()
		s.HitBytes += r.hitBytes.Load()
		s.Misses += r.misses.Load()
		s.Bypassed += r.bypassed.Load()
		s.Sampled += r.sampled.Load()
	}
	for _, t := range c.tenants {
		if t != nil {
			s.Used += t.used
		}
	}
	s.Size, s.Segments, s.FreeSegments = c.room(), len(c.segs), len(c.free)
	s.Fragments = c.index.count
	return s
}
