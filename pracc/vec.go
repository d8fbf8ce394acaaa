package pracc

import "vstor/dataplane/buf"

// subVec appends to dst the pages that hold bytes [off, off+n) of the page-aligned list src; both
// are multiples of the page size. References are not touched.
func subVec(dst, src *buf.Vec, off, n uint32) {
	for i := range src.Segs {
		if n == 0 {
			return
		}
		s := src.Segs[i]
		if off >= s.Len {
			off -= s.Len
			continue
		}
		run := min(s.Len-off, n)
		dst.Add(buf.Seg{Page: s.Page + buf.Page(off/buf.PageSize), Len: run})
		n -= run
		off = 0
	}
}

// bytesAt is the memory from byte off of the page-aligned list v on, as far as it is contiguous.
func bytesAt(p *buf.Pool, v *buf.Vec, off uint32) []byte {
	for i := range v.Segs {
		s := v.Segs[i]
		if off < s.Len {
			return p.SegBytes(buf.Seg{Page: s.Page + buf.Page(off/buf.PageSize), Len: s.Len - off})
		}
		off -= s.Len
	}
	panic("BUG: pracc: offset beyond the list of pages")
}
