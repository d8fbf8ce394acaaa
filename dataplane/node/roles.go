package node

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"vstor/dataplane/api"
	"vstor/dataplane/config"
	"vstor/dataplane/errs"
)

// RouterRole says what a router's process serves.
type RouterRole struct {
	Config     config.Config // of the deployment; NBD and the API's TCP socket are others'
	SecretFile string
	Listen     []string    // for edges: unix:PATH or HOST:PORT
	API        string      // folder where api.sock is made; empty: none
	TLS        *tls.Config // for edges over TCP; nil is none
	Fresh      bool        // the deployment was just made: it has no metadata yet
	Log        *slog.Logger
	Fatal      func(error)
}

// RunRouter serves the vDisks of a deployment to edges until ctx ends, then makes everything durable. Its ASDs are
// daemons that somebody else runs. ready is called once it listens. It blocks.
func RunRouter(ctx context.Context, o RouterRole, ready func()) error {
	secret, err := readSecret(o.SecretFile, secretIsCopy)
	if err != nil {
		return err
	}
	o.Config.Processes = true
	o.Config.LoopCPUs = routerCPUs(o.Config.LoopCPUs)
	o.Config.LoopSpin = config.Off                     // it writes, and reads for few
	o.Config.BlockCache, o.Config.BlockCacheSSD = 0, 0 // blocks are cached where clients read them
	n, err := startAfter(Options{Config: o.Config, Log: o.Log, Fresh: o.Fresh, Fatal: o.Fatal, NoNBD: true, Parted: true,
		Edges: &EdgeOptions{Secret: secret, TLS: o.TLS}})
	if err != nil {
		return err
	}
	for _, addr := range o.Listen {
		l, err := listenASD(addr)
		if err != nil {
			n.Close()
			return err
		}
		n.ServeEdges(l)
	}
	err = serveRole(ctx, n, o.API, o.Log, ready)
	if cerr := n.Close(); err == nil {
		err = cerr
	}
	return err
}

// routerCPUs are those of a router's loops, in turn: the deployment's, the last first. Edges on this machine begin with
// the first, and a write goes through a loop of each.
func routerCPUs(cpus []int) []int {
	out := slices.Clone(cpus)
	slices.Reverse(out)
	return out
}

// lastRouterWait is how long the router of a parent that was killed may take to end.
const lastRouterWait = 10 * time.Second

// startAfter is Start, which waits while another process has the databases: the parent sees to it that there is one
// router at a time, so it is the last one on its way out, a moment after its parent was killed.
func startAfter(o Options) (*Node, error) {
	for end := time.Now().Add(lastRouterWait); ; time.Sleep(20 * time.Millisecond) {
		n, err := Start(o)
		if errs.Of(err) != errs.Busy || time.Now().After(end) {
			return n, err
		}
	}
}

// RunEdge serves NBD until ctx ends. api is the folder where api.sock is made, empty for none. ready is called once it
// listens. It blocks.
func RunEdge(ctx context.Context, o EdgeRole, api string, ready func()) error {
	e, err := StartEdge(o)
	if err != nil {
		return err
	}
	err = serveRole(ctx, e, api, o.Log, ready)
	if cerr := e.Close(); err == nil {
		err = cerr
	}
	return err
}

// serveRole serves what a role tells of itself, on a socket of its own, until ctx ends.
func serveRole(ctx context.Context, sys api.System, dir string, log *slog.Logger, ready func()) error {
	failed := make(chan error, 1)
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return errs.Wrap(errs.IO, err, "cannot make the folder of the API's socket")
		}
		path := filepath.Join(dir, api.SocketName)
		var l net.Listener
		l, err := config.ListenUnix(path)
		if err != nil {
			return err
		}
		defer config.RemoveSocket(path)
		srv := api.NewServer(sys, log)
		go func() { failed <- srv.Serve(l) }()
		defer srv.Close()
	}
	ready()
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}
