// Package ids holds the numbers that everyone names: each kind of number is a type of its own, so
// that a block address can never be handed where a byte offset or a SCO number is meant.
package ids

import "strconv"

// BlockSize is the unit of everything below the block API, in bytes. A format constant: never changes.
const (
	BlockShift = 12
	BlockSize  = 1 << BlockShift
	BlockMask  = BlockSize - 1
)

// VolumeID names a vDisk for ever; it is never reused. The vDisk's objects live in the namespace of
// the same number.
type VolumeID uint64

// NamespaceID names a set of objects. A vDisk's namespace has the vDisk's number.
type NamespaceID = VolumeID

// BlockAddr is an address inside a vDisk, in blocks of BlockSize bytes.
type BlockAddr uint64

// Seq is a vDisk's write sequence: every write, trim, zero, snapshot, rollback and resize takes the
// next one. 0 is before the first.
type Seq uint64

// Epoch counts the ownerships of a vDisk; a higher epoch fences all lower ones.
type Epoch uint64

// SCONum numbers the SCOs of a namespace; 0 is no SCO.
type SCONum uint32

// CommitNum is the place of a SCO in its vDisk's order of application; the first is 1.
type CommitNum uint64

// PutID names one attempt to store an object; never reused within a namespace.
type PutID uint32

// ASDID numbers an ASD within its backend, from 0.
type ASDID uint32

// NodeID numbers the failure domain an ASD stands in.
type NodeID uint32

func (v VolumeID) String() string { return strconv.FormatUint(uint64(v), 10) }
func (s SCONum) String() string   { return strconv.FormatUint(uint64(s), 10) }
func (a ASDID) String() string    { return strconv.FormatUint(uint64(a), 10) }

// Blocks is the number of whole blocks that n bytes fill, rounded up.
func Blocks(n int64) int64 { return (n + BlockMask) >> BlockShift }
