package stamp

import (
	"context"
	"math/rand/v2"

	"vstor/bench/nbdc"
)

// worker keeps one request in flight on a connection.
type worker struct {
	*Checker
	conn *nbdc.Conn
	rng  *rand.Rand
	buf  []byte
	n    *counters
}

func (w *worker) loop(ctx context.Context) {
	for ctx.Err() == nil && w.step() {
	}
}

// step does one request; false once the connection is lost.
func (w *worker) step() bool {
	m := w.opt.Mix
	pick := w.rng.IntN(m.Write + m.FUA + m.Read + m.Flush + m.Trim + m.Zeroes)
	for _, c := range []struct {
		weight int
		do     func() bool
	}{
		{m.Write, func() bool { return w.write(0) }},
		{m.FUA, func() bool { return w.write(nbdc.FlagFUA) }},
		{m.Read, w.read},
		{m.Flush, w.flush},
		{m.Trim, func() bool { return w.zero(true) }},
		{m.Zeroes, func() bool { return w.zero(false) }},
	} {
		if pick < c.weight {
			return c.do()
		}
		pick -= c.weight
	}
	return true
}

// span picks a run of blocks, short ones mostly.
func (w *worker) span() (block, n int) {
	n = 1
	for n < w.opt.MaxRun && w.rng.IntN(2) == 0 {
		n *= 2
	}
	n = 1 + w.rng.IntN(min(n, w.opt.MaxRun))
	whole := w.opt.Blocks - w.opt.SectorBlocks
	return w.opt.SectorBlocks + w.rng.IntN(whole-n+1), n
}

// inSectors decides whether the next write goes to a sector block.
func (w *worker) inSectors() bool { return w.rng.IntN(8) == 0 }

func (w *worker) write(flags uint16) bool {
	if w.inSectors() {
		return w.writeSectors(flags, false)
	}
	block, n := w.span()
	r, ok := w.oracle.issue(block, n, false)
	if !ok {
		return true
	}
	data := w.buf[:n*BlockSize]
	for i := range n {
		id := identity{w.opt.Volume, uint64(block + i), r.versionOf(i), w.opt.Seed}
		id.fill(data[i*BlockSize : (i+1)*BlockSize])
	}
	err := w.conn.Write(data, int64(block)*BlockSize, flags)
	return w.ended(r, flags, len(data), err)
}

func (w *worker) writeSectors(flags uint16, zero bool) bool {
	block := w.rng.IntN(w.opt.SectorBlocks)
	lo := w.rng.IntN(perBlock)
	hi := lo + 1 + w.rng.IntN(perBlock-lo)
	r, ok := w.oracle.issueSectors(block, lo, hi, zero)
	if !ok {
		return true
	}
	data := w.buf[:(hi-lo)*SectorSize]
	off := int64(block)*BlockSize + int64(lo)*SectorSize
	var err error
	if zero {
		err = w.conn.WriteZeroes(off, uint32(len(data)), flags)
	} else {
		for i := range hi - lo {
			id := identity{w.opt.Volume, uint64(block*perBlock + lo + i), r.version, w.opt.Seed}
			id.fill(data[i*SectorSize : (i+1)*SectorSize])
		}
		err = w.conn.Write(data, off, flags)
	}
	return w.ended(r, flags, len(data), err)
}

func (w *worker) zero(trim bool) bool {
	flags := uint16(0)
	if w.rng.IntN(8) == 0 {
		flags = nbdc.FlagFUA
	}
	// A trim of part of a block does nothing, by rule: sectors are zeroed only.
	if !trim && w.inSectors() {
		return w.writeSectors(flags, true)
	}
	block, n := w.span()
	r, ok := w.oracle.issue(block, n, true)
	if !ok {
		return true
	}
	off, length := int64(block)*BlockSize, uint32(n*BlockSize)
	var err error
	if trim {
		err = w.conn.Trim(off, length, flags)
	} else {
		err = w.conn.WriteZeroes(off, length, flags)
	}
	return w.ended(r, flags, n*BlockSize, err)
}

// ended records how a write went; false once the connection is lost.
func (w *worker) ended(r run, flags uint16, bytes int, err error) bool {
	if err == nil {
		w.oracle.ack(r, flags&nbdc.FlagFUA != 0)
		w.n.written.Add(uint64(bytes))
		w.n.acked.Add(1)
		return true
	}
	w.oracle.refuse(r)
	return w.failed(err)
}

func (w *worker) failed(err error) bool {
	w.n.mu.Lock()
	w.n.last = err.Error()
	w.n.mu.Unlock()
	if lostConnection(err) {
		w.n.lost.Add(1)
		return false
	}
	w.n.refused.Add(1)
	return true
}

func (w *worker) flush() bool {
	began := w.oracle.now()
	if err := w.conn.Flush(); err != nil {
		return w.failed(err)
	}
	w.oracle.flushed(began)
	w.n.acked.Add(1)
	return true
}

// read reads a block that nobody writes meanwhile and checks it.
func (w *worker) read() bool {
	block := w.rng.IntN(w.opt.Blocks)
	if !w.oracle.beginRead(block) {
		return true
	}
	data := w.buf[:BlockSize]
	err := w.conn.Read(data, int64(block)*BlockSize)
	if err != nil {
		w.oracle.endRead(block, nil)
		return w.failed(err)
	}
	if wrong := w.oracle.endRead(block, data); wrong != "" {
		w.n.mu.Lock()
		w.n.wrong = append(w.n.wrong, "while running, "+wrong)
		w.n.mu.Unlock()
	}
	w.n.acked.Add(1)
	return true
}
