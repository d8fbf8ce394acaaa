package pagemap

import (
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
	"vstor/dataplane/lsm"
)

// DBOptions of a DB.
type DBOptions struct {
	FS    vfs.FS        // default: the operating system's
	Cache *pebble.Cache // shared with the process's other databases; nil: one of 8 MiB
	// MemTable is the size of a memtable in bytes, of which there may be two at a time. Default 4 MiB.
	MemTable int
	// Flushers bounds the batches that are built at a time, over all maps. Default 4.
	Flushers int
	// Log takes error lines; nil drops them.
	Log func(format string, args ...any)
	// Fatal is told of what the database cannot survive, and must not return; nil panics.
	Fatal func(error)
	// Reserve is what the file system must have free, in bytes, for write back to go on by itself.
	// 0: 32 MiB.
	Reserve int64
	// Ballast is the size of a file that is given up when the file system is full, so that what has
	// been begun finds room. 0: 8 MiB.
	Ballast int64
	// ReadOnly opens a database that nobody uses and changes nothing, for Survey; there must be one.
	ReadOnly bool
}

// DB holds the maps of a router in one Pebble. Any goroutine may call it, no loop: it blocks.
//
// It runs without a WAL. What a crash loses is in the SCOs' indexes and is replayed from the
// checkpoint; all that is asked of the database is that a crash leaves a prefix of its batches, since
// a batch moves pages, counts and checkpoint together. Pebble gives that: a batch goes whole into one
// memtable (or, if huge, becomes a flushable of its own behind it), memtables are flushed oldest first,
// and a flush becomes visible by one edit of the manifest, made after its tables are synced. The tests
// crash it between batches and compare.
type DB struct {
	p       *pebble.DB
	guard   *lsm.Guard
	jobs    sync.Pool     // of *job
	closing chan struct{} // Close has begun
	rotten  atomic.Uint64 // records that failed their checksum or identity

	syncAsked atomic.Uint64
	sync      struct {
		mu   sync.Mutex
		done uint64 // the last of syncAsked that a finished flush covers
	}

	tickets struct {
		mu      sync.Mutex
		free    int
		waiting []func() // posts to a map's loop: a ticket is yours
	}
}

// OpenDB opens or creates the database in dir. Version and Corrupt are errors besides those of IO.
func OpenDB(dir string, o DBOptions) (*DB, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.MemTable == 0 {
		o.MemTable = 4 << 20
	}
	if o.Flushers == 0 {
		o.Flushers = 4
	}
	if o.Reserve == 0 {
		o.Reserve = 32 << 20
	}
	if o.Ballast == 0 {
		o.Ballast = 8 << 20
	}
	if o.MemTable < 1<<20 || o.Flushers < 1 {
		return nil, errs.New(errs.Invalid, "map database with a memtable of %d bytes and %d flushers: "+
			"at least 1 MiB and 1", o.MemTable, o.Flushers)
	}
	if o.ReadOnly {
		return openReadOnly(dir, o)
	}
	if err := o.FS.MkdirAll(dir, 0o755); err != nil {
		return nil, errs.Wrap(errs.IO, err, "map database in %s", dir)
	}
	d := &DB{closing: make(chan struct{})}
	d.tickets.free = o.Flushers
	d.guard = lsm.NewGuard(lsm.Options{FS: o.FS, Dir: dir, Name: "the map database", Log: o.Log, Fatal: o.Fatal,
		Reserve: o.Reserve, Ballast: o.Ballast})
	d.guard.DropOptions()
	// What the manifest lost at its end is what a crash could have cut off: the SCOs bring it back. What it lost in
	// the middle is not.
	if _, err := d.guard.Inspect(); err != nil {
		return nil, err
	}
	var err error
	if d.p, err = pebble.Open(dir, d.pebble(o)); err != nil {
		return nil, d.guard.OpenError(err)
	}
	if err := d.checkHeader(); err != nil {
		_ = d.p.Close() // the first error is the one to tell
		return nil, errs.Wrap(errs.Of(err), err, "map database in %s", filepath.Clean(dir))
	}
	d.guard.SetBallast()
	return d, nil
}

