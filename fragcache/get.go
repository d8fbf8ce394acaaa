package fragcache

import (
	"context"
	"time"

	"vstor/dataplane/layout"
)

// getScratches verified reads may be under way, each with a buffer for a header and some regions.
const (
	getScratches = 8
	getRegions   = 4
	getScratch   = blockSize + getRegions*layout.RegionSize
)

// scratch is the memory of a verified read. A goroutine of its own does the read, and has the scratch until it is
// done: a file that hangs must not hold up whoever waits for it.
type scratch struct {
	mem  []byte
	head Header
}

// Get fills dst with payload bytes from off on of the fragment that has that key, and that checksum in its manifest,
// and verifies them: the header's identity, and each region in full. false, with dst rubbish: it is not here,
// not as it should be (and is dropped), the cache is slower than ASDs, or busy. It returns when ctx ends, and never
// later than Options.GetTimeout for each 256 KiB. Any goroutine but a loop's.
func (c *Cache) Get(ctx context.Context, key layout.FragKey, sum uint64, off int64, dst []byte) bool {
	t := c.tenantOf(key.Namespace)
	if t == nil || t.off.Load() || c.bypassed.Load() || c.closed.Load() {
		return false
	}
	if !c.get(ctx, key, sum, off, dst) {
		c.count.getMisses.Add(1)
		t.misses.Add(1)
		return false
	}
	c.count.gets.Add(1)
	c.count.getBytes.Add(uint64(len(dst)))
	t.hits.Add(1)
	t.hitBytes.Add(uint64(len(dst)))
	return true
}

func (c *Cache) get(ctx context.Context, key layout.FragKey, sum uint64, off int64, dst []byte) bool {
	for len(dst) > 0 {
		var s *scratch
		select {
		case s = <-c.scrap:
		default:
			return false
		}
		if c.closed.Load() {
			c.scrap <- s
			return false
		}
		first := off / layout.RegionSize
		n := min(int64(len(dst)), (first+getRegions)*layout.RegionSize-off)
		done := make(chan bool, 1)
		go func() { done <- c.readRegions(s, key, sum, first, off+n) }()
		timer := time.NewTimer(c.opt.GetTimeout)
		ok := false
		select {
		case ok = <-done:
		case <-timer.C:
			c.giveLater(s, done)
			return false
		case <-ctx.Done():
			timer.Stop()
			c.giveLater(s, done)
			return false
		}
		timer.Stop()
		if ok {
			copy(dst[:n], s.mem[blockSize+off-first*layout.RegionSize:])
		}
		c.scrap <- s
		if !ok {
			return false
		}
		off, dst = off+n, dst[n:]
	}
	return true
}

// giveLater gives a scratch back once the read into it is over.
func (c *Cache) giveLater(s *scratch, done <-chan bool) {
	c.count.late.Add(1)
	go func() {
		<-done
		c.scrap <- s
	}()
}

// readRegions reads the regions from number first on that hold the payload up to byte end, behind a block for the
// header, and verifies them.
func (c *Cache) readRegions(s *scratch, key layout.FragKey, sum uint64, first, end int64) bool {
	at, blocks, ok := c.pin(packKey(key))
	if !ok {
		return false
	}
	defer c.unpin(at.Segment)
	size := int64(blocks) << blockShift
	if end > size {
		return false
	}
	from := first * layout.RegionSize
	last := min((end+layout.RegionSize-1)/layout.RegionSize*layout.RegionSize, size)
	err := c.file.ReadAt(s.mem[:blockSize], c.at(at.Segment, at.Block))
	p := s.mem[blockSize : blockSize+last-from]
	if err == nil {
		err = c.file.ReadAt(p, c.at(at.Segment, at.Block+1)+from)
	}
	if err != nil {
		c.count.readErrors.Add(1)
		c.lose(key)
		return false
	}
	h := &s.head
	good := h.Decode(s.mem) == nil
	at.Generation = h.Place.Generation // the segment's cannot change under the pin, and the sequence says as much
	switch {
	case !good || !h.is(c.sb.UUID, key, at, blocks<<blockShift) || !h.regionsMatch(int(first), p):
		c.rotten(key)
		return false
	case h.Sum != sum:
		// Other content than the manifest's under the same key: numbers were given twice, after the loss of metadata.
		c.count.stale.Add(1)
		c.lose(key)
		return false
	}
	return true
}
