package pagemap

import (
	"sync"
	"sync/atomic"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// MapID names one table of pages for ever. Today a vDisk has one, of its own number; clones will chain
// several (see the package comment), which is why keys and pages carry a map's number and not a vDisk's.
// 0 is none.
type MapID uint64

// SizeMax is the largest vDisk, in blocks: 64 TiB.
const SizeMax ids.BlockAddr = 64 << 40 >> ids.BlockShift

// Poster runs f on the loop that owns the Map, later. Map calls it from goroutines only, never from
// the loop.
type Poster interface {
	PostFunc(f func())
}

// Options of a Map.
type Options struct {
	ID     MapID
	Size   ids.BlockAddr // of the vDisk, in blocks; a larger size in the checkpoint wins
	NS     uint16        // index of the vDisk's own namespace: the one whose SCOs are counted
	Budget *Budget       // RAM, shared with other maps
	Poster Poster

	// Tombstones keeps trimmed pages as records, for a map with another below it: an absent page there
	// means "ask below". Without, a page of nothing but trimmed blocks is no record at all.
	Tombstones bool

	// RedoMax bounds the commits that a restart replays: one more begins a sweep over the pages that
	// hold the older half of them back. Default 512, 32 GiB of SCOs.
	RedoMax int
	// PagesPerFlush bounds the pages of one batch, the unit of write back. Default 256.
	PagesPerFlush int
	// LoadsMax bounds the pages that wait to be loaded; one more fails with Busy. Default 4096.
	LoadsMax int
	// Loaders bounds the goroutines that load for this map. Default 4.
	Loaders int

	// OnEmpty is called on the loop when TakeEmpty has SCOs to give. May be nil.
	OnEmpty func()
	// Spawn runs f beside the loop; `go f()` by default. Tests put it under a seed's control.
	Spawn func(f func())
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.RedoMax, 512)
	def(&o.PagesPerFlush, 256)
	def(&o.LoadsMax, 4096)
	def(&o.Loaders, 4)
	if o.Spawn == nil {
		o.Spawn = func(f func()) { go f() }
	}
}

// Validate reports what cannot work, as Invalid.
func (o *Options) Validate() error {
	switch {
	case o.ID == 0:
		return errs.New(errs.Invalid, "map id 0 is no map: give the vDisk's number")
	case o.Size > SizeMax:
		return errs.New(errs.Invalid, "vDisk of %d blocks: at most %d (64 TiB)", o.Size, SizeMax)
	case o.Budget == nil || o.Poster == nil:
		return errs.New(errs.Invalid, "a map needs a budget of memory and a loop to post to")
	case o.RedoMax < 2 || o.PagesPerFlush < 1 || o.LoadsMax < 1 || o.Loaders < 1:
		return errs.New(errs.Invalid, "map limits (redo %d, pages per flush %d, loads %d, loaders %d): "+
			"at least 2, 1, 1 and 1", o.RedoMax, o.PagesPerFlush, o.LoadsMax, o.Loaders)
	}
	return nil
}

// Budget is the RAM that maps may hold, in bytes: nodes, deltas and cached pages, not the database's
// cache. Maps on any loop share one; each settles its sums at the end of an operation.
//
// Within the limit, cached pages get what the rest leaves. Deltas in use over 5/8 of the limit start
// write back. Over the limit a map evicts its own and has the others do so (squeeze.go). Over it with nothing
// left to evict and write back at work, Map.Full says so and the owner holds commits back until Map.WhenRoom
// calls: the overrun is at most what is applied in between.
type Budget struct {
	limit int64
	used  atomic.Int64 // all of it
	clean atomic.Int64 // of it, cached pages
	dirty atomic.Int64 // of it, nodes and slots of deltas that are in use

	mu     sync.Mutex
	maps   []*Map      // open ones
	shared atomic.Bool // there are several
}

// NewBudget makes a Budget of limit bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// Limit is the limit, in bytes.
func (b *Budget) Limit() int64 { return b.limit }

// Used is what the maps hold now, in bytes.
func (b *Budget) Used() int64 { return b.used.Load() }

func (b *Budget) over() bool { return b.used.Load() > b.limit }

// pressed says that write back has to make room. The second term: slabs that are mostly empty are no
// deltas in use, but they leave no room either, and only write back empties them.
func (b *Budget) pressed() bool {
	return b.dirty.Load() > b.limit/8*5 || b.used.Load()-b.clean.Load() > b.limit/8*7
}
