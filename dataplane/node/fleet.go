package node

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"vstor/dataplane/api"
	"vstor/dataplane/config"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/supervise"
)

// FleetOptions start a Fleet.
type FleetOptions struct {
	Config    config.Config  // complete and valid
	Fresh     bool           // make the deployment first
	Listeners []net.Listener // for NBD, opened by somebody else: the edge's from then on
	Log       *slog.Logger
}

// Fleet is a deployment whose parts are processes of their own: a daemon for each ASD, a router and an edge. This
// process starts them, starts again who dies, and tells what they tell; nothing of it is in anybody's path. Any
// goroutine.
type Fleet struct {
	o      FleetOptions
	n      *Node // what is made once, and the list of drives
	router role
	edge   role

	mu    sync.Mutex  // never held across IO
	known []api.VDisk // as the router told last
	asds  []api.ASD
}

// role is a child that has an API of its own.
type role struct {
	name  string
	child *supervise.Child
	api   *api.Client
}

// StartFleet brings a deployment up. NBD is served when it returns. After an error nothing runs.
func StartFleet(ctx context.Context, o FleetOptions) (*Fleet, error) {
	n := &Node{opts: Options{Fresh: o.Fresh, Parted: true}, cfg: o.Config, log: o.Log, host: RealHost{},
		started: time.Now()}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	f := &Fleet{o: o, n: n, router: role{name: "router-0"}, edge: role{name: "edge-0"}}
	if err := f.start(ctx); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (f *Fleet) start(ctx context.Context) (err error) {
	n := f.n
	if n.plan, err = planMemory(&n.cfg, n.coderBytes()); err != nil {
		return err
	}
	if _, err = planEdge(&n.cfg, n.cfg.ASDs); err != nil {
		return err
	}
	if f.o.Fresh {
		err = n.create()
	} else {
		n.ident, err = n.readIdent()
	}
	if err != nil {
		return err
	}
	run := filepath.Join(n.cfg.Dir, "run")
	if err := os.MkdirAll(run, 0o700); err != nil {
		return errs.Wrap(errs.IO, err, "cannot make the folder of pid files and sockets")
	}
	if _, err := haveSecret(filepath.Join(n.cfg.Dir, secretFile)); err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot find this program to start its parts with")
	}
	for i := range n.cfg.ASDs {
		d := &drive{id: ids.ASDID(i), node: ids.NodeID(i % n.cfg.Nodes), path: n.drivePath(i)}
		n.drives = append(n.drives, d)
		n.superviseASD(d, exe, run)
	}
	if err := f.startRouter(exe, run); err != nil {
		return err
	}
	if err := f.startEdge(exe, run); err != nil {
		return err
	}
	for _, r := range []*role{&f.router, &f.edge} {
		if err := r.await(ctx); err != nil {
			return err
		}
	}
	return nil
}

// startRole starts a child whose settings are in a file: there are many, and people may look.
func (f *Fleet) startRole(r *role, exe, run string, cfg config.Config, extra map[string][]string,
	files []*os.File, args ...string) error {
	path := filepath.Join(run, r.name+".toml")
	if err := writeRole(path, &cfg, extra); err != nil {
		return err
	}
	noun, _, _ := cutRole(r.name)
	r.child = supervise.Start(supervise.Options{Name: r.name, Path: exe,
		Args:    append([]string{noun, "run", "--config", path}, args...),
		PIDFile: filepath.Join(run, r.name+".pid"), Restart: !f.n.cfg.NoRestart, Output: os.Stderr, Log: f.n.log,
		Files: files})
	r.api = api.NewClient(filepath.Join(run, r.name))
	return nil
}

func (f *Fleet) startRouter(exe, run string) error {
	cfg := f.n.cfg
	cfg.NBDListen, cfg.APIListen, cfg.NBDTLS, cfg.NBDTLSVerify = "", "", config.TLSOff, false
	extra := map[string][]string{"dir": {cfg.Dir}, "secret": {filepath.Join(cfg.Dir, secretFile)},
		"listen": {"unix:" + filepath.Join(run, "router-0.sock")}, "api": {filepath.Join(run, "router-0")}}
	if f.o.Fresh {
		extra["fresh"] = []string{"true"}
	}
	return f.startRole(&f.router, exe, run, cfg, extra, nil)
}

func (f *Fleet) startEdge(exe, run string) error {
	cfg := f.n.cfg
	cfg.APIListen = ""
	// The opener is the same for all lives of this child: one has ended for sure before the next begins, so that the
	// next need not wait until the lease of the one before has run out. It is not in the file, which others may use.
	opener := sha256.Sum256(append([]byte("edge-0"), f.n.ident.UUID[:]...))
	extra := map[string][]string{"dir": {cfg.Dir}, "secret": {filepath.Join(cfg.Dir, secretFile)},
		"router": {"unix:" + filepath.Join(run, "router-0.sock")}, "router-api": {filepath.Join(run, "router-0")},
		"api": {filepath.Join(run, "edge-0")}, "deployment": {f.n.ident.UUID.String()}}
	for i := range f.n.drives {
		extra["asd"] = append(extra["asd"], uuid(f.n.ident.asdUUID(i)).String()+"@unix:"+
			filepath.Join(run, "asd-"+strconv.Itoa(i)+".sock"))
	}
	files, err := filesOf(f.o.Listeners)
	if err != nil {
		return err
	}
	if len(files) > 0 {
		extra["inherit"] = []string{strconv.Itoa(len(files))}
	}
	return f.startRole(&f.edge, exe, run, cfg, extra, files, "--opener", uuid(opener[:16]).String())
}

// filesOf are listeners as a child can have them.
func filesOf(list []net.Listener) (files []*os.File, err error) {
	for _, l := range list {
		x, ok := l.(interface{ File() (*os.File, error) })
		if !ok {
			return nil, errs.New(errs.Unsupported, "the socket %v cannot be handed to the edge's process", l.Addr())
		}
		file, err := x.File()
		if err != nil {
			return nil, errs.Wrap(errs.IO, err, "the socket %v cannot be handed to the edge's process", l.Addr())
		}
		files = append(files, file)
	}
	return files, nil
}

// roleRestarts is how often a child may die before a start is given up.
const roleRestarts = 2

// await waits until a child serves, however long that takes, or keeps dying.
func (r *role) await(ctx context.Context) error {
	for {
		err := r.ready(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return errs.Wrap(errs.Canceled, ctx.Err(), "stopped while starting")
		}
		if dead := r.child.Err(); dead != nil && (r.child.Restarts() >= roleRestarts || r.child.PID() == 0) {
			return errs.Wrap(errs.IO, dead, "%s does not start", r.name)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// askWait bounds how long a child may take to tell how it is: one that is stopped must hang nobody.
const askWait = 2 * time.Second

func (r *role) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	_, err := r.api.Status(ctx)
	return err
}

// How long children get to end by themselves: the edge its clients' last replies, the router its journal.
const (
	edgeStopWait   = 15 * time.Second
	routerStopWait = 60 * time.Second
)

// Close stops all, from the outside in; each makes durable what it was given.
func (f *Fleet) Close() error {
	if f.edge.child != nil {
		f.edge.child.Stop(edgeStopWait)
		f.edge.api.Close()
	}
	if f.router.child != nil {
		f.router.child.Stop(routerStopWait)
		f.router.api.Close()
	}
	for _, l := range f.o.Listeners {
		l.Close()
	}
	f.n.stopASDs()
	f.n.cancel()
	return nil
}
