package volume

import (
	"cmp"
	"slices"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/sum"
	"vstor/dataplane/volume/journal"
	"vstor/dataplane/volume/overlay"
	"vstor/dataplane/volume/sco"
)

// batchContent is a closed batch as the bytes of a SCO: head and index in RAM, data gathered from the
// batch's pages, or from the journal where a page has left RAM.
type batchContent struct {
	v        *Volume
	batch    *overlay.Batch
	head     []byte
	start    int // block at which data begins
	entries  []overlay.Entry
	order    []uint32 // indexes of the live entries, by address
	gone     int      // so many of order, from the front, have left RAM since they were coded
	holes    []sco.Hole
	header   sco.Header
	allCoded func()
	rotten   int // blocks whose every copy is lost: it fails its checksum, or cannot be read

	log    []byte // aligned: blocks that were read from the journal
	at, n  uint32 // log has the n blocks from at on
	single uint32 // below this place blocks are read one by one
	unread int    // blocks that the drive did not read
	giveUp bool   // on such blocks
}

// logTogether is how many blocks that lie together in the journal are read back at once: a piece of a shard.
const logTogether = layout.RegionSize / ids.BlockSize

// SealBytes is what one slot of the Sealer holds beside the SCO's index, in bytes: journal blocks read back.
const SealBytes = logTogether * ids.BlockSize

// newBatchContent sorts a closed batch, without what is dropped, and builds the head of its SCO. Any
// goroutine; the batch's Sealing mark must be set.
func newBatchContent(v *Volume, b *overlay.Batch, n ids.SCONum, dropped []bool) *batchContent {
	c := &batchContent{v: v, batch: b, entries: b.Entries()}
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
	c.holes = scoHoles(b.Holes())
	lo, hi := b.SeqRange()
	c.header = sco.Header{Kind: sco.Write, Volume: v.opts.ID, SCO: n, Epoch: v.opts.Epoch, SeqLo: lo, SeqHi: hi}
	c.head = sco.Head(&c.header, index, c.holes)
	c.start = c.header.DataStart()
	return c
}

// scoHoles are holes of the overlay as a SCO has them.
func scoHoles(holes []overlay.Hole) []sco.Hole {
	out := make([]sco.Hole, len(holes))
	for i, h := range holes {
		out[i] = sco.Hole{Addr: h.Addr, Count: h.Count, Seq: h.Seq, Kind: uint8(h.Kind)}
	}
	return out
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
		k := min(len(dst), sum.BatchSize*ids.BlockSize)
		if err := c.fillSome(dst[:k], n-c.start, len(dst)>>ids.BlockShift); err != nil {
			return err
		}
		dst, off = dst[k:], off+int64(k)
	}
	return nil
}

// fillSome copies the data blocks from i on whose pages are in RAM and verifies them together. The others, and one that
// is not right, take the longer way; left are wanted from i on.
func (c *batchContent) fillSome(dst []byte, i, left int) error {
	var sums [sum.BatchSize]uint32
	n, paged := len(dst)>>ids.BlockShift, false
	for k := range n {
		if p := c.entries[c.order[i+k]].Page; p != 0 {
			copy(dst[k<<ids.BlockShift:][:ids.BlockSize], c.v.pool.Bytes(p))
			paged = true
		}
	}
	if paged {
		sum.Blocks(sums[:n], dst)
	}
	for k := range n {
		if e := &c.entries[c.order[i+k]]; e.Page != 0 && sums[k] == e.Sum {
			continue
		}
		if err := c.fillBlock(dst[k<<ids.BlockShift:][:ids.BlockSize], i+k, left-k); err != nil {
			return err
		}
	}
	return nil
}

