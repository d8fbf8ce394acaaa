package edge

import (
	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
)

// Driver is the Volume Driver as the Edge needs it. Everything on the loop; nothing blocks.
type Driver interface {
	// Size is the vDisk's size in bytes.
	Size() int64
	// Mutate starts a change. Changes take effect in the order of their calls.
	Mutate(*block.Mutation)
	// Resolve says where n blocks from addr lie. If a page of the map is not in RAM it returns false
	// and tells l once a retry may succeed, or why it will not.
	Resolve(addr ids.BlockAddr, n int, r *block.Resolution, l block.Loaded) bool
	// Extents appends to out, within its capacity, what blocks from addr on are, n at most; it stops early
	// where work, in units of about 10 ns, is used up, but not before it told of something. It returns of how
	// many blocks it told. False means that a page of the map is not in RAM, and l is told; if it cannot be
	// read, blind makes what lies in it data.
	Extents(addr ids.BlockAddr, n int, blind bool, out *[]block.Extent, work *int, l block.Loaded) (int, bool)
	// Warm brings the map of n blocks from addr on into RAM, within bounds of its own, and tells l at its end.
	Warm(addr ids.BlockAddr, n int, l block.Loaded)
	// ReadLogged reads what only the driver can: blocks that lie together in the journal, where Off of the Fetch
	// is a Pos, or of Kind Asked those from Addr on.
	ReadLogged(*block.Fetch)
}

// Leased is a Driver in another process. Where it says that blocks lie is good under a lease only: it says that of what
// it was told before, and while the lease runs nobody changes that. The Disk asks again when everything was read: a
// process may have been stopped for any time in between, and what was read then is nobody's answer any more.
type Leased interface {
	Driver
	// Holds reads the clock, now, and reports whether the lease runs.
	Holds() bool
	// Distrust says that reading where n blocks from addr on were said to lie failed.
	Distrust(addr ids.BlockAddr, n int)
	// Own reports whether no other edge gets the vDisk from now on, unless it takes it over; if that must wait, the
	// Owner is told later, once. Disown ends it: once for each Own that said so and each Owner that was told OK.
	Own(block.Owner) bool
	Disown()
}

// Fetcher reads blocks out of objects: PRACC, or a Cache in front of it. It may exchange the pages in Dst for
// others that hold the same; of those too the Disk gets one reference each.
type Fetcher interface{ Fetch(*block.Fetch) }

// Cache keeps blocks that were read. It goes by where they lie and what they must hash to, not by their address, so
// it can never be out of date. Everything on the loop; nothing blocks.
type Cache interface {
	// Get appends a retained page for each block of an object's range that RAM has, from the first on, and returns
	// how many that were.
	Get(ns ids.NamespaceID, sco ids.SCONum, off uint32, sums []uint32, dst *buf.Vec) int
	// Fetch reads the rest, by way of what else it has, and keeps it.
	Fetcher
	// Prefetch is Fetch of what no client has asked for yet.
	Prefetch(*block.Fetch)
	// Ahead takes a client's read of n blocks from addr on and says which blocks to read ahead, 0 for none.
	Ahead(addr ids.BlockAddr, n int) (from ids.BlockAddr, blocks int)
	// Shrink gives pages back to the pool, n or as many as it has, and returns how many.
	Shrink(n int) int
}

// retriesMax bounds how often a read resolves its range anew because what it found had moved.
const retriesMax = 4

// Disk is a vDisk as a block.Device.
type Disk struct {
	loop   *ring.Loop
	pool   *buf.Pool
	driver Driver
	fetch  Fetcher
	cache  Cache // nil: none

	free   *io   // pooled requests
	order  order // mutations under way and waiting
	scans  scans // questions about extents that wait
	aheads aheads

	closing bool
	leased  Leased // nil: the driver is in this process
	leaving leaving

	Stats Stats
}

// NewDisk joins a driver and a fetcher; c, which may be nil, stands before the fetcher. Call it, and everything of
// the Disk, on the loop.
func NewDisk(l *ring.Loop, d Driver, f Fetcher, c Cache) *Disk {
	k := &Disk{loop: l, pool: l.Pool(), driver: d, fetch: f, cache: c}
	if c != nil {
		k.fetch = c
	}
	k.scans.timer.Fire = k.scanWaiting
	k.leased, _ = d.(Leased)
	k.leaving.hook = ring.Hook{Run: k.leave, Stage: ring.StageDevice}
	return k
}

