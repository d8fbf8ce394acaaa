package node

import (
	"runtime"

	"vstor/blockcache"
	"vstor/blockcache/ssd"
	"vstor/dataplane/api"
	"vstor/dataplane/buf"
	"vstor/dataplane/config"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
	"vstor/dataplane/nbd"
	"vstor/dataplane/ring"
	"vstor/dataplane/units"
	"vstor/dataplane/volume"
)

// memoryPlan divides --memory among its users. What is left after the fixed terms are the pages of the
// loops: receive, overlay, reads and replies share them.
type memoryPlan struct {
	pages    int64 // of each loop
	reserve  int64 // of them, for reads alone
	recv     int64 // ring and receive buffers of each loop
	conns    int64 // NBD connections, and what they keep that had to stop reading
	maps     int64 // pages and deltas of all maps
	manifest int64 // PRACC's cache on each loop
	cache    int64 // Pebble's block cache, shared by all databases
	tables   int64 // memtables of all databases
	coders   int64 // fragment buffers of the proxy
	daemons  int64 // the ASDs' processes, beside --memory
	blocks   int64 // block cache of each loop: more pages, and what is noted about them
	cacheIdx int64 // of its second tier, on each loop
	extents  int64 // of each daemon and loop: where fragments lie
	cleaning int64
	sealing  int64 // indexes of SCOs in the making and on their way into the map, blocks read back for them
	overlay  int64 // entries and tables of the overlays
	stores   int64 // scratch buffers of the ASDs
	frag     int64 // fragment cache: buffers and index
	loops    int
}

const (
	recvBufs     = 16
	recvBufSize  = 128 << 10
	stashMem     = 8 << 20
	memTable     = 1 << 20
	manifestMem  = 8 << 20
	pagesMin     = 96 << 20 // two requests of 32 MiB and room to move
	storeScratch = 4 << 20
	daemonRest   = 32 << 20 // code, stacks and heap of a child process
	extentsMin   = 16 << 10
	extentsMax   = 8 << 20
)

func planMemory(cfg *config.Config, coders int64) (memoryPlan, error) {
	p := memoryPlan{
		loops: cfg.Loops, manifest: manifestMem, coders: coders,
		frag: fragCacheBytes(cfg),
		recv: ringOptions(cfg, nil).Memory(), conns: nbdLimits(cfg).Memory(cfg.Loops, cfg.TLSOn()),
		maps: min(max(cfg.Memory/12, 8<<20), 64<<20), cache: min(max(cfg.Memory/24, 8<<20), 32<<20),
		tables:   int64(cfg.ASDs+2) * 2 * memTable,
		cleaning: volume.CleanBytes, stores: int64(cfg.ASDs) * storeScratch,
	}
	blocks := cfg.SCOSize >> 12
	if err := checkDaemons(cfg); err != nil {
		return p, err
	}
	if cfg.Processes { // they have databases and buffers of their own
		p.tables, p.stores = 2*2*memTable, 0
		p.daemons = int64(cfg.ASDs) * (cfg.ASDMemory + daemonRest)
		p.extents = extentsOf(cfg, cfg.Memory, cfg.ASDs)
	}
	// One more is written when its slot is another's. What is stored and waits for its turn, up to slots for each vDisk
	// behind one that finds no room, keeps 20 bytes a block that are not counted.
	p.sealing = (sealers + 1) * (blocks*128 + volume.SealBytes)
	p.overlay = (cfg.Journal>>12)*44 + blocks*44
	fixed := p.maps + p.cache + p.tables + p.coders + p.cleaning + p.stores + p.sealing + p.overlay +
		p.conns + p.frag + int64(cfg.Loops)*(p.recv+p.manifest+int64(cfg.ASDs)*p.extents)
	p.blocks = cacheBytes(cfg, cfg.Memory, fixed)
	p.cacheIdx = cacheIndex(cfg, p.blocks)
	fixed += int64(cfg.Loops) * (p.blocks + p.cacheIdx)
	p.pages = (cfg.Memory - fixed) / int64(cfg.Loops) / buf.PageSize * buf.PageSize
	p.reserve = min(p.pages/4, 64<<20)
	if p.pages < pagesMin {
		least := (fixed + int64(cfg.Loops)*pagesMin + 1<<20 - 1) >> 20 << 20
		return p, errs.New(errs.Invalid, "memory is %s; with %d ASDs, %d loops and these policies it must be at least %s",
			units.FormatSize(cfg.Memory), cfg.ASDs, cfg.Loops, units.FormatSize(least))
	}
	return p, nil
}

