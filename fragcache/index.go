package fragcache

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
	"vstor/dataplane/layout"
)

const shardCount = 64

// ramKey is a FragKey without its padding: 20 bytes where the struct has 24.
type ramKey [5]uint32

func packKey(k layout.FragKey) ramKey {
	return ramKey{uint32(k.Namespace >> 32), uint32(k.Namespace), uint32(k.SCO), uint32(k.Put),
		uint32(k.Chunk)<<16 | uint32(k.Frag)<<8 | uint32(k.Version)}
}

func (k ramKey) unpack() layout.FragKey {
	var b [layout.FragKeySize]byte
	for i, w := range k {
		binary.BigEndian.PutUint32(b[i*4:], w)
	}
	fk, _ := layout.ParseFragKey(b[:])
	return fk
}

func (k ramKey) namespace() ids.NamespaceID { return ids.NamespaceID(k[0])<<32 | ids.NamespaceID(k[1]) }

func (k ramKey) hash() uint64 {
	h := uint64(k[1])*0x9e3779b97f4a7c15 ^ uint64(k[2])*0xc2b2ae3d27d4eb4f ^
		uint64(k[3])*0x165667b19e3779f9 ^ uint64(k[4])*0x27d4eb2f165667c5
	h ^= h >> 32
	return h * 0x9e3779b97f4a7c15
}

// entry is a fragment in the cache. Entries lie in one array, made at Open, and hold no pointers: the collector
// does not look at them, and a slot number names one. Slot 0 is nobody.
type entry struct {
	// Written before the entry is published, or under its part's mutex; loops read them under that mutex.
	key    ramKey
	seg    uint32
	block  uint32 // of the header, in the segment
	blocks uint32 // of payload
	seq    uint64
	read   atomic.Uint32 // since it was filed or passed over

	// Guarded by Cache.mu.
	tenant       uint32
	tprev, tnext uint32 // fragments of the tenant, oldest first
	sprev, snext uint32 // fragments of the segment, by place; free entries are linked through snext
}

// size is what it takes in its segment, in bytes.
func (e *entry) size() int64 { return int64(e.blocks+1) << blockShift }

// part is a part of the index. Its mutex is held for a few map accesses and never across IO, so a loop may take
// it.
type part struct {
	mu    sync.Mutex
	slots map[ramKey]uint32
	dead  []deadEntry // taken out by readers; the writer frees them
	_     [16]byte    // parts do not share a cache line
}

// deadEntry is an entry that a reader found to be no good; seq says if the slot is still that entry.
type deadEntry struct {
	slot uint32
	seq  uint64
}

// index is every entry there is.
type index struct {
	slab  []entry
	parts [shardCount]part
	deads atomic.Int32

	free  uint32 // guarded by Cache.mu, as the two below: the first free slot that was used before
	fresh uint32 // slots from here on were never used
	count int
}

func (x *index) init(entries int) {
	x.slab = make([]entry, entries+1)
	x.fresh = 1
	for i := range x.parts {
		x.parts[i].slots = make(map[ramKey]uint32)
	}
}

func (x *index) part(k ramKey) *part { return &x.parts[k.hash()>>58] }

// take finds a free slot; 0 if there is none.
func (x *index) take() uint32 {
	slot := x.free
	switch {
	case slot != 0:
		x.free = x.slab[slot].snext
	case int(x.fresh) < len(x.slab):
		slot = x.fresh
		x.fresh++
	default:
		return 0
	}
	x.count++
	return slot
}

func (x *index) give(slot uint32) {
	e := &x.slab[slot]
	e.seq, e.tenant = 0, 0
	e.snext, x.free = x.free, slot
	x.count--
}

// find is the slot of a key; 0 if it is not here.
func (x *index) find(k ramKey) uint32 {
	p := x.part(k)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.slots[k]
}

// publish lets readers find an entry whose upper half is written, and returns the slot that had the key before.
func (x *index) publish(slot uint32) (old uint32) {
	k := x.slab[slot].key
	p := x.part(k)
	p.mu.Lock()
	defer p.mu.Unlock()
	old = p.slots[k]
	p.slots[k] = slot
	return old
}

// hide takes an entry from the readers. Whoever found it before holds a pin on its segment by now.
func (x *index) hide(slot uint32) {
	k := x.slab[slot].key
	p := x.part(k)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.slots[k] == slot {
		delete(p.slots, k)
	}
}

// move says that the entry lies elsewhere now.
func (x *index) move(slot, seg, block uint32, seq uint64) {
	e := &x.slab[slot]
	p := x.part(e.key)
	p.mu.Lock()
	defer p.mu.Unlock()
	e.seg, e.block, e.seq = seg, block, seq
	e.read.Store(0)
}