// Info describes the vDisk.
func (d *Disk) Info() block.Info { return block.Info{Size: d.driver.Size()} }

// Submit starts a request; see block.Device.
func (d *Disk) Submit(r *block.Request) {
	x := d.get()
	x.r, x.began, x.via = r, d.loop.Now(), block.FromNothing
	r.Err = errs.OK
	switch r.Op {
	case block.Read:
		d.Stats.Reads.Add(1)
		x.span(r.Off, int64(r.Len))
		d.noticed(x)
		x.startRead()
	case block.Write:
		d.Stats.Writes.Add(1)
		x.span(r.Off, int64(r.Len))
		x.admit(x.unaligned())
	case block.Trim:
		d.Stats.Trims.Add(1)
		x.startTrim()
	case block.WriteZeroes:
		d.Stats.Trims.Add(1)
		x.startZeroes()
	case block.Flush:
		d.Stats.Flushes.Add(1)
		x.mutate(&x.mut[0], block.Sync)
	case block.Cache:
		d.Stats.Caches.Add(1)
		x.span(r.Off, int64(r.Len))
		x.startCache()
	case block.Extents:
		d.Stats.Extents.Add(1)
		x.span(r.Off, int64(r.Len))
		x.startExtents()
	}
}

// io is one request under way. Its embedded states live as long as it does, so that a request in steady
// state allocates nothing.
type io struct {
	d    *Disk
	r    *block.Request
	next *io // free list, or the list of waiting mutations or questions, or of reads that leave

	began int64      // time on the loop's clock
	via   block.Rung // the last that a read needed

	first ids.BlockAddr // the blocks that the request touches
	count int

	// read half
	at    ids.BlockAddr // the blocks to read: all of them, or one partial block of a write
	n     int
	res   block.Resolution
	reads []*pieceRead
	tries int
	under bool // part of it was found under the driver's lease
	moved bool // what failed may lie elsewhere by now
	blind bool // the map's page of block at cannot be read
	timer ring.Timer
	op    ring.Op

	// write half
	mut    [3]block.Mutation
	sums   []uint32
	rmw    bool        // holds its range from read to end
	owns   bool        // the vDisk, of a Leased driver
	old    [2]buf.Page // content of the partial blocks at its ends, before the write
	olds   int         // how many of them were read
	synced bool        // the FUA sync was started
	prev   *io         // list of active mutations
	succ   *io

	left int // parts that have not ended
}

// pieceRead is one piece of a read that lies in an object or in the journal: blocks that the cache had, and behind
// them those that are fetched.
type pieceRead struct {
	block.Fetch
	x    *io
	have buf.Vec // from the cache
	dst  buf.Vec // fetched
}

func (pr *pieceRead) release(p *buf.Pool) {
	p.ReleaseVec(&pr.have)
	p.ReleaseVec(&pr.dst)
}

func (d *Disk) get() *io {
	if x := d.free; x != nil {
		d.free, x.next = x.next, nil
		return x
	}
	x := &io{d: d}
	x.op.Done = x
	x.timer.Fire = x.again
	return x
}

func (d *Disk) put(x *io) {
	x.r = nil
	x.res.Reset()
	x.tries, x.left, x.olds = 0, 0, 0
	x.rmw, x.synced, x.under = false, false, false
	x.next, d.free = d.free, x
}

// span notes the blocks that a byte range touches.
func (x *io) span(off, n int64) {
	x.first = ids.BlockAddr(off >> ids.BlockShift)
	x.count = int(ids.Blocks(off+n) - int64(x.first))
}

// unaligned reports whether the request covers a block only in part.
func (x *io) unaligned() bool {
	return x.r.Off&ids.BlockMask != 0 || (x.r.Off+int64(x.r.Len))&ids.BlockMask != 0
}

// finish ends the request and returns the state to the pool.
func (x *io) finish() {
	r := x.r
	x.note()
	x.d.put(x)
	r.Done.Completed(r)
}
