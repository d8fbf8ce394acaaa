package volume

import (
	"vstor/dataplane/block"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/volume/overlay"
	"vstor/dataplane/volume/pagemap"
)

// What is allocated is asked of the same two as where it lies: the overlay, and for what it does not know the
// map. To Resolve the range and throw the locations away would do for a megabyte. But a client asks for 4 GiB
// at a time, of a disk that is mostly empty, so what goes block by block there goes page by page here (256
// blocks), or by as many pages as the map knows of at once.
//
// A block lies in the overlay from its acknowledgement until its SCO is in the map, and both are looked at in
// one pass of the loop: what was acknowledged is seen, and a block is never between the two.

// scan is the memory of Extents.
type scan struct {
	view overlay.View
	locs pagemap.Locations
}

// loadAhead is how many pages are loaded behind one that is missing: as many as a loader takes at a time.
const loadAhead = 15

// ExtentsMax is how many blocks Extents tells of at most: their bytes fit an Extent.
const ExtentsMax = 1<<20 - 1

// Extents appends to out what the n blocks from addr on are, as far as its capacity goes; what goes on where
// the last one ended joins it. It takes what it looked at off work, in units of about 10 ns, and stops behind
// the page in which that was used up. It returns of how many blocks it told.
//
// False means that the map's page of the next block is not in RAM: it is being loaded, and l is told. Where
// that failed, blind says that what the map does not tell of addr's page counts as data.
//
// REQUIRES: n is at most ExtentsMax, out has room for one. Allocates nothing, unless a page is missing. On
// the loop.
func (v *Volume) Extents(addr ids.BlockAddr, n int, blind bool, out *[]block.Extent, work *int,
	l block.Loaded) (got int, ok bool) {
	for empty := v.ov.Empty(); got < n && (got == 0 || *work > 0); blind = false {
		at := addr + ids.BlockAddr(got)
		in := int(at % pagemap.PageBlocks)
		take := min(n-got, pagemap.PageBlocks-in)
		kind, uniform := overlay.Unknown, true
		if !empty {
			kind, uniform = v.ov.Look(at, take, &v.scan.view)
			*work -= v.scan.view.Work
		}
		*work--
		state := ofOverlay[kind]
		if uniform && kind == overlay.Unknown {
			var hole uint16
			var pages int
			if hole, pages, uniform = v.m.HoleRun(pagemap.PageOf(at)); uniform && empty {
				take = min(n-got, pages*pagemap.PageBlocks-in)
			}
			state = ofHole(hole)
			if !uniform {
				clear(v.scan.view.Kinds[:take])
			}
		}
		if uniform {
			if !addExtent(out, state, take) {
				return got, true
			}
			got += take
			continue
		}
		*work -= take
		told, why := v.pageExtents(at, take, blind, out)
		got += told
		switch why {
		case extentsFull:
			return got, true
		case pageMissing:
			v.loadFrom(at, addr+ids.BlockAddr(n), l)
			return got, false
		}
	}
	return got, true
}

// Why pageExtents stopped.
const (
	pageDone = iota
	pageMissing
	extentsFull
)

// pageExtents is Extents for blocks of one page, of which v.scan.view.Kinds has what the overlay knows.
func (v *Volume) pageExtents(addr ids.BlockAddr, n int, blind bool, out *[]block.Extent) (got, why int) {
	kinds := v.scan.view.Kinds[:n]
	for got < n {
		if k := kinds[got]; k != overlay.Unknown {
			if !addExtent(out, ofOverlay[k], 1) {
				return got, extentsFull
			}
			got++
			continue
		}
		end := got + 1
		for end < n && kinds[end] == overlay.Unknown {
			end++
		}
		locs := v.scan.locs[:end-got]
		locs = locs[:v.m.LookupRange(addr+ids.BlockAddr(got), locs)]
		for i := range locs {
			state := block.ExtentState(0)
			if locs[i].Hole() {
				state = ofHole(locs[i].Off)
			}
			if !addExtent(out, state, 1) {
				return got, extentsFull
			}
			got++
		}
		if got == end {
			continue
		}
		if !blind {
			return got, pageMissing
		}
		// Whoever is told of a hole does not read it: a copy would be without what lies there, and nobody
		// would know. Of data it is told by the read that it cannot be had, and where, and goes on behind it.
		if !addExtent(out, 0, 1) {
			return got, extentsFull
		}
		got++
	}
	return got, pageDone
}

// loadFrom loads the page of addr, and what comes behind it, below end.
func (v *Volume) loadFrom(addr, end ids.BlockAddr, l block.Loaded) {
	v.loadPage(addr, l)
	p, last := pagemap.PageOf(addr), pagemap.PageOf(end-1)
	for i := pagemap.PageNo(1); i <= loadAhead && p+i <= last; i++ {
		v.m.Prefetch(p + i)
	}
}

// ofOverlay is what a block is that the overlay knows.
var ofOverlay = [...]block.ExtentState{
	overlay.Data:    0,
	overlay.Zeros:   block.ReadsZero,
	overlay.Trimmed: block.Hole | block.ReadsZero,
}

// ofHole is what a block is that the map has as a hole of a kind.
func ofHole(kind uint16) block.ExtentState {
	if kind == layout.OffZero {
		return block.ReadsZero
	}
	return block.Hole | block.ReadsZero
}

// addExtent adds n blocks; false if there is no room for a new extent.
func addExtent(out *[]block.Extent, state block.ExtentState, n int) bool {
	e := *out
	size := uint32(n) << ids.BlockShift
	if k := len(e); k > 0 && e[k-1].State == state {
		e[k-1].Len += size
		return true
	}
	if len(e) == cap(e) {
		return false
	}
	*out = append(e, block.Extent{Len: size, State: state})
	return true
}
