package volume

import (
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
	"vstor/dataplane/volume/journal"
	"vstor/dataplane/volume/overlay"
)

// Keeper frees the tail of a journal for the vDisks that share it. On their loop only.
//
// A segment is free once every vDisk in it has committed what it has there. A busy vDisk does that by
// itself: its batches fill and are sealed. An idle one holds the tail with a few old blocks. To seal them
// would make a tiny SCO, which costs a round over all drives now and cleaning later; so they are written
// to the journal's head once more, under their old sequences, and the segment goes. Where many idle ones together
// have more than half a segment that would free next to nothing, and write the log over and over: see letGo.
type Keeper struct {
	loop *ring.Loop
	jrn  *journal.Journal
	vols map[ids.VolumeID]*Volume
	// parked ones stand in for a vDisk until it is recovered, when it may be in vols already.
	parked map[ids.VolumeID]*Volume
	timer  ring.Timer
	armed  bool

	jobs     int   // batches of all vDisks on their way
	progress int64 // when sealing last got on (ring.Loop.Now)

	started  bool
	draining bool // the router stops: nobody waits for space any more

	// StallTimeout bounds how long writes wait for journal space; 0 is for ever. Then those that wait
	// end with why: Full if space lacks, IO if ASDs do.
	StallTimeout time.Duration
	why          errs.Kind // what a write hears that waited too long: Full, or IO
}

// keeperTick is how often a journal in use is looked at.
const keeperTick = 20 * time.Millisecond

// NewKeeper watches j. On the loop.
func NewKeeper(l *ring.Loop, j *journal.Journal, stall time.Duration) *Keeper {
	k := &Keeper{loop: l, jrn: j, vols: map[ids.VolumeID]*Volume{}, parked: map[ids.VolumeID]*Volume{},
		StallTimeout: stall, why: errs.IO}
	k.timer.Fire = k.tick
	return k
}

// Add and Remove enter and take a vDisk out.
func (k *Keeper) Add(v *Volume) {
	k.of(v)[v.opts.ID] = v
	v.keeper = k
	v.opts.Sealer.watch(k)
}

func (k *Keeper) of(v *Volume) map[ids.VolumeID]*Volume {
	if v.parked {
		return k.parked
	}
	return k.vols
}

// Start begins the watch: the journal is attached.
func (k *Keeper) Start() {
	k.started = true
	k.arm()
}

func (k *Keeper) Remove(v *Volume) {
	delete(k.of(v), v.opts.ID)
	k.jobs -= v.jobs
	v.jobs = 0
}

// arm starts the clock. It runs only while entries come or space is short, so an idle system sleeps.
func (k *Keeper) arm() {
	if !k.armed && k.started {
		k.armed = true
		k.loop.After(&k.timer, keeperTick)
	}
}

func (k *Keeper) tick() {
	k.armed = false
	low := k.lowRAM()
	if low {
		k.keepRAM()
	}
	if p := k.jrn.Pressure(); k.short(p) && p.Pinned > 1 {
		k.relieve()
	} else if !k.desperate() && !low && !k.draining && k.jrn.Aside() == 0 {
		return // nothing to do until the next entry arms the clock again
	}
	k.arm()
	if k.draining {
		k.jrn.FailWaiting(errs.Closed)
		k.jrn.FailAside(errs.Closed)
	}
	if k.desperate() {
		for _, v := range k.vols {
			v.releaseReady()
		}
	}
	if k.tooLong(k.jrn.Stalled()) {
		k.jrn.FailWaiting(k.why)
	}
	if k.tooLong(k.jrn.Aside()) {
		k.jrn.FailAside(k.why)
	}
}

// tooLong reports whether what has waited since a time has waited long enough.
func (k *Keeper) tooLong(since int64) bool {
	return since != 0 && k.StallTimeout > 0 && time.Duration(k.loop.Now()-since) > k.StallTimeout
}

// Drain ends the waiting for space, now and from now on: SIGTERM does not wait for the backend.
func (k *Keeper) Drain() {
	k.draining = true
	k.jrn.Hurry()
	k.arm()
}

// trouble notes why SCOs cannot be stored now; OK: they can again.
func (k *Keeper) trouble(kind errs.Kind) {
	k.why = errs.IO
	if kind == errs.Full {
		k.why = errs.Full
	}
}

// sealTrims brings trims on their way that would wait for age: they may be what gives room.
func (k *Keeper) sealTrims() {
	for _, v := range k.vols {
		v.trimsDue = true
		v.sealNext()
	}
}

