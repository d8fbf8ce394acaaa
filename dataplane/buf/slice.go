package buf

// AppendRange appends n bytes of from, from byte at on. References are not touched.
func (v *Vec) AppendRange(from *Vec, at, n int) {
	for _, s := range from.Segs {
		if n == 0 {
			return
		}
		if at >= int(s.Len) {
			at -= int(s.Len)
			continue
		}
		take := min(n, int(s.Len)-at)
		v.Segs = append(v.Segs, s.cut(at, take))
		n -= take
		at = 0
	}
}

// Advance removes the first n bytes. References are not touched.
func (v *Vec) Advance(n int) {
	done := 0
	for done < len(v.Segs) && n >= int(v.Segs[done].Len) {
		n -= int(v.Segs[done].Len)
		done++
	}
	v.Segs = v.Segs[:copy(v.Segs, v.Segs[done:])]
	if n > 0 {
		v.Segs[0] = v.Segs[0].cut(n, int(v.Segs[0].Len)-n)
	}
}

// cut is the n bytes of s from at on.
func (s Seg) cut(at, n int) Seg {
	from := int(s.Off) + at
	return Seg{Page: s.Page + Page(from/PageSize), Off: uint32(from % PageSize), Len: uint32(n)}
}

// CopyIn copies data to byte at of v.
func (p *Pool) CopyIn(v *Vec, at int, data []byte) {
	for _, s := range v.Segs {
		if len(data) == 0 {
			return
		}
		if at >= int(s.Len) {
			at -= int(s.Len)
			continue
		}
		n := copy(p.SegBytes(s)[at:], data)
		data = data[n:]
		at = 0
	}
}
