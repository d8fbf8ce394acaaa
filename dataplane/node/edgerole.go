package node

import (
	"context"
	"hash/fnv"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"vstor/dataplane/api"
	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/config"
	"vstor/dataplane/edge"
	"vstor/dataplane/edge/proto"
	"vstor/dataplane/edge/remote"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/nbd"
	"vstor/dataplane/ring"
	"vstor/dataplane/units"
)

// ASDAddr is where an ASD is to be had.
type ASDAddr struct {
	UUID [16]byte
	Addr string // unix:PATH or HOST:PORT
}

// EdgeRole says what an edge's process serves, and with whom.
type EdgeRole struct {
	Config     config.Config // NBD, loops and memory of it; its Dir is where nbd.sock is made
	Name       string        // for the router's log
	Opener     proto.Opener
	Deployment [16]byte
	SecretFile string
	Router     string    // unix:PATH or HOST:PORT
	RouterAPI  string    // folder of the socket where the router says which vDisks there are
	ASDs       []ASDAddr // by number
	Takeover   bool      // fence whoever has a vDisk when it is opened first
	Passive    bool      // open vDisks passive; the first change makes it exclusive
	Listeners  []net.Listener
	Log        *slog.Logger
}

// Edge is a running edge: NBD in front, the router and the ASDs behind. Any goroutine.
type Edge struct {
	n      *Node // NBD, loops and connections to ASDs
	o      EdgeRole
	secret []byte
	router *api.Client
	caches []*remote.Cache // by loop
	lock   *os.File        // of its folder

	mu      sync.Mutex // never held across IO
	vdisks  map[string]*edgeVDisk
	closing map[string]chan struct{} // vDisks on their way out; closed at the end
	known   []api.VDisk              // as the router told last
	listed  uint64                   // the question that this answered; 0: none
	asked   uint64                   // questions so far
	stopped bool
}

// edgeVDisk is a vDisk that some connection has open, or opens.
type edgeVDisk struct {
	name  string
	rig   *loopRig
	opens map[*edgeExport]struct{}
	ready chan struct{} // closed once it is open, or is not
	err   error
	r     *remote.Remote
	disk  *edge.Disk
	share *blockCache // of the loop's block cache; nil: there is none
	info  remote.Info
}

// StartEdge brings an edge up. NBD is served when it returns; a vDisk is opened when the first client wants it.
func StartEdge(o EdgeRole) (*Edge, error) {
	secret, err := readSecret(o.SecretFile, secretIsCopy)
	if err != nil {
		return nil, err
	}
	cfg := o.Config
	cfg.Processes = true
	lock, err := lockEdge(cfg.Dir)
	if err != nil {
		return nil, err
	}
	n := &Node{opts: Options{Listeners: o.Listeners, Parted: true}, cfg: cfg, log: o.Log, host: RealHost{},
		started: time.Now(), vdisks: map[string]*vdisk{}, failed: map[string]*failed{}, rots: make(chan rot, rotQueue),
		returned: make(chan ids.ASDID, returnQueue)}
	n.edge = true
	n.ctx, n.cancel = context.WithCancel(context.Background())
	e := &Edge{n: n, o: o, secret: secret, lock: lock, router: api.NewClient(o.RouterAPI), vdisks: map[string]*edgeVDisk{},
		closing: map[string]chan struct{}{}}
	n.source, n.shows = e, e
	if err := e.start(); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// lockEdge takes an edge's folder, where its sockets and caches are: another one would take their places.
func lockEdge(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, errs.Wrap(errs.IO, err, "cannot make the edge's folder")
	}
	return config.LockFile(filepath.Join(dir, "edge.lock"), "the edge of "+dir)
}