// kill takes a key from the readers, on behalf of one of them. Any goroutine, a loop too.
func (x *index) kill(k ramKey) bool {
	p := x.part(k)
	p.mu.Lock()
	defer p.mu.Unlock()
	slot := p.slots[k]
	if slot == 0 {
		return false
	}
	delete(p.slots, k)
	p.dead = append(p.dead, deadEntry{slot, x.slab[slot].seq})
	x.deads.Add(1)
	return true
}

// takeDead returns what readers took out, and forgets it.
func (x *index) takeDead() (out []deadEntry) {
	if x.deads.Load() == 0 {
		return nil
	}
	for i := range x.parts {
		p := &x.parts[i]
		p.mu.Lock()
		out = append(out, p.dead...)
		x.deads.Add(-int32(len(p.dead)))
		p.dead = nil
		p.mu.Unlock()
	}
	return out
}

// chain is a list of entries by slot, of one segment or one tenant.
type chain struct{ head, tail uint32 }

func (x *index) pushOfSegment(c *chain, slot uint32) {
	e := &x.slab[slot]
	e.sprev, e.snext = c.tail, 0
	if c.tail == 0 {
		c.head = slot
	} else {
		x.slab[c.tail].snext = slot
	}
	c.tail = slot
}

func (x *index) cutOfSegment(c *chain, slot uint32) {
	e := &x.slab[slot]
	if e.sprev == 0 {
		c.head = e.snext
	} else {
		x.slab[e.sprev].snext = e.snext
	}
	if e.snext == 0 {
		c.tail = e.sprev
	} else {
		x.slab[e.snext].sprev = e.sprev
	}
}

func (x *index) pushOfTenant(c *chain, slot uint32) {
	e := &x.slab[slot]
	e.tprev, e.tnext = c.tail, 0
	if c.tail == 0 {
		c.head = slot
	} else {
		x.slab[c.tail].tnext = slot
	}
	c.tail = slot
}

func (x *index) cutOfTenant(c *chain, slot uint32) {
	e := &x.slab[slot]
	if e.tprev == 0 {
		c.head = e.tnext
	} else {
		x.slab[e.tprev].tnext = e.tnext
	}
	if e.tnext == 0 {
		c.tail = e.tprev
	} else {
		x.slab[e.tnext].tprev = e.tprev
	}
}

// insert makes an entry of a fragment that lies in its segment, the youngest of both. The room for it was looked
// for before. REQUIRES: Cache.mu.
func (c *Cache) insert(t *tenant, k ramKey, at Place, blocks uint32) bool {
	slot := c.index.take()
	if slot == 0 {
		return false
	}
	e := &c.index.slab[slot]
	e.key, e.seg, e.block, e.blocks, e.seq, e.tenant = k, at.Segment, at.Block, blocks, at.Seq, t.at
	e.read.Store(0)
	s := &c.segs[at.Segment]
	c.index.pushOfSegment(&s.list, slot)
	c.index.pushOfTenant(&t.list, slot)
	s.live += e.size()
	t.used += e.size()
	t.frags++
	if old := c.index.publish(slot); old != 0 {
		c.unlink(old) // other content under the same key: only if numbers were given twice; the newer is right
	}
	return true
}

// remove takes an entry out. REQUIRES: Cache.mu.
func (c *Cache) remove(slot uint32) {
	c.index.hide(slot)
	c.unlink(slot)
}

// unlink frees an entry that readers do not find any more. REQUIRES: Cache.mu.
func (c *Cache) unlink(slot uint32) {
	e := &c.index.slab[slot]
	s, t := &c.segs[e.seg], c.tenants[e.tenant]
	c.index.cutOfSegment(&s.list, slot)
	c.index.cutOfTenant(&t.list, slot)
	s.live -= e.size()
	t.used -= e.size()
	t.frags--
	if invariants.Enabled {
		invariants.Assert(s.live >= 0 && t.used >= 0, "fragcache: %d bytes alive in segment %d, %d of namespace %d",
			s.live, e.seg, t.used, t.ns)
	}
	seg := e.seg
	c.index.give(slot)
	if s.live == 0 && s.state == segSealed {
		c.drain(seg)
	}
}

// bury frees what readers took out. REQUIRES: Cache.mu.
func (c *Cache) bury() {
	for _, d := range c.index.takeDead() {
		if c.index.slab[d.slot].seq == d.seq {
			c.unlink(d.slot)
		}
	}
}
