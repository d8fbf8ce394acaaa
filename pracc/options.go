package pracc

import (
	"time"

	"vstor/dataplane/erasure"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// Options of a Client. Zero fields take the defaults in EnsureDefaults.
type Options struct {
	// Drives finds an ASD's drive, or nil where this process cannot reach it now. It is called on the
	// loop for every range read, answers from RAM and never blocks.
	Drives func(ids.ASDID) Drive
	// Remotes finds, in the same way, the process of an ASD that Drives does not know, or whose Drive does not
	// know all. One of the two must be set.
	Remotes func(ids.ASDID) Remote
	// Cache, if set, is asked before an ASD.
	Cache Cache
	// Manifests is asked where the cache does not know an object.
	Manifests Manifests

	CacheBytes    int64         // manifests kept, in bytes
	Lookups       int           // goroutines that ask Manifests at a time
	LookupTimeout time.Duration // after which a lookup is Unreachable
	// Patience is how long a fetch is tried again and again if what it lacks are answers of ASDs; negative is
	// not at all. Without Remotes there is nothing to wait for, and it is 0.
	Patience time.Duration

	// Prefer says which of several ASDs that would do is read; Distance is for PreferNear: smaller is nearer. It is
	// called on the loop and never blocks.
	Prefer   Preference
	Distance func(ids.ASDID) uint8

	// HedgePercent of the reads may be hedged at most; negative is none. HedgeAfter is the least age of a read
	// before it is, whatever its ASD's p95.
	HedgePercent int
	HedgeAfter   time.Duration
	// SlowAfter is the least age of a read that makes its ASD leave the fast set.
	SlowAfter time.Duration
	// ReadTimeout is how long a fetch waits for a drive that this process reads itself where nothing can be read in
	// its place; it ends with Unreachable. A Remote has times of its own.
	ReadTimeout time.Duration
	// StuckReads and StuckBytes bound reads that nobody waits for and whose drives do not return, and what hedges
	// hold to take their places.
	StuckReads int
	StuckBytes int64

	Ranges       int   // parts of fetches under way
	Rebuilds     int   // rebuild steps under way
	ScratchBytes int64 // pages that rebuilds may hold together, beside the few kept back
	Workers      int   // goroutines that do rebuilds too large for the loop
	MaxFragments int   // k+m of the widest policy; wider objects are Unsupported
	Combinations int   // of sources tried for one block before it is called corrupt

	// Codecs is shared by the clients of a process; nil makes one for this Client.
	Codecs *erasure.Registry

	// OnRot, if set, is told of a fragment that the manifest names and that is not as it should be:
	// Absent (the drive says that it has none), Corrupt (blocks of it do not match) or IO (the drive
	// failed to read it). It is called on the loop and must not block: it puts the key in a bounded
	// queue for repair and drops it when that is full. A key is told at most once in rotEvery as long as
	// it is remembered, so a rotten fragment under load does not flood the queue.
	OnRot func(key layout.FragKey, asd ids.ASDID, kind errs.Kind)
}

// EnsureDefaults fills in zero fields.
func (o *Options) EnsureDefaults() {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 8 << 20
	}
	if o.LookupTimeout == 0 {
		o.LookupTimeout = 20 * time.Second
	}
	if o.Patience == 0 && o.Remotes != nil {
		o.Patience = 4 * time.Second
	}
	if o.ScratchBytes == 0 {
		o.ScratchBytes = 4 << 20
	}
	if o.Codecs == nil {
		o.Codecs = new(erasure.Registry)
	}
	dur := func(p *time.Duration, d time.Duration) {
		if *p == 0 {
			*p = d
		}
	}
	dur(&o.HedgeAfter, time.Millisecond)
	dur(&o.SlowAfter, 10*time.Millisecond)
	dur(&o.ReadTimeout, 30*time.Second)
	if o.StuckBytes == 0 {
		o.StuckBytes = 16 << 20
	}
	def(&o.HedgePercent, 5)
	def(&o.StuckReads, 256)
	def(&o.Lookups, 4)
	def(&o.Ranges, 256)
	def(&o.Rebuilds, 32)
	def(&o.Workers, 1)
	def(&o.MaxFragments, 24)
	def(&o.Combinations, 1024)
}

// Validate says what is wrong with o, if anything.
func (o *Options) Validate() error {
	switch {
	case o.Drives == nil && o.Remotes == nil:
		return errs.New(errs.Invalid, "pracc: neither Drives nor Remotes is set; one must find an ASD")
	case o.Manifests == nil:
		return errs.New(errs.Invalid, "pracc: Manifests is not set; it must find an object's manifest")
	case o.CacheBytes < 4096:
		return errs.New(errs.Invalid, "pracc: CacheBytes is %d; at least 4096 hold a manifest", o.CacheBytes)
	case o.ScratchBytes < 0:
		return errs.New(errs.Invalid, "pracc: ScratchBytes is %d; it must not be negative", o.ScratchBytes)
	case o.Lookups < 1 || o.Ranges < 1 || o.Rebuilds < 1 || o.Workers < 1 || o.Combinations < 1:
		return errs.New(errs.Invalid,
			"pracc: Lookups, Ranges, Rebuilds, Workers and Combinations must be positive")
	case o.MaxFragments < 2 || o.MaxFragments > layout.FragsMax:
		return errs.New(errs.Invalid, "pracc: MaxFragments is %d; it must be 2 to %d",
			o.MaxFragments, layout.FragsMax)
	case o.HedgePercent > 100:
		return errs.New(errs.Invalid, "pracc: HedgePercent is %d; it must be at most 100", o.HedgePercent)
	case o.HedgeAfter < 0 || o.SlowAfter < 0 || o.ReadTimeout < 0 || o.StuckReads < 0 || o.StuckBytes < 0:
		return errs.New(errs.Invalid,
			"pracc: HedgeAfter, SlowAfter, ReadTimeout, StuckReads and StuckBytes must not be negative")
	case o.Prefer > PreferNear || (o.Prefer == PreferNear) != (o.Distance != nil):
		return errs.New(errs.Invalid, "pracc: Distance is what PreferNear goes by; set both or neither")
	case o.LookupTimeout < 0:
		return errs.New(errs.Invalid, "pracc: LookupTimeout is %v; it must not be negative", o.LookupTimeout)
	}
	return nil
}

// FloorBytes is what a Client with these options takes from the loop's pool for good: one page for
// each source of a rebuild. ScratchBytes comes on top while rebuilds run. For the sum of the pool.
func (o *Options) FloorBytes() int64 { return int64(o.MaxFragments) * ids.BlockSize }
