package block

import (
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// MutationOp is what a Mutation does.
type MutationOp uint8

const (
	Put      MutationOp = iota // write Data
	Discard                    // the range becomes a hole
	ZeroFill                   // the range becomes allocated zeros
	Sync                       // all mutations that ended before survive power loss
)

// Mutation is a change of whole blocks, as the Edge hands it to the Volume Driver. It is pooled by its
// maker and unchanged, but for Data and Err, until Done was called.
type Mutation struct {
	Op    MutationOp
	Addr  ids.BlockAddr
	Count uint64   // blocks
	Data  buf.Vec  // Put: Count whole pages; ownership passes with the call
	Sums  []uint32 // Put: low half of XXH64 of each block
	Err   errs.Kind
	Done  MutationDone
}

// MutationDone is told of a Mutation's end: exactly once, on the loop, never from inside the call. A
// Mutation that ended with OK survives the death of the process and is seen by Resolve.
type MutationDone interface {
	MutationDone(*Mutation)
}

// Owner is told once that it may go on, or why not. On the loop, never from inside the call that it waits for.
type Owner interface{ Owned(errs.Kind) }

// PieceKind says which rung of the read ladder holds a Piece.
type PieceKind uint8

const (
	Zeros  PieceKind = iota // nothing to read
	InRAM                   // Page, in the overlay
	Logged                  // in the journal only, at Pos
	Stored                  // in an object, Off blocks into it
	Asked                   // the driver reads it: only it knows where
)

// Piece is a run of blocks that lie together.
type Piece struct {
	Kind  PieceKind
	Count uint32   // blocks
	First uint32   // index of the first block's checksum in Resolution.Sums
	Page  buf.Page // InRAM, Count 1: not retained, valid until the loop moves on
	Pos   uint32   // Logged: block offset in the journal
	NS    ids.NamespaceID
	SCO   ids.SCONum
	Off   uint16 // Stored: in blocks
}

// Resolution is where the blocks of a range lie, in order. It is reused: Reset keeps its memory.
type Resolution struct {
	Pieces []Piece
	Sums   []uint32 // one per block; 0 for zeros and what is asked for
}

// Reset empties the resolution.
func (r *Resolution) Reset() { r.Pieces, r.Sums = r.Pieces[:0], r.Sums[:0] }

// Add appends one block, merging it with the run before where the two lie together.
func (r *Resolution) Add(p Piece, sum uint32) {
	p.Count, p.First = 1, uint32(len(r.Sums))
	r.Sums = append(r.Sums, sum)
	if n := len(r.Pieces); n > 0 {
		last := &r.Pieces[n-1]
		if last.Kind == p.Kind && last.joins(&p) {
			last.Count++
			return
		}
	}
	r.Pieces = append(r.Pieces, p)
}

func (last *Piece) joins(p *Piece) bool {
	switch p.Kind {
	case Zeros, Asked:
		return true
	case Logged:
		return last.Pos+last.Count == p.Pos
	case Stored:
		return last.NS == p.NS && last.SCO == p.SCO && uint32(last.Off)+last.Count == uint32(p.Off)
	default:
		return false
	}
}

// Loaded is told, on the loop, that a page of the map arrived, or why it will not.
type Loaded interface{ MapLoaded(errs.Kind) }

// Fetch reads blocks that lie together in an object, or in a place that only the driver knows. It is pooled by its
// maker.
type Fetch struct {
	Kind  PieceKind     // Stored, Logged or Asked
	Addr  ids.BlockAddr // Asked: the first block's address
	NS    ids.NamespaceID
	SCO   ids.SCONum
	Off   uint32   // blocks from the object's start; Logged: a Pos
	Count uint32   // blocks
	Sums  []uint32 // Asked: zeros, the driver verifies on its own
	Dst   *buf.Vec // Count whole pages of the loop's pool, of which the caller has the one reference; filled
	Via   Rung     // the last of those that gave the blocks; set with an OK
	Err   errs.Kind
	Done  FetchDone
}

// FetchDone is told of a Fetch's end: exactly once, on the loop, never from inside the call. With Err OK
// every block was verified against Sums. Dst may have other pages by then: those that it had may still be the
// target of a read that was not waited for. The caller has the one reference to each page that is there now.
// With another Err they are not to be written, as some may be pages of zeros.
type FetchDone interface {
	FetchDone(*Fetch)
}
