package volume

import (
	"cmp"
	"context"
	"time"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/sum"
	"vstor/dataplane/volume/pagemap"
	"vstor/dataplane/volume/sco"
)

// The cleaner of a vDisk runs in a goroutine that sleeps until a SCO was applied or became empty. It
// deletes empty SCOs, writes the map back where only that keeps dead ones from going, and moves the live
// blocks of sparse SCOs together: greedily, the emptiest first, since those give most space back per
// block copied.
//
// A move names the place it came from and counts only if the block is still there when it is applied, so
// the cleaner needs no lock against the writes that go on meanwhile.
const (
	// cleanSparse is the live part, in percent, below which a SCO is worth cleaning. While drives are
	// half empty it is cleanRoomy: garbage in space that nobody needs costs nothing, and each block moved
	// then gives back three and not one. When drives run full it is cleanTight.
	cleanSparse = 50
	cleanRoomy  = 25
	cleanTight  = 90
	// Drives of which less than roomyPart percent are used count as half empty, more than tightPart as full.
	roomyPart = 50
	tightPart = 80
	// cleanSlack is the garbage, in percent of all blocks stored, that is left alone: the last percents
	// cost most.
	cleanSlack = 15
	// cleanBlocks bounds a cleaning SCO, and with it the memory of a cleaner.
	cleanBlocks = 4096
	// CleanBytes is the memory that one cleaner at work holds: its data and one window.
	CleanBytes = cleanBlocks*ids.BlockSize + cleanWindow
	// cleanWindow is how much of a victim is read at once.
	cleanWindow = 1 << 20
	// deadMin is how many dead SCOs may wait for the map's own write back.
	deadMin = 4
	// countEvery is how many SCOs may be applied before the map is written back for exact counts.
	countEvery = 8
	// cleanTick is how often a vDisk to which nothing happens is looked at: others fill the drives, too.
	cleanTick = 10 * time.Second
	// cleanRetry is for how long a SCO that could not be emptied is let be: the others must not wait for it.
	cleanRetry = time.Minute
)

// Cleaners shares the memory for cleaning among all vDisks: one at work at a time.
type Cleaners struct {
	slot chan struct{}
	used func() int

	tick, retry time.Duration
}

// NewCleaners makes the place for one cleaner. used is the used part of the drives, in percent; any goroutine
// may call it.
func NewCleaners(used func() int) *Cleaners {
	return &Cleaners{slot: make(chan struct{}, 1), used: used, tick: cleanTick, retry: cleanRetry}
}

// sparse is the live part, in percent, below which a SCO is worth cleaning now; tight: drives run full. From
// roomy on it rises with what is used, so that no step brings on a storm of cleaning.
func (c *Cleaners) sparse() (limit int, tight bool) {
	used := c.used()
	if used > tightPart {
		return cleanTight, true
	}
	return min(cleanSparse, cleanRoomy+max(0, used-roomyPart)), false
}

// Kick wakes the cleaner. Any goroutine.
func (v *Volume) Kick() {
	select {
	case v.kick <- struct{}{}:
	default:
	}
}

// StartCleaning begins the vDisk's cleaner, after Recover.
func (v *Volume) StartCleaning(c *Cleaners) {
	v.opts.Sealer.background(func(context.Context) {
		tick := time.NewTicker(c.tick)
		defer tick.Stop()
		last := 0 // the limit of the last round
		for {
			idle := false
			select {
			case <-v.kick:
			case <-tick.C:
				if limit, _ := c.sparse(); limit <= last && len(v.moved)+len(v.putOff) == 0 {
					last = limit
					continue
				}
				idle = true
			case <-v.ctx.Done():
				return
			}
			last, _ = c.sparse()
			if !v.begin() {
				return
			}
			err := v.cleanRound(v.ctx, c, idle)
			v.end()
			if err != nil && v.ctx.Err() == nil {
				v.opts.Log.Warn("cleaning was put off", "vdisk", v.opts.Name, "error", err)
				if !sleep(v.ctx, time.Second) {
					return
				}
				v.Kick()
			}
		}
	})
	v.Kick()
}

// survey is what the cleaner decides on.
type survey struct {
	empty         []ids.SCONum
	victims       []pagemap.Victim
	blocks, live  int // without the SCOs that were emptied
	dead, objects int // dead: those that were emptied, too
	deltas, dirty int // changes the map has not written back, and the pages they are in
	applied       ids.CommitNum
	durable       ids.CommitNum // in the map's database
	closed        bool
}

func (v *Volume) survey() survey {
	var s survey
	ok := v.loop.Call(func() {
		if s.closed = v.closed; s.closed {
			return
		}
		s.empty = v.m.TakeEmpty(nil)
		s.applied, _ = v.m.Applied()
		s.durable = v.m.Durable()
		st := v.m.Stats()
		s.deltas, s.dirty = st.Deltas, st.DirtyUnits
		v.m.EachSCO(func(x pagemap.SCO, live int) bool {
			s.objects++
			if v.moved[x.Num] {
				s.dead++ // or will be, once the map is written back
				return true
			}
			s.blocks += int(x.Blocks)
			s.live += live
			if live == 0 {
				s.dead++
			}
			return true
		})
		s.victims = v.m.Victims(nil, 32, func(n ids.SCONum) bool { return v.moved[n] || v.isPutOff(n) })
	})
	s.closed = s.closed || !ok
	return s
}

