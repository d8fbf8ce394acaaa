package lsm

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/errs"
)

// Options of a Guard.
type Options struct {
	FS   vfs.FS
	Dir  string // the database's folder
	Name string // what it is, for sentences: "the metadata store"
	// Log takes error lines; nil drops them.
	Log func(format string, args ...any)
	// Fatal is told of what the database cannot survive and must not return. nil panics.
	Fatal func(error)
	// Reserve is what the file system must have free, in bytes, for Room to be nil; 0: not watched.
	Reserve int64
	// Ballast is the size in bytes of a file that is given up when the file system is full; 0: none.
	Ballast int64
}

// Guard watches over one database. It is the vfs.FS to open it with. Safe for concurrent use.
type Guard struct {
	vfs.FS
	opts    Options
	corrupt atomic.Uint64
	logErr  atomic.Pointer[error]

	manifest struct {
		sync.Mutex
		now   Mark   // of the manifest that Pebble will find
		next  Mark   // of one that its marker does not name yet, or not durably
		moved uint64 // number of the manifest that the newest marker names
	}
	damage struct {
		sync.Mutex
		err  error
		file string
	}
	logs struct {
		sync.Mutex
		rotten map[string]int  // what Inspect found, and where
		read   map[string]bool // what Pebble has opened for reading since
	}
	ballast ballast
}

// NewGuard makes a Guard; its FS is not touched yet.
func NewGuard(o Options) *Guard {
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	g := &Guard{FS: o.FS, opts: o}
	g.ballast.path = o.FS.PathJoin(o.Dir, ballastName)
	return g
}

// Unwrap is the file system below.
func (g *Guard) Unwrap() vfs.FS { return g.FS }

// l0StopMax is how deep level 0 may get. Pebble's 12 would end all writing soon after a rotten table has
// ended compaction; what is written meanwhile is small.
const l0StopMax = 256

// Attach puts the Guard into the options of a database: file system, logger, listener and scheduler.
func (g *Guard) Attach(po *pebble.Options) {
	po.FS = g
	po.Logger = logger{g}
	po.L0StopWritesThreshold = l0StopMax
	l := pebble.EventListener{
		DataCorruption: func(i pebble.DataCorruptionInfo) { g.found(i.Path, i.Details) },
		BackgroundError: func(err error) {
			g.opts.Log("%s: %v", g.opts.Name, err)
			if pebble.IsCorruptionError(err) {
				g.noteDamage("", err)
			}
		},
	}
	po.EventListener = &l
	// Pebble's own scheduler looks ten times a second whether a compaction may run, in every database: with
	// eight of them an idle process would use 1 % of a core. This one grants when one ends.
	po.Experimental.CompactionScheduler = &scheduler{
		CompactionScheduler: pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest(), g: g}
}

// found counts a piece of damage. Pebble calls it for each read that meets it, so one rotten block counts
// as often as it is asked for.
func (g *Guard) found(file string, err error) {
	g.corrupt.Add(1)
	g.noteDamage(file, err)
}

func (g *Guard) noteDamage(file string, err error) {
	g.damage.Lock()
	defer g.damage.Unlock()
	if g.damage.err != nil && (g.damage.file != "" || file == "") {
		return
	}
	g.damage.err, g.damage.file = err, file
	g.opts.Log("%s is damaged (file %s): %v", g.opts.Name, file, err)
}

// Corrupt is how often damage was met.
func (g *Guard) Corrupt() uint64 { return g.corrupt.Load() }

// Damage is nil, or an error of kind Corrupt that names the first file found damaged.
func (g *Guard) Damage() error {
	g.damage.Lock()
	defer g.damage.Unlock()
	if g.damage.err == nil {
		return nil
	}
	return Damaged(g.opts.Name, g.opts.Dir, g.damage.file, g.damage.err)
}

// Damaged says of a database that it is damaged, in one line.
func Damaged(name, dir, file string, cause error) error {
	if file == "" {
		file = dir
	}
	return errs.New(errs.Corrupt, "%s is damaged (file %s: %s)", name, file, oneLine(cause))
}

// oneLine is an error without the hints, lists and stacks that some print on lines of their own.
func oneLine(err error) string {
	s, _, _ := strings.Cut(strings.TrimSpace(err.Error()), "\n")
	return s
}

// OpenError says why a database does not open, with the kind that callers act on.
func (g *Guard) OpenError(err error) error {
	switch {
	case err == nil:
		return nil
	case pebble.IsCorruptionError(err):
		file := ""
		if i := pebble.ExtractDataCorruptionInfo(err); i != nil {
			file = i.Path
		}
		g.corrupt.Add(1)
		return Damaged(g.opts.Name, g.opts.Dir, file, err)
	case errors.Is(err, pebble.ErrDBDoesNotExist):
		return errs.New(errs.Absent, "%s: there is none in %s", g.opts.Name, g.opts.Dir)
	case isFull(err):
		return errs.New(errs.Full, "%s in %s does not open, its file system is full: free some space",
			g.opts.Name, g.opts.Dir)
	case errors.Is(err, errFile):
		return errs.New(errs.IO, "%s in %s does not open: %s", g.opts.Name, g.opts.Dir, oneLine(err))
	}
	// What is left is what Pebble made of bytes that it could not understand: a manifest edit that names a
	// table twice, a table that has another length, or is not there.
	g.corrupt.Add(1)
	return Damaged(g.opts.Name, g.opts.Dir, "", err)
}

// ReadError gives the error of a read its kind: Corrupt or IO.
func ReadError(err error, format string, args ...any) error {
	kind := errs.IO
	if pebble.IsCorruptionError(err) {
		kind = errs.Corrupt
	}
	return errs.New(kind, "%s: %s", fmt.Sprintf(format, args...), oneLine(err))
}

// scheduler lets no compaction begin once damage is known: it would fail, and be tried again at once, for as
// long as the process lives.
type scheduler struct {
	pebble.CompactionScheduler
	g *Guard
}

func (s *scheduler) Register(n int, db pebble.DBForCompaction) {
	s.CompactionScheduler.Register(n, &compactor{db, s.g})
}

func (s *scheduler) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	if s.g.Damage() != nil {
		return false, nil
	}
	return s.CompactionScheduler.TrySchedule()
}

type compactor struct {
	pebble.DBForCompaction
	g *Guard
}

func (c *compactor) GetWaitingCompaction() (bool, pebble.WaitingCompaction) {
	if c.g.Damage() != nil {
		return false, pebble.WaitingCompaction{}
	}
	return c.DBForCompaction.GetWaitingCompaction()
}

// logger hands error lines on. Fatalf is Pebble's word for what it cannot go on after: memory and files
// are no longer the same. It holds locks when it says so, so nothing can be saved, and nothing needs to
// be: what was acknowledged is on the drive.
type logger struct{ g *Guard }

func (l logger) Infof(string, ...any)              {}
func (l logger) Errorf(format string, args ...any) { l.g.opts.Log(l.g.opts.Name+": "+format, args...) }
func (l logger) Fatalf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	err := errs.New(errs.IO, "%s in %s cannot go on: %s", l.g.opts.Name, l.g.opts.Dir, text)
	if l.g.opts.Fatal != nil {
		l.g.opts.Fatal(err)
	}
	panic(err)
}
