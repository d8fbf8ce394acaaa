package store

import (
	"context"
	"sync"
	"sync/atomic"

	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// scratchRegions regions are verified at a time where the caller's buffer cannot be read into.
const scratchRegions = 4

// scratchSize is a block for a header and room for the regions, in bytes.
const scratchSize = blockSize + scratchRegions*layout.RegionSize

// Store is the store of one drive. Its methods may be called from any goroutine; those that a loop may
// call too, because they never wait for IO, are Locate, Unpin and File.
type Store struct {
	opts Options
	data dio.File
	sb   Superblock // as on the drive; Open and Close write it
	ix   *index
	seq  atomic.Uint64 // of puts in this incarnation

	shards [shardCount]shard

	// alloc accounts for every block of the drive: free, in a fragment, at rest, taken by a put under
	// way, or set aside because a write to it failed.
	alloc struct {
		sync.Mutex
		*space
		capacity, live, resting, taken, aside uint64 // blocks
	}
	busy    keyLocks // puts under way
	puts    freeList[putting]
	waiters freeList[waiter]
	epochs  struct {
		sync.RWMutex
		m map[ids.NamespaceID]ids.Epoch // durable ones
	}
	commits committer
	rest    rest
	marks   marks // the indexer's
	deleted deleted
	scratch chan *scratch

	users struct {
		sync.Mutex
		sync.WaitGroup
		closing bool
	}
	closed  atomic.Bool
	failure atomic.Pointer[errs.Error]
	ballast ballast
	count   counters
}

// scratch is page-aligned memory for one verified read or one delete, and a header to decode into.
type scratch struct {
	mem  []byte // as mapped; the others are cut from it
	head Header
	hbuf []byte // blockSize
	body []byte // scratchRegions regions
}

func newAligned(n int) ([]byte, error) {
	b, err := buf.AlignedBytes(n)
	if err != nil {
		return nil, errs.Wrap(errs.IO, err, "store: cannot map %d bytes", n)
	}
	return b, nil
}

func freeAligned(b []byte) { buf.FreeAligned(b) }

func newScratch() (*scratch, error) {
	b, err := newAligned(scratchSize)
	if err != nil {
		return nil, err
	}
	return &scratch{mem: b, hbuf: b[:blockSize], body: b[blockSize:scratchSize]}, nil
}

func (c *scratch) free() { freeAligned(c.mem) }

// getScratch waits for a scratch buffer, or for ctx.
func (s *Store) getScratch(ctx context.Context) (*scratch, error) {
	select {
	case c := <-s.scratch:
		return c, nil
	default:
	}
	select {
	case c := <-s.scratch:
		return c, nil
	case <-ctx.Done():
		return nil, errs.Wrap(errs.Canceled, ctx.Err(), "store: gave up waiting for a buffer")
	}
}

func (s *Store) putScratch(c *scratch) { s.scratch <- c }

// enter counts a caller in, so that Close waits for it.
func (s *Store) enter() error {
	s.users.Lock()
	defer s.users.Unlock()
	if s.users.closing {
		return errs.New(errs.Closed, "store: ASD %d is closed", s.sb.ID)
	}
	s.users.Add(1)
	return nil
}

func (s *Store) leave() { s.users.Done() }

// fail stops all changes until the store is reopened; the first reason stays.
func (s *Store) fail(cause error, what string) {
	e := &errs.Error{Kind: errs.IO, Cause: cause, Msg: "store: " + what +
		" failed; the drive takes no change until it is reopened"}
	s.failure.CompareAndSwap(nil, e)
}

// healthy returns why the store takes no change, or nil.
func (s *Store) healthy() error {
	if e := s.failure.Load(); e != nil {
		return e
	}
	return nil
}

// File is the drive, for those who read what Locate named.
func (s *Store) File() dio.File { return s.data }

// ID is the ASD's number, UUID what tells it from any other ever made.
func (s *Store) ID() ids.ASDID  { return s.sb.ID }
func (s *Store) UUID() [16]byte { return s.sb.UUID }