// isPutOff reports whether a SCO could not be emptied lately.
func (v *Volume) isPutOff(n ids.SCONum) bool {
	until, is := v.putOff[n]
	if is && time.Now().After(until) {
		delete(v.putOff, n)
		is = false
	}
	return is
}

// Needs reports whether blocks lie in a SCO, by the map. A volume that is closed cannot tell, and says that they do.
// Any goroutine.
func (v *Volume) Needs(n ids.SCONum) bool {
	none := false
	v.loop.Call(func() {
		if !v.closed {
			live, _ := v.m.Live(n)
			none = live == 0
		}
	})
	return !none
}

// cleanRound works until nothing is left that pays.
//
// Until the map is written back no SCO that was emptied can be deleted, and no count is exact. To write it back
// after each cleaning SCO is the obvious way, but 16 MiB of moves lie in pages all over the map, and writing
// those cost more than the moves did: the victims wait for each other, or until the vDisk is idle.
func (v *Volume) cleanRound(ctx context.Context, c *Cleaners, idle bool) error {
	flushed := false // since the last SCO was deleted: again would bring nothing
	for {
		s := v.survey()
		if s.closed {
			return nil
		}
		todo := append(v.again, s.empty...)
		v.again = nil
		if err := v.deleteSCOs(ctx, todo, s.durable); err != nil {
			return err
		}
		limit, tight := c.sparse()
		waiting := s.dead - len(s.empty)
		flushed = flushed && len(todo) == 0
		victims := worth(&s, limit, tight)
		switch {
		case waiting > 0 && !flushed && (tight || idle || waiting >= max(deadMin, s.objects/8)):
		case len(victims) > 0:
			if err := v.cleanSome(ctx, c, victims); err != nil {
				return err
			}
			flushed, idle = false, false
			continue
		case flushed || !v.countsPay(&s, tight): // only SCOs up to the map's checkpoint can be victims
			return nil
		}
		if err := v.flushMap(ctx); err != nil {
			return err
		}
		flushed, v.cleanedTo = true, s.applied
		clear(v.moved)
	}
}

// worth picks the victims whose cleaning pays: their live part is at most limit percent.
func worth(s *survey, limit int, tight bool) []pagemap.Victim {
	dead := s.blocks - s.live
	if dead == 0 || !tight && dead*100 < s.blocks*cleanSlack {
		return nil
	}
	var out []pagemap.Victim
	for _, x := range s.victims {
		if x.Live > 0 && x.Live*100 <= int(x.Blocks)*limit {
			out = append(out, x)
		}
	}
	return out
}

// countsPay reports whether to write the map back just to know where the garbage is: at once where drives
// run full; else every few SCOs, where pages have so many changes that writing them costs little beside
// the data (a page read and written per 32 blocks of 4 KiB is 5 %).
func (v *Volume) countsPay(s *survey, tight bool) bool {
	fresh := s.applied - v.cleanedTo
	if tight {
		return fresh >= 1
	}
	return fresh >= countEvery && s.deltas >= 32*s.dirty
}

// deleteSCOs removes objects that lie in no page of a map that is durable up to a commit. What is left to do
// stays in again: TakeEmpty gives a SCO out once.
func (v *Volume) deleteSCOs(ctx context.Context, todo []ids.SCONum, durable ids.CommitNum) error {
	if len(todo) > 0 && durable > v.floor {
		// An older state of the map needs these objects. Should rot bring one back, this tells.
		if err := v.opts.Objects.SetFloor(ctx, v.opts.ID, durable); err != nil {
			v.again = todo
			return err
		}
		v.floor = durable
	}
	for i, n := range todo {
		if err := v.deleteSCO(ctx, n); err != nil {
			v.again = append(v.again, todo[i:]...)
			return err
		}
	}
	return nil
}

// deleteSCO removes an object that no block lies in any more, durably.
func (v *Volume) deleteSCO(ctx context.Context, n ids.SCONum) error {
	v.hook("delete")
	if v.opts.Settle != nil {
		if err := v.opts.Settle(ctx, v.opts.ID, n); err != nil {
			return err
		}
	}
	err := v.opts.Objects.Delete(ctx, v.opts.ID, v.opts.Epoch, n)
	if err != nil && errs.Of(err) != errs.Absent {
		return err
	}
	delete(v.moved, n)
	delete(v.putOff, n)
	v.loop.Call(func() {
		if !v.closed {
			v.m.RemoveSCO(n)
			v.opts.Reader.Forget(v.opts.ID, n)
			v.Stats.Deleted.Inc()
		}
	})
	return nil
}

