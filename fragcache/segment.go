package fragcache

import (
	"sync/atomic"

	"vstor/dataplane/dio"
	"vstor/dataplane/invariants"
)

type segState uint8

const (
	segFree     segState = iota
	segOpen              // is written
	segSealed            // in line for eviction
	segDraining          // nothing in it can be found any more; readers may still have pins
)

// segment is a piece of the file that is written front to back and evicted as a whole.
type segment struct {
	pins atomic.Int32 // reads under way

	// Guarded by Cache.mu.
	state      segState
	generation uint64
	end        int64 // bytes written, or being written
	written    int   // fragments filed since it was opened: its footer has room for so many
	live       int64 // bytes of entries, headers included
	list       chain
	prev, next uint32 // in line, by number + 1
}

// line is the sealed segments, the next victim first.
type line struct {
	head, tail uint32 // number + 1
	n          int
}

func (c *Cache) enqueue(l *line, i uint32) {
	s := &c.segs[i]
	s.prev, s.next = l.tail, 0
	if l.tail == 0 {
		l.head = i + 1
	} else {
		c.segs[l.tail-1].next = i + 1
	}
	l.tail = i + 1
	l.n++
}

func (c *Cache) dequeue(l *line, i uint32) {
	s := &c.segs[i]
	if s.prev == 0 {
		l.head = s.next
	} else {
		c.segs[s.prev-1].next = s.next
	}
	if s.next == 0 {
		l.tail = s.prev
	} else {
		c.segs[s.next-1].prev = s.prev
	}
	l.n--
}

// at is where a block of a segment lies in the file.
func (c *Cache) at(seg, block uint32) int64 {
	return dataStart + int64(seg)*c.sb.Segment + int64(block)<<blockShift
}

// drain takes a sealed segment, in which nothing lives any more, out of the line. REQUIRES: mu.
func (c *Cache) drain(i uint32) {
	c.dequeue(&c.sealed, i)
	c.segs[i].state = segDraining
	c.draining = append(c.draining, i)
}

// release frees the draining segments without pins. As nothing in them can be found, none gets a new one.
// REQUIRES: mu.
func (c *Cache) release() {
	kept := c.draining[:0]
	for _, i := range c.draining {
		s := &c.segs[i]
		if s.pins.Load() > 0 {
			kept = append(kept, i)
			continue
		}
		s.state = segFree
		c.free = append(c.free, i)
	}
	c.draining = kept
}

// room is how many bytes the vDisks share: all segments but the open one and those kept free, and of them seven
// eighths. The rest is for what is dead: if it were shared too, a full cache might hold nobody beyond his share, and
// nothing that may go.
func (c *Cache) room() int64 { return int64(len(c.segs)-1-freeWanted) * c.sb.Segment / 8 * 7 }

// filledTo is up to where segments are written before they are sealed, on average: what is left at their ends, where
// no fragment would fit, cannot be shared. REQUIRES: mu.
func (c *Cache) filledTo() int64 {
	if c.sealed.n == 0 {
		return c.sb.Segment
	}
	var sum int64
	for i := c.sealed.head; i != 0; i = c.segs[i-1].next {
		sum += c.segs[i-1].end
	}
	return sum / int64(c.sealed.n)
}

// fits reports whether n more bytes, as one fragment, and the footer fit into the open segment.
func (c *Cache) fits(n int64) bool {
	if c.open < 0 {
		return false
	}
	s := &c.segs[c.open]
	return s.end+n+footerBytes(s.written+1) <= c.sb.Segment
}

// reserve gives n bytes of the open segment to a fragment, opening another one if need be; false if there is
// none. Writer only. REQUIRES: mu is not held.
func (c *Cache) reserve(n int64) (Place, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.fits(n) {
		c.mu.Unlock()
		c.seal()
		c.mu.Lock()
		if !c.begin() {
			return Place{}, false
		}
	}
	s := &c.segs[c.open]
	at := Place{Segment: uint32(c.open), Block: uint32(s.end >> blockShift), Generation: s.generation,
		Seq: c.number()}
	s.end += n
	s.written++
	return at, true
}

// number is the next generation or sequence. REQUIRES: mu.
func (c *Cache) number() uint64 {
	c.last++
	return c.last
}

// begin opens a free segment; false if there is none. REQUIRES: mu, no segment is open.
func (c *Cache) begin() bool {
	c.release()
	n := len(c.free)
	if n == 0 {
		return false
	}
	i := c.free[0]
	c.free = append(c.free[:0], c.free[1:]...)
	s := &c.segs[i]
	invariants.Assert(s.live == 0 && s.list.head == 0 && s.pins.Load() == 0,
		"fragcache: segment %d is free and not empty", i)
	s.state, s.generation, s.end, s.written = segOpen, c.number(), 0, 0
	c.open = int(i)
	return true
}

// seal writes the footer of the open segment and puts it in line for eviction. If the footer cannot be written, a
// restart walks the segment instead. Writer only. REQUIRES: mu is not held.
func (c *Cache) seal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open < 0 {
		return
	}
	i := uint32(c.open)
	s := &c.segs[i]
	f := Footer{UUID: c.sb.UUID, Segment: i, Generation: s.generation}
	for slot := s.list.head; slot != 0; {
		e := &c.index.slab[slot]
		f.List = append(f.List, Listed{e.key.unpack(), e.block, e.blocks << blockShift, e.seq})
		slot = e.snext
	}
	c.mu.Unlock()
	err := c.writeFooter(&f)
	c.mu.Lock()
	if err != nil {
		c.count.writeErrors.Add(1)
	}
	c.open = -1
	s.state = segSealed
	c.enqueue(&c.sealed, i)
	if s.live == 0 {
		c.drain(i)
	}
}

// writeFooter writes the list of what lies in a segment behind it.
func (c *Cache) writeFooter(f *Footer) error {
	n := footerBytes(len(f.List))
	b, err := dio.AlignedBuf(int(n))
	if err != nil {
		return err
	}
	defer dio.FreeBuf(b)
	f.Encode(b)
	return c.file.WriteAt(b, c.at(f.Segment, 0)+c.sb.Segment-n)
}