// fillBlock copies data block i; left of them are wanted, from it on. One of which both copies are lost goes into the
// SCO as it is, beside the checksum it should have: whoever reads it gets an error until it is written again, and
// nothing older.
func (c *batchContent) fillBlock(dst []byte, i, left int) error {
	e := &c.entries[c.order[i]]
	right := func() bool { return uint32(xxhash.Sum64(dst)) == e.Sum }
	if e.Page != 0 {
		copy(dst, c.v.pool.Bytes(e.Page))
		if right() {
			return nil
		}
	}
	b, err := c.readLog(i, left)
	if err == nil {
		copy(dst, b)
		if right() {
			return nil
		}
		if b, err = c.readBlock(e.Pos); err == nil { // once more: perhaps it went wrong on the way
			copy(dst, b)
		}
	}
	if err != nil {
		c.unread++
		if errs.Of(err) != errs.IO || !c.giveUp || !c.answers() {
			return err
		}
		clear(dst) // whatever the drive left there is nobody's business
	}
	if !right() {
		c.rotten++
	}
	return nil
}

// readLog reads data block i from the journal, and with it those of the left that are wanted which follow both here
// and there: what was written in one go and then left RAM. Further ones would be thrown away, since the coder goes on
// with a piece of the next shard, megabytes from here. The slice is valid until the next read.
func (c *batchContent) readLog(i, left int) ([]byte, error) {
	pos := c.entries[c.order[i]].Pos
	if pos >= c.at && pos < c.at+c.n {
		return c.log[(pos-c.at)*ids.BlockSize:][:ids.BlockSize], nil
	}
	run := uint32(1)
	for ; pos >= c.single && int(run) < min(logTogether, left); run++ {
		if next := &c.entries[c.order[i+int(run)]]; next.Page != 0 || next.Pos != pos+run {
			break
		}
	}
	if run > 1 {
		if b, err := c.read(pos, run); err == nil {
			return b[:ids.BlockSize], nil
		}
		c.single = pos + run // a drive may take long to say that it cannot: not for each block anew
	}
	return c.readBlock(pos)
}

func (c *batchContent) readBlock(pos uint32) ([]byte, error) { return c.read(pos, 1) }

// read reads n blocks of the journal.
func (c *batchContent) read(pos, n uint32) ([]byte, error) {
	if c.log == nil {
		b, err := buf.AlignedBytes(logTogether * ids.BlockSize)
		if err != nil {
			return nil, errs.Wrap(errs.Busy, err, "no memory to read a block back from the journal")
		}
		c.log = b
	}
	c.n = 0
	b := c.log[:n*ids.BlockSize]
	if err := c.v.jrn.File().ReadAt(b, c.v.jrn.Offset(journal.Pos(pos))); err != nil {
		return nil, err
	}
	c.at, c.n = pos, n
	return b, nil
}

// answers reports whether the journal's drive reads anything: its roots. While it does not, it is gone as a whole,
// and may come back with all that is on it; a single block that it does not read is lost.
func (c *batchContent) answers() bool {
	c.n = 0
	for _, off := range [...]int64{journal.RootA, journal.RootB} {
		if c.v.jrn.File().ReadAt(c.log[:ids.BlockSize], off) == nil {
			return true
		}
	}
	return false
}

// Coded lets pages leave RAM that the put has done with, where RAM is low. The obvious way is to keep them until the
// SCO is committed, and to give all back together; but then those who want to write wait for the whole of a SCO, and
// write until RAM is full again. Who reads such a block meanwhile, or tries the put again, finds it in the journal.
func (c *batchContent) Coded(end int64) {
	if end >= c.Size() {
		defer c.allCoded()
	}
	to := min(int(end>>ids.BlockShift)-c.start, len(c.order))
	if to <= c.gone {
		return
	}
	c.v.loop.Call(func() {
		if !c.v.closed && c.v.keeper.lowRAM() {
			c.v.dropCoded(c.batch, c.order[c.gone:to])
			c.gone = to
		}
	})
}

// close gives the memory back.
func (c *batchContent) close() {
	if c.log != nil {
		_ = buf.FreeAligned(c.log)
	}
}
