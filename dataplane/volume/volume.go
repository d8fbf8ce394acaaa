package volume

import (
	"context"
	"log/slog"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/ring"
	"vstor/dataplane/stat"
	"vstor/dataplane/volume/journal"
	"vstor/dataplane/volume/overlay"
	"vstor/dataplane/volume/pagemap"
	"vstor/dataplane/volume/sco"
)

// Objects is the backend as a Volume needs it. Blocking; called from goroutines only.
type Objects interface {
	// ReserveSCOs gives n SCO numbers that were never used, consecutive from first.
	ReserveSCOs(ctx context.Context, ns ids.NamespaceID, epoch ids.Epoch, n int) (first ids.SCONum, err error)
	// Put stores an object so that it survives power loss. It is not part of the vDisk until Commit.
	Put(ctx context.Context, spec PutSpec) (Stored, error)
	// Commit makes the object part of the namespace, asserting the epoch. After errs.Refused a higher
	// epoch owns it.
	Commit(ctx context.Context, s Stored, commit ids.CommitNum) error
	// Committed lists the manifests with commit numbers above after, in commit order, at most limit.
	Committed(ctx context.Context, ns ids.NamespaceID, after ids.CommitNum, limit int) ([]*layout.Manifest, error)
	// Get reads a committed object's bytes, verified and rebuilt where need be.
	Get(ctx context.Context, m *layout.Manifest, off int64, dst []byte) error
	// Rebuild gives bytes that lie in one fragment without it, from others; another try takes another choice of them.
	// For when what Get gave fails a checksum that the caller knows.
	Rebuild(ctx context.Context, m *layout.Manifest, off int64, dst []byte, try int) error
	// Manifest finds a committed object.
	Manifest(ctx context.Context, ns ids.NamespaceID, n ids.SCONum) (*layout.Manifest, error)
	// Delete removes a committed object for good.
	Delete(ctx context.Context, ns ids.NamespaceID, epoch ids.Epoch, n ids.SCONum) error
	// SetFloor notes that the map holds all commits up to c durably, before objects of those are deleted;
	// Floor is the highest c noted, 0 if none. A map below it cannot be brought up from the objects any more.
	SetFloor(ctx context.Context, ns ids.NamespaceID, c ids.CommitNum) error
	Floor(ctx context.Context, ns ids.NamespaceID) (ids.CommitNum, error)
}

// PutSpec is an object to store.
type PutSpec struct {
	Namespace    ids.NamespaceID
	SCO          ids.SCONum
	Epoch        ids.Epoch
	Kind         layout.ObjectKind
	Class        layout.Class
	SeqLo, SeqHi ids.Seq
	Content      Content
}

// Content is the bytes of an object to be stored.
type Content interface {
	Size() int64
	// Fill copies the object's bytes from off into dst and verifies every block on the way.
	Fill(dst []byte, off int64) error
	// Coded tells, between calls of Fill, that what lies before end was copied, and is wanted again only if
	// the put is tried again.
	Coded(end int64)
}

// Stored is an object that was put.
type Stored interface {
	Manifest() *layout.Manifest
	// Complete is closed once all k+m fragments are written, or those that lack are known to be lost.
	Complete() <-chan struct{}
	// Abandon gives it up before Commit: what was written is deleted.
	Abandon()
}

// Reader is PRACC's cache of manifests, on the loop.
type Reader interface {
	Install(*layout.Manifest)
	Forget(ids.NamespaceID, ids.SCONum)
}

// Options make a Volume.
type Options struct {
	ID      ids.VolumeID
	Name    string // for messages
	Size    int64  // bytes, a multiple of 4096
	Epoch   ids.Epoch
	SCOSize int64 // bytes with index, default 64 MiB

	Loop    *ring.Loop
	Journal *journal.Journal
	Map     *pagemap.Map
	Objects Objects
	Reader  Reader
	Sealer  *Sealer
	Log     *slog.Logger
	Hook    func(step string) // fault points of tests; nil otherwise
	// Settle returns once nobody outside this process uses locations in an object that the map names nowhere any more:
	// then it may be deleted. nil: nobody does. Blocking; called from goroutines only.
	Settle func(ctx context.Context, ns ids.NamespaceID, n ids.SCONum) error

	SealAge time.Duration // a batch older than this is sealed though it is small; default 60 s
}

// holesMax bounds the holes of a batch; one more closes it.
const holesMax = 4096

// holesSlack: one hole may cut others, and what one sequence holds is not split.
const holesSlack = 64