// extentsOf is what each loop keeps for where the fragments of one daemon lie: of a GiB of memory, 2.7 MiB with six of
// them, for 75 thousand fragments or 300 GB of a drive.
func extentsOf(cfg *config.Config, memory int64, asds int) int64 {
	if !shortCircuit(cfg) || asds == 0 {
		return 0
	}
	return min(max(memory/64/int64(cfg.Loops*asds), extentsMin), extentsMax)
}

// cacheShare is the part of the memory that the block cache takes where nobody says how much; cacheLeast the least of
// a loop that is worth having.
const (
	cacheShare = 8
	cacheLeast = 1 << 20
)

// cacheBytes is the RAM of each loop's block cache: what --block-cache says, or a share of the memory that leaves the
// pages what they must have beside the fixed terms.
func cacheBytes(cfg *config.Config, memory, fixed int64) int64 {
	loops, n := int64(cfg.Loops), cfg.BlockCache/int64(cfg.Loops)
	if cfg.BlockCache == config.Auto {
		n = min(memory/cacheShare/loops, (memory-fixed)/loops-pagesMin)
	}
	if n < cacheLeast {
		return 0
	}
	return n / buf.PageSize * buf.PageSize
}

// cacheIndex is what a loop's second tier of the block cache takes in RAM.
func cacheIndex(cfg *config.Config, blocks int64) int64 {
	size := ssdBytes(cfg)
	if size == 0 || blocks == 0 {
		return 0
	}
	o := blockcache.Options{BlockBytes: int(cfg.BlockCacheBlock), RAMBytes: blocks}
	t := ssd.Options{BlockBytes: int(cfg.BlockCacheBlock)}
	return o.Memory(size) - blocks + t.Memory(size)
}

// Memory lists the pools by name, with what they hold now.
func (n *Node) memory() api.Memory {
	p := n.plan
	m := api.Memory{AllowanceBytes: api.MemoryAllowance}
	add := func(name, user string, bound, used int64) {
		m.Pools = append(m.Pools, api.Pool{Name: name, User: user, BoundBytes: bound, UsedBytes: used})
		m.PoolBytes += bound
	}
	var used, manifests, cached int64
	for _, r := range n.rigs {
		r.loop.Call(func() { used += int64(r.pool.Pages()-r.pool.Free()) * buf.PageSize })
		manifests += r.client.Stats().CacheBytes.Load()
		if r.cache != nil {
			cached += r.cache.Stats.RAMUsed.Load()
		}
	}
	l := int64(p.loops)
	add("pages", "payload: received, in the overlay, read, on its way out", l*p.pages, max(used-cached, 0))
	if p.blocks > 0 {
		add("block cache", "pages of blocks that were read, and what is noted about them", l*p.blocks, cached)
	}
	if p.cacheIdx > 0 {
		add("cache index", "what the block cache's second tier holds", l*p.cacheIdx, l*p.cacheIdx)
	}
	add("rings", "io_uring and receive buffers, shared by all connections of a loop", l*p.recv, l*p.recv)
	add("connections", "NBD connections, and received bytes that wait for memory", p.conns, 0)
	add("overlay", "index of blocks in the journal", p.overlay, 0)
	add("maps", "pages and deltas of the vDisks' maps", p.maps, n.budget.Used())
	add("manifests", "PRACC's cache of manifests", l*p.manifest, manifests)
	add("coders", "fragments of chunks being coded and written", p.coders, n.proxy.Counters().BuffersOut*n.fragmentBytes())
	add("sealing", "indexes of SCOs in the making, and blocks read back for them", p.sealing, 0)
	add("cleaning", "live blocks on their way into a new SCO", p.cleaning, 0)
	if p.extents > 0 {
		add("extents", "where fragments lie on drives of child processes that are read here",
			l*int64(n.cfg.ASDs)*p.extents, n.extentBytes())
	}
	if n.cfg.Processes {
		resident := n.daemonBytes()
		add("ASD processes", "each its --asd-memory, code, stacks and heap", p.daemons, resident)
		m.ResidentBytes = resident + api.ResidentBytes()
	} else {
		add("stores", "verified reads of fragments", p.stores, p.stores)
	}
	if p.frag > 0 {
		add("fragment cache", "fragments on their way into the cache, and its index", p.frag, p.frag)
	}
	add("databases", "Pebble's block cache, shared by all databases", p.cache, n.cache.Metrics().Size)
	add("memtables", "Pebble's memtables, two for each database", p.tables, 0)
	return m
}

