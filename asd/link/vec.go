package link

import "vstor/dataplane/buf"

// appendRange appends the bytes of v from at on, n of them, to out.
func appendRange(out, v *buf.Vec, at, n int) {
	for _, s := range v.Segs {
		if n == 0 {
			return
		}
		if at >= int(s.Len) {
			at -= int(s.Len)
			continue
		}
		take := min(n, int(s.Len)-at)
		out.Segs = append(out.Segs, cut(s, at, take))
		n -= take
		at = 0
	}
}

// cut is the n bytes of s from at on.
func cut(s buf.Seg, at, n int) buf.Seg {
	from := int(s.Off) + at
	return buf.Seg{Page: s.Page + buf.Page(from/buf.PageSize), Off: uint32(from % buf.PageSize), Len: uint32(n)}
}

// copyIn copies data to byte at of v.
func copyIn(pool *buf.Pool, v *buf.Vec, at int, data []byte) {
	for _, s := range v.Segs {
		if len(data) == 0 {
			return
		}
		if at >= int(s.Len) {
			at -= int(s.Len)
			continue
		}
		n := copy(pool.SegBytes(s)[at:], data)
		data = data[n:]
		at = 0
	}
}

// advance removes the first n bytes of v.
func advance(v *buf.Vec, n int) {
	done := 0
	for done < len(v.Segs) && n >= int(v.Segs[done].Len) {
		n -= int(v.Segs[done].Len)
		done++
	}
	v.Segs = v.Segs[:copy(v.Segs, v.Segs[done:])]
	if n > 0 {
		v.Segs[0] = cut(v.Segs[0], n, int(v.Segs[0].Len)-n)
	}
}
