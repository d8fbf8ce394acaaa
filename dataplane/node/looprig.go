package node

import (
	"fmt"
	"math"
	"path/filepath"

	"vstor/asd/client"
	"vstor/blockcache"
	"vstor/blockcache/ssd"
	"vstor/dataplane/api"
	"vstor/dataplane/buf"
	"vstor/dataplane/config"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/link"
	"vstor/dataplane/ring"
	"vstor/dataplane/volume"
	"vstor/dataplane/volume/journal"
	"vstor/pracc"
)

// loopRig is a loop with all that lives on it.
type loopRig struct {
	n      *Node
	id     int
	pool   *buf.Pool
	loop   *ring.Loop
	hub    *link.Hub
	file   dio.File
	jrn    *journal.Journal
	keeper *volume.Keeper
	client *pracc.Client
	fetch  *fetcher
	joiner *ring.Joiner

	cache    *blockcache.Cache // nil: none
	tier     *ssd.Tier         // of cache, nil: RAM only
	tierFile dio.File

	remote []*client.Reader // by ASD; nil where the drive is read here

	attached bool // the journal is the loop's
}

func (n *Node) journalPath(i int) string {
	return filepath.Join(n.cfg.Dir, "router", fmt.Sprintf("journal-%d", i))
}

// journalOptions: segments of 32 MiB, smaller ones where the journal is small, so that there are enough of
// them to recycle.
func (n *Node) journalOptions(path string) journal.Options {
	o := journal.Options{UUID: n.ident.Journal, BootID: n.host.BootID(), NoSyncNeeded: !n.host.SyncNeeded(path)}
	o.SegmentSize = 32 << 20
	for o.SegmentSize > journal.SegmentSizeMin && n.journalBytes()/o.SegmentSize < 16 {
		o.SegmentSize /= 2
	}
	return o
}

// journalBytes is the size of one loop's journal.
func (n *Node) journalBytes() int64 { return n.cfg.Journal / int64(n.cfg.Loops) }