func (e *Edge) start() (err error) {
	n := e.n
	if n.plan, err = planEdge(&n.cfg, len(e.o.ASDs)); err != nil {
		return err
	}
	n.ident.UUID = e.o.Deployment
	n.tuneRuntime()
	if err := n.openTLS(); err != nil {
		return err
	}
	for i, a := range e.o.ASDs {
		d := &drive{id: ids.ASDID(i), path: a.Addr}
		n.drives = append(n.drives, d)
		if err := n.reachASDAt(d, a, e.secret, e.o.Name); err != nil {
			return err
		}
	}
	n.background(func(ctx context.Context) { // the ASDs have their time to start, then it is said who does not answer
		select {
		case <-time.After(asdStartWait):
			n.awaited.Store(true)
		case <-ctx.Done():
		}
	})
	if err := e.openFragments(); err != nil {
		return err
	}
	for i := range n.cfg.Loops {
		r, err := n.startLoop(i)
		if err != nil {
			return err
		}
		n.rigs = append(n.rigs, r)
		e.caches = append(e.caches, remote.NewCache(n.cfg.LocationCache/int64(n.cfg.Loops)))
	}
	if n.frag.cache != nil {
		n.background(n.fetchWanted)
	}
	n.background(e.reportRot)
	return n.ServeNBD()
}

// reportEvery is how long a report waits for a router that does not take it.
const reportEvery = 100 * time.Millisecond

// reportRot tells the router, one after the other, of fragments that reads here found damaged: it alone may repair
// them.
func (e *Edge) reportRot(ctx context.Context) {
	var x rot
	for {
		select {
		case <-ctx.Done():
			return
		case x = <-e.n.rots:
		}
		for r := e.remoteOf(x.key.Namespace); r != nil && r.Info().Fenced == nil; r = e.remoteOf(x.key.Namespace) {
			if r.ReportRot(proto.Rot{Key: x.key, ASD: x.asd, Kind: x.kind}) {
				break
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(reportEvery):
			}
		}
	}
}

// planEdge divides --edge-memory: what is left after the fixed terms are pages.
func planEdge(cfg *config.Config, asds int) (memoryPlan, error) {
	p := memoryPlan{loops: cfg.Loops, manifest: manifestMem, recv: ringOptions(cfg, nil).Memory(),
		conns: nbdLimits(cfg).Memory(cfg.Loops, cfg.TLSOn())}
	p.frag = fragCacheBytes(cfg)
	p.extents = extentsOf(cfg, cfg.EdgeMemory, asds)
	fixed := p.conns + p.frag + cfg.LocationCache + int64(cfg.Loops)*(p.recv+p.manifest+int64(asds)*p.extents)
	p.blocks = cacheBytes(cfg, cfg.EdgeMemory, fixed)
	p.cacheIdx = cacheIndex(cfg, p.blocks)
	fixed += int64(cfg.Loops) * p.blocks
	p.pages = (cfg.EdgeMemory - fixed) / int64(cfg.Loops) / buf.PageSize * buf.PageSize
	p.reserve = min(p.pages/4, 64<<20)
	if p.pages < pagesMin {
		least := (fixed + int64(cfg.Loops)*pagesMin + 1<<20 - 1) >> 20 << 20
		return p, errs.New(errs.Invalid, "edge-memory is %s; with %d loops, %d connections and a location cache of %s it "+
			"must be at least %s", units.FormatSize(cfg.EdgeMemory), cfg.Loops, cfg.MaxConnections,
			units.FormatSize(cfg.LocationCache), units.FormatSize(least))
	}
	return p, nil
}

// parts splits an address as net.Dial takes it.
func parts(addr string) (network, address string) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return "unix", path
	}
	return "tcp", addr
}

