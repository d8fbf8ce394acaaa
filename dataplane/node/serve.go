package node

import (
	"net"
	"path/filepath"
	"slices"

	"vstor/dataplane/api"
	"vstor/dataplane/config"
	"vstor/dataplane/errs"
	"vstor/dataplane/nbd"
)

// ServeNBD opens the NBD sockets: those that the process was given, DIR/nbd.sock unless it is one of them, and
// --nbd-listen. Start calls it, but for Options.NoNBD. Call it once.
func (n *Node) ServeNBD() error {
	if only := n.opts.Only; only != "" {
		if err := n.have(only); err != nil {
			return err
		}
	}
	opts := nbdLimits(&n.cfg)
	opts.Exports, opts.Log = n.shows, n.log
	opts.TLS, opts.TLSRequired = n.tls, n.cfg.NBDTLS == config.TLSRequired
	srv, err := nbd.New(opts)
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.nbd = srv
	n.mu.Unlock()
	for _, l := range n.opts.Listeners {
		n.listen(l, api.ListenerURI(l.Addr(), n.tls != nil))
	}
	n.opts.Listeners = nil // the server's now
	if !n.opts.OnlyListeners {
		return n.listenToo()
	}
	return nil
}

// have says why a vDisk cannot be served.
func (n *Node) have(name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch d, f := n.vdisks[name], n.failed[name]; {
	case f != nil:
		return f.refusal()
	case d == nil:
		return errs.New(errs.Absent, "there is no vDisk named %s in %s", name, n.cfg.Dir)
	}
	return nil
}

func (n *Node) listenToo() error {
	given := slices.Clone(n.listeners)
	path := filepath.Join(n.cfg.Dir, "nbd.sock")
	if !config.Listens(given, path) {
		unix, err := config.ListenUnix(path)
		if err != nil {
			return err
		}
		n.ownSocket = path
		n.listen(unix, api.NBDURI(n.cfg.Dir, "")) // its own address is the one that it had before it was renamed
	}
	if n.cfg.NBDListen == "" {
		return nil
	}
	for _, l := range given {
		if l.Addr().String() == n.cfg.NBDListen {
			return nil // a socket unit listens there
		}
	}
	tcp, err := net.Listen("tcp", n.cfg.NBDListen)
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot serve NBD on %s", n.cfg.NBDListen)
	}
	n.listen(tcp, api.ListenerURI(tcp.Addr(), n.tls != nil))
	return nil
}

func (n *Node) listen(l net.Listener, uri string) {
	n.mu.Lock()
	n.listeners, n.uris = append(n.listeners, l), append(n.uris, uri)
	n.mu.Unlock()
	n.work.Add(1)
	go func() {
		defer n.work.Done()
		if err := n.nbd.Serve(l); err != nil {
			n.log.Error("NBD is not served any more", "address", l.Addr(), "error", err)
		}
	}()
}

// NBDURIs are where NBD is served, the deployment's own socket first.
func (n *Node) NBDURIs() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := slices.Clone(n.uris)
	if i := slices.Index(out, api.NBDURI(n.cfg.Dir, "")); i > 0 {
		out[0], out[i] = out[i], out[0]
	}
	return out
}
