package volume

import (
	"cmp"
	"slices"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/volume/journal"
	"vstor/dataplane/volume/overlay"
	"vstor/dataplane/volume/sco"
)

// batchContent is a closed batch as the bytes of a SCO: head and index in RAM, data gathered from the
// batch's pages, or from the journal where a page has left RAM.
type batchContent struct {
	pool    *buf.Pool
	jrn     *journal.Journal
	head    []byte
	start   int // block at which data begins
	entries []overlay.Entry
	order   []uint32 // indexes of the live entries, by address
	holes   []sco.Hole
	header  sco.Header
	scratch []byte // one aligned block for reads from the journal
	rotten  int    // blocks whose every copy fails its checksum
}

// newBatchContent sorts a closed batch, without what is dropped, and builds the head of its SCO. Any
// goroutine; the batch's Sealing mark must be set.
func newBatchContent(v *Volume, b *overlay.Batch, n ids.SCONum, dropped []bool) *batchContent {
	c := &batchContent{pool: v.pool, jrn: v.jrn, entries: b.Entries()}
	c.order = make([]uint32, 0, b.Blocks())
	for i := range c.entries {
		if c.entries[i].Live() && (dropped == nil || !dropped[i]) {
			c.order = append(c.order, uint32(i))
		}
	}
	slices.SortFunc(c.order, func(x, y uint32) int {
		return cmp.Compare(c.entries[x].Addr, c.entries[y].Addr)
	})
	index := make([]sco.Entry, len(c.order))
	for i, at := range c.order {
		e := &c.entries[at]
		index[i] = sco.Entry{Addr: e.Addr, Seq: e.Seq, Sum: e.Sum}
	}
	for _, h := range b.Holes() {
		c.holes = append(c.holes, sco.Hole{Addr: h.Addr, Count: h.Count, Seq: h.Seq, Kind: uint8(h.Kind)})
	}
	lo, hi := b.SeqRange()
	c.header = sco.Header{Kind: sco.Write, Volume: v.opts.ID, SCO: n, Epoch: v.opts.Epoch, SeqLo: lo, SeqHi: hi}
	c.head = sco.Head(&c.header, index, c.holes)
	c.start = c.header.DataStart()
	return c
}

// Size is the object's size in bytes.
func (c *batchContent) Size() int64 { return int64(c.start+len(c.order)) * ids.BlockSize }

// Fill copies whole blocks of the object and verifies each against the checksum it was written with: a
// page that rotted in RAM is read from the journal again.
func (c *batchContent) Fill(dst []byte, off int64) error {
	for len(dst) > 0 {
		n := int(off >> ids.BlockShift)
		if n < c.start {
			k := copy(dst, c.head[off:])
			dst, off = dst[k:], off+int64(k)
			continue
		}
		if err := c.fillBlock(dst[:ids.BlockSize], &c.entries[c.order[n-c.start]]); err != nil {
			return err
		}
		dst, off = dst[ids.BlockSize:], off+ids.BlockSize
	}
	return nil
}

func (c *batchContent) fillBlock(dst []byte, e *overlay.Entry) error {
	if e.Page != 0 {
		copy(dst, c.pool.Bytes(e.Page))
		if uint32(xxhash.Sum64(dst)) == e.Sum {
			return nil
		}
	}
	if err := c.readLog(e); err != nil {
		return err
	}
	copy(dst, c.scratch)
	if uint32(xxhash.Sum64(dst)) != e.Sum {
		// Both copies are lost. The block goes into the SCO as it is, beside the checksum it should
		// have: whoever reads it gets an error until it is written again, and nothing older.
		c.rotten++
	}
	return nil
}

// readLog reads a block from the journal into scratch.
func (c *batchContent) readLog(e *overlay.Entry) error {
	if c.scratch == nil {
		b, err := buf.AlignedBytes(ids.BlockSize)
		if err != nil {
			return errs.Wrap(errs.IO, err, "no memory to read a block back from the journal")
		}
		c.scratch = b
	}
	return c.jrn.File().ReadAt(c.scratch, c.jrn.Offset(journal.Pos(e.Pos)))
}

// close gives the scratch block back.
func (c *batchContent) close() {
	if c.scratch != nil {
		_ = buf.FreeAligned(c.scratch)
	}
}