func (e *Edge) dial(ctx context.Context, addr string) (net.Conn, error) {
	if addr == "" {
		addr = e.o.Router
	}
	network, address := parts(addr)
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

func admitted(v *api.VDisk, who caller) bool {
	a, _, err := parseAccess(v.Allow)
	return err == nil && a.admits(who)
}

// List implements nbd.Exports.
func (e *Edge) List(p nbd.Peer) []nbd.ExportInfo {
	list, _ := e.list(e.n.ctx)
	var out []nbd.ExportInfo
	for i := range list {
		if admitted(&list[i], callerOf(p)) {
			out = append(out, exportInfoOf(&list[i]))
		}
	}
	return out
}

func exportInfoOf(v *api.VDisk) nbd.ExportInfo {
	return nbd.ExportInfo{Name: v.Name, Description: "vstor vDisk " + v.Name, Size: v.SizeBytes, ReadOnly: v.ReadOnly}
}

// Open implements nbd.Exports.
func (e *Edge) Open(name string, p nbd.Peer) (nbd.Export, error) {
	who := callerOf(p)
	list, err := e.list(e.n.ctx)
	if err != nil {
		return nil, err
	}
	mine := slices.DeleteFunc(slices.Clone(list), func(v api.VDisk) bool { return !admitted(&v, who) })
	if name == "" {
		if len(mine) != 1 {
			return nil, errs.New(errs.Absent, "name a vDisk: there are %d for you", len(mine))
		}
		name = mine[0].Name
	}
	named := func(v api.VDisk) bool { return v.Name == name }
	at := slices.IndexFunc(mine, named)
	switch {
	case !slices.ContainsFunc(list, named):
		return nil, noSuchVDisk(name)
	case at < 0:
		return nil, errs.New(errs.Refused, "this client may not open vDisk %s", name)
	}
	x := &edgeExport{e: e, who: who, info: exportInfoOf(&mine[at]), set: mine[at]}
	if x.d, err = e.hold(x, name); err != nil {
		return nil, err
	}
	return x, nil
}

// hold opens a vDisk for a connection, or joins those who have it open.
func (e *Edge) hold(x *edgeExport, name string) (*edgeVDisk, error) {
	e.mu.Lock()
	if e.stopped {
		e.mu.Unlock()
		return nil, errs.New(errs.Closed, "vstor is stopping")
	}
	for e.closing[name] != nil {
		gone := e.closing[name]
		e.mu.Unlock()
		<-gone
		e.mu.Lock()
	}
	d := e.vdisks[name]
	first := d == nil
	if first {
		h := fnv.New32a()
		h.Write([]byte(name))
		d = &edgeVDisk{name: name, rig: e.n.rigs[int(h.Sum32())%len(e.n.rigs)], ready: make(chan struct{}),
			opens: map[*edgeExport]struct{}{}}
		e.vdisks[name] = d
	}
	d.opens[x] = struct{}{}
	// Judged again: whoever changes an access list looks through opens, where x was not when it was judged first.
	v := e.setting(name)
	shut := v != nil && !admitted(v, x.who)
	e.mu.Unlock()
	if first {
		d.err = e.openVDisk(d, x.set)
		close(d.ready)
	}
	<-d.ready
	err := d.err
	if shut && err == nil {
		err = errs.New(errs.Refused, "this client may not open vDisk %s", name)
	}
	if i := d.fenced(); err == nil && i != nil {
		err = errs.New(errs.Busy, "vDisk %s is lost to this edge until all its clients here have disconnected: %v", name, i)
	}
	if err != nil {
		e.release(x, d)
		return nil, err
	}
	return d, nil
}

func (d *edgeVDisk) fenced() error {
	if d.r == nil {
		return nil
	}
	return d.r.Info().Fenced
}

// openWait bounds how long a client waits for a vDisk.
const openWait = 40 * time.Second

func (e *Edge) openVDisk(d *edgeVDisk, set api.VDisk) error {
	ctx, cancel := context.WithTimeout(e.n.ctx, openWait)
	defer cancel()
	mode := proto.Exclusive
	if e.o.Passive {
		mode = proto.Passive
	}
	r, err := remote.Open(ctx, remote.Options{VDisk: d.name, Edge: e.o.Name, Opener: e.o.Opener, Secret: e.secret,
		Deployment: e.o.Deployment, Dial: e.dial, Mode: mode, Takeover: e.o.Takeover, Loop: d.rig.loop, Hub: d.rig.hub,
		Cache: e.caches[d.rig.id], Objects: d.rig.client, StallTimeout: e.n.cfg.StallTimeout, Log: e.n.log})
	if err != nil {
		return err
	}
	info := r.Info()
	d.rig.loop.Call(func() {
		d.share = d.rig.openTenant(info.Volume, set.BlockCacheQuota, set.NoCache)
		d.disk = edge.NewDisk(d.rig.loop, r, d.rig.fetch, d.share.cache())
	})
	e.mu.Lock()
	d.info, d.r = info, r // last: who sees it uses the others
	if v := e.setting(d.name); v != nil {
		set = *v // it may have changed meanwhile, when there was nobody to be told
	}
	e.mu.Unlock()
	e.setCaches(d, &set)
	return nil
}

// close ends what was open of a vDisk that no connection has any more.
func (d *edgeVDisk) close() {
	d.r.Shut()
	if d.disk == nil {
		return
	}
	d.rig.loop.Call(func() {
		d.disk.Close(nil)
		if d.share != nil {
			d.share.t.Close()
		}
	})
}

// release gives a vDisk back; after its last connection it is closed, and others may have it.
func (e *Edge) release(x *edgeExport, d *edgeVDisk) {
	e.mu.Lock()
	delete(d.opens, x)
	last := len(d.opens) == 0
	last = last && e.vdisks[d.name] == d
	gone := make(chan struct{})
	if last {
		delete(e.vdisks, d.name)
		e.closing[d.name] = gone
	}
	e.mu.Unlock()
	if !last {
		return
	}
	if d.r != nil {
		d.close()
	}
	e.mu.Lock()
	delete(e.closing, d.name)
	e.mu.Unlock()
	close(gone)
}

// Manifest implements pracc.Manifests: the session of the vDisk whose namespace it is knows the way.
func (e *Edge) Manifest(ctx context.Context, ns ids.NamespaceID, n ids.SCONum) (*layout.Manifest, error) {
	r := e.remoteOf(ns)
	if r == nil {
		return nil, errs.New(errs.Unreachable, "vDisk %d is not open here", ns)
	}
	return r.Manifest(ctx, ns, n)
}

// remoteOf is the session of the vDisk whose namespace it is; nil: it is not open here.
func (e *Edge) remoteOf(ns ids.NamespaceID) *remote.Remote {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, d := range e.vdisks {
		if d.r != nil && d.info.Volume == ns {
			return d.r
		}
	}
	return nil
}

// edgeExport is a vDisk held by one connection.
type edgeExport struct {
	e    *Edge
	d    *edgeVDisk
	who  caller
	info nbd.ExportInfo
	set  api.VDisk // as the router showed it
}

func (x *edgeExport) Info() nbd.ExportInfo { return x.info }
func (x *edgeExport) Loop() *ring.Loop     { return x.d.rig.loop }
func (x *edgeExport) Device() block.Device { return x.d.disk }
func (x *edgeExport) Close()               { x.e.release(x, x.d) }

// NBDURIs are where NBD is served.
func (e *Edge) NBDURIs() []string { return e.n.NBDURIs() }

// Close lets clients take their last replies, closes the vDisks and stops.
func (e *Edge) Close() error {
	e.mu.Lock()
	e.stopped = true
	e.mu.Unlock()
	if e.n.nbd != nil {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		if err := e.n.nbd.Shutdown(ctx); err != nil {
			e.n.log.Warn("some clients did not take their last replies", "error", err)
		}
		cancel()
	}
	e.mu.Lock()
	left := e.vdisks // of clients that did not take their last replies
	e.vdisks = map[string]*edgeVDisk{}
	e.mu.Unlock()
	for _, d := range left {
		if d.r != nil {
			d.close()
		}
	}
	e.router.Close()
	defer e.lock.Close()
	return e.n.Close()
}
