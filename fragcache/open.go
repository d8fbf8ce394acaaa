package fragcache

import (
	"cmp"
	"crypto/rand"
	"slices"
	"sync"

	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// scanners is how many segments Open looks at at once.
const scanners = 8

// openFile finds out what the file is, and what is in it.
func (c *Cache) openFile() error {
	block, err := dio.AlignedBuf(blockSize)
	if err != nil {
		return err
	}
	defer dio.FreeBuf(block)
	sb, err := readSuper(c.file, block)
	fresh := false
	switch {
	case errs.Of(err) == errs.IO:
		return err
	case err != nil, sb.Deployment != c.opt.Deployment, sb.Segment < segmentFor(1, c.opt.MaxFragment):
		fresh = true
		sb = Superblock{Deployment: c.opt.Deployment, Size: c.file.Size()}
		rand.Read(sb.UUID[:])
		var n int
		sb.Segment, n = c.opt.geometry()
		sb.Segments = uint32(n)
	}
	sb.Incarnation++
	if err := writeSuper(c.file, &sb, block, fresh); err != nil {
		return err
	}
	c.sb = sb
	c.last = sb.Incarnation << 32
	c.segs = make([]segment, sb.Segments)
	c.index.init(c.opt.EntriesMax)
	if !fresh {
		c.enter(c.scan())
	}
	for i := range c.segs {
		if c.segs[i].state == segFree {
			c.free = append(c.free, uint32(i))
		}
	}
	return nil
}

// found is what a segment holds.
type found struct {
	seg        uint32
	generation uint64
	end        int64 // behind the last fragment
	list       []Listed
}

// scan looks at all segments; the older ones come first.
func (c *Cache) scan() []found {
	out := make([]found, len(c.segs))
	next := make(chan int)
	var wg sync.WaitGroup
	for range scanners {
		wg.Go(func() {
			block, err := dio.AlignedBuf(blockSize)
			if err == nil {
				defer dio.FreeBuf(block)
			}
			for i := range next {
				if err == nil {
					out[i] = c.scanSegment(uint32(i), block)
				}
			}
		})
	}
	for i := range c.segs {
		next <- i
	}
	close(next)
	wg.Wait()
	out = slices.DeleteFunc(out, func(f found) bool { return len(f.list) == 0 })
	slices.SortFunc(out, func(a, b found) int { return cmp.Compare(a.generation, b.generation) })
	return out
}

// scanSegment takes the footer's word if it is of the same generation as the first header, and walks on from
// there. What cannot be read is left out.
func (c *Cache) scanSegment(i uint32, block []byte) found {
	f := found{seg: i}
	var h Header
	if c.file.ReadAt(block, c.at(i, 0)) == nil && h.Decode(block) == nil && h.UUID == c.sb.UUID &&
		h.Place.Segment == i && h.Place.Block == 0 {
		f.generation = h.Place.Generation
	}
	foot, ok := c.readFooter(i, block)
	if ok && (f.generation == 0 || f.generation == foot.Generation) {
		f.generation, f.list = foot.Generation, foot.List
		if n := len(f.list); n > 0 {
			last := f.list[n-1]
			f.end = int64(last.Block+1)<<blockShift + int64(last.Len)
		}
	}
	if f.generation != 0 {
		c.walk(&f)
	}
	return f
}

func (c *Cache) readFooter(i uint32, block []byte) (f Footer, ok bool) {
	end := c.at(i, 0) + c.sb.Segment
	if c.file.ReadAt(block, end-blockSize) != nil {
		return f, false
	}
	n, ok := footerLen(block)
	if !ok || n > c.sb.Segment {
		return f, false
	}
	b := block
	if n > blockSize {
		var err error
		if b, err = dio.AlignedBuf(int(n)); err != nil {
			return f, false
		}
		defer dio.FreeBuf(b)
		if c.file.ReadAt(b, end-n) != nil {
			return f, false
		}
	}
	f, err := DecodeFooter(b, uint32(c.sb.Segment>>blockShift))
	return f, err == nil && f.UUID == c.sb.UUID && f.Segment == i
}

// walk follows headers from f.end on, as long as they are of the same generation, and takes the fragments whose
// payload matches.
func (c *Cache) walk(f *found) {
	var b []byte
	defer func() {
		if b != nil {
			dio.FreeBuf(b)
		}
	}()
	for f.end+2*blockSize <= c.sb.Segment {
		if b == nil {
			var err error
			if b, err = dio.AlignedBuf(int(slotBytes(MaxPayload))); err != nil {
				return
			}
		}
		at := Place{Segment: f.seg, Block: uint32(f.end >> blockShift), Generation: f.generation}
		var h Header
		if c.file.ReadAt(b[:blockSize], c.at(at.Segment, at.Block)) != nil || h.Decode(b) != nil {
			return
		}
		at.Seq = h.Place.Seq
		end := f.end + blockSize + int64(h.Len)
		if !h.is(c.sb.UUID, h.Key, at, h.Len) || end > c.sb.Segment {
			return
		}
		p := b[blockSize : blockSize+int(h.Len)]
		if c.file.ReadAt(p, c.at(at.Segment, at.Block+1)) == nil && h.regionsMatch(0, p) {
			f.list = append(f.list, Listed{h.Key, at.Block, h.Len, at.Seq})
		}
		f.end = end
	}
}

// enter fills the index, the oldest first, so that of two fragments with the same key the younger wins and every
// vDisk's list is by age. The youngest segment is written on if there is room.
func (c *Cache) enter(all []found) {
	for n, f := range all {
		s := &c.segs[f.seg]
		s.generation, s.end, s.written, s.state = f.generation, f.end, len(f.list), segOpen
		for _, e := range f.list {
			k := packKey(e.Key)
			at := Place{Segment: f.seg, Block: e.Block, Generation: f.generation, Seq: e.Seq}
			c.insert(c.tenantMade(e.Key.Namespace), k, at, e.Len>>blockShift)
			c.last = max(c.last, e.Seq)
		}
		if n == len(all)-1 && s.end+slotBytes(c.opt.MaxFragment)+footerBytes(s.written+1) <= c.sb.Segment {
			c.open = int(f.seg)
			break
		}
		s.state = segSealed
		c.enqueue(&c.sealed, f.seg)
		if s.live == 0 {
			c.drain(f.seg)
		}
	}
	for _, t := range c.tenants {
		if t != nil {
			c.enforce(t)
		}
	}
}

// regionsOf is the number of region sums of so many blocks.
func regionsOf(blocks uint32) int { return layout.Regions(int(blocks) << blockShift) }
