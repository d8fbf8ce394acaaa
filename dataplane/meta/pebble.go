package meta

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/errs"
	"vstor/dataplane/lsm"
)

// PebbleOptions configures an embedded Store. The zero value but for Dir works.
type PebbleOptions struct {
	// Dir is the folder; it is made if absent.
	Dir string
	// FS replaces the operating system's files, for tests.
	FS vfs.FS
	// Cache is the process's shared block cache; the Store takes a reference. nil: 8 MiB of its own.
	Cache *pebble.Cache
	// MemTable is the size of one memtable in bytes, default 4 MiB; there are at most two.
	MemTable int
	// ReadOnly reads a Store that nobody writes.
	ReadOnly bool
	// MustExist refuses a folder without a Store instead of making one: then it was lost.
	MustExist bool
	// Log takes pebble's error lines; nil drops them.
	Log func(format string, args ...any)
	// Fatal is told of what the Store cannot survive, and must not return; nil panics.
	Fatal func(error)
	// Reserve is what the file system must have free, in bytes, for transactions that add something;
	// others pass. 0: 32 MiB.
	Reserve int64
	// Ballast is the size of a file that is given up when the file system is full, so that what has
	// been begun finds room. 0: 8 MiB; negative: none.
	Ballast int64
	// MarkAfter is how long after the last transaction the log gets a record that vouches for it;
	// default 1 s, negative: never.
	MarkAfter time.Duration
}

func (o *PebbleOptions) ensureDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.MemTable == 0 {
		o.MemTable = 4 << 20
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	if o.Reserve == 0 {
		o.Reserve = 32 << 20
	}
	if o.Ballast == 0 {
		o.Ballast = 8 << 20
	}
	if o.MarkAfter == 0 {
		o.MarkAfter = time.Second
	}
}

// Validate checks what was set. Errors: Invalid.
func (o *PebbleOptions) Validate() error {
	if o.Dir == "" {
		return errs.New(errs.Invalid, "meta: no folder given")
	}
	if o.MemTable < 256<<10 || o.MemTable > 1<<30 {
		return errs.New(errs.Invalid, "meta: memtable of %d bytes; give between 256 KiB and 1 GiB", o.MemTable)
	}
	return nil
}

const (
	pebbleCacheOwn     = 8 << 20
	pebbleMemTablesMax = 2
)

// Pebble is the embedded Store.
//
// Apply must look and change as one. The obvious way, a lock held over look, change and sync, makes
// every transaction wait for a sync of its own. Instead the lock ends when the change is in the
// memtable, in its place in the log; the waits for the sync overlap, and pebble syncs once for all
// that wait. What is in the memtable is seen before it is durable, so readers wait until what they
// saw is (see durable).
type Pebble struct {
	db    *pebble.DB
	lock  *pebble.Lock
	opts  PebbleOptions
	guard *lsm.Guard

	mu      sync.Mutex // serialises look and change
	rev     Version    // guarded by mu: the newest version given out
	fail    error      // guarded by mu: set once the log has failed, for good
	marked  lsm.Mark   // guarded by mu: how far the manifest was durable, as the newest batch says
	voucher voucher

	// durable tells which versions have been synced. Lock order: mu before durable.mu.
	durable struct {
		mu   sync.Mutex
		cond sync.Cond
		rev  Version // all up to here survive power loss
		next Version // newest in the memtable
		err  error
	}

	closing struct {
		mu     sync.RWMutex // held for reading by every call
		closed bool
	}
}

var _ Store = (*Pebble)(nil)

// OpenPebble opens or makes a Store. Errors: Version if Dir was written by a newer program, Busy if
// another process has it open, Invalid, Corrupt, IO.
func OpenPebble(opts PebbleOptions) (*Pebble, error) {
	opts.ensureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	lock, err := lockDir(&opts)
	if err != nil {
		return nil, err
	}
	p := &Pebble{lock: lock, opts: opts}
	p.durable.cond.L = &p.durable.mu
	p.guard = lsm.NewGuard(lsm.Options{FS: opts.FS, Dir: opts.Dir, Name: "the metadata store", Log: opts.Log,
		Fatal: opts.Fatal, Reserve: opts.Reserve, Ballast: opts.Ballast})
	if err := p.open(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return p, nil
}

// lockDir takes the folder's lock by itself, because from pebble.Open a held lock looks like any other
// error.
func lockDir(opts *PebbleOptions) (*pebble.Lock, error) {
	if !opts.ReadOnly {
		if err := opts.FS.MkdirAll(opts.Dir, 0o755); err != nil {
			return nil, errs.Wrap(errs.IO, err, "meta: cannot make folder %s", opts.Dir)
		}
	} else if _, err := opts.FS.Stat(opts.Dir); err != nil {
		return nil, errs.Wrap(errs.Absent, err, "meta: there is no store in %s", opts.Dir)
	}
	lock, err := pebble.LockDirectory(opts.Dir, opts.FS)
	if err == nil {
		return lock, nil
	}
	var no syscall.Errno
	if errors.As(err, &no) && no != syscall.EAGAIN && no != syscall.EACCES {
		return nil, errs.Wrap(errs.IO, err, "meta: cannot lock folder %s", opts.Dir)
	}
	return nil, errs.Wrap(errs.Busy, err, "meta: store in %s is open already", opts.Dir)
}

func (p *Pebble) pebble(readOnly bool) *pebble.Options {
	o := &p.opts
	po := &pebble.Options{
		Lock:                        p.lock,
		ReadOnly:                    readOnly,
		ErrorIfNotExists:            readOnly || o.MustExist,
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                uint64(o.MemTable),
		MemTableStopWritesThreshold: pebbleMemTablesMax,
		MaxOpenFiles:                64,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 1 },
	}
	p.guard.Attach(po)
	if o.Cache != nil {
		po.Cache = o.Cache
	} else {
		po.CacheSize = pebbleCacheOwn
	}
	po.EnsureDefaults()
	return po
}

