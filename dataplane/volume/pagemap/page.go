package pagemap

import (
	"encoding/binary"
	"math/bits"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// PageBlocks is the number of locations in a page, 1 MiB of vDisk; a format constant.
const (
	PageShift  = 8
	PageBlocks = 1 << PageShift
)

// PageNo numbers the pages of a map: block address / PageBlocks.
type PageNo uint32

// PageOf is the page that addr lies in. REQUIRES: addr < SizeMax.
func PageOf(addr ids.BlockAddr) PageNo { return PageNo(addr >> PageShift) }

// Locations are those of one page, by block.
type Locations = [PageBlocks]layout.Location

// Page is a decoded page of a map.
type Page struct {
	Map    MapID
	No     PageNo
	Commit ids.CommitNum // the last commit when it was written
	Locs   Locations
}

// A page's record. 256 locations of 12 bytes would be 3072 bytes, and every flush reads and writes
// them; but a page names neighbouring SCO numbers, offsets of 14 bits and one namespace. So SCO, offset
// and namespace are stored as the difference to the smallest of the page, in as few bits as the largest
// difference needs; only the checksums cannot be squeezed. A randomly written page of a 100 GiB vDisk
// has 1.9 KB, a sequentially written one 1.4 KB.
//
//	byte  32      40       44       46      48   49   50   51    52
//	      commit  SCO min  off min  NS min  wSCO wOff wNS  zero  kinds  packed  sums
//	      u64     u32      u16      u16     u8   u8   u8   u8
//
//	shape 0, 1, 2   the whole page is holes of that kind (layout.OffUnmapped...): nothing beyond byte 52
//	shape 3         every block is located
//	shape 4         mixed: kinds is 64 bytes, 2 bits per block, low bits first: 0-2 hole, 3 located
//
// packed has, per located block in order, (NS | off | SCO) differences of wSCO + wOff + wNS bits, SCO
// lowest, as one little-endian stream of bits padded with zeros to a byte. sums has 4 bytes per located block.
const (
	pageHead   = frameSize + 20
	shapeFull  = 3
	shapeMixed = 4
	kindsSize  = PageBlocks / 4

	// pageMax is the largest record: nothing squeezes.
	pageMax = pageHead + kindsSize + PageBlocks*layout.LocationSize
)

// columns are the smallest values and the widths of a page.
type columns struct {
	sco        uint32
	off, ns    uint16
	wSCO, wOff uint
	wNS        uint
}

func (c columns) width() uint { return c.wSCO + c.wOff + c.wNS }

func measure(locs *Locations) (c columns, located int) {
	lo := layout.Location{SCO: 1<<32 - 1, Off: 1<<16 - 1, NS: 1<<16 - 1}
	var hi layout.Location
	for i := range locs {
		l := &locs[i]
		if l.Hole() {
			continue
		}
		located++
		lo.SCO, hi.SCO = min(lo.SCO, l.SCO), max(hi.SCO, l.SCO)
		lo.Off, hi.Off = min(lo.Off, l.Off), max(hi.Off, l.Off)
		lo.NS, hi.NS = min(lo.NS, l.NS), max(hi.NS, l.NS)
	}
	if located == 0 {
		return columns{}, 0
	}
	return columns{sco: uint32(lo.SCO), off: lo.Off, ns: lo.NS,
		wSCO: uint(bits.Len32(uint32(hi.SCO - lo.SCO))), wOff: uint(bits.Len16(hi.Off - lo.Off)),
		wNS: uint(bits.Len16(hi.NS - lo.NS))}, located
}

// wholeHole is the kind of hole that all of the page is; false if it is not one.
func wholeHole(locs *Locations) (kind uint16, ok bool) {
	for i := range locs {
		if !locs[i].Hole() || locs[i].Off != locs[0].Off {
			return 0, false
		}
	}
	return locs[0].Off, true
}

// Append appends the page's record to b. Holes must be of a known kind.
func (p *Page) Append(b []byte) []byte {
	c, located := measure(&p.Locs)
	kind, whole := wholeHole(&p.Locs)
	shape := byte(shapeMixed)
	switch {
	case whole:
		shape = byte(kind)
	case located == PageBlocks:
		shape = shapeFull
	}
	start := len(b)
	le := binary.LittleEndian
	b = appendFrame(b, magicPage, shape, p.Map, uint64(p.No))
	b = le.AppendUint64(b, uint64(p.Commit))
	b = le.AppendUint32(b, c.sco)
	b = le.AppendUint16(b, c.off)
	b = le.AppendUint16(b, c.ns)
	b = append(b, byte(c.wSCO), byte(c.wOff), byte(c.wNS), 0)
	if shape == shapeMixed {
		b = appendKinds(b, &p.Locs)
	}
	if shape >= shapeFull {
		b = appendColumns(b, &p.Locs, c)
	}
	seal(b[start:])
	return b
}

func appendKinds(b []byte, locs *Locations) []byte {
	var kinds [kindsSize]byte
	for i := range locs {
		k := byte(3)
		if locs[i].Hole() {
			k = byte(locs[i].Off)
		}
		kinds[i/4] |= k << (i % 4 * 2)
	}
	return append(b, kinds[:]...)
}

func appendColumns(b []byte, locs *Locations, c columns) []byte {
	w := bitWriter{dst: b}
	width := c.width()
	for i := range locs {
		l := &locs[i]
		if l.Hole() {
			continue
		}
		v := uint64(uint32(l.SCO)-c.sco) | uint64(l.Off-c.off)<<c.wSCO | uint64(l.NS-c.ns)<<(c.wSCO+c.wOff)
		w.put(v, width)
	}
	b = w.end()
	for i := range locs {
		if !locs[i].Hole() {
			b = binary.LittleEndian.AppendUint32(b, locs[i].Sum)
		}
	}
	return b
}

// ParsePage decodes a page's record into p, whatever map and page it is of. p shares nothing with b.
// Corrupt and Version are the errors; p is garbage then.
func ParsePage(b []byte, p *Page) error {
	f, err := parseFrame(b)
	if err != nil {
		return err
	}
	if f.magic != magicPage {
		return errs.New(errs.Corrupt, "map record is %s, wanted a page", magicName(f.magic))
	}
	return f.page(p)
}

// parsePageOf decodes the page no of the map id, and nothing else.
func parsePageOf(b []byte, id MapID, no PageNo, p *Page) error {
	f, err := openFrame(b, magicPage, id, uint64(no))
	if err != nil {
		return err
	}
	return f.page(p)
}

func (f frame) page(p *Page) error {
	if f.number > uint64(PageOf(SizeMax-1)) || len(f.body) < pageHead-frameSize || f.shape > shapeMixed {
		return errs.New(errs.Corrupt, "map page %d of shape %d and %d bytes: no such page",
			f.number, f.shape, len(f.body))
	}
	le := binary.LittleEndian
	b := f.body
	p.Map, p.No, p.Commit = f.id, PageNo(f.number), ids.CommitNum(le.Uint64(b))
	c := columns{sco: le.Uint32(b[8:]), off: le.Uint16(b[12:]), ns: le.Uint16(b[14:]),
		wSCO: uint(b[16]), wOff: uint(b[17]), wNS: uint(b[18])}
	if c.wSCO > 32 || c.wOff > 16 || c.wNS > 16 || b[19] != 0 {
		return errs.New(errs.Corrupt, "map page %d has columns of %d, %d and %d bits: at most 32, 16 and 16",
			p.No, c.wSCO, c.wOff, c.wNS)
	}
	b = b[pageHead-frameSize:]
	located := 0
	switch f.shape {
	case shapeFull:
		located = PageBlocks
		for i := range p.Locs {
			p.Locs[i] = layout.Location{SCO: 1}
		}
	case shapeMixed:
		if len(b) < kindsSize {
			return errs.New(errs.Corrupt, "map page %d ends within its kinds", p.No)
		}
		located = parseKinds(b, &p.Locs)
		b = b[kindsSize:]
	default:
		fill(p.Locs[:], uint16(f.shape))
	}
	packed := (located*int(c.width()) + 7) / 8
	if len(b) != packed+4*located {
		return errs.New(errs.Corrupt, "map page %d has %d bytes of locations: %d locations of %d bits need %d",
			p.No, len(b), located, c.width(), packed+4*located)
	}
	return parseColumns(b[:packed], b[packed:], &p.Locs, c, p.No)
}

// parseKinds sets holes, and SCO 1 where a location will follow.
func parseKinds(b []byte, locs *Locations) (located int) {
	for i := range locs {
		k := b[i/4] >> (i % 4 * 2) & 3
		if k == 3 {
			locs[i] = layout.Location{SCO: 1}
			located++
			continue
		}
		locs[i] = layout.Location{Off: uint16(k)}
	}
	return located
}

func parseColumns(packed, sums []byte, locs *Locations, c columns, no PageNo) error {
	r := bitReader{src: packed}
	width := c.width()
	n := 0
	for i := range locs {
		if locs[i].Hole() {
			continue
		}
		v := r.get(width)
		sco := uint64(c.sco) + v&(1<<c.wSCO-1)
		off := uint64(c.off) + v>>c.wSCO&(1<<c.wOff-1)
		ns := uint64(c.ns) + v>>(c.wSCO+c.wOff)&(1<<c.wNS-1)
		if sco == 0 || sco > 1<<32-1 || off > 1<<16-1 || ns > 1<<16-1 {
			return errs.New(errs.Corrupt, "map page %d, block %d: location (%d, %d, %d) is none",
				no, i, ns, sco, off)
		}
		locs[i] = layout.Location{SCO: ids.SCONum(sco), Off: uint16(off), NS: uint16(ns),
			Sum: binary.LittleEndian.Uint32(sums[4*n:])}
		n++
	}
	if !r.clean() {
		return errs.New(errs.Corrupt, "map page %d has bits set behind its last location", no)
	}
	return nil
}

// fill makes all of dst holes of a kind.
func fill(dst []layout.Location, kind uint16) {
	for i := range dst {
		dst[i] = layout.Location{Off: kind}
	}
}

// bitWriter appends numbers of up to 64 bits to a stream, low bits first.
type bitWriter struct {
	dst []byte
	acc uint64
	n   uint // bits in acc, below 64
}

// put appends the low width bits of v. REQUIRES: v has no higher bits.
func (w *bitWriter) put(v uint64, width uint) {
	w.acc |= v << w.n
	if w.n+width < 64 {
		w.n += width
		return
	}
	w.dst = binary.LittleEndian.AppendUint64(w.dst, w.acc)
	w.acc = v >> (64 - w.n) // n = 0 shifts all out: Go defines that as 0
	w.n += width - 64
}

func (w *bitWriter) end() []byte {
	for ; w.n > 0; w.n -= min(8, w.n) {
		w.dst = append(w.dst, byte(w.acc))
		w.acc >>= 8
	}
	return w.dst
}

// bitReader is its inverse. Beyond the end it reads zeros; callers know the length.
type bitReader struct {
	src []byte
	acc uint64
	n   uint
}

func (r *bitReader) get(width uint) uint64 {
	mask := uint64(1)<<width - 1
	if r.n >= width {
		v := r.acc & mask
		r.acc >>= width
		r.n -= width
		return v
	}
	var next uint64
	got := uint(64)
	if len(r.src) >= 8 {
		next = binary.LittleEndian.Uint64(r.src)
		r.src = r.src[8:]
	} else {
		for i, b := range r.src {
			next |= uint64(b) << (8 * i)
		}
		got = uint(8 * len(r.src))
		r.src = nil
	}
	v := (r.acc | next<<r.n) & mask
	used := width - r.n
	r.acc = next >> used
	r.n = got - min(got, used)
	return v
}

// clean reports that nothing but zero bits is left.
func (r *bitReader) clean() bool {
	if r.acc != 0 {
		return false
	}
	for _, b := range r.src {
		if b != 0 {
			return false
		}
	}
	return true
}
