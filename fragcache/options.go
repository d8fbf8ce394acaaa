package fragcache

import (
	"time"

	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
	"vstor/dataplane/units"
)

// Options of a Cache. File, Deployment and MaxFragment must be given; zero fields take the defaults in
// EnsureDefaults.
type Options struct {
	// File is where the fragments lie, the caller's to close, after the Cache. Its size is the cache's.
	File dio.File
	// Deployment is whose fragments they are: numbers of vDisks mean nothing elsewhere, so the content of another
	// deployment's file is thrown away.
	Deployment [16]byte
	// MaxFragment is the longest payload, in bytes; longer ones are not cached.
	MaxFragment int
	// Quota is what one vDisk may take, in bytes with headers; 0 = no limit. SetQuota says otherwise for one.
	Quota int64
	// OnRead asks for fragments that were read ReadsWanted times within a window; see Wanted.
	OnRead      bool
	ReadsWanted int // default 4

	BufferBytes  int64         // buffers for fills; default 32 MiB, at least two fragments
	SegmentBytes int64         // about; default 64 MiB, less where the file is small
	EntriesMax   int           // fragments; default one per 512 KiB of the file
	Tick         time.Duration // of the minder; default 100 ms
	GetTimeout   time.Duration // after which a Get is a miss; default 1 s

	// Log takes one line per event that an operator should know of; nil drops them.
	Log func(format string, args ...any)
}

// EnsureDefaults fills in zero fields. REQUIRES: File.
func (o *Options) EnsureDefaults() {
	if o.ReadsWanted == 0 {
		o.ReadsWanted = 4
	}
	if o.BufferBytes == 0 {
		o.BufferBytes = 32 << 20
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 64 << 20
	}
	if o.EntriesMax == 0 {
		o.EntriesMax = entriesFor(o.File.Size())
	}
	if o.Tick == 0 {
		o.Tick = 100 * time.Millisecond
	}
	if o.GetTimeout == 0 {
		o.GetTimeout = time.Second
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
}

// Validate says what is wrong with o, if anything.
func (o *Options) Validate() error {
	switch {
	case o.MaxFragment < blockSize || o.MaxFragment > MaxPayload || o.MaxFragment%blockSize != 0:
		return errs.New(errs.Invalid, "fragcache: fragments of %d bytes; whole blocks, at most %d, would be right",
			o.MaxFragment, MaxPayload)
	case o.File.Size() < MinSize(o.MaxFragment):
		return errs.New(errs.Invalid, "the fragment cache has %s; with fragments of %s it needs at least %s",
			units.HumanSize(o.File.Size()), units.HumanSize(int64(o.MaxFragment)), units.HumanSize(MinSize(o.MaxFragment)))
	case o.Quota < 0:
		return errs.New(errs.Invalid, "fragcache: a quota of %d bytes; 0 is none", o.Quota)
	case o.EntriesMax < 1 || o.EntriesMax > 1<<30:
		return errs.New(errs.Invalid, "fragcache: %d entries; from 1 to %d would be right", o.EntriesMax, 1<<30)
	case o.ReadsWanted < 1 || o.Tick <= 0 || o.GetTimeout <= 0 || o.BufferBytes < 0 || o.SegmentBytes < 0:
		return errs.New(errs.Invalid, "fragcache: ReadsWanted, Tick and GetTimeout must be positive, sizes not negative")
	}
	return nil
}

// segmentsMin is how few segments a cache can do with: one is written, some are kept free, and of the others the
// oldest is evicted. segmentsWanted is how many are worth shorter segments.
const (
	segmentsMin    = 8
	segmentsWanted = 16
)

// slotBytes is what a fragment of the longest kind takes in a segment.
func slotBytes(maxFragment int) int64 { return int64(layout.FragHeaderSize + maxFragment) }

// segmentFor is the length of segments that hold m of the longest fragments and a footer.
func segmentFor(m int64, maxFragment int) int64 {
	return m*slotBytes(maxFragment) + footerBytes(int(m))
}

// MinSize is the smallest cache for fragments of that length, in bytes.
func MinSize(maxFragment int) int64 { return dataStart + segmentsMin*segmentFor(1, maxFragment) }

// geometry cuts a file into segments.
func (o *Options) geometry() (segment int64, n int) {
	room := o.File.Size() - dataStart
	m := max(1, o.SegmentBytes/slotBytes(o.MaxFragment))
	for m > 1 && room/segmentFor(m, o.MaxFragment) < segmentsWanted {
		m /= 2
	}
	segment = segmentFor(m, o.MaxFragment)
	return segment, int(room / segment)
}

// rooms is the number of buffers for fills.
func (o *Options) rooms() int { return int(max(2, o.BufferBytes/slotBytes(o.MaxFragment))) }

// entryBytes is what a fragment takes in RAM: its entry, its place in a map, and what maps leave empty.
const entryBytes = 160

// entriesFor is the default of EntriesMax. Fragments are 4 MiB by default, those of a vDisk that writes little
// are smaller.
func entriesFor(size int64) int { return int(min(size/(512<<10)+4096, 1<<30)) }

// MemoryBytes is what a Cache of that size takes in RAM at most, with the defaults.
func MemoryBytes(size int64, maxFragment int) int64 {
	o := Options{MaxFragment: maxFragment, BufferBytes: 32 << 20}
	return int64(o.rooms()+1)*slotBytes(maxFragment) + getScratches*getScratch + int64(entriesFor(size))*entryBytes
}
