package overlay

import (
	"vstor/dataplane/buf"
	"vstor/dataplane/ids"
)

// Entry is the newest version of one block in its batch.
type Entry struct {
	Addr ids.BlockAddr
	Seq  ids.Seq
	Sum  uint32   // low half of XXH64 of the block
	Page buf.Page // 0: the block left RAM and is read back from Pos
	Pos  uint32   // where the block lies in the journal, in blocks
	dead bool     // a later trim or zero of this batch covers it
}

// Live reports whether the entry still counts; a dead one keeps its slot for a later write.
func (e *Entry) Live() bool { return !e.dead }

// Batch is a stretch of a vDisk's history between two seals. Open batches belong to the loop; a closed
// one changes no more but for Page and Pos, of batches that nobody seals yet or while their seal waits.
type Batch struct {
	entries []Entry
	table   []uint32 // open addressing, power of two, at most half full: index into entries + 1
	marks   []uint64 // bitmap of pages that may have entries: see view.go
	holes   holeSet

	live           int // entries that are not dead
	resident       int // entries with a page
	minSeq, maxSeq ids.Seq

	// Sealing is set by the Volume Driver when a goroutine reads the batch: pages stay where they are until that has
	// done with them (EvictEntries).
	Sealing bool
	// Since is the loop's clock when the first entry came, in nanoseconds.
	Since int64
}

const tableMin = 512

func newBatch() *Batch {
	return &Batch{table: make([]uint32, tableMin), marks: make([]uint64, tableMin/slotsPerMark)}
}

// Entries are all entries, dead ones included, in order of first arrival.
func (b *Batch) Entries() []Entry { return b.entries }

// Holes are the trimmed and zeroed ranges, by address, not overlapping. Data written into a hole
// afterwards is an Entry and wins.
func (b *Batch) Holes() []Hole { return b.holes.list }

// Blocks is the number of live data blocks.
func (b *Batch) Blocks() int { return b.live }

// Resident is the number of its blocks that have a page in RAM.
func (b *Batch) Resident() int { return b.resident }

// Empty reports whether the batch has seen nothing.
func (b *Batch) Empty() bool { return b.maxSeq == 0 }

// SeqRange is the lowest and highest sequence that came into the batch.
func (b *Batch) SeqRange() (lo, hi ids.Seq) { return b.minSeq, b.maxSeq }

func (b *Batch) touch(seq ids.Seq) {
	if b.minSeq == 0 || seq < b.minSeq {
		b.minSeq = seq
	}
	b.maxSeq = max(b.maxSeq, seq)
}

func hash(a ids.BlockAddr) uint64 {
	h := uint64(a) * 0x9e3779b97f4a7c15
	return h ^ h>>32
}

// find returns the entry of addr, dead or alive, and the table slot where it is or would be.
func (b *Batch) find(addr ids.BlockAddr) (*Entry, uint64) {
	mask := uint64(len(b.table) - 1)
	for i := hash(addr) & mask; ; i = (i + 1) & mask {
		t := b.table[i]
		if t == 0 {
			return nil, i
		}
		if e := &b.entries[t-1]; e.Addr == addr {
			return e, i
		}
	}
}

func (b *Batch) insert(e Entry, slot uint64) {
	b.entries = append(b.entries, e)
	b.table[slot] = uint32(len(b.entries))
	b.mark(e.Addr)
	if 2*len(b.entries) > len(b.table) {
		b.grow()
	}
}

func (b *Batch) grow() {
	b.table = make([]uint32, 2*len(b.table))
	b.marks = make([]uint64, 2*len(b.marks))
	for i := range b.entries {
		_, slot := b.find(b.entries[i].Addr)
		b.table[slot] = uint32(i + 1)
		b.mark(b.entries[i].Addr)
	}
}

// reset makes the batch new and keeps its memory.
func (b *Batch) reset() {
	clear(b.table)
	clear(b.marks)
	*b = Batch{entries: b.entries[:0], table: b.table, marks: b.marks, holes: holeSet{list: b.holes.list[:0]}}
}
