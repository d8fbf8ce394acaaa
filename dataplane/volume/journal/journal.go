package journal

import (
	"crypto/rand"

	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
	"vstor/dataplane/ring"
)

// Journal is one log in one file. Open, then Replay, may be called by any one goroutine and block; Attach
// hands it to a loop, and everything after that happens on the loop and never blocks.
type Journal struct {
	file dio.File
	opt  Options
	root Root      // as last decided; what a new one is made from
	good [2]bool   // which copies of the root are readable and the latest
	st   lifeState // see lifeState
	loop *ring.Loop
	segs segments

	queue   entryList // in order of Append
	aside   aside     // likewise, of one volume that pins more than half
	copies  entryList // in order of AppendCopy
	late    entryList // came after Close
	records []*record // slots: record n is in n modulo their number
	next    uint64    // number of the next record
	ended   uint64    // all records up to this one have ended and been told
	told    int64     // loop time of the pass in which that was
	durable uint64    // ... and were synced
	lastSum uint64    // header checksum of record next-1
	hook    ring.Hook

	syncs   syncer
	roots   rootWriter
	timer   keeper
	brake   brake
	failed  error
	closer  *Sync
	pages   buf.Vec // header pages, one per slot, and the root's
	stalled int64   // loop time since when the queue finds no space; 0 = it does

	replay ReplayStats
	counts Stats
}

// lifeState is where a Journal is in its life: each step follows the one before.
type lifeState uint8

const (
	opened    lifeState = iota // root read
	replayed                   // end of the log known
	attaching                  // on its loop; the new incarnation is being made durable, entries wait
	running
	closing // no new entries; those under way end, then the clean root is written
	closed
)

// Stats count since Attach.
type Stats struct {
	Records  uint64 // written
	Entries  uint64 // in them
	Blocks   uint64 // of payload in them
	Bytes    uint64 // written, with headers
	Syncs    uint64 // fdatasyncs
	Roots    uint64 // root updates
	Marks    uint64 // records without entries
	Stalls   uint64 // how often the queue came to a halt for lack of space
	Braked   uint64 // how often it was held up before that, as little was left
	Copied   uint64 // entries of AppendCopy
	InFlight int    // records under way now
	Queued   int    // entries that wait now
}

// Create makes an empty journal of the whole file: both roots, durable. The caller has written the file
// through once, so that no write ever waits for the file system to convert an extent; what the file held
// is forgotten, because records of another uuid are none. Blocking.
func Create(file dio.File, opt Options) error {
	if err := opt.Validate(); err != nil {
		return err
	}
	opt.ensureDefaults()
	n := (file.Size() - DataStart) / opt.SegmentSize
	if n < segmentsMin || n > segmentsMax {
		return errs.New(errs.Invalid, "journal: a file of %d bytes holds %d segments of %d bytes; "+
			"at least %d bytes would be right", file.Size(), max(n, 0), opt.SegmentSize, Capacity(0, opt.SegmentSize))
	}
	if _, err := opt.reserveOf(int(n)); err != nil {
		return err
	}
	if opt.UUID == [16]byte{} {
		if _, err := rand.Read(opt.UUID[:]); err != nil {
			return errs.Wrap(errs.IO, err, "journal: no random bytes for a uuid")
		}
	}
	root := Root{Clean: true, UUID: opt.UUID, Sequence: 1, Incarnation: 1, First: 1, TailRecord: 1, TailLap: 1,
		FileSize: file.Size(), SegmentSize: uint32(opt.SegmentSize), Segments: uint32(n), BootID: opt.BootID}
	b, err := buf.AlignedBytes(BlockSize)
	if err != nil {
		return errs.Wrap(errs.IO, err, "journal: no memory for a root")
	}
	defer func() { _ = buf.FreeAligned(b) }()
	root.Encode(b)
	for _, off := range [...]int64{RootA, RootB} {
		if err := file.WriteAt(b, off); err != nil {
			return errs.Wrap(errs.Of(err), err, "journal: cannot write the root at %d", off)
		}
	}
	if err := file.Sync(); err != nil {
		return errs.Wrap(errs.Of(err), err, "journal: cannot sync the roots")
	}
	return nil
}

// Open reads the roots. The file stays the caller's, who closes it after the Journal.
//
// REQUIRES: the caller holds a lock on the file that lasts until the last IO on its descriptor ended, as
// flock does. A killed owner's writes may still be in the kernel; without the lock one of them could
// land upon a record of ours.
//
// Errors: Corrupt if no copy of the root is readable or the file is not as long as the root says; Version
// if a newer program wrote it.
func Open(file dio.File, opt Options) (*Journal, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	opt.ensureDefaults()
	j := &Journal{file: file, opt: opt}
	if err := j.readRoots(); err != nil {
		return nil, err
	}
	if file.Size() < DataStart+int64(j.root.SegmentSize)*int64(j.root.Segments) {
		return nil, errs.New(errs.Corrupt, "journal: the file has %d bytes, its root says %d: it was truncated",
			file.Size(), j.root.FileSize)
	}
	n := int(j.root.Segments)
	reserve, err := opt.reserveOf(n)
	if err != nil {
		return nil, err
	}
	j.opt.SegmentSize = int64(j.root.SegmentSize)
	j.segs.init(n, j.root.SegmentSize/BlockSize, reserve)
	j.opt.RecordBlocks = min(opt.RecordBlocks, int(j.segs.blocks)-1)
	j.segs.start(int(j.root.TailSegment), j.root.TailLap, j.root.TailRecord)
	return j, nil
}

