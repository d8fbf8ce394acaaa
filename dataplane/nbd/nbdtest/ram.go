package nbdtest

import (
	"math/rand/v2"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
	"vstor/dataplane/ring"
)

// RAM is a block.Device whose blocks are pages of its loop's pool: a write leaves its pages there, a
// read shares them. Nothing is copied but the edges of unaligned writes, so it costs as little as a
// device can. It takes effect in the order of the Submits and completes later in the pass, or as its
// settings say. They are set on the loop.
type RAM struct {
	// Shuffle, if not nil, completes requests after up to MaxDelay in random order.
	Shuffle  *rand.Rand
	MaxDelay time.Duration
	// Hold keeps completions back until Release.
	Hold bool
	// Fail decides the end of each request; a failed one changes nothing.
	Fail func(*block.Request) errs.Kind
	// SlowZero makes it turn away fast zeroes.
	SlowZero bool
	// Grain bounds what an Extents tells at once, in blocks; 0 = no bound.
	Grain int
	// Log, if not nil, gets every request as it is submitted.
	Log func(*block.Request)

	loop  *ring.Loop
	pool  *buf.Pool
	info  block.Info
	table []buf.Page // page of each block; buf.Zero = zeros
	alloc []bool     // of a block of zeros: it is allocated

	op      ring.Op
	timer   ring.Timer
	waiting []*block.Request
	ending  []*block.Request
	seen    [block.Extents + 1]uint64
}

// NewRAM makes a device of size bytes (a multiple of 4096) on loop l, whose pool it fills as it is
// written.
func NewRAM(l *ring.Loop, info block.Info) *RAM {
	n := info.Size / buf.PageSize
	d := &RAM{loop: l, pool: l.Pool(), info: info, table: make([]buf.Page, n), alloc: make([]bool, n)}
	d.op.Done = d
	d.timer.Fire = d.release
	return d
}

// Info is what NewRAM was told.
func (d *RAM) Info() block.Info { return d.info }

// Seen is how many requests of an Op were submitted. On the loop.
func (d *RAM) Seen(op block.Op) uint64 { return d.seen[op] }

// Waiting is how many requests are not completed. On the loop.
func (d *RAM) Waiting() int { return len(d.waiting) }

// Submit serves r (block.Device).
func (d *RAM) Submit(r *block.Request) {
	invariants.Assert(r.Off >= 0 && r.Off+int64(r.Len) <= d.info.Size, "nbdtest: request outside the device")
	d.seen[r.Op]++
	r.Err = errs.OK
	if d.Log != nil {
		d.Log(r)
	}
	if d.Fail != nil {
		r.Err = d.Fail(r)
	}
	if d.SlowZero && r.Op == block.WriteZeroes && r.Flags&block.FastZero != 0 {
		r.Err = errs.Unsupported
	}
	if r.Err != errs.OK {
		d.pool.ReleaseVec(&r.Data)
	} else {
		d.apply(r)
	}
	d.waiting = append(d.waiting, r)
	d.schedule()
}

func (d *RAM) apply(r *block.Request) {
	switch r.Op {
	case block.Read:
		d.read(r)
	case block.Write:
		d.write(r)
	case block.WriteZeroes:
		d.zero(r.Off, int64(r.Len), r.Flags&block.NoHole != 0)
	case block.Trim:
		from := (r.Off + buf.PageSize - 1) &^ (buf.PageSize - 1)
		to := (r.Off + int64(r.Len)) &^ (buf.PageSize - 1)
		if from < to {
			d.zero(from, to-from, false)
		}
	case block.Extents:
		d.extents(r)
	}
}

// extents tells what it may append, and at most Grain blocks.
func (d *RAM) extents(r *block.Request) {
	off, end := r.Off, r.Off+int64(r.Len)
	for n := 0; off < end && (d.Grain == 0 || n < d.Grain); n++ {
		step := min(end, (off/buf.PageSize+1)*buf.PageSize) - off
		state := block.ExtentState(0)
		if b := off / buf.PageSize; d.table[b] == buf.Zero {
			if state = block.ReadsZero; !d.alloc[b] {
				state |= block.Hole
			}
		}
		k := len(r.Extents)
		switch {
		case k > 0 && r.Extents[k-1].State == state:
			r.Extents[k-1].Len += uint32(step)
		case k == cap(r.Extents) || (k == 1 && r.Flags&block.One != 0):
			return
		default:
			r.Extents = append(r.Extents, block.Extent{Len: uint32(step), State: state})
		}
		off += step
	}
}

