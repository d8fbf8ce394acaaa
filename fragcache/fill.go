package fragcache

import (
	"time"

	"vstor/dataplane/invariants"
	"vstor/dataplane/layout"
)

// room is a buffer for one fragment on its way into the cache: headroom and payload.
type room struct {
	put  layout.FragPut // what its user has of it
	mem  []byte
	sums []uint64
}

// Room lends the buffer for a fragment of n bytes: its user sets the payload, behind layout.FragHeaderSize bytes, and
// Sums, whose length is right, and gives it back with Fill, in any case. nil if the fragment is here already, may
// not be, or no buffer is free: it never waits. Any goroutine.
func (c *Cache) Room(key layout.FragKey, n int) *layout.FragPut {
	t := c.tenantOf(key.Namespace)
	switch {
	case n > c.opt.MaxFragment || n <= 0 || n%blockSize != 0:
		c.count.tooLarge.Add(1)
		return nil
	case c.closed.Load() || c.bypassed.Load() || c.resting.Load() || t != nil && t.off.Load():
		c.count.refused.Add(1)
		return nil
	case c.index.find(packKey(key)) != 0:
		return nil
	}
	select {
	case r := <-c.idle:
		end := layout.FragHeaderSize + n
		r.put = layout.FragPut{Key: key, Buf: r.mem[:end:end], Sums: r.sums[:layout.Regions(n)]}
		return &r.put
	default:
		c.count.busy.Add(1)
		return nil
	}
}

// Fill gives a Room back; with keep, what it holds is filed. Any goroutine; it never waits.
func (c *Cache) Fill(p *layout.FragPut, keep bool) {
	var r *room
	for _, x := range c.rooms {
		if &x.put == p {
			r = x
		}
	}
	if r == nil {
		invariants.Fail("fragcache: fill with a room that was not lent for fragment %v", p.Key)
	}
	if !keep {
		c.idle <- r
		return
	}
	c.filled <- r // has place for all rooms
}

// write is the writer: it alone writes to segments, opens, seals and evicts them.
func (c *Cache) write() {
	defer c.wg.Done()
	c.tidy()
	for {
		select {
		case r := <-c.filled:
			c.fileRoom(r)
		case <-c.kicked:
			c.tidy()
		case <-c.stop:
			c.finish()
			return
		}
	}
}

// finish waits for all rooms, files those that are full, and seals.
func (c *Cache) finish() {
	for back := 0; back < len(c.rooms); {
		select {
		case r := <-c.filled:
			c.fileRoom(r)
		case <-c.idle:
			back++
		}
	}
	c.tidy()
	c.seal()
}

// tidy frees what readers and quotas let go, and keeps segments free ahead.
func (c *Cache) tidy() {
	c.mu.Lock()
	c.bury()
	c.release()
	c.mu.Unlock()
	c.ahead()
}

// restFor is how long nothing is filed after a write failed: the file may be broken, and trying each fragment on it
// is a waste. writeTries is how often the same place is tried before it is left.
const (
	restFor    = time.Second
	writeTries = 3
)

// fileRoom appends the fragment in r to the log and gives r back.
func (c *Cache) fileRoom(r *room) {
	c.file1(&r.put)
	r.put = layout.FragPut{}
	c.idle <- r
	c.tidy()
}

func (c *Cache) file1(p *layout.FragPut) {
	blocks := uint32(len(p.Buf)>>blockShift) - 1
	size := int64(len(p.Buf))
	c.mu.Lock()
	t := c.tenantMade(p.Key.Namespace)
	q := c.quotaOf(t)
	refuse := t.off.Load() || q > 0 && size > q
	c.mu.Unlock()
	if refuse || c.resting.Load() {
		c.count.refused.Add(1)
		return
	}
	at, ok := c.reserve(size)
	if !ok {
		c.count.full.Add(1)
		return
	}
	h := Header{UUID: c.sb.UUID, Key: p.Key, Place: at, Len: blocks << blockShift, Sums: p.Sums}
	h.Encode(p.Buf)
	if err := c.file.WriteAt(p.Buf, c.at(at.Segment, at.Block)); err != nil {
		c.failed(at, size, err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tries = 0
	if t = c.tenantMade(p.Key.Namespace); t.off.Load() {
		return
	}
	if !c.insert(t, packKey(p.Key), at, blocks) {
		c.count.full.Add(1) // the index is; ahead sees to it
		return
	}
	c.enforce(t)
	t.fills.Add(1)
	t.fillBytes.Add(uint64(len(p.Buf) - layout.FragHeaderSize))
	c.count.fills.Add(1)
	c.count.fillBytes.Add(uint64(len(p.Buf) - layout.FragHeaderSize))
}

// failed takes the place back that could not be written, for the next to try, or leaves the segment if that was
// tried often enough; and has everybody rest.
func (c *Cache) failed(at Place, size int64, err error) {
	c.count.writeErrors.Add(1)
	c.mu.Lock()
	s := &c.segs[at.Segment]
	s.end -= size
	s.written--
	c.tries++
	leave := c.tries%writeTries == 0
	if c.tries == 1 {
		c.opt.Log("fragcache: a fragment could not be written: %v", err)
	}
	c.mu.Unlock()
	if leave {
		c.seal()
	}
	c.resting.Store(true)
	time.AfterFunc(restFor, func() { c.resting.Store(false) })
}

// Forget drops fragments that were deleted: only room is gained by it. Any goroutine but a loop's.
func (c *Cache) Forget(keys []layout.FragKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range keys {
		if slot := c.index.find(packKey(k)); slot != 0 {
			c.remove(slot)
		}
	}
	c.kick()
}
