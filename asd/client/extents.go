package client

import (
	"vstor/asd/proto"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// extentTable remembers where fragments lie on a drive. It takes a fixed number of bytes and holds no pointers, and
// neither finding nor replacing allocates.
//
//	bucket   8 places of 32 bytes: the key in 20, blocks in 4, and in 8
//	           bits  0..39  first block of the payload, or, of a fragment in several pieces, 1 + its place in pieces
//	           bit   62     it has several pieces
//	           bit   63     it was used since it was last passed over
//	         a first block of 0 is none: there lies a superblock
//
// The obvious Go map with a list for the order of use holds pointers, or as much again beside it. Here what is
// put into a full bucket takes the place of the first that was not used since somebody looked for one.
type extentTable struct {
	places []extentPlace
	pieces [][proto.ExtentsMax]layout.Extent // of fragments that do not lie in one
	free   []uint32                          // of them
	n      int                               // fragments
}

type extentPlace struct {
	ns     uint64
	sp     uint64 // SCO and put
	rest   uint32 // chunk, fragment, version
	blocks uint32
	where  uint64
}

const (
	bucketPlaces = 8
	placeBytes   = 32
	pieceBytes   = proto.ExtentsMax * 16
	piecesPer    = 32 // places to one fragment in several pieces
	// bucketBytes is what a bucket takes, with its share of pieces.
	bucketBytes = bucketPlaces*placeBytes + bucketPlaces*pieceBytes/piecesPer

	whereBits  = 1<<40 - 1
	severalBit = 1 << 62
	usedBit    = 1 << 63
)

// init takes the memory, at most n bytes and at least one bucket.
func (t *extentTable) init(n int64) {
	buckets := max(int(n/(bucketBytes+bucketPlaces*4/piecesPer)), 1)
	t.places = make([]extentPlace, buckets*bucketPlaces)
	t.pieces = make([][proto.ExtentsMax]layout.Extent, max(len(t.places)/piecesPer, 1))
	t.free = make([]uint32, 0, len(t.pieces))
	t.clear()
}

// clear forgets all.
func (t *extentTable) clear() {
	clear(t.places)
	t.free, t.n = t.free[:0], 0
	for i := range t.pieces {
		t.free = append(t.free, uint32(i))
	}
}

// bytes is what the fragments in the table take of it.
func (t *extentTable) bytes() int {
	return t.n*placeBytes + (len(t.pieces)-len(t.free))*pieceBytes
}

func placeOf(k layout.FragKey) extentPlace {
	return extentPlace{ns: uint64(k.Namespace), sp: uint64(k.SCO)<<32 | uint64(k.Put),
		rest: uint32(k.Chunk)<<16 | uint32(k.Frag)<<8 | uint32(k.Version)}
}

func (p *extentPlace) same(o *extentPlace) bool {
	return p.rest == o.rest && p.sp == o.sp && p.ns == o.ns && p.where != 0
}

// bucket is where a key may stand.
func (t *extentTable) bucket(p *extentPlace) []extentPlace {
	h := (p.ns ^ 0x9e3779b97f4a7c15) * 0xc2b2ae3d27d4eb4f
	h = (h ^ h>>32 ^ p.sp) * 0x9e3779b97f4a7c15
	h = (h ^ h>>32 ^ uint64(p.rest)) * 0xc2b2ae3d27d4eb4f
	i := int((h >> 32) * uint64(len(t.places)/bucketPlaces) >> 32)
	return t.places[i*bucketPlaces : (i+1)*bucketPlaces]
}

func (t *extentTable) find(k layout.FragKey) *extentPlace {
	want := placeOf(k)
	b := t.bucket(&want)
	for i := range b {
		if b[i].same(&want) {
			return &b[i]
		}
	}
	return nil
}

// locate appends to dst where bytes [off, off+n) of the payload of the fragment at p lie; false: beyond its end.
func (t *extentTable) locate(p *extentPlace, off, n uint32, dst []layout.Extent) ([]layout.Extent, bool) {
	if n == 0 || uint64(off)+uint64(n) > uint64(p.blocks)<<ids.BlockShift {
		return dst, false
	}
	p.where |= usedBit
	if p.where&severalBit == 0 {
		return append(dst, layout.Extent{Off: int64(p.where&whereBits)<<ids.BlockShift + int64(off), Len: n}), true
	}
	for _, e := range t.pieces[p.where&whereBits-1] {
		if off >= e.Len {
			off -= e.Len
			continue
		}
		take := min(e.Len-off, n)
		dst = append(dst, layout.Extent{Off: e.Off + int64(off), Len: take})
		off = 0
		if n -= take; n == 0 {
			break
		}
	}
	return dst, true
}

// put remembers a fragment, in the place of another if need be. REQUIRES: whole blocks, 1 to ExtentsMax extents,
// none at 0, together less than 4 GiB.
func (t *extentTable) put(k layout.FragKey, es []layout.Extent) {
	p := placeOf(k)
	for _, e := range es {
		p.blocks += e.Len >> ids.BlockShift
	}
	to := t.find(k)
	if to == nil {
		to = t.victim(t.bucket(&p))
	}
	t.drop(to)
	if len(es) == 1 {
		p.where = uint64(es[0].Off >> ids.BlockShift)
	} else {
		n := len(t.free)
		if n == 0 {
			return // as good as never asked
		}
		i := t.free[n-1]
		t.free = t.free[:n-1]
		t.pieces[i] = [proto.ExtentsMax]layout.Extent{}
		copy(t.pieces[i][:], es)
		p.where = severalBit | uint64(i+1)
	}
	p.where |= usedBit
	*to = p
	t.n++
}

// victim is the place of a bucket that is given to another.
func (t *extentTable) victim(b []extentPlace) *extentPlace {
	for i := range b {
		if b[i].where == 0 {
			return &b[i]
		}
	}
	for i := range b {
		if b[i].where&usedBit == 0 {
			return &b[i]
		}
		b[i].where &^= usedBit
	}
	return &b[t.n%bucketPlaces]
}

// remove forgets a fragment, and reports whether it was there.
func (t *extentTable) remove(k layout.FragKey) bool {
	p := t.find(k)
	if p == nil {
		return false
	}
	t.drop(p)
	return true
}

func (t *extentTable) drop(p *extentPlace) {
	if p.where == 0 {
		return
	}
	if p.where&severalBit != 0 {
		t.free = append(t.free, uint32(p.where&whereBits-1))
	}
	*p = extentPlace{}
	t.n--
}