func (d *RAM) schedule() {
	switch {
	case d.Hold:
	case d.Shuffle != nil:
		if !d.timer.Armed() {
			d.loop.After(&d.timer, time.Duration(d.Shuffle.Int64N(int64(d.MaxDelay)+1)))
		}
	case len(d.waiting) == 1:
		d.loop.Defer(&d.op, 0)
	}
}

// RingDone completes everything that waits (ring.Completer).
func (d *RAM) RingDone(*ring.Op, int32) { d.Release() }

// Release completes everything that waits. On the loop, not from inside Submit.
func (d *RAM) Release() {
	d.ending, d.waiting = d.waiting, d.ending[:0]
	if d.Shuffle != nil {
		d.Shuffle.Shuffle(len(d.ending), func(i, j int) { d.ending[i], d.ending[j] = d.ending[j], d.ending[i] })
	}
	for _, r := range d.ending {
		r.Done.Completed(r)
	}
	clear(d.ending)
}

// release completes a random share of what waits, and comes back for the rest.
func (d *RAM) release() {
	all := d.waiting
	d.waiting = nil
	d.Shuffle.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	n := 1 + d.Shuffle.IntN(len(all))
	d.waiting = append(d.waiting, all[n:]...)
	for _, r := range all[:n] {
		r.Done.Completed(r)
	}
	if len(d.waiting) > 0 {
		d.schedule()
	}
}

func (d *RAM) read(r *block.Request) {
	off, left := r.Off, int64(r.Len)
	for left > 0 {
		in := off % buf.PageSize
		n := min(left, buf.PageSize-in)
		pg := d.table[off/buf.PageSize]
		d.pool.Retain(pg)
		r.Data.Add(buf.Seg{Page: pg, Off: uint32(in), Len: uint32(n)})
		off, left = off+n, left-n
	}
}

func (d *RAM) write(r *block.Request) {
	invariants.Assert(r.Data.Len() == int((r.Off%buf.PageSize+int64(r.Len)+buf.PageSize-1)&^(buf.PageSize-1)),
		"nbdtest: a write's pages do not cover its blocks")
	first := r.Off / buf.PageSize
	end := r.Off + int64(r.Len)
	b := first
	for _, s := range r.Data.Segs {
		invariants.Assert(s.Off == 0, "nbdtest: a write's pages are not aligned")
		for i := 0; i < s.Pages(); i++ {
			pg := s.Page + buf.Page(i)
			was := d.pool.Bytes(d.table[b])
			start := b * buf.PageSize
			if r.Off > start {
				copy(d.pool.Bytes(pg)[:r.Off-start], was)
			}
			if end < start+buf.PageSize {
				copy(d.pool.Bytes(pg)[end-start:], was[end-start:])
			}
			d.pool.Release(d.table[b])
			d.table[b] = pg
			b++
		}
	}
	r.Data.Reset()
}

// zero clears a range; a block that is cleared in part gets a page of its own, if it has not been zeros.
func (d *RAM) zero(off, n int64, alloc bool) {
	for n > 0 {
		b, in := off/buf.PageSize, off%buf.PageSize
		k := min(n, buf.PageSize-in)
		old := d.table[b]
		if k < buf.PageSize && old != buf.Zero {
			var v buf.Vec
			invariants.Assert(d.pool.AllocReserved(&v, 1), "nbdtest: the pool is too small for the RAM device")
			pg := v.Segs[0].Page
			copy(d.pool.Bytes(pg), d.pool.Bytes(old))
			clear(d.pool.Bytes(pg)[in : in+k])
			d.table[b] = pg
		} else {
			d.table[b] = buf.Zero
			if k == buf.PageSize {
				d.alloc[b] = alloc
			}
		}
		d.pool.Release(old)
		off, n = off+k, n-k
	}
}

// Drop gives all pages back: nothing was ever written. On the loop, when nothing is in flight.
func (d *RAM) Drop() {
	for i, pg := range d.table {
		d.pool.Release(pg)
		d.table[i] = buf.Zero
	}
	clear(d.alloc)
}