// createJournals makes the journals of a new deployment, every block written once.
func (n *Node) createJournals() error {
	if err := n.host.FS().MkdirAll(filepath.Join(n.cfg.Dir, "router"), 0o700); err != nil {
		return errs.Wrap(errs.IO, err, "cannot make the router's folder")
	}
	for i := range n.cfg.Loops {
		n.progress("writing journal %d of %d through once", i+1, n.cfg.Loops)
		path := n.journalPath(i)
		opts := n.journalOptions(path)
		f, err := n.host.Create(path, journal.Capacity(n.journalBytes(), opts.SegmentSize), true)
		if err != nil {
			return err
		}
		err = journal.Create(f, opts)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// startLoop makes pool, loop and PRACC client number i.
func (n *Node) startLoop(i int) (*loopRig, error) {
	pool, err := buf.NewPool(n.plan.pages+n.plan.blocks, n.plan.reserve)
	if err != nil {
		return nil, err
	}
	opts := ringOptions(&n.cfg, pool)
	opts.Name, opts.IO = fmt.Sprintf("loop-%d", i), ringIO(n.cfg.PlainIO)
	if cpus := n.cfg.LoopCPUs; len(cpus) > 0 {
		i := i % len(cpus)
		opts.CPUs = cpus[i : i+1]
	}
	l, err := ring.New(opts)
	if err == nil {
		err = l.Start()
	}
	if err != nil {
		pool.Close()
		return nil, err
	}
	if _, why := l.Plain(); why != nil {
		n.log.Warn(noUring, "loop", opts.Name, "error", why)
	}
	r := &loopRig{n: n, id: i, pool: pool, loop: l, hub: link.NewHub(l, link.HubOptions{}),
		joiner: ring.Join(l)}
	l.Call(func() {
		if err = r.openReaders(); err != nil {
			return
		}
		r.client, err = pracc.New(l, r.praccOptions())
	})
	if err != nil {
		r.stop()
		return nil, err
	}
	r.fetch = &fetcher{client: r.client}
	if err := r.openCache(); err != nil {
		r.stop()
		return nil, err
	}
	return r, nil
}

// noUring is what the log says of a loop that must do without.
const noUring = "no io_uring: IO is plain, which is slower"

// ringIO is --plain-io as the ring has it.
func ringIO(plain bool) ring.IO {
	if plain {
		return ring.IOPlain
	}
	return ring.IOAuto
}

// statusIO says if the loops do without io_uring. All of them do if one does.
func (n *Node) statusIO(s *api.Status) {
	if len(n.rigs) == 0 {
		return
	}
	switch plain, why := n.rigs[0].loop.Plain(); {
	case why != nil:
		s.Warnings = append(s.Warnings, noUring+" ("+why.Error()+")")
	case plain:
		s.Warnings = append(s.Warnings, "IO is plain, which is slower, as --plain-io wants it")
	}
}

// praccOptions: drives are read here, or by way of their daemons, or both: what a daemon located once is read here.
func (r *loopRig) praccOptions() pracc.Options {
	o := pracc.Options{Manifests: r.n.source, CacheBytes: r.n.plan.manifest, OnRot: r.n.onRot}
	if r.n.cfg.Processes {
		o.Remotes, o.Drives = r.praccRemote, r.praccDirect
	} else {
		o.Drives = r.n.praccDrives()
	}
	if r.n.cfg.ReadPreference == config.ReadLocal {
		o.Prefer = pracc.PreferLocal
	}
	if near := r.n.cfg.Near(); len(near) > 0 {
		o.Prefer, o.Distance = pracc.PreferNear, func(id ids.ASDID) uint8 { return distance(near, id) }
	}
	if c := r.n.frag.cache; c != nil {
		o.Cache = c.NewReader()
	}
	return o
}

// distance is an ASD's place in a list; those that are not in it are as far as what stands behind the last.
func distance(near []int, id ids.ASDID) uint8 {
	for i, n := range near {
		if n == int(id) || i == math.MaxUint8 {
			return uint8(i)
		}
	}
	return uint8(min(len(near), math.MaxUint8))
}

// openReaders makes the loop's connections to the ASDs that are processes of their own.
func (r *loopRig) openReaders() error {
	if !r.n.cfg.Processes {
		return nil
	}
	for _, d := range r.n.drives {
		rd, err := d.remote.NewReader(r.loop, client.ReaderOptions{Hub: r.hub, ExtentBytes: r.n.plan.extents})
		if err != nil {
			return err
		}
		r.remote = append(r.remote, rd)
	}
	return nil
}

// praccRemote finds an ASD's connection, nil if there is no such ASD.
func (r *loopRig) praccRemote(id ids.ASDID) pracc.Remote {
	if int(id) >= len(r.remote) {
		return nil
	}
	return r.remote[id]
}

// praccDirect finds the drive of an ASD that this process may read itself.
func (r *loopRig) praccDirect(id ids.ASDID) pracc.Drive {
	if int(id) < len(r.remote) {
		if d := r.remote[id].Direct(); d != nil {
			return d
		}
	}
	return nil
}

// replay opens the journal and collects what it has of each vDisk.
func (r *loopRig) replay() (map[ids.VolumeID][]volume.LogEntry, error) {
	path := r.n.journalPath(r.id)
	f, err := r.n.host.Open(path)
	if err != nil {
		return nil, err
	}
	r.file = f
	if r.jrn, err = journal.Open(f, r.n.journalOptions(path)); err != nil {
		return nil, err
	}
	if u := r.jrn.Root().UUID; u != [16]byte(r.n.ident.Journal) {
		return nil, errs.New(errs.Refused, "%s is journal %x; this deployment's is %x: was it swapped or restored?",
			path, u, r.n.ident.Journal)
	}
	log := map[ids.VolumeID][]volume.LogEntry{}
	err = r.jrn.Replay(func(e journal.ReplayEntry) error {
		log[e.Vol] = append(log[e.Vol], volume.LogEntry{Seq: e.Seq, Kind: e.Kind, Addr: e.Addr, Blocks: e.Blocks,
			Pos: e.Pos, Sums: append([]uint32(nil), e.Sums...), Bad: e.Bad})
		return nil
	})
	if err != nil {
		return nil, err
	}
	r.loop.Call(func() { r.keeper = volume.NewKeeper(r.loop, r.jrn, r.n.cfg.StallTimeout) })
	return log, nil
}

// attach hands the journal to the loop.
func (r *loopRig) attach() error {
	var err error
	r.loop.Call(func() {
		if err = r.jrn.Attach(r.loop); err == nil {
			r.keeper.Start()
		}
	})
	r.attached = err == nil
	return err
}

// drain ends the writes that wait for journal space.
func (r *loopRig) drain() {
	if r.attached {
		r.loop.Call(r.keeper.Drain)
	}
}

// synced tells a channel of a Sync's end.
type synced chan errs.Kind

func (c synced) JournalSynced(s *journal.Sync) { c <- s.Err }

// stop closes the journal, PRACC and the loop, in that order: the journal's last root needs the loop.
func (r *loopRig) stop() error {
	var err error
	if r.attached {
		done := make(synced, 1)
		r.loop.Call(func() { r.jrn.Close(&journal.Sync{Done: done}) })
		if k := <-done; k != errs.OK {
			err = errs.New(k, "journal %d did not close cleanly; the next start replays it", r.id)
		}
	}
	cached := r.closeCache() // it waits for reads that are under way, which the next step ends
	if r.client != nil {
		done := make(chan struct{})
		r.loop.Call(func() { r.client.Close(func() { close(done) }) })
		<-done
	}
	<-cached
	if r.tierFile != nil {
		r.tierFile.Close()
	}
	for _, rd := range r.remote {
		done := make(chan struct{})
		if r.loop.Call(func() { rd.Close(func() { close(done) }) }) {
			<-done
		}
	}
	r.joiner.Stop()
	r.loop.Stop()
	if r.file != nil {
		r.file.Close()
	}
	r.pool.Close()
	return err
}
