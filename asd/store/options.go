package store

import (
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// Sizes that the format fixes; they never change.
const (
	blockSize  = ids.BlockSize
	blockShift = ids.BlockShift
	sbOffset0  = 0
	sbOffset1  = 1 << 20
	dataStart  = 2 << 20
	// MaxPayload is the longest payload of a fragment, in bytes: its region sums fit the header.
	MaxPayload = 16 << 20
	// MinSize is the smallest drive that Format accepts, in bytes.
	MinSize = 8 << 20
)

// The header's headroom is one block: an entry in RAM counts on it.
const _ = uint(layout.FragHeaderSize-blockSize) + uint(blockSize-layout.FragHeaderSize)

const (
	defaultScratch      = 4
	defaultIndexReserve = 32 << 20
	defaultBallast      = 8 << 20
)

// Options says what to open. The zero value of a field marked so means its default.
type Options struct {
	// Data is the drive. Who opened it closes it, after Close and after the last pin is gone.
	Data dio.File
	// FS and Dir say where the index lies. FS: nil is the machine's file system. Nothing else may
	// live in Dir: Format and RebuildIndex clear it.
	FS  vfs.FS
	Dir string
	// Cache is Pebble's block cache, shared by all stores of the process; nil takes a small own one.
	Cache *pebble.Cache

	// ID, UUID and Deployment are what the drive must be. Format writes them; Open refuses a drive
	// that says otherwise. A zero UUID or Deployment is not compared by Open.
	ID         ids.ASDID
	UUID       [16]byte
	Deployment [16]byte

	// Quarantine is how long deleted space rests before it is used again: at least the longest lease
	// under which somebody may still read it. 0 is no rest.
	Quarantine time.Duration
	// BootID names the boot of this machine and BootNow is its CLOCK_BOOTTIME, in nanoseconds. With both, what
	// rests when the store is closed or its process dies rests on if it is opened again in the same boot; else
	// its rest begins anew.
	BootID  [16]byte
	BootNow func() int64
	// Now is the clock, for times in headers and for the quarantine; nil is time.Now.
	Now func() time.Time

	// Reserve is how many bytes client puts leave free; cleaning leaves a half of it, repair an
	// eighth. 0 takes max(1 %, 64 MiB), but at most a sixteenth of the drive.
	Reserve int64
	// IndexReserve: puts are refused while the index's file system has fewer bytes free. 0 is 32 MiB.
	IndexReserve int64
	// Ballast is a file of that many bytes beside the index, given up when its file system is full,
	// so that deletes still commit. 0 is 8 MiB, negative is none.
	Ballast int64
	// Scratch is the number of buffers of scratchSize for verified reads and deletes; further callers
	// wait. 0 is 4.
	Scratch int
	// ReadOnly opens a store without changing anything on drive or index, not even that it was opened:
	// for those who look while nobody runs it. Put, Delete and Fence are errs.Refused.
	ReadOnly bool
	// Force lets Format overwrite a drive that holds a superblock, whole or damaged.
	Force bool

	memTable int // of Pebble, bytes; tests make it small
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.IndexReserve == 0 {
		o.IndexReserve = defaultIndexReserve
	}
	if o.Ballast == 0 {
		o.Ballast = defaultBallast
	}
	if o.Scratch == 0 {
		o.Scratch = defaultScratch
	}
	if o.memTable == 0 {
		o.memTable = 1 << 20
	}
	if o.Reserve == 0 && o.Data != nil {
		o.Reserve = min(max(o.Data.Size()/100, 64<<20), o.Data.Size()/16)
	}
	return o
}

// Validate says what is wrong with the options, or nil.
func (o *Options) Validate() error {
	switch {
	case o.Data == nil:
		return errs.New(errs.Invalid, "store: no data file given")
	case o.Dir == "":
		return errs.New(errs.Invalid, "store: no index folder given")
	case o.Quarantine < 0:
		return errs.New(errs.Invalid, "store: quarantine %v; it must not be negative", o.Quarantine)
	case o.Reserve < 0 || o.Reserve > o.Data.Size()/2:
		return errs.New(errs.Invalid, "store: reserve of %d bytes; it must lie between 0 and half of %d",
			o.Reserve, o.Data.Size())
	case o.Scratch < 1:
		return errs.New(errs.Invalid, "store: %d scratch buffers; at least 1 is needed", o.Scratch)
	}
	return nil
}
