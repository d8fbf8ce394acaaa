package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"vstor/dataplane/config"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/meta"
	"vstor/dataplane/nbd"
	"vstor/dataplane/proxy"
	"vstor/dataplane/router"
	"vstor/dataplane/supervise"
	"vstor/dataplane/tlsconn"
	"vstor/dataplane/units"
	"vstor/dataplane/volume"
	"vstor/dataplane/volume/pagemap"
	"vstor/pracc"
)

// sealers is how many SCOs are coded at once: one is, while the other waits for its drives.
const sealers = 2

// Options start a Node.
type Options struct {
	Config config.Config // complete and valid
	Log    *slog.Logger
	Host   Host              // nil: the machine itself
	Fresh  bool              // make the deployment first
	NoNBD  bool              // NBD waits for ServeNBD, or is never served
	Hook   func(step string) // fault points of tests
	Fatal  func(error)       // told of what the process cannot survive; must not return. nil panics
	Grace  time.Duration     // how long puts wait for slow ASDs; 0: the proxy's default
	Stall  time.Duration     // after which an ASD's write of a fragment has failed; 0: the proxy's default

	// Listeners were opened by somebody else, and NBD is served there too; the Node's from Start on.
	Listeners     []net.Listener
	OnlyListeners bool   // no other socket is opened
	Only          string // the one vDisk that is served over NBD, also without a name; empty: all of them

	Edges *EdgeOptions // nil: vDisks are not opened by edges in other processes
	// Parted: files, drives and ASD daemons are the parent's (Fleet); this is its router.
	Parted bool
}

// Node is a running deployment in one process.
type Node struct {
	opts    Options
	cfg     config.Config
	log     *slog.Logger
	host    Host
	ident   ident
	plan    memoryPlan
	started time.Time

	cache    *pebble.Cache
	meta     *meta.Pebble
	registry registry
	drives   []*drive
	proxy    *proxy.Proxy
	deletes  atomic.Pointer[proxy.Proxy] // the same once it is open: who resumes deletes when an ASD returns
	frag     fragCache
	edge     bool // the process is an edge: only what that needs is there
	objects  *objects
	budget   *pagemap.Budget
	mapDB    *pagemap.DB
	sealer   *volume.Sealer
	cleaners *volume.Cleaners
	rigs     []*loopRig
	source   pracc.Manifests // of PRACC
	shows    nbd.Exports     // over NBD
	rots     chan rot
	returned chan ids.ASDID // that answer again
	awaited  atomic.Bool    // the ASDs have had their time to start
	nbd      *nbd.Server
	edges    *router.Server  // nil: there are none
	tls      *tlsconn.Server // nil: NBD has none

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // background

	control sync.Mutex // create, remove, set: one at a time

	// settings is held for reading while a client opens a vDisk, and for writing while what it is judged by changes.
	settings sync.RWMutex

	mu     sync.Mutex // never held across IO
	vdisks map[string]*vdisk
	failed map[string]*failed // vDisks that do not open

	mapDamage uint64 // map databases put aside at the start
	stopping  bool
	listeners []net.Listener // where NBD is served; guarded by mu
	uris      []string       // of those; guarded by mu
	ownSocket string         // to be removed at the end; empty: none
}