func (d *DB) pebble(o DBOptions) *pebble.Options {
	po := &pebble.Options{
		Cache:                       o.Cache,
		ReadOnly:                    o.ReadOnly,
		ErrorIfNotExists:            o.ReadOnly,
		DisableWAL:                  true,
		MemTableSize:                uint64(o.MemTable),
		MemTableStopWritesThreshold: 2,
		FormatMajorVersion:          pebble.FormatNewest,
		// Sweeps write in address order, so a memtable covers a narrow range of one map and meets few
		// tables below: compact from level 0 straight into the last one until that is 1 GiB (half a
		// terabyte of vDisks), instead of rewriting through levels in between.
		LBaseMaxBytes:         1 << 30,
		L0CompactionThreshold: 4,
		MaxOpenFiles:          256,
	}
	d.guard.Attach(po)
	for i := range po.Levels {
		// Packed locations do not compress.
		po.Levels[i].Compression = func() *block.CompressionProfile { return block.NoCompression }
	}
	return po
}

// checkHeader writes the header of a new database and checks that of an old one.
func (d *DB) checkHeader() error {
	k := key(0, tableDB, 0)
	v, c, err := d.p.Get(k)
	if err == nil {
		defer c.Close()
		_, err = openFrame(v, magicDB, 0, 0)
		return err
	}
	if err != pebble.ErrNotFound {
		return lsm.ReadError(err, "header")
	}
	if err := d.p.Set(k, seal(appendFrame(nil, magicDB, 0, 0, 0)), pebble.NoSync); err != nil {
		return errs.Wrap(errs.IO, err, "header")
	}
	return d.Sync()
}

// Sync makes all batches durable that were applied before the call. Calls that come while one runs
// share the next.
func (d *DB) Sync() error {
	mine := d.syncAsked.Add(1)
	d.sync.mu.Lock()
	defer d.sync.mu.Unlock()
	if d.sync.done >= mine {
		return nil
	}
	covers := d.syncAsked.Load()
	if err := d.flush(); err != nil {
		return err
	}
	d.sync.done = covers
	return nil
}

// flush waits for the tables, but not for a file system that is full.
func (d *DB) flush() error {
	if err := d.guard.LastRoom(); err != nil {
		return err
	}
	done, err := d.p.AsyncFlush()
	if err != nil {
		return errs.Wrap(errs.IO, err, "flush of the map database")
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return nil
		case <-d.closing:
			return errs.New(errs.Closed, "the map database is closed")
		case <-tick.C:
			if err := d.guard.LastRoom(); err != nil {
				return err
			}
		}
	}
}

// Problem is why nothing is written back, or nil.
func (d *DB) Problem() error {
	if err := d.guard.Damage(); err != nil {
		return err
	}
	return d.guard.Room()
}

// Corrupt is how often damage was met: tables of the database, and records in them.
func (d *DB) Corrupt() uint64 { return d.guard.Corrupt() + d.rotten.Load() }

// parsed counts a record that does not parse.
func (d *DB) parsed(err error) error {
	if errs.Of(err) == errs.Corrupt {
		d.rotten.Add(1)
	}
	return err
}

// DropMap deletes all of a map, durably. REQUIRES: no Map of it is open.
func (d *DB) DropMap(id MapID) error {
	invariants.Assert(id != 0, "DropMap of map 0, which holds the database's header")
	if err := d.p.DeleteRange(key(id, 0, 0), key(id, tableEnd, 0), pebble.NoSync); err != nil {
		return errs.Wrap(errs.IO, err, "dropping map %d", id)
	}
	return d.Sync()
}

// Close closes the database without making anything durable. REQUIRES: all its Maps are closed.
func (d *DB) Close() error {
	close(d.closing)
	if err := d.p.Close(); err != nil {
		return errs.Wrap(errs.IO, err, "closing the map database")
	}
	return nil
}

// Metrics are Pebble's own: what compaction adds to the map's traffic.
func (d *DB) Metrics() *pebble.Metrics { return d.p.Metrics() }

// ticket takes the right to build a batch; false: post runs once there is one, and it is the caller's.
// Without the bound, a thousand maps under one budget would copy their deltas out all at once.
func (d *DB) ticket(post func()) bool {
	t := &d.tickets
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.free > 0 {
		t.free--
		return true
	}
	t.waiting = append(t.waiting, post)
	return false
}

// giveBack returns a ticket, or hands it on. Never on a loop: the post may have to wait for room.
func (d *DB) giveBack() {
	t := &d.tickets
	t.mu.Lock()
	if len(t.waiting) == 0 {
		t.free++
		t.mu.Unlock()
		return
	}
	post := t.waiting[0]
	t.waiting = append(t.waiting[:0], t.waiting[1:]...)
	t.mu.Unlock()
	post()
}

func (d *DB) newJob() *job {
	j, ok := d.jobs.Get().(*job)
	if !ok {
		j = new(job)
	}
	j.reset()
	return j
}

func (d *DB) freeJob(j *job) { d.jobs.Put(j) }