// readRoots takes the copy with the higher sequence.
func (j *Journal) readRoots() error {
	b, err := buf.AlignedBytes(BlockSize)
	if err != nil {
		return errs.Wrap(errs.IO, err, "journal: no memory for a root")
	}
	defer func() { _ = buf.FreeAligned(b) }()
	var faults [2]error
	var roots [2]Root
	for i, off := range rootPlaces {
		if faults[i] = j.file.ReadAt(b, off); faults[i] != nil {
			continue
		}
		roots[i], faults[i] = DecodeRoot(b)
		if errs.Of(faults[i]) == errs.Version {
			return faults[i]
		}
	}
	best := 0
	switch {
	case faults[0] != nil && faults[1] != nil:
		return errs.Wrap(errs.Corrupt, faults[0], "journal: both copies of the root are lost; what it holds "+
			"cannot be told from what it held (copy B: %v)", faults[1])
	case faults[0] != nil, faults[1] == nil && roots[1].Sequence > roots[0].Sequence:
		best = 1
	}
	if faults[0] == nil && faults[1] == nil && roots[0].UUID != roots[1].UUID {
		return errs.New(errs.Corrupt, "journal: the copies of the root name two journals, %x and %x",
			roots[0].UUID, roots[1].UUID)
	}
	j.root = roots[best]
	for i := range roots {
		j.good[i] = faults[i] == nil && roots[i].Sequence == j.root.Sequence
	}
	return nil
}

// Root is the root as it was found, or as last written.
func (j *Journal) Root() Root { return j.root }

// File is the journal's file, for reads of payload at Offset.
func (j *Journal) File() dio.File { return j.file }

// Offset is where in the file block pos begins, in bytes. A block may be read back as long as its entry
// is not Committed; verify its checksum.
func (j *Journal) Offset(pos Pos) int64 { return int64(pos) * BlockSize }

// Stats is what was done so far. Loop only.
func (j *Journal) Stats() Stats {
	s := j.counts
	s.InFlight = int(j.next - 1 - j.ended)
	s.Queued = j.queue.n + j.aside.n + j.copies.n
	return s
}

// Failed is why the journal acknowledges nothing more, nil if it does. Loop only.
func (j *Journal) Failed() error { return j.failed }

// Attach hands the journal to l: a new incarnation is made durable, and appends go on behind the last
// valid record. Entries may be appended at once; they leave when the incarnation is durable. Call it on
// l. It takes MaxInFlight + 1 pages of l's pool until Close.
//
// What was replayed is synced first: the new root calls it durable, and a kill may have left it in the
// drive's cache.
func (j *Journal) Attach(l *ring.Loop) error {
	invariants.Assert(j.st == replayed, "journal: Attach before Replay has ended")
	pool := l.Pool()
	var page buf.Vec
	j.records = make([]*record, j.opt.MaxInFlight)
	for i := range len(j.records) + 1 {
		page.Reset()
		if !pool.AllocReserved(&page, 1) {
			pool.ReleaseVec(&j.pages)
			return errs.New(errs.Full, "journal: the pool has no %d pages for headers", len(j.records)+1)
		}
		j.pages.Segs = append(j.pages.Segs, page.Segs[0])
		if i < len(j.records) {
			r := &record{j: j, page: page.Segs[0]}
			r.op.Done = r
			j.records[i] = r
		}
	}
	j.loop = l
	j.hook = ring.Hook{Run: j.passEnd, Stage: ring.StageDevice}
	j.ended, j.durable = j.next-1, 0
	j.syncs.init(j)
	j.roots.init(j, page.Segs[0])
	j.timer.init(j)
	j.initBrake()
	j.st = attaching
	j.roots.begin(rootAttach)
	return nil
}

func (j *Journal) wake() { j.loop.AtPassEnd(&j.hook) }

// Committed says that all entries of vol up to seq are safe elsewhere: replay need not see them, and
// segments that hold nothing else become free. May be called before Attach by the goroutine that
// replays, then on the loop only.
func (j *Journal) Committed(vol ids.VolumeID, seq ids.Seq) {
	j.segs.committed(vol, seq)
	j.cameBack()
}

// ForgetVolume says that nothing of vol is needed any more, for it is deleted or unknown. No entry of it
// may be under way.
func (j *Journal) ForgetVolume(vol ids.VolumeID) {
	j.segs.forget(vol)
	j.cameBack()
}