// Start brings a deployment up. NBD is served when it returns. After an error nothing runs.
func Start(opts Options) (*Node, error) {
	if opts.Host == nil {
		opts.Host = RealHost{}
	}
	n := &Node{opts: opts, cfg: opts.Config, log: opts.Log, host: opts.Host, started: time.Now(),
		vdisks: map[string]*vdisk{}, failed: map[string]*failed{}, rots: make(chan rot, rotQueue),
		returned: make(chan ids.ASDID, returnQueue)}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.shows = exports{n}
	if err := n.start(); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

func (n *Node) start() error {
	err := checkFragCache(&n.cfg)
	if err != nil {
		return err
	}
	if n.plan, err = planMemory(&n.cfg, n.coderBytes()); err != nil {
		return err
	}
	n.tuneRuntime()
	if err := n.openTLS(); err != nil {
		return err
	}
	if !n.opts.Parted {
		if err := n.endLeftovers(); err != nil {
			return err
		}
	}
	if n.opts.Fresh && !n.opts.Parted {
		if err := n.create(); err != nil {
			return err
		}
	} else if n.ident, err = n.readIdent(); err != nil {
		return err
	}
	if err := n.openBackend(); err != nil {
		return err
	}
	if err := n.openRouter(); err != nil {
		return err
	}
	n.openEdges()
	if n.opts.NoNBD {
		return nil
	}
	return n.ServeNBD()
}

// endLeftovers ends children that a Fleet left here when it was killed, and that could not hear of that: they hold
// drives and databases. The folder is locked, so no Fleet lives.
func (n *Node) endLeftovers() error {
	if _, real := n.host.(RealHost); !real {
		return nil
	}
	return supervise.EndLeftovers(filepath.Join(n.cfg.Dir, "run"))
}

// create makes what a deployment needs once.
func (n *Node) create() error {
	if err := n.checkSpace(); err != nil {
		return err
	}
	var err error
	if n.ident, err = makeIdent(n.host.FS(), n.cfg.Dir); err != nil {
		return err
	}
	if err := n.formatDrives(); err != nil {
		return err
	}
	if err := n.createJournals(); err != nil {
		return err
	}
	return n.syncDirs()
}

// spaceAllowance is what databases and logs may take beside ASDs and journals.
const spaceAllowance = 256 << 20

// checkSpace refuses sizes that the file system cannot hold, before any of it is taken.
func (n *Node) checkSpace() error {
	if _, real := n.host.(RealHost); !real {
		return nil
	}
	m, err := config.ThisMachine(n.cfg.Dir)
	if err != nil {
		return err
	}
	caches := n.cfg.FragmentCache
	if n.cfg.Processes { // the edge has one, too
		caches *= 2
	}
	need := int64(n.cfg.ASDs)*n.cfg.ASDSize + n.cfg.Journal + caches + spaceAllowance
	if need > m.FreeSpace {
		return errs.New(errs.Full, "%d ASDs of %s and a journal of %s need %s, and %s has %s free: give a smaller --asd-size",
			n.cfg.ASDs, units.HumanSize(n.cfg.ASDSize), units.HumanSize(n.cfg.Journal), units.HumanSize(need),
			n.cfg.Dir, units.HumanSize(m.FreeSpace))
	}
	return nil
}

// startSpace is what a start needs free for the databases' logs: with less, opening one waits for space
// without a word.
const startSpace = 16 << 20

func (n *Node) checkStartSpace() error {
	if _, real := n.host.(RealHost); !real {
		return nil
	}
	m, err := config.ThisMachine(n.cfg.Dir)
	if err == nil && m.FreeSpace < startSpace {
		err = errs.New(errs.Full, "the file system of %s has %s free; a start needs %s for its databases: free some space",
			n.cfg.Dir, units.HumanSize(m.FreeSpace), units.HumanSize(startSpace))
	}
	return err
}

// syncDirs makes the names of all that create made survive power loss.
func (n *Node) syncDirs() error {
	dirs := []string{filepath.Join(n.cfg.Dir, "router"), n.cfg.Dir, filepath.Dir(n.cfg.Dir)}
	for i := range n.cfg.ASDs {
		dirs = append(dirs, n.drivePath(i))
	}
	for _, dir := range dirs {
		if err := syncDir(n.host.FS(), dir); err != nil {
			return err
		}
	}
	return nil
}

// openBackend opens metadata, drives and the proxy over them.
func (n *Node) openBackend() error {
	if err := n.checkStartSpace(); err != nil {
		return err
	}
	n.cache = pebble.NewCache(n.plan.cache)
	var err error
	n.meta, err = meta.OpenPebble(meta.PebbleOptions{Dir: filepath.Join(n.cfg.Dir, "meta"), FS: n.host.FS(),
		Cache: n.cache, MemTable: memTable, MustExist: !n.opts.Fresh, Log: n.logError, Fatal: n.opts.Fatal})
	if err != nil {
		return err
	}
	n.registry = registry{n.meta, n.host.FS(), n.cfg.Dir, new(sync.Mutex)}
	if err := n.registry.reconcile(n.ctx); err != nil {
		return err
	}
	if err := n.openDrives(); err != nil {
		return err
	}
	if err := n.openFragCache(); err != nil {
		return err
	}
	return n.openProxy()
}

// openRouter starts the loops, replays the journals and opens every vDisk.
func (n *Node) openRouter() error {
	if err := n.openMapDB(); err != nil {
		return err
	}
	n.budget = pagemap.NewBudget(n.plan.maps)
	n.sealer = volume.NewSealer(sealers)
	n.cleaners = volume.NewCleaners(n.drivesUsed)
	logs := make([]map[ids.VolumeID][]volume.LogEntry, n.cfg.Loops)
	for i := range n.cfg.Loops {
		r, err := n.startLoop(i)
		if err != nil {
			return err
		}
		n.rigs = append(n.rigs, r)
		if logs[i], err = r.replay(); err != nil {
			return err
		}
	}
	if err := n.openVDisks(logs); err != nil {
		return err
	}
	gone, err := n.registry.gone(n.ctx)
	if err != nil {
		return err
	}
	for _, r := range gone {
		n.background(func(ctx context.Context) { n.bury(ctx, r) })
	}
	if n.frag.cache != nil {
		n.background(n.fetchWanted)
	}
	n.background(n.maintain)
	n.background(n.reopen)
	return nil
}

// openVDisks opens all vDisks, then lets writes in: a journal that is attached writes behind what was
// replayed, so all of that must be in the overlays first.
func (n *Node) openVDisks(logs []map[ids.VolumeID][]volume.LogEntry) error {
	list, err := n.registry.list(n.ctx)
	if err != nil {
		return err
	}
	have := make(map[ids.NamespaceID]bool, len(list))
	for _, r := range list {
		have[r.ID] = true
	}
	n.pruneFragCache(have)
	for _, r := range list {
		if r.Loop >= len(n.rigs) {
			return errs.New(errs.Invalid, "vDisk %s lives on loop %d, there are %d; start with as many loops as before",
				r.Name, r.Loop, len(n.rigs))
		}
		log := logs[r.Loop][r.ID]
		delete(logs[r.Loop], r.ID)
		if d, err := n.openVDisk(n.ctx, r, log); err == nil {
			n.vdisks[r.Name] = d
		} else {
			n.park(r, log, err)
		}
	}
	for i, rig := range n.rigs {
		if err := rig.attach(); err != nil {
			return err
		}
		for id := range logs[i] { // of vDisks that were removed
			rig.loop.Call(func() { rig.jrn.ForgetVolume(id) })
		}
	}
	return nil
}

// background runs f until it ends or the node closes.
func (n *Node) background(f func(context.Context)) {
	n.work.Add(1)
	go func() {
		defer n.work.Done()
		f(n.ctx)
	}()
}

// shutdownTimeout bounds how long clients get to take their last replies.
const shutdownTimeout = 10 * time.Second

// Close makes everything acknowledged durable and stops. From the outside in: no new requests; then
// nobody seals or cleans any more, what they had is in the journal; then the vDisks, whose last entries
// the journal takes; then journal and loops; then what they stood on.
func (n *Node) Close() error {
	n.mu.Lock()
	n.stopping = true
	n.mu.Unlock()
	for _, r := range n.rigs {
		r.drain()
	}
	if n.nbd != nil {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		if err := n.nbd.Shutdown(ctx); err != nil {
			n.log.Warn("some clients did not take their last replies", "error", err)
		}
		cancel()
	}
	if n.edges != nil {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		n.edges.Shutdown(ctx)
		cancel()
	}
	if n.ownSocket != "" {
		config.RemoveSocket(n.ownSocket)
	}
	for _, l := range n.opts.Listeners { // never served
		l.Close()
	}
	n.cancel()
	if n.sealer != nil {
		n.sealer.Close()
	}
	n.work.Wait()
	for _, d := range n.vdisks {
		d.restDoor(n)
		d.closeDoor()
		d.close()
	}
	for _, f := range n.failed {
		f.unpark()
	}
	var err error
	for _, r := range n.rigs {
		if rerr := r.stop(); err == nil {
			err = rerr
		}
	}
	n.closeBackend()
	return err
}

func (n *Node) closeBackend() {
	warn := func(what string, err error) {
		if err != nil {
			n.log.Warn("closing "+what, "error", err)
		}
	}
	if n.mapDB != nil {
		warn("the map database", n.mapDB.Sync())
		warn("the map database", n.mapDB.Close())
	}
	if n.proxy != nil {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		warn("the proxy", n.proxy.Close(ctx))
		cancel()
	}
	n.closeFragCache()
	n.closeDrives()
	if n.meta != nil {
		warn("the metadata store", n.meta.Close())
	}
	if n.cache != nil {
		n.cache.Unref()
	}
}

// tuneRuntime gives the kernel all threads that may want to run: a loop that returns from the kernel must
// not queue for a P behind a coding worker (measured: 27k requests/s where 55k were possible). The heap
// may grow freely below its limit, since it is small beside the pools.
func (n *Node) tuneRuntime() {
	runtime.GOMAXPROCS(runtime.NumCPU() + n.cfg.Loops + coderWorkers())
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(256 << 20)
}

func coderWorkers() int { return runtime.NumCPU() }

func (n *Node) progress(format string, args ...any) {
	n.log.Info("creating: " + fmt.Sprintf(format, args...))
}
