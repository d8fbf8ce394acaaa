package journal

import "vstor/dataplane/ids"

// Pressure says how full the log is, in segments.
type Pressure struct {
	Total   int
	Pinned  int // from the tail that entries need to the head
	Pending int // needed by nobody, freed by the next root
	Free    int
	Reserve int // of the free ones, for copies only
}

// Pressure is cheap: ask at every seal decision. Loop only, like all here.
func (j *Journal) Pressure() Pressure {
	s := &j.segs
	return Pressure{Total: len(s.state), Pinned: s.pinned, Pending: s.pending(), Free: s.free(),
		Reserve: s.reserve}
}

// Stalled is the loop's time at which the line of Append came to a halt for lack of space; 0 while it
// moves, however slowly. What frees space is Committed, or AppendCopy and Moved.
func (j *Journal) Stalled() int64 { return j.stalled }

// Usage is what a volume pins: bytes of headers and payload, and the segments they lie in. The bytes
// count until their segment is free of the volume. A volume that pins more than Half waits while others do: see aside.
func (j *Journal) Usage(vol ids.VolumeID) (bytes int64, segments int) {
	if v := j.segs.vols[vol]; v != nil {
		return v.bytes, len(v.holds)
	}
	return 0, 0
}

// Half is half the space that Append can fill, in bytes.
func (j *Journal) Half() int64 { return j.segs.fillable() * BlockSize / 2 }

// Tail names a segment. The Pos of its entries is in [Lo, Hi).
type Tail struct {
	Lo, Hi  Pos
	Segment int
	Record  uint64 // its first
}

// Tail is the oldest pinned segment. ok is false if that is the head, which nothing needs to leave, and
// while entries in it have not ended: their volumes do not know yet that they are there.
func (j *Journal) Tail() (t Tail, ok bool) {
	s := &j.segs
	lo := j.segPos(s.tail)
	t = Tail{Lo: Pos(lo), Hi: Pos(lo + s.blocks), Segment: s.tail, Record: s.state[s.tail].first}
	return t, s.tail != s.head && s.state[s.tail].last <= j.ended
}

// TailHolders calls f for each volume that pins the tail segment, in no order, with the sequence it would
// have to commit to let go of it, and the bytes it has there. f must not call the Journal.
func (j *Journal) TailHolders(f func(vol ids.VolumeID, seq ids.Seq, bytes int64)) {
	for id, v := range j.segs.vols {
		if len(v.holds) > 0 && v.holds[0].seg == j.segs.tail {
			f(id, v.holds[0].max, v.holds[0].bytes)
		}
	}
}

// Moved says that vol needs nothing of segment t any more although it has not committed all of it: each
// of its entries there is committed, was copied forward by an AppendCopy that has ended, or is overlaid by
// a newer entry that has ended. Trims, zeros, snapshots, rollbacks and resizes count, too. It does nothing
// if t is not the tail any more.
func (j *Journal) Moved(vol ids.VolumeID, t Tail) {
	if now, ok := j.Tail(); !ok || now != t {
		return
	}
	j.segs.moved(vol)
	j.cameBack()
}