// MemoryBytes is what the Store holds at most, without a shared cache.
func (p *Pebble) MemoryBytes() int64 {
	n := int64(p.opts.MemTable) * pebbleMemTablesMax
	if p.opts.Cache == nil {
		n += pebbleCacheOwn
	}
	return n
}

// The keys of a Pebble Store, and what they hold, little endian:
//
//	0x00 "format"   u32 magic "VMET", u32 version of this table
//	0x00 "version"  u64 newest version given out
//	0x00 "manifest" u64 number of pebble's manifest, u64 bytes of it that were durable: see check.go
//	0x01 key        u64 version, value
const (
	pebbleMagic  = 'V' | 'M'<<8 | 'E'<<16 | 'T'<<24
	pebbleFormat = 1
	userPrefix   = 0x01
)

var (
	keyFormat   = []byte("\x00format")
	keyVersion  = []byte("\x00version")
	keyManifest = []byte("\x00manifest")
)

func (p *Pebble) checkFormat() error {
	v, err := p.raw(keyFormat)
	if errs.Of(err) == errs.Absent {
		if p.opts.ReadOnly {
			return errs.New(errs.Corrupt, "meta: store in %s has no format record", p.opts.Dir)
		}
		return p.writeFormat()
	}
	if err != nil {
		return err
	}
	if len(v) != 8 || binary.LittleEndian.Uint32(v) != pebbleMagic {
		return errs.New(errs.Corrupt, "meta: store in %s has a format record that is none", p.opts.Dir)
	}
	if f := binary.LittleEndian.Uint32(v[4:]); f != pebbleFormat {
		return errs.New(errs.Version, "meta: store in %s has format %d; this program reads %d", p.opts.Dir, f, pebbleFormat)
	}
	v, err = p.raw(keyVersion)
	switch {
	case errs.Of(err) == errs.Absent:
		return nil
	case err != nil:
		return err
	case len(v) != 8:
		return errs.New(errs.Corrupt, "meta: store in %s has a version record of %d bytes", p.opts.Dir, len(v))
	}
	p.rev = Version(binary.LittleEndian.Uint64(v))
	p.durable.rev, p.durable.next = p.rev, p.rev
	return nil
}

// writeFormat marks a new Store. A store with keys but no mark is not ours.
func (p *Pebble) writeFormat() error {
	it, err := p.db.NewIter(nil)
	if err != nil {
		return errs.Wrap(errs.IO, err, "meta: iterate")
	}
	foreign := it.First()
	if err := it.Close(); err != nil {
		return errs.Wrap(errs.IO, err, "meta: iterate")
	}
	if foreign {
		return errs.New(errs.Corrupt, "meta: store in %s has keys and no format record", p.opts.Dir)
	}
	v := binary.LittleEndian.AppendUint32(nil, pebbleMagic)
	v = binary.LittleEndian.AppendUint32(v, pebbleFormat)
	if err := p.db.Set(keyFormat, v, pebble.Sync); err != nil {
		return errs.Wrap(errs.IO, err, "meta: write format record")
	}
	return nil
}

// raw reads a key as pebble has it. Errors: Absent, Corrupt, IO.
func (p *Pebble) raw(key []byte) ([]byte, error) {
	v, closer, err := p.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, errs.Absent
	}
	if err != nil {
		return nil, readError(err)
	}
	out := slices.Clone(v)
	return out, readError(closer.Close())
}

func readError(err error) error {
	if err == nil {
		return nil
	}
	return lsm.ReadError(err, "meta: read")
}

// enter starts a call; the returned function ends it.
func (p *Pebble) enter(ctx context.Context) (func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, errs.Wrap(errs.Canceled, err, "meta")
	}
	p.closing.mu.RLock()
	if p.closing.closed {
		p.closing.mu.RUnlock()
		return nil, errs.New(errs.Closed, "meta: store is closed")
	}
	return p.closing.mu.RUnlock, nil
}

// Close waits for the calls under way and closes the files.
func (p *Pebble) Close() error {
	p.closing.mu.Lock()
	defer p.closing.mu.Unlock()
	if p.closing.closed {
		return nil
	}
	p.closing.closed = true
	p.voucher.stop()
	flushed := false
	if !p.opts.ReadOnly && p.Problem() == nil && !p.guard.Low() {
		// A log that ends early looks like one that a crash cut off: a clean stop leaves nothing in it.
		err := p.db.Flush()
		if flushed = err == nil; !flushed {
			p.opts.Log("meta: flush on close: %v", err)
		}
	}
	err := p.db.Close()
	if flushed && err == nil && p.guard.LogErr() == nil {
		p.seal()
	}
	if err := errors.Join(err, p.lock.Close()); err != nil {
		return errs.Wrap(errs.IO, err, "meta: close")
	}
	return nil
}

// Problem is why transactions are refused, all of them or those that add something; nil if they are not.
func (p *Pebble) Problem() error {
	p.durable.mu.Lock()
	err := p.durable.err
	p.durable.mu.Unlock()
	if err == nil {
		err = repairable(p.guard.Damage())
	}
	if err == nil {
		err = p.guard.Room()
	}
	return err
}

// Corrupt is how often damage was met in the files.
func (p *Pebble) Corrupt() uint64 { return p.guard.Corrupt() }
