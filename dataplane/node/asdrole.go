package node

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"vstor/asd/faults"
	"vstor/asd/server"
	"vstor/asd/store"
	"vstor/dataplane/api"
	"vstor/dataplane/buf"
	"vstor/dataplane/config"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
	"vstor/dataplane/units"
)

// ASDOptions say what one ASD daemon serves and where.
type ASDOptions struct {
	ID         ids.ASDID
	UUID       [16]byte
	Deployment [16]byte
	Data       string // data file or block device
	Index      string // folder of the index
	SecretFile string
	Listen     []string // unix:PATH or HOST:PORT
	Control    string   // the same, for peers that set faults: links there are never broken; empty is none
	Debug      string   // path of a socket with profiles and the process' metrics; empty: none
	Memory     int64    // feeds all pools, in bytes
	Fragment   int64    // the longest that it takes, in bytes
	MaxConns   int
	TLS        *tls.Config // for TCP; nil is none
	Faults     bool        // may be set through the protocol
	Private    bool        // peers on this host do not get the drive to read it themselves
	PlainIO    bool        // no io_uring
	Log        *slog.Logger
}

// Terms of a daemon's memory besides the server's.
const (
	asdCache  = 4 << 20
	asdTables = 2 << 20 // two memtables
)

// asdRest is how long deleted space of a daemon rests: a lease of those who read the drive themselves, and a little.
// It is the same where nobody may: those who could before a restart still may have a lease.
const asdRest = server.DefaultLease + 5*time.Second

// RunASD serves one drive until ctx ends, then makes durable what it was given. ready is called once it
// listens. It blocks.
func RunASD(ctx context.Context, o ASDOptions, ready func()) error {
	secret, err := readSecret(o.SecretFile, secretIsCopy)
	if err != nil {
		return err
	}
	tuneASD()
	disk, err := dio.Open(o.Data, dio.Options{})
	if err != nil {
		return err
	}
	defer disk.Close()
	file, drive := dio.File(disk), (*dio.Faulty)(nil)
	if o.Faults {
		drive = dio.NewFaulty(disk, uint64(o.ID))
		file = drive
	}
	cache := pebble.NewCache(asdCache)
	defer cache.Unref()
	st, err := store.Open(store.Options{Data: file, Dir: o.Index, Cache: cache, ID: o.ID, UUID: o.UUID,
		Deployment: o.Deployment, Quarantine: asdRest, BootID: RealHost{}.BootID(), BootNow: ring.BootTime})
	if err != nil {
		return err
	}
	so, err := o.server()
	if err == nil {
		so.Store, so.Secret, so.Log, so.TLS = st, secret, o.Log, o.TLS
		if !o.Private && !o.Faults { // what is broken on purpose must be read through here to be seen
			so.Share = disk.Share
		}
		err = o.serve(ctx, so, drive, ready)
	}
	if cerr := st.Close(); err == nil {
		err = cerr
	}
	return err
}

// asdPutBuffers is how many of the longest fragments a daemon takes in at a time.
const asdPutBuffers = 4

// tuneASD gives a daemon few threads: several share a machine, and one loop does most of the work. Those that write
// are counted: a worker keeps its turn in the Go scheduler while it waits for the drive, until the runtime's monitor
// looks, and with too few turns the syncer of the store, whose drive is idle, waits for one.
func tuneASD() {
	runtime.GOMAXPROCS(runtime.NumCPU() + 1 + asdPutBuffers)
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(96 << 20)
}

func (o *ASDOptions) serve(ctx context.Context, so server.Options, drive *dio.Faulty, ready func()) error {
	links := faults.NewLinks(uint64(o.ID))
	if o.Faults {
		so.SetFaults = func(text string) error { return setFaults(text, drive, links) }
	}
	srv, err := server.New(so)
	if err != nil {
		return err
	}
	defer o.debug()()
	failed := make(chan error, len(o.Listen)+1)
	for i, addr := range append([]string{o.Control}, o.Listen...) {
		if addr == "" {
			continue
		}
		l, err := listenASD(addr)
		if err != nil {
			stopServer(srv, o.Log)
			return err
		}
		if o.Faults && i > 0 {
			l = links.Listen(l)
		}
		go func() { failed <- srv.Serve(l) }()
	}
	ready()
	select {
	case <-ctx.Done():
		err = nil
	case err = <-failed:
	case err = <-watchStore(ctx, so.Store):
	}
	if drive != nil { // what hangs on purpose must not keep it from ending
		links.Set()
		drive.Set()
		drive.Release()
	}
	stopServer(srv, o.Log)
	return err
}

// reopenAfter is how long a store that failed goes on serving reads before its daemon ends, to be started again:
// opening it anew is what finds out what the drive holds.
const reopenAfter = 3 * time.Second

// watchStore gives an error once the store takes no changes any more.
func watchStore(ctx context.Context, st *store.Store) <-chan error {
	out := make(chan error, 1)
	go func() {
		for tick := time.NewTicker(reopenAfter); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
			if why := st.Stat().Failed; why != "" {
				tick.Stop()
				out <- errs.New(errs.IO, "the drive is opened anew: %s", why)
				return
			}
		}
	}()
	return out
}

