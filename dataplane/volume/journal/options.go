package journal

import (
	"time"

	"vstor/dataplane/errs"
)

// Limits of the format.
const (
	SegmentSizeMin = 256 << 10
	SegmentSizeMax = 1 << 30
	segmentsMin    = 4
	segmentsMax    = 1 << 20
)

// A full entry with its header fits into every segment.
const _ = uint(SegmentSizeMin/BlockSize - 1 - MaxEntryBlocks)

// Options shape a journal. Zero values take the default.
type Options struct {
	// SegmentSize in bytes, a multiple of 4096. Create only: an existing journal keeps its own.
	// Default 32 MiB.
	SegmentSize int64
	// UUID names the journal, Create only. Default random.
	UUID [16]byte

	// MaxInFlight is how many records may be under way at once. Default 3: one more beside a slow one
	// keeps the drive busy, more only make the records smaller. At most 64.
	MaxInFlight int
	// RecordBlocks bounds the payload of one record, in blocks. Default 256, at least MaxEntryBlocks.
	// Beyond 1 MiB a record gains nothing and those behind it wait longer.
	RecordBlocks int
	// Reserve is how many segments only AppendCopy may enter. Default 2 (1 below 8 segments). Copying
	// one segment forward needs at most two if it goes badly, and frees one.
	Reserve int
	// NoSyncNeeded says that a completed write survives power loss by itself: Sync then costs nothing.
	NoSyncNeeded bool
	// MarkAfter is how long completed records may go without a durable mark behind them in the log. It
	// bounds what rot can pass off as a torn tail, and what power loss takes from a client that never
	// flushes. Default 1 s; negative: never.
	MarkAfter time.Duration
	// BootID names the boot of this machine (/proc/sys/kernel/random/boot_id). If it is still that of the
	// journal's last life, no power was lost since, and what had completed must be there. Zeros: unknown.
	BootID [16]byte
}

func (o *Options) ensureDefaults() {
	if o.SegmentSize == 0 {
		o.SegmentSize = 32 << 20
	}
	if o.MaxInFlight == 0 {
		o.MaxInFlight = 3
	}
	if o.RecordBlocks == 0 {
		o.RecordBlocks = 256
	}
	if o.MarkAfter == 0 {
		o.MarkAfter = time.Second
	}
}

// Validate says what is wrong with the options.
func (o *Options) Validate() error {
	switch {
	case o.SegmentSize != 0 && (o.SegmentSize < SegmentSizeMin || o.SegmentSize > SegmentSizeMax ||
		o.SegmentSize%BlockSize != 0):
		return errs.New(errs.Invalid, "journal: segments of %d bytes; a multiple of 4096 from %d to %d "+
			"would be right", o.SegmentSize, SegmentSizeMin, SegmentSizeMax)
	case o.MaxInFlight < 0 || o.MaxInFlight > 64:
		return errs.New(errs.Invalid, "journal: %d records in flight; 1 to 64 would be right", o.MaxInFlight)
	case o.RecordBlocks != 0 && (o.RecordBlocks < MaxEntryBlocks || o.RecordBlocks > headerBlocks):
		return errs.New(errs.Invalid, "journal: records of %d blocks; %d to %d would be right",
			o.RecordBlocks, MaxEntryBlocks, headerBlocks)
	case o.Reserve < 0 || o.Reserve > 64:
		return errs.New(errs.Invalid, "journal: a reserve of %d segments; 1 to 64 would be right", o.Reserve)
	}
	return nil
}

// reserveOf is the reserve for a journal of n segments.
func (o *Options) reserveOf(n int) (int, error) {
	r := o.Reserve
	switch {
	case r == 0 && n < 8:
		r = 1
	case r == 0:
		r = 2
	case r > n-2:
		return 0, errs.New(errs.Invalid, "journal: a reserve of %d of %d segments; at most %d would be right",
			r, n, n-2)
	}
	return r, nil
}

// Capacity is the least file size in bytes for a journal of the given number of bytes of segments.
func Capacity(journalBytes, segmentSize int64) int64 {
	n := max((journalBytes+segmentSize-1)/segmentSize, segmentsMin)
	return DataStart + n*segmentSize
}