// Volume is one vDisk. On its loop only, except where said.
type Volume struct {
	opts Options
	loop *ring.Loop
	pool *buf.Pool
	jrn  *journal.Journal
	ov   *overlay.Overlay
	m    *pagemap.Map

	seq      ids.Seq // last one given out
	entered  ids.Seq // last one that ended in the journal
	closes   uint64  // batches closed so far
	batchMax int     // data blocks of a SCO
	partMax  int     // blocks of one journal entry

	free     *part
	inFlight int // parts in the journal

	chain      chain      // order of commits
	scos       scoNumbers // given out to goroutines
	applyQ     []*applied // SCOs committed and not yet in the map, in commit order
	applying   bool
	appliedSeq ids.Seq    // highest sequence in the map
	waiting    []*applied // in the map, their journal space not given back
	committed  ids.Seq    // every sequence up to here is in a committed SCO
	jobs       int        // batches on their way
	toSeal     []*sealJob // those that are not begun yet, in the order of their commits
	begun      int        // those that are, and not committed or given up yet
	trimsDue   bool       // the open batch is to be sealed once no other waits, if it has trims

	ageTimer  ring.Timer
	ageArmed  bool
	keeper    *Keeper
	copying   *copyForward
	unread    int // copies in a row that found a block of the journal that cannot be read
	freeReads *logRead
	scan      scan
	warmer    warmer

	kick  chan struct{} // wakes the cleaner
	again []ids.SCONum  // the cleaner's own: SCOs whose deletion failed
	// moved is the cleaner's own: SCOs it has emptied since the map was last written back.
	moved     map[ids.SCONum]bool
	putOff    map[ids.SCONum]time.Time // the cleaner's own: SCOs that could not be emptied, and until when to let them be
	floor     ids.CommitNum            // the cleaner's own: what SetFloor was told
	cleanedTo ids.CommitNum            // the cleaner's own: commits up to here were written back for it
	fenced    errs.Kind                // why no mutation is taken any more; OK while healthy
	parked    bool                     // it only holds what the journal has of it: see park.go
	closed    bool
	ctx       context.Context // of the goroutines that work for it; ends with Close, or when it is fenced
	cancel    context.CancelFunc
	working   int      // goroutines at work, which Close waits for
	idle      []func() // run once nothing is in the journal's queue

	Stats Stats
}

// Stats counts what a Volume did. The loop writes (of Cleaned and CleanedBlocks the cleaner), anyone reads.
type Stats struct {
	Blocks         stat.Counter // data blocks that entered the overlay
	Sealed         stat.Counter // SCOs committed
	SealedBlocks   stat.Counter
	Cleaned        stat.Counter // cleaning SCOs committed
	CleanedBlocks  stat.Counter
	Deleted        stat.Counter // SCOs deleted
	Copied         stat.Counter // blocks copied forward in the journal
	Evicted        stat.Counter // overlay pages dropped from RAM
	SealRetries    stat.Shared
	Rotten         stat.Shared  // blocks of the journal found rotten when it was replayed or they were sealed
	LoggedRot      stat.Counter // reads of the journal that failed a checksum; a few are reads of reused space
	TrimIncomplete stat.Counter // journal space freed before all fragments were written
	Queue          stat.Gauge   // batches closed and not yet in the map
}

func (o *Options) ensureDefaults() {
	if o.SCOSize == 0 {
		o.SCOSize = 64 << 20
	}
	if o.SealAge == 0 {
		o.SealAge = 60 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
}

// New makes a Volume that has nothing yet; Recover fills it. Call it on the loop.
func New(opts Options) *Volume {
	opts.ensureDefaults()
	v := &Volume{
		opts: opts, loop: opts.Loop, pool: opts.Loop.Pool(), jrn: opts.Journal, m: opts.Map,
		ov: overlay.New(opts.Loop.Pool()), kick: make(chan struct{}, 1), moved: map[ids.SCONum]bool{},
		putOff: map[ids.SCONum]time.Time{},
	}
	v.ctx, v.cancel = context.WithCancel(opts.Sealer.ctx)
	v.batchMax = sco.Capacity(sco.Write, opts.SCOSize, holesMax+holesSlack)
	v.partMax = max(1, min(journal.MaxEntryBlocks, v.batchMax/4))
	v.scos.init(opts.Objects, opts.ID, opts.Epoch)
	v.ageTimer.Fire = v.age
	v.warmer.init(v)
	return v
}

// ID is the vDisk's number; Size its size in bytes.
func (v *Volume) ID() ids.VolumeID { return v.opts.ID }
func (v *Volume) Size() int64      { return v.opts.Size }

// Dirty is how many blocks the overlay holds that no SCO has, and how many batches wait or are under way.
func (v *Volume) Dirty() (blocks, batches int) {
	for _, b := range v.ov.Closed() {
		blocks += b.Blocks()
	}
	return blocks + v.ov.Open().Blocks(), len(v.ov.Closed())
}

func (v *Volume) hook(step string) {
	if v.opts.Hook != nil {
		v.opts.Hook(step)
	}
}

var _ interface{ Mutate(*block.Mutation) } = (*Volume)(nil)

// Problem says what is wrong with the vDisk, or nothing. On the loop.
func (v *Volume) Problem() string {
	switch {
	case v.parked:
		return "it is not open"
	case v.fenced != errs.OK:
		return "another owner has taken it: it takes no writes here"
	case v.jrn.Failed() != nil:
		return "its journal failed: it takes no writes until a restart"
	case v.jrn.Stalled() != 0:
		return "writes wait for space in the journal"
	}
	return ""
}
