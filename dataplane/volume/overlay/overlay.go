package overlay

import (
	"vstor/dataplane/buf"
	"vstor/dataplane/ids"
)

// Overlay is the list of a vDisk's batches. It owns one reference to every page in its entries.
type Overlay struct {
	pool   *buf.Pool
	open   *Batch
	closed []*Batch // oldest first
	spare  *Batch   // memory of the last dropped batch
}

// New makes an empty overlay whose pages come from pool.
func New(pool *buf.Pool) *Overlay {
	return &Overlay{pool: pool, open: newBatch()}
}

// Open is the batch that takes writes; Closed are those that wait or are being sealed, oldest first.
func (o *Overlay) Open() *Batch     { return o.open }
func (o *Overlay) Closed() []*Batch { return o.closed }

// Empty reports whether the overlay knows nothing.
func (o *Overlay) Empty() bool { return len(o.closed) == 0 && o.open.Empty() }

// Put makes e the newest version of its block; the page's reference passes to the overlay.
// REQUIRES: e.Seq is at least every sequence put before.
func (o *Overlay) Put(e Entry, now int64) {
	b := o.open
	if b.Empty() {
		b.Since = now
	}
	b.touch(e.Seq)
	if e.Page != 0 {
		b.resident++
	}
	old, slot := b.find(e.Addr)
	if old == nil {
		b.insert(e, slot)
		b.live++
		return
	}
	o.leaveRAM(b, old)
	if old.dead {
		b.live++
	}
	*old = e
}

func (o *Overlay) leaveRAM(b *Batch, e *Entry) {
	if e.Page == 0 {
		return
	}
	o.pool.Release(e.Page)
	e.Page = 0
	b.resident--
}

// PutHole makes a range read as zeros.
// REQUIRES: h.Seq is higher than every sequence put before, h.Count > 0.
func (o *Overlay) PutHole(h Hole, now int64) {
	b := o.open
	if b.Empty() {
		b.Since = now
	}
	b.touch(h.Seq)
	o.kill(b, h)
	b.holes.add(h)
}

// kill marks the entries under h dead, by address or by entry, whichever are fewer.
func (o *Overlay) kill(b *Batch, h Hole) {
	if h.Count < uint64(len(b.entries)) {
		for a := h.Addr; a < h.end(); a++ {
			if e, _ := b.find(a); e != nil {
				o.killEntry(b, e)
			}
		}
		return
	}
	for i := range b.entries {
		if e := &b.entries[i]; e.Addr >= h.Addr && e.Addr < h.end() {
			o.killEntry(b, e)
		}
	}
}

func (o *Overlay) killEntry(b *Batch, e *Entry) {
	if e.dead {
		return
	}
	o.leaveRAM(b, e)
	e.dead = true
	b.live--
}

// Kind says what the overlay knows of a block.
type Kind uint8

const (
	Unknown Kind = iota // ask the map
	Data
	Zeros   // allocated, and reads as zeros
	Trimmed // a hole
)

// Lookup returns the newest version of a block. The Entry is valid until the overlay changes.
func (o *Overlay) Lookup(addr ids.BlockAddr) (Kind, *Entry) {
	for i := len(o.closed); i >= 0; i-- {
		b := o.open
		if i < len(o.closed) {
			b = o.closed[i]
		}
		if len(b.entries) > 0 {
			if e, _ := b.find(addr); e != nil && !e.dead {
				return Data, e
			}
		}
		if len(b.holes.list) > 0 {
			if h := b.holes.at(addr); h != nil {
				return h.kind(), nil
			}
		}
	}
	return Unknown, nil
}

// Close ends the open batch and begins a new one. REQUIRES: the open batch is not empty.
func (o *Overlay) Close() *Batch {
	b := o.open
	o.closed = append(o.closed, b)
	o.open = o.spare
	o.spare = nil
	if o.open == nil {
		o.open = newBatch()
	}
	return b
}

// DropOldest forgets the oldest closed batch, b, and releases its pages: its SCO is in the map.
// REQUIRES: no goroutine reads b any more.
func (o *Overlay) DropOldest(b *Batch) {
	if len(o.closed) == 0 || o.closed[0] != b {
		panic("BUG: overlay: batches are dropped in order")
	}
	o.releasePages(b)
	copy(o.closed, o.closed[1:])
	o.closed[len(o.closed)-1] = nil
	o.closed = o.closed[:len(o.closed)-1]
	if o.spare == nil {
		b.reset()
		o.spare = b
	}
}