// short reports whether the tail should move: a quarter of the journal is left, or less.
func (k *Keeper) short(p journal.Pressure) bool { return p.Free-p.Reserve <= max(1, p.Total/4) }

// desperate reports whether writes already wait for space, or will soon.
func (k *Keeper) desperate() bool { return k.jrn.Tight() }

// relieve asks every vDisk that pins the tail to let go of it.
func (k *Keeper) relieve() {
	tail, ok := k.jrn.Tail()
	if !ok {
		return
	}
	var holders []*Volume
	k.jrn.TailHolders(func(id ids.VolumeID, seq ids.Seq, _ int64) {
		v := k.parked[id]
		if v == nil {
			v = k.vols[id]
		}
		if v == nil || v.entered < seq || seq <= v.committed {
			return // what it has there is not all in the overlay yet
		}
		if lo := v.lowest(); lo != 0 && lo <= seq {
			holders = append(holders, v)
		}
	})
	k.letGo(holders, tail)
}

// letGo has vDisks that are idle let go of the tail: they copy what they have in it, unless that is more than half of
// what there is for them. Then those with most of it are sealed, who have half the mean or more; what the others have
// is less than half of all, and is copied.
func (k *Keeper) letGo(holders []*Volume, tail journal.Tail) {
	alive, room := 0, int(tail.Hi-tail.Lo)
	few := room / 8 // and less is copied, whatever the room that is parked leaves
	var idle []*Volume
	var each []int
	for _, v := range holders {
		n := 0
		switch {
		case v.parked:
			room -= v.aliveIn(tail) // it cannot be sealed
		case v.onItsWay():
			continue
		default:
			n = v.aliveIn(tail)
		}
		alive += n
		idle, each = append(idle, v), append(each, n)
	}
	for i, v := range idle {
		switch n := each[i]; {
		case few < alive && 2*alive > room && 2*n*len(idle) >= alive:
			v.closeBatch()
		case v.copying == nil:
			v.startCopy(tail)
		}
	}
}

// lowest is the lowest sequence that can be let go of.
func (v *Volume) lowest() ids.Seq {
	b := v.ov.Open()
	if closed := v.ov.Closed(); v.parked && len(closed) > 0 {
		b = closed[0]
	}
	lo, _ := b.SeqRange()
	return lo
}

// onItsWay reports whether what v has in the tail goes into SCOs anyhow: its open batch is worth one, and is closed
// here, or older batches are on their way or wait for the last of their fragments, which hold the tail, too.
func (v *Volume) onItsWay() bool {
	if v.parked {
		return false
	}
	if v.ov.Open().Blocks() >= v.batchMax/4 {
		v.closeBatch()
		return true
	}
	return len(v.ov.Closed()) > 0 || len(v.waiting) > 0
}

// aliveIn is how many blocks of the log it would take to copy forward what v has in the tail; about a hundred holes go
// into one.
func (v *Volume) aliveIn(tail journal.Tail) int {
	blocks, holes := 0, 0
	v.eachIn(tail, func(overlay.Entry) { blocks++ }, func(overlay.Hole) { holes++ })
	return blocks + holes/100
}

// eachIn goes over what is alive of v in the tail.
func (v *Volume) eachIn(tail journal.Tail, entry func(overlay.Entry), hole func(overlay.Hole)) {
	in := func(pos uint32) bool { return journal.Pos(pos) >= tail.Lo && journal.Pos(pos) < tail.Hi }
	v.ov.Held(func(b *overlay.Batch) {
		for _, e := range b.Entries() {
			if e.Live() && in(e.Pos) {
				entry(e)
			}
		}
		for _, h := range b.Holes() {
			if in(h.Pos) {
				hole(h)
			}
		}
	})
}

// copyForward is one vDisk's blocks of the tail segment on their way to the head.
type copyForward struct {
	v       *Volume
	tail    journal.Tail
	closes  uint64 // Volume.closes at the start
	entries []overlay.Entry
	holes   []overlay.Hole
	left    int
	failed  bool
	unread  bool // a block could not be read: what failed may go well next time
	giveUp  bool // on blocks that cannot be read
}

// unreadMax is how many copies of a parked vDisk's blocks may fail, one each keeperTick, before what cannot be
// read is given up. A drive has tried for itself before it says so, hence not many.
const unreadMax = 10

