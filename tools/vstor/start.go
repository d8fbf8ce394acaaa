package main

import (
	"context"
	"log/slog"
	"net"

	"vstor/dataplane/api"
	"vstor/dataplane/config"
	"vstor/dataplane/errs"
	"vstor/dataplane/node"
)

// deployment is a running system: what the API asks, and how it ends.
type deployment interface {
	api.System
	// NBDURIs are where NBD is served.
	NBDURIs() []string
	// Close makes everything acknowledged durable and stops. It need not drain the journal.
	Close() error
}

// startup is what a deployment is started with.
type startup struct {
	cfg   config.Config // complete and valid, of a folder that this process holds
	fresh bool          // the deployment must be made first
	log   *slog.Logger

	listeners     []net.Listener // for NBD; the deployment's from then on
	onlyListeners bool           // no other socket is opened
	only          string         // the one vDisk that is served; empty: all
	create        int64          // make it first, of so many bytes
}

// starter builds a deployment. NBD is served when it returns. After an error nothing runs. When ctx ends a start
// under way may give up.
type starter func(ctx context.Context, s startup) (deployment, error)

// startAny runs everything in this process, or in processes of its own.
func startAny(ctx context.Context, s startup) (deployment, error) {
	if !s.cfg.Processes {
		return startEmbedded(ctx, s)
	}
	f, err := node.StartFleet(ctx, node.FleetOptions{Config: s.cfg, Fresh: s.fresh, Listeners: s.listeners, Log: s.log})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// startEmbedded runs everything in this process.
func startEmbedded(ctx context.Context, s startup) (deployment, error) {
	n, err := node.Start(node.Options{Config: s.cfg, Log: s.log, Fresh: s.fresh, Fatal: fatal, NoNBD: true,
		Listeners: s.listeners, OnlyListeners: s.onlyListeners, Only: s.only})
	if err != nil {
		return nil, err
	}
	if s.create > 0 {
		_, err = n.CreateVDisk(ctx, s.only, s.create)
	}
	if err == nil {
		err = n.ServeNBD()
	}
	if err != nil {
		// Not after Close: a client that has started us stops us when its socket closes, and was told nothing yet.
		if ctx.Err() != nil {
			err = errs.Wrap(errs.Canceled, err, "stopped while starting")
		}
		if cerr := n.Close(); cerr != nil {
			s.log.Warn("stopping", "error", cerr)
		}
		return nil, err
	}
	return n, nil
}
