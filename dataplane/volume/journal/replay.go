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
	number   uint64 // of the record that comes next
	lastSum  uint64 // header checksum of the one before; 0 = there was none
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
		return false, errs.New(errs.Corrupt, "journal: the records up to %d are not those that the root knows: their "+
			"chain ends with %#x, %#x would be right", p.number-1, p.lastSum, j.root.Chain)
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

// find looks for record p.number where it can be: behind its predecessor, or at the start of the next
// segment. It moves the head there.
//
// Both can hold one: a life dies with record 8 torn behind 7, and 8 of the next life is larger and goes to
// the next segment. Both are chained to 7. The later incarnation is the true one, since a life that
// accepts a record never writes that number again.
func (p *replayer) find() (Header, bool, error) {
	s := &p.j.segs
	here, ok, err := p.behind()
	if err != nil {
		return Header{}, false, err
	}
	// The tail is the first of its segment, and the ring does not run into its own tail.
	if s.headOff > 0 && s.free() > 0 {
		next := s.next(s.head)
		if err := p.peekAt(next); err != nil {
			return Header{}, false, err
		}
		lap := s.state[s.head].lap
		if next == 0 {
			lap++
		}
		there := p.peek.is && p.expected(&p.peek.h, p.j.segPos(next), s.blocks, lap)
		if there && (!ok || p.peek.h.Incarnation > here.Incarnation) {
			s.advanceHead()
			here, ok = p.peek.h, true
		}
	}
	if ok {
		p.learn(&here)
	}
	return here, ok, nil
}

// behind looks right behind the predecessor.
func (p *replayer) behind() (Header, bool, error) {
	s := &p.j.segs
	room := s.blocks - s.headOff
	if room == 0 {
		return Header{}, false, nil
	}
	pos := p.j.headPos()
	b, err := p.w.blocks(pos, 1, pos+room)
	if err != nil {
		return Header{}, false, err
	}
	h, ok, err := p.decode(b)
	return h, ok && p.expected(&h, pos, room, s.state[s.head].lap), err
}

// peek is the header at the start of a segment, read once.
type peek struct {
	seg int // + 1; 0 = none
	is  bool
	h   Header
}

func (p *replayer) peekAt(seg int) error {
	if p.peek.seg == seg+1 {
		return nil
	}
	pos := p.j.segPos(seg)
	b, err := p.start.blocks(pos, 1, pos+1)
	if err != nil {
		return err
	}
	h, ok, err := p.decode(b)
	p.peek = peek{seg: seg + 1, is: ok, h: h}
	return err
}

// decode reads a block that may be a header. Only a newer version is an error.
func (p *replayer) decode(b []byte) (Header, bool, error) {
	if !isHeader(b) {
		return Header{}, false, nil
	}
	h, err := DecodeHeader(b)
	if errs.Of(err) == errs.Version {
		return Header{}, false, err
	}
	return h, err == nil, nil
}

// expected reports whether h is the header of record p.number: of this journal, in this place, lap and
// incarnation, chained to its predecessor, and within the room of its segment.
func (p *replayer) expected(h *Header, pos, room, lap uint32) bool {
	return h.Number == p.number && p.native(h, pos) && h.Lap == lap && h.Incarnation >= p.lastInc &&
		(p.lastSum == 0 || h.Prev == p.lastSum) && 1+h.Blocks <= room
}

// native reports whether a header belongs to this journal and place, and to the life that had the right
// to its number: from First on that is the last incarnation alone, below it all earlier ones.
func (p *replayer) native(h *Header, pos uint32) bool {
	root := &p.j.root
	if h.UUID != root.UUID || h.Position != pos {
		return false
	}
	if h.Number >= root.First {
		return h.Incarnation == root.Incarnation
	}
	return h.Incarnation < root.Incarnation
}

// learn takes over what a header says about those before it.
func (p *replayer) learn(h *Header) {
	p.mark = max(p.mark, h.Durable)
	if p.sameBoot && h.Number >= p.j.root.First {
		p.mark = max(p.mark, h.Complete)
	}
}

// must reports whether record p.number has to be there. from is the block from which on later records
// may lie.
func (p *replayer) must(from uint32) (bool, error) {
	if p.number > p.mark && !p.scanned {
		if err := p.scan(from); err != nil {
			return false, err
		}
		p.scanned = true
	}
	return p.number <= p.mark, nil
}

// scan looks for later records, which may know that this one had completed: in the rest of this segment,
// in the next, and in each that begins with a later record or follows one that holds any. For all
// others one look at the start is enough, where a record always begins: a torn tail costs little.
func (p *replayer) scan(from uint32) error {
	s := &p.j.segs
	seg, live := s.head, true
	for i := range s.free() + 1 {
		first := p.j.segPos(seg)
		end := first + s.blocks
		if i == 0 {
			first = from
		} else if !live {
			var err error
			if live, err = p.look(first, first+1); err != nil {
				return err
			}
		}
		if live {
			found, err := p.look(first, end)
			if err != nil {
				return err
			}
			live = found || i == 0
		}
		seg = s.next(seg)
	}
	return nil
}

// look learns from the later records whose headers are in blocks [from, to), and reports whether there
// are any.
func (p *replayer) look(from, to uint32) (bool, error) {
	found := false
	for pos := from; pos < to; pos++ {
		b, err := p.w.blocks(pos, 1, to)
		if err != nil {
			return false, err
		}
		if h, ok, _ := p.decode(b); ok && h.Number > p.number && p.native(&h, pos) {
			p.learn(&h)
			p.j.replay.Torn = true
			found = true
		}
	}
	return found, nil
}

// verify reports whether a block of payload is bad.
func (p *replayer) verify(h *Header) (bool, error) {
	b, err := p.record(h)
	if err != nil {
		return false, err
	}
	data := b[BlockSize:]
	var e EntryHeader
	for w := h.Walk(b); w.Next(&e); {
		for i := range e.Payload() {
			if blockSum(data[:BlockSize]) != e.Sum(i) {
				return true, nil
			}
			data = data[BlockSize:]
		}
	}
	return false, nil
}

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
	for w := h.Walk(b); w.Next(&e); {
		n := e.Payload()
		out := ReplayEntry{Vol: e.Vol, Seq: e.Seq, Kind: e.Kind, Copied: e.Copied, Addr: e.Addr, Blocks: e.Blocks,
			Pos: pos, Sums: p.sums[:n], Data: data[:n*BlockSize], Record: h.Number}
		for i := range n {
			p.sums[i] = e.Sum(i)
			if blockSum(data[i*BlockSize:(i+1)*BlockSize]) != p.sums[i] {
				out.Bad |= 1 << i
			}
		}
		data, pos = data[n*BlockSize:], pos+Pos(n)
		j.replay.Entries++
		j.replay.Blocks += uint64(n)
		j.replay.BadBlocks += uint64(bits.OnesCount32(out.Bad))
		j.segs.note(e.Vol, e.Seq, int64(entryLength+n*(sumLength+BlockSize)))
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
