package buf

// Seg is a run of bytes in a Pool: Len bytes that begin Off bytes into page Page and may run on into
// the pages behind it. Every page that a Seg touches carries one reference for it.
type Seg struct {
	Page Page
	Off  uint32 // bytes into the first page, < 4096
	Len  uint32 // bytes
}

// Pages is the number of pages the run touches.
func (s Seg) Pages() int { return int((s.Off + s.Len + PageSize - 1) / PageSize) }

// Vec is a scatter list. The zero Vec is empty. Its backing array is kept by Reset, so a pooled
// Request allocates only until its longest list has been seen.
type Vec struct {
	Segs []Seg
}

// Len is the number of bytes in the list.
func (v *Vec) Len() int {
	n := 0
	for i := range v.Segs {
		n += int(v.Segs[i].Len)
	}
	return n
}

// Empty reports whether the list holds nothing.
func (v *Vec) Empty() bool { return len(v.Segs) == 0 }

// Add appends a run, merging it with the one before where they touch page-aligned. References are not
// touched: the caller's reference passes to the list.
func (v *Vec) Add(s Seg) {
	if n := len(v.Segs); n > 0 {
		last := &v.Segs[n-1]
		end := last.Off + last.Len
		if end%PageSize == 0 && s.Off == 0 && last.Page+Page(end/PageSize) == s.Page && last.Page >= zeroPages {
			last.Len += s.Len
			return
		}
	}
	v.Segs = append(v.Segs, s)
}

// Reset forgets the list without releasing anything; the backing array stays.
func (v *Vec) Reset() { v.Segs = v.Segs[:0] }

// PageAt is the page that holds byte off of a page-aligned list (every Seg has Off 0 and, but for the
// last, a Len of whole pages). It walks the list: short lists only, or use a Cursor.
func (v *Vec) PageAt(off int) Page {
	for i := range v.Segs {
		s := &v.Segs[i]
		if off < int(s.Len) {
			return s.Page + Page(off/PageSize)
		}
		off -= int(s.Len)
	}
	panic("BUG: buf: offset beyond the list")
}
