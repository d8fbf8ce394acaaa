package proxy

import (
	"context"
	"math/rand/v2"
	"runtime"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/meta"
)

// FragmentStore is what the proxy needs of an ASD. Safe for concurrent use. Every call but Put returns
// soon after its context is done; a Put that hangs is left behind with its buffer.
type FragmentStore interface {
	// Put keeps a fragment: durable when it returns nil. The same key with the same content again is
	// no error. p.Buf belongs to the store until Put returns. Errors: Full, Refused (a higher
	// epoch owns the namespace, or the key has other content), IO, Unreachable, Closed.
	Put(ctx context.Context, p *layout.FragPut) error
	// Get reads bytes [off, off+len(dst)) of the payload, verified against the region checksums; any
	// alignment. dst is touched no more once it returned. Errors: Absent, Corrupt, IO, Unreachable.
	Get(ctx context.Context, key layout.FragKey, off uint32, dst []byte) error
	// Delete removes fragments; a key that is absent is no error. Durable when it returns nil.
	Delete(ctx context.Context, keys []layout.FragKey) error
	// ListNamespace returns up to limit keys of a namespace behind after, in order; the zero key starts.
	ListNamespace(ctx context.Context, ns ids.NamespaceID, after layout.FragKey, limit int) ([]layout.FragKey, error)
}

// ASD is one drive as the proxy sees it.
type ASD struct {
	ID    ids.ASDID
	Node  ids.NodeID
	Alive bool
	Free  int64 // bytes that client puts may still take
	Store FragmentStore
}

// Source is the content of an object to put.
type Source interface {
	// Size in bytes; constant.
	Size() int64
	// Fill copies object bytes [off, off+len(dst)) into dst, which stays the caller's. It verifies every
	// block in that same pass; a mismatch it cannot heal is an error, and fails the put. It is called
	// on one coding worker at a time, in pieces of up to layout.RegionSize that start at multiples of
	// 4096, in no particular order, and again from the start if the put is tried again. It may block.
	Fill(dst []byte, off int64) error
	// Coded tells that all bytes before end were taken: they are wanted again only if the put is tried again. It is
	// called by the goroutine of the put, while Fill is not.
	Coded(end int64)
}

// Options configures a Proxy. Meta or Manifest, ASDs and Preset must be given.
type Options struct {
	Meta meta.Store
	// Manifest, instead of Meta, tells of committed objects a Proxy that only reads: no other method may be called than
	// Get, Manifest, CacheFragment and Close. RetryInterval must be negative.
	Manifest func(ctx context.Context, ns ids.NamespaceID, sco ids.SCONum) (*layout.Manifest, error)
	// ASDs returns the ASDs that exist now, dead ones included. It is called for every operation, from any
	// goroutine, and the slice is not changed afterwards. An ASD that is no longer in it is taken
	// to be removed for good: its fragments need not be deleted any more.
	ASDs func() []ASD
	// Preset is how objects are stored.
	Preset layout.Preset
	// Cache is filled with data fragments as they are put, and asked before an ASD; nil: there is none.
	Cache FragmentCache
	// Workers code, each on a thread of its own at nice 10. Default: number of CPUs.
	Workers int
	// ChunkBuffers is how many chunks may be coded or written at once, over all puts; a put that finds
	// none waits. Default: two per worker, so that coding overlaps writing.
	ChunkBuffers int
	// Grace is how long a put waits at least for the rest once c fragments of a chunk are written; it
	// waits a fifth of the time so far if that is longer. Default 1 s.
	Grace time.Duration
	// StallTimeout is how long a fragment's write may take before it counts as failed, and how long one
	// read of a fragment may take. Default 30 s.
	StallTimeout time.Duration
	// RetryInterval is how often deletes that an ASD did not answer are tried again; negative: only by
	// ResumeDeletes. Default 30 s.
	RetryInterval time.Duration
	// Seed makes placement repeatable; 0 draws one.
	Seed uint64
	// Log takes one line per event that an operator should know of; nil drops them.
	Log func(format string, args ...any)
}

// EnsureDefaults fills in what was left zero.
func (o *Options) EnsureDefaults() {
	if o.Workers == 0 {
		o.Workers = runtime.NumCPU()
	}
	if o.ChunkBuffers == 0 {
		o.ChunkBuffers = 2 * o.Workers
	}
	if o.Grace == 0 {
		o.Grace = time.Second
	}
	if o.StallTimeout == 0 {
		o.StallTimeout = 30 * time.Second
	}
	if o.RetryInterval == 0 {
		o.RetryInterval = 30 * time.Second
	}
	for o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
}

// Validate checks what was set. Errors: Invalid, Unsupported.
func (o *Options) Validate() error {
	switch {
	case o.Meta == nil && (o.Manifest == nil || o.RetryInterval > 0) || o.ASDs == nil:
		return errs.New(errs.Invalid, "proxy: needs a metadata store and a list of ASDs")
	case o.Workers < 1 || o.Workers > 1024:
		return errs.New(errs.Invalid, "proxy: %d coding workers; give between 1 and 1024", o.Workers)
	case o.ChunkBuffers < 2 || o.ChunkBuffers > 4096:
		return errs.New(errs.Invalid, "proxy: %d chunk buffers; give between 2 and 4096", o.ChunkBuffers)
	case o.Grace < 0 || o.StallTimeout < 0:
		return errs.New(errs.Invalid, "proxy: grace %v and stall timeout %v must not be negative", o.Grace, o.StallTimeout)
	}
	return o.Preset.Validate()
}
