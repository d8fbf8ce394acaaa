package node

import (
	"context"
	"io"
	"log/slog"
	"testing"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// blockStates are, by block, what it is by the last acknowledged operation, and what else it may be after a
// crash: element by element beside model.flat and model.maybe. Tests that make none do not compare it.
type blockStates struct {
	now   []block.ExtentState
	maybe [][]block.ExtentState
}

func newBlockStates(size int64) blockStates {
	s := blockStates{now: make([]block.ExtentState, size/4096), maybe: make([][]block.ExtentState, size/4096)}
	for i := range s.now {
		s.now[i] = block.Hole | block.ReadsZero
	}
	return s
}

// changes reports whether the operation is one that leaves something else than it found.
func (o *op) changes() bool {
	return o.req.Op == block.Write || o.req.Op == block.Trim || o.req.Op == block.WriteZeroes && !o.refused()
}

// refused reports whether zeros that were to be fast were refused, as they must be without a whole block.
func (o *op) refused() bool {
	end := o.req.Off + int64(o.req.Len)
	return o.req.Flags&block.FastZero != 0 && ids.Blocks(o.req.Off) >= end/4096
}

// state is what o makes of a block that was old.
func (o *op) state(blockNo int64, old block.ExtentState) block.ExtentState {
	from, to := max(o.req.Off, blockNo*4096), min(o.req.Off+int64(o.req.Len), blockNo*4096+4096)
	whole := to-from == 4096
	switch {
	case from >= to:
		return old
	case o.req.Op == block.Write:
		return 0
	case o.req.Op == block.Trim && whole:
		return block.Hole | block.ReadsZero
	case o.req.Op == block.WriteZeroes && (whole || old != 0):
		if o.req.Flags&block.NoHole != 0 {
			return block.ReadsZero
		}
		return block.Hole | block.ReadsZero
	}
	return old
}

// note does to a block's states what model.note does to its contents.
func (s *blockStates) note(o *op, b int64, power bool) {
	if s.now == nil {
		return
	}
	last := s.now[b]
	if k := len(s.maybe[b]); k > 0 {
		last = s.maybe[b][k-1]
	}
	now := o.state(b, last)
	switch {
	case o.sure() && power:
		s.maybe[b] = append(s.maybe[b], last, now)
		s.now[b] = now
	case o.sure():
		s.now[b], s.maybe[b] = now, nil
	default:
		s.maybe[b] = append(s.maybe[b], now)
	}
}

// randomExtents makes o a question, of any range.
func (m *model) randomExtents(o *op) {
	o.req.Op = block.Extents
	o.req.Off = m.rng.Int64N(m.size)
	o.req.Len = uint32(1 + m.rng.Int64N(m.size-o.req.Off))
	o.req.Extents = make([]block.Extent, 0, 1+m.rng.IntN(64))
	if m.rng.IntN(4) == 0 {
		o.req.Flags = block.One
	}
}

// checkUnderWay compares answers with what the blocks may have been while the round's operations ran.
func (m *model) checkUnderWay(ops []*op) {
	for _, q := range ops {
		if q.req.Op != block.Extents {
			continue
		}
		off, end := q.req.Off, q.req.Off+int64(q.req.Len)
		for i, e := range q.req.Extents {
			if e.Len == 0 || off+int64(e.Len) > end || i > 0 && e.State == q.req.Extents[i-1].State {
				m.fatalf("extents of %d+%d: %v", q.req.Off, q.req.Len, q.req.Extents)
			}
			for b := off / 4096; b*4096 < off+int64(e.Len); b++ {
				if m.states.now != nil && !m.mayBe(ops, b, e.State) {
					m.fatalf("block %d is told to be %d, it was %d", b, e.State, m.states.now[b])
				}
			}
			off += int64(e.Len)
		}
		one := q.req.Flags&block.One != 0 && len(q.req.Extents) == 1
		if off < end && (off == q.req.Off || !one && len(q.req.Extents) < cap(q.req.Extents)) {
			m.fatalf("extents of %d+%d end at %d: %v", q.req.Off, q.req.Len, off, q.req.Extents)
		}
	}
}

// mayBe reports whether a block was in a state before, or after one of the operations.
func (m *model) mayBe(ops []*op, b int64, state block.ExtentState) bool {
	now := m.states.now[b]
	for _, o := range ops {
		if now == state {
			return true
		}
		if o.changes() {
			now = o.state(b, now)
		}
	}
	return now == state
}

// extents asks of whole blocks until all are told, room extents at a time.
func (m *model) extents(off, n int64, room int) []block.ExtentState {
	out := make([]block.ExtentState, 0, n/4096)
	for end := off + n; off < end; {
		o := &op{req: block.Request{Op: block.Extents, Off: off, Len: uint32(end - off),
			Extents: make([]block.Extent, 0, room)}}
		m.submit(o)
		<-o.done
		if o.req.Err != errs.OK || len(o.req.Extents) == 0 {
			m.fatalf("extents at %d: %v, %v", off, o.req.Err, o.req.Extents)
		}
		for _, e := range o.req.Extents {
			for range e.Len / ids.BlockSize {
				out = append(out, e.State)
			}
			off += int64(e.Len)
		}
	}
	return out
}

// Questions about extents and hints allocate nothing while the map is in RAM.
func TestExtentsAllocs(t *testing.T) {
	m := &model{}
	cfg := m.config()
	n, err := Start(Options{Config: cfg, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Fresh: true, NoNBD: true,
		Host: freshHost(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if _, err := n.CreateVDisk(context.Background(), "v", 16<<20); err != nil {
		t.Fatal(err)
	}
	d := n.vdisks["v"]
	write := &chainOp{d: d, req: block.Request{Op: block.Write}}
	write.run(t, 100)
	ask := &chainOp{d: d, req: block.Request{Op: block.Extents, Extents: make([]block.Extent, 0, 8)}}
	ask.run(t, 1000)
	check(t, "extents", ask, 5000)
	warm := &chainOp{d: d, req: block.Request{Op: block.Cache}}
	warm.run(t, 1000)
	check(t, "cache", warm, 5000)
}

func freshHost(t *testing.T) *memHost {
	t.Helper()
	h := newMemHost()
	if err := h.fs.MkdirAll("/d", 0o755); err != nil {
		t.Fatal(err)
	}
	return h
}