func (v *Volume) startCopy(tail journal.Tail) {
	c := &copyForward{v: v, tail: tail, closes: v.closes, left: 1}
	v.eachIn(tail, func(e overlay.Entry) { c.entries = append(c.entries, e) },
		func(h overlay.Hole) { c.holes = append(c.holes, h) })
	c.giveUp = v.parked && v.unread >= unreadMax
	v.copying = c
	for i := range c.entries {
		c.copyEntry(&c.entries[i])
	}
	for i := range c.holes {
		c.copyHole(&c.holes[i])
	}
	c.done(false)
}

// copied is one entry of a copyForward.
type copied struct {
	journal.Entry
	c     *copyForward
	fetch block.Fetch
	dst   buf.Vec
	sum   [1]uint32
}

func (c *copyForward) copyEntry(e *overlay.Entry) {
	x := &copied{c: c, sum: [1]uint32{e.Sum}}
	x.Vol, x.Seq, x.Kind, x.Addr, x.Blocks = c.v.opts.ID, e.Seq, journal.Write, e.Addr, 1
	x.Sums, x.Done = x.sum[:], x
	c.left++
	if e.Page != 0 {
		c.v.pool.Retain(e.Page)
		x.Data.Add(buf.Seg{Page: e.Page, Len: ids.BlockSize})
		c.v.jrn.AppendCopy(&x.Entry)
		return
	}
	if !c.v.pool.AllocReserved(&x.dst, 1) {
		c.done(true)
		return
	}
	x.fetch = block.Fetch{Off: e.Pos, Count: 1, Sums: x.sum[:], Dst: &x.dst, Done: x}
	c.v.ReadLogged(&x.fetch)
}

// FetchDone goes on with a block that had left RAM. One that is rotten is sealed with the batch it is in, beside
// the checksum it should have. A parked vDisk cannot be sealed, and to leave the block where it is would stop
// the journal for all: the fact that it is lost goes forward in its stead, so that nobody reads what was there
// before.
func (x *copied) FetchDone(f *block.Fetch) {
	x.Data, x.dst = x.dst, buf.Vec{}
	c, v := x.c, x.c.v
	if f.Err != errs.OK {
		c.unread = true
		if !c.giveUp {
			v.pool.ReleaseVec(&x.Data)
			c.done(true)
			return
		}
		if x.Lost = true; f.Err != errs.Corrupt {
			clear(v.pool.SegBytes(x.Data.Segs[0])) // whatever was in the page is nobody's business
		}
		v.opts.Log.Error("a block in the journal is lost; reading it is an error until it is written again",
			"vdisk", v.opts.Name, "block", x.Addr, "error", f.Err)
	}
	v.jrn.AppendCopy(&x.Entry)
}

func (c *copyForward) copyHole(h *overlay.Hole) {
	for off := uint64(0); off < h.Count; off += holeCopyMax {
		x := &copied{c: c}
		x.Vol, x.Seq, x.Kind = c.v.opts.ID, h.Seq, journalKind(h.Kind)
		x.Addr, x.Blocks = h.Addr+ids.BlockAddr(off), uint32(min(h.Count-off, holeCopyMax))
		x.Done = x
		c.left++
		c.v.jrn.AppendCopy(&x.Entry)
	}
}

// JournalDone tells the overlay the new place. Of the parts of one hole the first counts, the oldest; after it
// the others do not find the hole in the tail any more.
func (x *copied) JournalDone(*journal.Entry) {
	v := x.c.v
	failed := x.Err != errs.OK
	if x.Kind == journal.Write {
		v.pool.ReleaseVec(&x.Data)
	}
	switch {
	case failed:
	case x.Kind == journal.Write:
		v.ov.Moved(x.Addr, x.Seq, uint32(x.Pos))
		v.Stats.Copied.Add(1)
	default:
		v.ov.MovedHoles(x.Seq, uint32(x.c.tail.Lo), uint32(x.c.tail.Hi), uint32(x.Pos))
	}
	x.c.done(failed)
}

// done counts the copies that ended; after the last one the vDisk lets go of the segment. If the batch was
// closed meanwhile it keeps the old places, which its seal may read, and lets go when it is committed.
func (c *copyForward) done(failed bool) {
	c.failed = c.failed || failed
	if c.left--; c.left > 0 {
		return
	}
	c.v.copying = nil
	defer c.v.whenIdle()
	if c.v.unread++; !c.unread || !c.failed {
		c.v.unread = 0
	}
	if c.failed && c.closes == c.v.closes && !c.v.closed && !c.v.parked {
		c.v.closeBatch() // what cannot be copied is sealed
	}
	if !c.failed && c.closes == c.v.closes {
		c.v.jrn.Moved(c.v.opts.ID, c.tail)
	}
}