// asdPages are the least that a daemon keeps for reads, in bytes.
const asdPages = 8 << 20

// server is what the daemon's server is made of; what is fixed leaves the rest of the memory to reads.
func (o *ASDOptions) server() (server.Options, error) {
	so := server.Options{Name: "asd-" + strconv.Itoa(int(o.ID)), MaxFragment: int(o.Fragment), PutBuffers: asdPutBuffers,
		MaxConnections: o.MaxConns, AllowFaults: o.Faults, IO: ringIO(o.PlainIO),
		// Less than readers wait before they give up: peers that take nothing must lose their pages first.
		StallTimeout: time.Second}
	so.PoolBytes = asdPages
	so.EnsureDefaults()
	least := so.Memory() + asdCache + asdTables + storeScratch
	if o.Memory < least {
		return so, errs.New(errs.Invalid, "an ASD's memory is %s; with fragments of %s it must be at least %s",
			units.FormatSize(o.Memory), units.FormatSize(o.Fragment), units.FormatSize((least+1<<20-1)>>20<<20))
	}
	so.PoolBytes += (o.Memory - least) / buf.PageSize * buf.PageSize * 15 / 16 // each page costs some bookkeeping
	so.MaxBytes = so.PoolBytes / 2
	return so, nil
}

// checkDaemons refuses an asd-memory that the daemons could not work with, before any is started.
func checkDaemons(cfg *config.Config) error {
	if !cfg.Processes {
		return nil
	}
	o := ASDOptions{Memory: cfg.ASDMemory, Fragment: cfg.FragmentSize, MaxConns: daemonConns}
	_, err := o.server()
	return err
}

// setFaults puts what a text says in place of the faults there are.
func setFaults(text string, drive *dio.Faulty, links *faults.Links) error {
	p, err := faults.Parse(text)
	if err != nil {
		return err
	}
	drive.Set(p.Drive...)
	drive.Release()
	if links != nil {
		links.Set(p.Link...)
		return nil
	}
	if len(p.Link) > 0 {
		return errs.New(errs.Invalid, "this ASD is in the same process and has no link to break; start with --processes")
	}
	return nil
}

// Faults breaks an ASD on purpose, as package faults explains.
func (n *Node) Faults(ctx context.Context, id uint32, text string) error {
	switch {
	case int(id) >= len(n.drives):
		return errs.New(errs.Absent, "there is no ASD %d; they are numbered 0 to %d", id, len(n.drives)-1)
	case !n.cfg.AllowFaults:
		return errs.New(errs.Refused, "this deployment does not allow faults: start it with --allow-faults")
	}
	d := n.drives[id]
	switch {
	case d.control != nil:
		return d.control.SetFaults(ctx, text)
	case d.faults != nil:
		return setFaults(text, d.faults, nil)
	}
	return d.err
}

func stopServer(srv *server.Server, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		log.Warn("some peers did not take their last answers", "error", err)
	}
}

// listenASD opens unix:PATH or HOST:PORT.
// debug serves what the process tells of itself, until end is called. The drive does not depend on it: what goes wrong
// here is logged.
func (o *ASDOptions) debug() (end func()) {
	if o.Debug == "" {
		return func() {}
	}
	l, err := listenASD("unix:" + o.Debug)
	if err != nil {
		o.Log.Warn("there are no profiles of this process", "error", err)
		return func() {}
	}
	srv := api.NewServer(nil, o.Log)
	go func() {
		if err := srv.Serve(l); err != nil {
			o.Log.Warn("there are no profiles of this process any more", "error", err)
		}
	}()
	return func() {
		srv.Close()
		config.RemoveSocket(o.Debug)
	}
}

func listenASD(addr string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, errs.Wrap(errs.IO, err, "cannot make the folder of the socket %s", path)
		}
		l, err := config.ListenUnix(path)
		if err != nil {
			return nil, err // not a nil *UnixListener, which is a Listener
		}
		return l, nil
	}
	lc := net.ListenConfig{Control: ring.Unpaced}
	l, err := lc.Listen(context.Background(), "tcp", strings.TrimPrefix(addr, "tcp:"))
	if err != nil {
		return nil, errs.Wrap(errs.IO, err, "cannot listen on %s", addr)
	}
	return l, nil
}

// FormatASD makes an empty store of size bytes; size 0 takes a block device, or a file that exists, as it
// is. force overwrites a drive that holds a store already.
func FormatASD(o ASDOptions, size int64, force bool) error {
	var disk *dio.Disk
	var err error
	if size > 0 {
		disk, err = dio.Create(o.Data, size, dio.Options{})
	} else {
		disk, err = dio.Open(o.Data, dio.Options{})
	}
	if err != nil {
		return err
	}
	defer disk.Close()
	err = store.Format(store.Options{Data: disk, Dir: o.Index, ID: o.ID, UUID: o.UUID, Deployment: o.Deployment,
		Force: force})
	if err != nil && size > 0 {
		os.Remove(o.Data) // Create made it
	}
	return err
}