// flushMap writes all of the map back and waits until that is durable.
func (v *Volume) flushMap(ctx context.Context) error {
	done := make(chan error, 1)
	if !v.loop.Call(func() {
		if v.closed {
			done <- errs.Closed
			return
		}
		v.m.FlushAll(func(err error) { done <- err })
	}) {
		return errs.Closed
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// cleanSome moves live blocks of the victims, in order, into one cleaning SCO, and waits until the map
// knows. What it emptied goes into moved.
func (v *Volume) cleanSome(ctx context.Context, c *Cleaners, victims []pagemap.Victim) error {
	select {
	case c.slot <- struct{}{}:
		defer func() { <-c.slot }()
	case <-ctx.Done():
		return ctx.Err()
	}
	content, err := newCleanContent(v)
	if err != nil {
		return err
	}
	defer content.close()
	var emptied []ids.SCONum
	for _, x := range victims {
		full, err := content.gather(ctx, x.Num)
		if kind := errs.Of(err); ctx.Err() != nil || kind == errs.Closed || kind == errs.Canceled {
			return cmp.Or(err, ctx.Err())
		}
		if err != nil {
			v.opts.Log.Warn("a SCO cannot be emptied now", "vdisk", v.opts.Name, "SCO", x.Num, "error", err)
			v.putOff[x.Num] = time.Now().Add(c.retry)
			break // what was gathered is good, and the next round goes on with the others
		}
		if full {
			break
		}
		emptied = append(emptied, x.Num)
	}
	if len(content.index) > 0 {
		if err := v.commitCleaning(ctx, content); err != nil {
			return err
		}
		v.Stats.Cleaned.Add(1)
		v.Stats.CleanedBlocks.Add(uint64(content.header.Entries))
	}
	for _, n := range emptied {
		v.moved[n] = true
	}
	return nil
}

// commitCleaning stores and commits a cleaning SCO, and waits until the map knows. Any goroutine.
func (v *Volume) commitCleaning(ctx context.Context, content *cleanContent) error {
	n, err := v.scos.take(ctx)
	if err != nil {
		return err
	}
	content.finish(n)
	v.hook("clean")
	stored, err := v.opts.Objects.Put(ctx, PutSpec{Namespace: v.opts.ID, SCO: n, Epoch: v.opts.Epoch,
		Kind: layout.KindCleaning, Class: layout.ClassCleaning, Content: content})
	if err != nil {
		return err
	}
	done := make(chan struct{})
	kind := v.commit(stored, func(c ids.CommitNum) *applied {
		return &applied{v: v, manifest: stored.Manifest(), commit: c, header: content.header,
			index: content.head[ids.BlockSize:], done: func() { close(done) }}
	})
	if kind != errs.OK {
		stored.Abandon()
		return kind
	}
	v.hook("cleaned")
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// cleanContent is a cleaning SCO in the making: of moves, or of holes alone (prune.go).
type cleanContent struct {
	v      *Volume
	index  []sco.Entry
	holes  []sco.Hole
	mem    []byte // data and window
	data   []byte // the blocks, in the order of index
	window []byte
	header sco.Header
	head   []byte
	start  int
}

func newCleanContent(v *Volume) (*cleanContent, error) {
	mem, err := buf.AlignedBytes(CleanBytes)
	if err != nil {
		return nil, errs.Wrap(errs.IO, err, "no memory to clean with")
	}
	const data = cleanBlocks * ids.BlockSize
	return &cleanContent{v: v, mem: mem, data: mem[:0:data], window: mem[data:]}, nil
}

func (c *cleanContent) close() { _ = buf.FreeAligned(c.mem) }

// Coded does nothing: all of the memory is given back together.
func (c *cleanContent) Coded(int64) {}

// finish fixes the order and builds the head. The blocks stay in the order they were gathered in, by
// victim and address: sorting them over all victims would mean to hold them twice.
func (c *cleanContent) finish(n ids.SCONum) {
	c.header = sco.Header{Kind: sco.Cleaning, Volume: c.v.opts.ID, SCO: n, Epoch: c.v.opts.Epoch}
	c.head = sco.Head(&c.header, c.index, c.holes)
	c.start = c.header.DataStart()
}

// Size is the object's size in bytes.
func (c *cleanContent) Size() int64 { return int64(len(c.head) + len(c.data)) }

// Fill copies the object's bytes, and verifies each block again: it waited in RAM since it was read.
func (c *cleanContent) Fill(dst []byte, off int64) error {
	if off < int64(len(c.head)) {
		n := copy(dst, c.head[off:])
		dst, off = dst[n:], off+int64(n)
	}
	if len(dst) == 0 {
		return nil // all of it in the head
	}
	at := off - int64(len(c.head))
	dst = dst[:copy(dst, c.data[at:])]
	var sums [sum.BatchSize]uint32
	for i := int(at >> ids.BlockShift); len(dst) > 0; {
		n := min(len(sums), len(dst)>>ids.BlockShift)
		sum.Blocks(sums[:n], dst[:n<<ids.BlockShift])
		for k := range n {
			if e := &c.index[i+k]; sums[k] != e.Sum {
				return errs.New(errs.Corrupt, "block %d of vDisk %d changed in memory while it was cleaned",
					e.Addr, c.v.opts.ID)
			}
		}
		dst, i = dst[n<<ids.BlockShift:], i+n
	}
	return nil
}