func (o *Overlay) releasePages(b *Batch) {
	for i := range b.entries {
		o.leaveRAM(b, &b.entries[i])
	}
}

// Evict drops up to want pages of batches that nobody seals from RAM, newest batches first, and
// returns how many. The blocks are read back from the journal. The oldest are sealed next: dropped first, as a
// cache would, every block would be read back.
func (o *Overlay) Evict(want int) int {
	n := 0
	for i := len(o.closed); i >= 0 && n < want; i-- {
		b := o.open
		if i < len(o.closed) {
			b = o.closed[i]
		}
		if b.Sealing || b.resident == 0 {
			continue
		}
		for j := range b.entries {
			if e := &b.entries[j]; e.Page != 0 {
				o.leaveRAM(b, e)
				if n++; n == want {
					break
				}
			}
		}
	}
	return n
}

// EvictEntries drops the pages of entries of b, by their places in Entries, from RAM, and returns how many had one. The
// goroutine that seals b waits for this, so that it and the loop never look at an entry at the same time.
func (o *Overlay) EvictEntries(b *Batch, places []uint32) int {
	before := b.resident
	for _, i := range places {
		o.leaveRAM(b, &b.entries[i])
	}
	return before - b.resident
}

// Held calls f for each batch that no seal reads, oldest first: what these say of the journal may change.
func (o *Overlay) Held(f func(*Batch)) {
	for _, b := range o.closed {
		if !b.Sealing {
			f(b)
		}
	}
	f(o.open)
}

// Moved tells that the version seq of a block was copied to pos in the journal. A block of a batch
// that is being sealed keeps its old place: the seal holds it.
func (o *Overlay) Moved(addr ids.BlockAddr, seq ids.Seq, pos uint32) {
	o.Held(func(b *Batch) {
		if e, _ := b.find(addr); e != nil && !e.dead && e.Seq == seq {
			e.Pos = pos
		}
	})
}

// MovedHoles tells that what is left of the hole seq and had its record in blocks [lo, hi) of the journal has
// it at pos now.
func (o *Overlay) MovedHoles(seq ids.Seq, lo, hi, pos uint32) {
	o.Held(func(b *Batch) {
		for i := range b.holes.list {
			if h := &b.holes.list[i]; h.Seq == seq && h.Pos >= lo && h.Pos < hi {
				h.Pos = pos
			}
		}
	})
}

// DropAll releases every page. Nobody may use the overlay afterwards.
func (o *Overlay) DropAll() {
	for _, b := range o.closed {
		o.releasePages(b)
	}
	o.releasePages(o.open)
	o.closed, o.open = nil, newBatch()
}

// HolesAbove are the holes with sequences above seq, oldest batch first; once there are enough, what is in newer
// batches is left for another time.
func (o *Overlay) HolesAbove(seq ids.Seq, enough int) (holes []Hole) {
	for i := 0; i <= len(o.closed); i++ {
		b := o.open
		if i < len(o.closed) {
			b = o.closed[i]
		}
		if len(holes) > 0 && len(holes)+len(b.holes.list) > enough {
			break
		}
		for _, h := range b.holes.list {
			if h.Seq > seq {
				holes = append(holes, h)
			}
		}
	}
	return holes
}

// Covered appends, for each entry of closed batch b, whether a newer batch has written or trimmed its block.
func (o *Overlay) Covered(b *Batch, dst []bool) []bool {
	newer := make([]*Batch, 0, len(o.closed)+1)
	for i, c := range o.closed {
		if c == b {
			newer = append(append(newer, o.closed[i+1:]...), o.open)
		}
	}
	for i := range b.entries {
		dst = append(dst, coveredIn(newer, b.entries[i].Addr))
	}
	return dst
}

func coveredIn(newer []*Batch, addr ids.BlockAddr) bool {
	for _, c := range newer {
		if len(c.entries) > 0 {
			if e, _ := c.find(addr); e != nil && !e.dead {
				return true
			}
		}
		if c.holes.at(addr) != nil {
			return true
		}
	}
	return false
}
