package journal

import (
	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
)

// segments is the accounting of the log: which segment the head is in, and which volumes still need what
// lies in which segment. It does no IO.
//
//	index   0      1      2      3      4      5      6      7
//	        free   .......pending.......|tail..........head| free
//	               ^durable                                    (a ring: behind 7 comes 0)
//
// Segments from tail to head are pinned. Those from durable to tail are needed by nobody, but the root
// on the drive still says that the log begins at durable: they become free with the next root.
type segments struct {
	blocks  uint32 // per segment
	reserve int    // segments that only copies may enter
	state   []segment
	durable int
	tail    int
	head    int
	headOff uint32 // next block in the head segment
	used    int    // from durable to head, both included
	pinned  int    // from tail to head, both included
	vols    map[ids.VolumeID]*volume
}

// segment is one of the ring. first, last and lap mean something only while it is used.
type segment struct {
	holders int    // volumes that pin it
	first   uint64 // number of the first record in it, or of the next one if it is empty
	last    uint64 // number of the last record in it, first-1 if it is empty
	lap     uint32
}

// volume is what one volume pins.
//
// An entry always goes into the head segment, so holds grows at its end only, once per segment and not
// per IO, and is in log order.
type volume struct {
	committed ids.Seq
	bytes     int64
	holds     []hold
}

type hold struct {
	seg   int
	max   ids.Seq // highest sequence of the volume in the segment
	bytes int64   // headers and payload of its entries there
}

func (s *segments) init(n int, blocks uint32, reserve int) {
	*s = segments{blocks: blocks, reserve: reserve, state: make([]segment, n),
		vols: make(map[ids.VolumeID]*volume)}
}

// start makes segment seg the only one used, empty, with record number first to come.
func (s *segments) start(seg int, lap uint32, first uint64) {
	s.durable, s.tail, s.head, s.headOff, s.used, s.pinned = seg, seg, seg, 0, 1, 1
	s.state[seg] = segment{first: first, last: first - 1, lap: lap}
}

func (s *segments) next(seg int) int {
	if seg++; seg < len(s.state) {
		return seg
	}
	return 0
}

func (s *segments) free() int { return len(s.state) - s.used }

// filled is how much of what Append can fill is pinned, 0 to 1.
func (s *segments) filled() float64 {
	used := float64(s.pinned-1)*float64(s.blocks) + float64(s.headOff)
	return min(1, used/float64(s.fillable()))
}

// fillable is how many blocks Append can fill.
func (s *segments) fillable() int64 { return int64(len(s.state)-s.reserve) * int64(s.blocks) }

// admits reports whether entries of a class may be written at all: once copies have gone into the
// reserve, what is left of their segment is for copies, too.
func (s *segments) admits(copied bool) bool { return copied || s.free() >= s.reserve }

// spare is how many blocks of the last segment that Append may enter are for entries without payload: a trim may be
// what gives space back to all, and must not stand before a log that data has filled to the last block.
func (s *segments) spare() uint32 { return min(64, s.blocks/8) }

// room is how many blocks the head has left for records with payload, or without.
func (s *segments) room(payload, copied bool) uint32 {
	left := s.blocks - s.headOff
	if payload && !copied && s.free() <= s.reserve {
		return left - min(left, s.spare())
	}
	return left
}

// place makes sure that the head has room for need blocks of a class, of which one is the header, moving it to the
// next segment if that is what it takes. False if the log is full; nothing changed then.
func (s *segments) place(need uint32, copied bool) bool {
	if !s.admits(copied) {
		return false
	}
	payload := need > 1
	if s.room(payload, copied) >= need {
		return true
	}
	least := 1
	if !copied {
		least = s.reserve + 1
	}
	if s.free() < least || payload && !copied && s.free() == least && s.blocks-s.spare() < need {
		return false
	}
	s.advanceHead()
	return true
}

func (s *segments) advanceHead() {
	from := s.state[s.head]
	s.head = s.next(s.head)
	lap := from.lap
	if s.head == 0 {
		lap++
	}
	s.state[s.head] = segment{first: from.last + 1, last: from.last, lap: lap}
	s.headOff = 0
	s.used++
	s.pinned++
}

// wrote books a record of n blocks at the head.
func (s *segments) wrote(number uint64, n uint32) {
	h := &s.state[s.head]
	if number != h.last+1 || n > s.blocks-s.headOff {
		invariants.Assert(false, "journal: record %d of %d blocks does not fit behind %d", number, n, h.last)
	}
	h.last = number
	s.headOff += n
}

// note books an entry in the head segment.
func (s *segments) note(vol ids.VolumeID, seq ids.Seq, bytes int64) {
	v := s.vols[vol]
	if v == nil {
		v = &volume{}
		s.vols[vol] = v
	}
	if seq <= v.committed {
		return
	}
	v.bytes += bytes
	if n := len(v.holds); n > 0 && v.holds[n-1].seg == s.head {
		h := &v.holds[n-1]
		h.max = max(h.max, seq)
		h.bytes += bytes
		return
	}
	v.holds = append(v.holds, hold{seg: s.head, max: seq, bytes: bytes})
	s.state[s.head].holders++
}

// committed lets go of what holds nothing above seq.
func (s *segments) committed(vol ids.VolumeID, seq ids.Seq) {
	v := s.vols[vol]
	if v == nil {
		v = &volume{}
		s.vols[vol] = v
	}
	if seq <= v.committed {
		return
	}
	v.committed = seq
	keep := v.holds[:0]
	for _, h := range v.holds {
		if h.max > seq {
			keep = append(keep, h)
			continue
		}
		v.bytes -= h.bytes
		s.state[h.seg].holders--
	}
	v.holds = keep
}

// forget lets go of all that a volume holds, and of the volume.
func (s *segments) forget(vol ids.VolumeID) {
	v := s.vols[vol]
	if v == nil {
		return
	}
	for _, h := range v.holds {
		s.state[h.seg].holders--
	}
	delete(s.vols, vol)
}

// moved lets go of what a volume holds in the tail segment.
func (s *segments) moved(vol ids.VolumeID) {
	v := s.vols[vol]
	if v == nil || len(v.holds) == 0 || v.holds[0].seg != s.tail || s.tail == s.head {
		return
	}
	v.bytes -= v.holds[0].bytes
	s.state[s.tail].holders--
	v.holds = append(v.holds[:0], v.holds[1:]...)
}

// advanceTail moves the tail over segments that nobody pins. Their records must all have ended, or a
// write of the last lap might land on one of the next.
func (s *segments) advanceTail(ended uint64) {
	for s.tail != s.head && s.state[s.tail].holders == 0 && s.state[s.tail].last <= ended {
		s.tail = s.next(s.tail)
		s.pinned--
	}
}

// pending is how many segments wait for a root that frees them.
func (s *segments) pending() int { return s.used - s.pinned }

// freed books a durable root whose tail is segment tail.
func (s *segments) freed(tail int) {
	for s.durable != tail {
		s.durable = s.next(s.durable)
		s.used--
	}
}
