// Package block is the one shape of an IO through the layers: a pooled Request, the Device that
// serves it, and the Completer that learns of its end.
package block

import (
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
)

// Op is what a Request asks for.
type Op uint8

const (
	Read Op = iota
	Write
	Flush
	Trim        // the range may read as zeros from now on; partial 4 KiB edges are ignored
	WriteZeroes // the range reads as zeros from now on
	Cache       // the range will be read soon: bring it near. Best effort, it returns nothing
	Extents     // where the range is mapped, see Extent
)

// Flags qualify a Request.
type Flags uint8

const (
	FUA      Flags = 1 << iota // complete only once the write survives power loss
	NoHole                     // WriteZeroes: the range stays allocated
	FastZero                   // WriteZeroes: fail with Unsupported rather than write zeros out
	One                        // Extents: the first one is enough
)

// Request is one IO. It is pooled and belongs to the loop that made it; each layer embeds it in a
// state of its own. All fields but Data and Err are set by the submitter and stay unchanged until
// Done was called.
//
// A write's Data covers whole blocks: the page-aligned span that holds [Off, Off+Len). Its payload
// begins Off%4096 bytes into the first page, so a write of any alignment is already in its place in
// the blocks it touches and only the edges need filling in. Ownership of Data passes to the Device
// with Submit; when Done is called, Data is empty.
//
// A read's Data is set by the Device: exactly Len bytes, in order, in segments of any alignment
// (pages are shared with whoever else holds them: read only). The submitter releases it.
type Request struct {
	Op    Op
	Flags Flags
	Off   int64  // bytes from the start of the vDisk
	Len   uint32 // bytes
	Data  buf.Vec
	Err   errs.Kind
	Done  Completer

	// Extents is the answer to the Op of that name. The submitter hands it over empty, and its capacity is how
	// many the Device appends at most (at least one); nothing is allocated. They cover the range from Off on
	// without gaps, neighbours differ in State, and they may end before the range does, but not before they
	// have covered something: whoever wants the rest asks again.
	Extents []Extent
}

// Extent is a run of bytes that the map tells the same of.
type Extent struct {
	Len   uint32
	State ExtentState
}

// ExtentState has the bits of the NBD protocol's base:allocation context.
type ExtentState uint32

const (
	Hole      ExtentState = 1 << iota // nothing is stored there
	ReadsZero                         // it reads as zeros
)

// Completer is told of a Request's end.
type Completer interface {
	// Completed is called exactly once per Request, on the loop it was submitted on, never from
	// inside Submit. It must not block.
	Completed(*Request)
}

// Info is what a Device is.
type Info struct {
	Size       int64 // bytes, a multiple of 4096
	ReadOnly   bool
	Rotational bool
}

// Device serves Requests. It is called on its loop only and never blocks.
//
// The caller has checked that Off+Len lies within Info().Size and that Len is at most MaxRequest.
// Requests may complete in any order; two that overlap take effect in the order of their Submits.
type Device interface {
	Info() Info
	Submit(*Request)
}

// MaxRequest is the largest Len of a Read or Write, in bytes (the NBD maximum block size we announce).
const MaxRequest = 32 << 20
