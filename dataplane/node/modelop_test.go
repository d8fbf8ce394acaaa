package node

import (
	"bytes"
	"math/rand/v2"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// op is one operation under way.
type op struct {
	req   block.Request
	data  []byte   // of a write
	host  *memHost // that it was given to
	d     *vdisk
	done  chan struct{}
	ended bool // wait saw its end; req.Err, data and acked are the loop's until then
	acked bool // before the machine died
}

// wait waits for the end of an operation, or of its machine: one that found its drives gone may wait for them as long
// as it is patient.
func (o *op) wait() {
	select {
	case <-o.done:
		o.ended = true
	case <-o.host.frozen.over:
		select {
		case <-o.done:
			o.ended = true
		default:
		}
	}
}

// sure reports whether the operation was acknowledged before the machine died.
func (o *op) sure() bool { return o.ended && o.acked }

func (o *op) Completed(r *block.Request) {
	if r.Op == block.Read {
		o.data = o.data[:0]
		for _, s := range r.Data.Segs {
			o.data = append(o.data, o.d.rig.pool.SegBytes(s)...)
		}
		o.d.rig.pool.ReleaseVec(&r.Data)
	}
	o.acked = r.Err == errs.OK && !o.host.frozen.Load()
	close(o.done)
}

func (m *model) submit(o *op) {
	o.host, o.d, o.done = m.host, m.d, make(chan struct{})
	o.req.Done = o
	ok := m.d.rig.loop.Call(func() {
		if o.req.Op == block.Write {
			pool := m.d.rig.pool
			if !pool.Alloc(&o.req.Data, int(ids.Blocks(o.req.Off%4096+int64(o.req.Len)))) {
				m.fatalf("the pool is empty")
			}
			at, rest := int(o.req.Off%4096), o.data
			for _, s := range o.req.Data.Segs {
				n := copy(pool.SegBytes(s)[at:], rest)
				rest, at = rest[n:], 0
			}
		}
		m.d.disk.Submit(&o.req)
	})
	if !ok {
		m.fatalf("the loop is gone")
	}
}

// random makes an operation; most are whole blocks, some are of any size and place.
func (m *model) random() *op {
	o := &op{}
	off, n := m.rng.Int64N(m.size), int64(1)<<(9+m.rng.IntN(10))
	if m.rng.IntN(3) > 0 {
		off, n = off&^4095, max(n&^4095, 4096)
	} else {
		n -= m.rng.Int64N(n)
	}
	n = min(n, m.size-off)
	o.req.Off, o.req.Len = off, uint32(n)
	switch m.rng.IntN(20) {
	case 0:
		o.req.Op = block.Trim
	case 1:
		o.req.Op = block.WriteZeroes
		if m.rng.IntN(2) == 0 {
			o.req.Flags |= block.NoHole
		}
		if m.rng.IntN(4) == 0 {
			o.req.Flags |= block.FastZero
		}
	case 2:
		o.req.Op, o.req.Off, o.req.Len = block.Flush, 0, 0
	case 3:
		o.req.Op = block.Cache
	case 4:
		m.randomExtents(o)
	default:
		o.req.Op = block.Write
		if m.rng.IntN(8) == 0 {
			o.req.Flags |= block.FUA
		}
		o.data = make([]byte, n)
		fill(o.data, m.rng)
	}
	return o
}

func fill(b []byte, rng *rand.Rand) {
	x := rng.Uint64()
	for i := range b {
		x = x*6364136223846793005 + 1442695040888963407
		b[i] = byte(x >> 56)
	}
}

// apply is what o makes of one block that held old.
func (o *op) apply(blockNo int64, old []byte) []byte {
	from, to := o.req.Off, o.req.Off+int64(o.req.Len)
	if o.req.Op == block.Trim {
		from, to = (from+4095)&^4095, to&^4095
	}
	lo, hi := max(from, blockNo*4096), min(to, blockNo*4096+4096)
	if !o.changes() || lo >= hi {
		return old
	}
	out := bytes.Clone(old)
	part := out[lo-blockNo*4096 : hi-blockNo*4096]
	if o.req.Op == block.Write {
		copy(part, o.data[lo-o.req.Off:])
	} else {
		clear(part)
	}
	return out
}