// nbdLimits are the bounds of the NBD server.
func nbdLimits(cfg *config.Config) nbd.Options {
	return nbd.Options{MaxConnections: cfg.MaxConnections, LoopStashBytes: stashMem}
}

const (
	ringEntries  = 1024 // the least size of a loop's submission queue
	slotsForWork = 2048 // journal, drives and timers: what must never stand in line behind idle clients
)

// ringOptions is what a loop is made of. Each connection keeps a receive and now and then a send under way, and
// all of them may be those of one vDisk.
func ringOptions(cfg *config.Config, pool *buf.Pool) ring.Options {
	entries := max(ringEntries, (2*cfg.MaxConnections+slotsForWork+ring.SlotsPerEntry-1)/ring.SlotsPerEntry)
	return ring.Options{Spin: spins(cfg), Pool: pool, Entries: entries, RecvBufs: recvBufs, RecvBufSize: recvBufSize}
}

// cpus is how many CPUs this process may keep busy, as the runtime found it at the start: those it may run on, or what
// a container's quota comes to.
var cpus = runtime.GOMAXPROCS(0)

// spins reports whether loops may go round without a sleep: where each that reads drives has a CPU, and one is left for
// all else on the machine. In processes of their own those are the edge's that reads drives itself, or a cache on one;
// others wait for sockets, and do not go round. Of other edges on the machine nobody knows: loops that take each
// other's CPU notice, and sleep for a while.
func spins(cfg *config.Config) bool {
	loops := cfg.Loops
	if cfg.Processes {
		loops = 2 * cfg.Loops // with the router's
	}
	if n := len(cfg.LoopCPUs); n > 0 && loops > n {
		return false // two on one CPU would keep each other from it
	}
	return cfg.LoopSpin != config.Off && cfg.Loops < cpus
}

// fragmentBytes is what one fragment takes in the proxy's memory.
func (n *Node) fragmentBytes() int64 { return n.cfg.FragmentSize + layout.FragHeaderSize }

// coderBytes is what the proxy maps at most: chunks being coded and written, as many fragments again as one
// chunk has for those that slow ASDs still hold, one for repair, and the workers' scratch.
func (n *Node) coderBytes() int64 {
	p := n.preset()
	frags := int64(p.FragsMaxOf())
	return (int64(chunkBuffers())*frags+frags+1)*n.fragmentBytes() + int64(coderWorkers()+4)*frags*layout.RegionSize
}

// extentBytes is what is known of where fragments lie.
func (n *Node) extentBytes() (sum int64) {
	for _, r := range n.rigs {
		for _, rd := range r.remote {
			sum += rd.Stats().Short.TableBytes.Load()
		}
	}
	return sum
}

// daemonBytes is what the ASDs' processes hold in memory now.
func (n *Node) daemonBytes() (sum int64) {
	for _, d := range n.drives {
		s, _ := d.stat()
		sum += s.RSS
	}
	return sum
}
