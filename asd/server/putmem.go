package server

import (
	"math/bits"

	"vstor/dataplane/buf"
)

// putMemory is the memory of puts: runs of contiguous pages, each long enough for the longest put, and the line for
// them. The obvious run for each put wastes three quarters of it where fragments are a quarter of what
// they may be, and fewer puts then share a sync. So a run is sixteen units, and a put takes as many as it
// needs, side by side, in the first run that has them: the later ones stay whole for long puts.
type putMemory struct {
	runs  []putRun
	unit  int64 // bytes
	all   buf.Vec
	taken int // puts
	line  line
}

type putRun struct {
	seg  buf.Seg
	free uint16 // a bit for each unit
}

const (
	unitsPerRun = 16
	allUnits    = 1<<unitsPerRun - 1
)

// init takes n runs of size bytes, like runs.init. REQUIRES: size is a multiple of 16 pages.
func (m *putMemory) init(pool *buf.Pool, n int, size int64) {
	var b runs
	b.init(pool, n, size)
	m.all, m.unit = b.all, size/unitsPerRun
	for _, s := range b.free {
		pool.JoinPages(s)
		m.runs = append(m.runs, putRun{s, allUnits})
	}
}

// take gives n contiguous bytes, page aligned, to c, or puts it in line. Of what it gives only n counts as Len.
func (m *putMemory) take(c *conn, n int64) (buf.Seg, bool) {
	if m.line.admits(c) {
		units := int((n + m.unit - 1) / m.unit)
		for i := range m.runs {
			r := &m.runs[i]
			at := fit(r.free, units)
			if at < 0 {
				continue
			}
			r.free &^= mask(at, units)
			m.taken++
			c.leaveLine()
			return buf.Seg{Page: r.seg.Page + buf.Page(int64(at)*m.unit/buf.PageSize), Len: uint32(n)}, true
		}
	}
	m.line.join(c)
	return buf.Seg{}, false
}

// give takes back what take gave.
func (m *putMemory) give(s buf.Seg) {
	per := buf.Page(m.unit * unitsPerRun / buf.PageSize)
	for i := range m.runs {
		r := &m.runs[i]
		if s.Page >= r.seg.Page && s.Page < r.seg.Page+per {
			at := int(int64(s.Page-r.seg.Page) * buf.PageSize / m.unit)
			r.free |= mask(at, int((int64(s.Len)+m.unit-1)/m.unit))
		}
	}
	m.taken--
	m.line.wake()
}

// whole reports whether nothing is taken.
func (m *putMemory) whole() bool {
	for _, r := range m.runs {
		if r.free != allUnits {
			return false
		}
	}
	return m.taken == 0
}

func mask(at, n int) uint16 { return uint16((1<<n - 1) << at) }

// fit is the first place where n bits of free stand side by side, or -1.
func fit(free uint16, n int) int {
	// After the turns a bit says that it and the n-1 above it are free.
	for i := 1; i < n && free != 0; i++ {
		free &= free >> 1
	}
	if free == 0 || n > unitsPerRun {
		return -1
	}
	return bits.TrailingZeros16(free)
}
