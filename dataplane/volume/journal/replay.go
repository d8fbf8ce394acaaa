package journal

import (
	"math/bits"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
)

// ReplayEntry is an entry found in the log. Sums and Data are valid during the call only; Pos serves to
// read the payload again later.
type ReplayEntry struct {
	Vol    ids.VolumeID
	Seq    ids.Seq
	Kind   Kind
	Copied bool // forward: the same (Vol, Seq, Addr) may have come before, and need not have
	Addr   ids.BlockAddr
	Blocks uint32
	Pos    Pos
	Sums   []uint32 // of a Write: as the writer computed them
	Data   []byte   // of a Write: Blocks blocks
	Bad    uint32   // bit i: block i of Data does not match its checksum and is lost
	Record uint64
}

const _ = uint(32 - MaxEntryBlocks) // Bad has a bit for each

// ReplayStats is what Replay found.
type ReplayStats struct {
	Records    uint64
	Entries    uint64
	Blocks     uint64
	BadBlocks  uint64 // rotten, delivered with Bad set
	Unreadable uint64 // blocks the drive returned an error for
	Clean      bool   // the last life was closed cleanly
	Torn       bool   // behind the last valid record lay the remains of one that had not completed
	Mark       uint64 // records up to this one had to be there
}

// Replayed is what Replay found.
func (j *Journal) Replayed() ReplayStats { return j.replay }

// Replay calls fn for every entry of the log in order, and stops at its end, which doc.go defines. An
// error of fn ends it and is returned. Corrupt: a record that must be there has no readable header; the
// sentence names it. Blocking; once, before Attach. Memory: 8 MiB, whatever the journal holds.
func (j *Journal) Replay(fn func(ReplayEntry) error) error {
	invariants.Assert(j.st == opened, "journal: Replay twice, or after Attach")
	w, err := newWindow(j.file, j.opt.SegmentSize)
	if err != nil {
		return err
	}
	defer w.close()
	start, err := newWindow(j.file, BlockSize)
	if err != nil {
		return err
	}
	defer start.close()
	p := &replayer{j: j, w: w, start: start, number: j.root.TailRecord, mark: j.root.Durable}
	p.sameBoot = j.opt.BootID != [16]byte{} && j.opt.BootID == j.root.BootID
	for {
		more, err := p.step(fn)
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	j.replay.Clean, j.replay.Mark, j.replay.Unreadable = j.root.Clean, p.mark, w.unreadable+start.unreadable
	j.next, j.lastSum = p.number, p.lastSum
	j.st = replayed
	return nil
}

// replayer walks the log.
type replayer struct {
	j        *Journal
	w        *window
	start    *window // for peek, one block
	peek     peek
	header   [BlockSize]byte // of the record that find found, as it was when it was checked
	number   uint64          // of the record that comes next
	lastSum  uint64          // header checksum of the one before; 0 = there was none
	lastInc  uint64
	mark     uint64 // records up to this one must be there, for all that was seen so far
	scanned  bool   // mark rests on the rest of the log, too
	sameBoot bool
	sums     [MaxEntryBlocks]uint32
}

// step delivers the next record; false at the end of the log.
func (p *replayer) step(fn func(ReplayEntry) error) (bool, error) {
	j := p.j
	if j.root.Clean && p.number > j.root.Durable {
		return false, nil
	}
	if j.root.First == p.number && p.lastSum != 0 && p.lastSum != j.root.Chain {
		// Damage has led us into what an earlier life left behind and a later one replaced.
		return false, errs.New(errs.Corrupt, "journal: the records up to %d are not those that the root knows: "+
			"their chain ends with %#x, %#x would be right", p.number-1, p.lastSum, j.root.Chain)
	}
	h, found, err := p.find()
	if err != nil {
		return false, err
	}
	s := &j.segs
	if !found {
		must, err := p.must(j.headPos())
		if err != nil || !must {
			return false, err
		}
		return false, errs.New(errs.Corrupt, "journal: record %d, due in segment %d at byte %d or at the start of "+
			"segment %d, is lost: its header is damaged, and records up to %d are known to have been complete",
			p.number, s.head, j.Offset(Pos(j.headPos())), s.next(s.head), p.mark)
	}
	bad, err := p.verify(&h)
	if err != nil {
		return false, err
	}
	if bad {
		must, err := p.must(h.Position + 1 + h.Blocks)
		if err != nil || !must {
			j.replay.Torn = err == nil
			return false, err
		}
	}
	return true, p.deliver(&h, fn)
}

// verify reports whether a block of payload is bad that was good when it was written. Lost blocks were not:
// they say nothing of whether the record is torn, and nothing depends on what they hold.
func (p *replayer) verify(h *Header) (bool, error) {
	b, err := p.record(h)
	if err != nil {
		return false, err
	}
	data := b[BlockSize:]
	var e EntryHeader
	for w := h.Walk(p.header[:]); w.Next(&e); {
		for i := range e.Payload() {
			if !e.Lost && blockSum(data[:BlockSize]) != e.Sum(i) {
				return true, nil
			}
			data = data[BlockSize:]
		}
	}
	return false, nil
}

// record is the record's blocks. The first of them is read once more by this, and may be unreadable this time: p.header
// is what was checked.
func (p *replayer) record(h *Header) ([]byte, error) {
	s := &p.j.segs
	return p.w.blocks(h.Position, 1+h.Blocks, p.j.segPos(s.head)+s.blocks)
}

// deliver books a record and hands out its entries.
func (p *replayer) deliver(h *Header, fn func(ReplayEntry) error) error {
	j := p.j
	b, err := p.record(h)
	if err != nil {
		return err
	}
	pos, data := Pos(h.Position+1), b[BlockSize:]
	var e EntryHeader
	header := int64(BlockSize) // of the first, as when it was written
	for w := h.Walk(p.header[:]); w.Next(&e); {
		n := e.Payload()
		out := ReplayEntry{Vol: e.Vol, Seq: e.Seq, Kind: e.Kind, Copied: e.Copied, Addr: e.Addr, Blocks: e.Blocks,
			Pos: pos, Sums: p.sums[:n], Data: data[:n*BlockSize], Record: h.Number}
		if n == 0 {
			out.Pos = Pos(h.Position)
		}
		for i := range n {
			p.sums[i] = e.Sum(i)
			if e.Lost || blockSum(data[i*BlockSize:(i+1)*BlockSize]) != p.sums[i] {
				out.Bad |= 1 << i
			}
		}
		data, pos = data[n*BlockSize:], pos+Pos(n)
		j.replay.Entries++
		j.replay.Blocks += uint64(n)
		j.replay.BadBlocks += uint64(bits.OnesCount32(out.Bad))
		j.segs.note(e.Vol, e.Seq, header+int64(entryLength+n*(sumLength+BlockSize)))
		header = 0
		if err := fn(out); err != nil {
			return err
		}
	}
	j.segs.wrote(h.Number, 1+h.Blocks)
	j.replay.Records++
	p.lastSum, p.lastInc = h.Sum, h.Incarnation
	p.number++
	return nil
}
