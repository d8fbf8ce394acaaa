package node

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/edge/proto"
	"vstor/dataplane/edge/remote"
	"vstor/dataplane/errs"
)

// stale is the model test of what edges keep: random requests at the edge that has a vDisk, beside a flat array, while
// the router is killed, connections are cut, objects are cleaned away, leases run out and the edges take the vDisk from
// each other. No read may give a byte that no order of the requests explains.
type stale struct {
	*edgeWorld
	rng   *rand.Rand
	edges [2]*testEdge
	owner int
	size  int64
	flat  []byte
	life  byte // of openers: each opening is another process
}

func (m *stale) fatalf(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("seed %d: %s (repeat with -model.seed=%d)", m.seed, fmt.Sprintf(format, args...), m.seed)
}

func (m *stale) edge() *testEdge { return m.edges[m.owner] }

// random makes a request.
func (m *stale) random() *edgeOp {
	o := &edgeOp{}
	off, n := m.rng.Int64N(m.size), int64(1)<<(9+m.rng.IntN(10))
	if m.rng.IntN(3) > 0 {
		off, n = off&^4095, max(n&^4095, 4096)
	}
	n = min(n, m.size-off)
	o.req.Off, o.req.Len = off, uint32(n)
	switch m.rng.IntN(16) {
	case 0:
		o.req.Op = block.Trim
	case 1:
		o.req.Op = block.WriteZeroes
	case 2:
		o.req.Op, o.req.Off, o.req.Len = block.Flush, 0, 0
	case 3:
		o.req.Op = block.Cache
	case 4, 5, 6, 7:
		o.req.Op = block.Read
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

// apply is what o makes of block b that held old.
func (o *edgeOp) apply(b int64, old []byte) []byte { return o.does.apply(b, old) }

// states is what block b held before ops and after each of them that changed it, in order.
func (m *stale) states(b int64, ops []*edgeOp) [][]byte {
	now := m.flat[b*4096 : b*4096+4096]
	out := [][]byte{bytes.Clone(now)}
	for _, o := range ops {
		if next := o.apply(b, now); &next[0] != &now[0] {
			out, now = append(out, next), next
		}
	}
	return out
}

// explain checks a read that was under way together with ops.
func (m *stale) explain(o *edgeOp, ops []*edgeOp) {
	for b := o.req.Off / 4096; b*4096 < o.req.Off+int64(o.req.Len); b++ {
		lo, hi := max(o.req.Off, b*4096), min(o.req.Off+int64(o.req.Len), b*4096+4096)
		got := o.data[lo-o.req.Off : hi-o.req.Off]
		states := m.states(b, ops)
		ok := false
		for _, s := range states {
			ok = ok || bytes.Equal(got, s[lo-b*4096:hi-b*4096])
		}
		if !ok {
			m.fatalf("a read at %d+%d gave block %d bytes that none of %d states had", o.req.Off, o.req.Len, b, len(states))
		}
	}
}

// round runs some requests at once at the owner, while disturb does its worst, and brings the flat array up.
func (m *stale) round(disturb func()) {
	var ops []*edgeOp
	for range 1 + m.rng.IntN(12) {
		o := m.random()
		ops = append(ops, o)
		m.edge().submit(o)
	}
	disturb()
	for _, o := range ops {
		m.await(o)
		if o.req.Err != errs.OK {
			m.fatalf("operation %d at %d+%d failed: %v", o.req.Op, o.req.Off, o.req.Len, o.req.Err)
		}
	}
	for _, o := range ops {
		if o.req.Op == block.Read {
			m.explain(o, ops)
		}
	}
	for b := range m.size / 4096 {
		s := m.states(b, ops)
		copy(m.flat[b*4096:], s[len(s)-1])
	}
}

func (m *stale) await(o *edgeOp) {
	select {
	case <-o.done:
	case <-time.After(2 * time.Minute):
		m.fatalf("operation %d at %d+%d does not end", o.req.Op, o.req.Off, o.req.Len)
	}
}

// check reads n bytes from off on, and compares.
func (m *stale) check(off, n int64) {
	o := &edgeOp{req: block.Request{Op: block.Read, Off: off, Len: uint32(n)}}
	m.edge().submit(o)
	m.await(o)
	if o.req.Err != errs.OK {
		m.fatalf("read of %d bytes at %d: %v", n, off, o.req.Err)
	}
	if !bytes.Equal(o.data, m.flat[off:off+n]) {
		at := 0
		for o.data[at] == m.flat[off+int64(at)] {
			at++
		}
		m.fatalf("a read of %d bytes at %d differs from byte %d on", n, off, off+int64(at))
	}
}

func (m *stale) checkAll() {
	for off := int64(0); off < m.size; off += 256 << 10 {
		m.check(off, min(256<<10, m.size-off))
	}
}

// takeover moves the vDisk to the other edge. The first one has requests under way, and may be stopped meanwhile.
func (m *stale) takeover(stopped bool) {
	old := m.edge()
	var ops []*edgeOp
	for range m.rng.IntN(8) {
		o := m.random()
		ops = append(ops, o)
		old.submit(o)
	}
	resume := make(chan struct{})
	var asked []*edgeOp // while it is stopped
	if stopped {
		old.loop.PostFunc(func() { <-resume })
		for range 4 {
			o := &edgeOp{req: block.Request{Op: block.Read, Off: m.rng.Int64N(m.size/4096) * 4096, Len: 4096}}
			asked = append(asked, o)
			old.submit(o)
		}
	}
	before := bytes.Clone(m.flat)
	moved := make(chan struct{})
	go func() { // its lease runs out, so that it need not be asked
		for stopped {
			select {
			case <-moved:
				return
			case <-time.After(5 * time.Millisecond):
				m.forward.Add(int64(5 * time.Second))
				m.poke()
			}
		}
	}()
	m.owner = 1 - m.owner
	m.edge().shut()
	m.life++
	if err := m.edge().open(proto.Exclusive, true, m.life); err != nil {
		m.fatalf("takeover: %v", err)
	}
	close(moved)
	m.decide(ops)
	m.checkAll()
	close(resume)
	for _, o := range asked {
		if m.await(o); o.req.Err == errs.OK {
			m.fatalf("an edge that was stopped answers a read after it has lost the vDisk")
		}
	}
	now := m.flat
	for _, o := range ops { // what it asked the router for before is as it was then
		if m.await(o); o.req.Op == block.Read && o.req.Err == errs.OK {
			m.flat = before
			m.explain(o, ops)
		}
	}
	m.flat = now
	m.refuses(old)
	m.checkAll()
	old.shut()
}

// decide takes what the requests that were under way at a takeover made of each block from what is there now.
func (m *stale) decide(ops []*edgeOp) {
	for b := range m.size / 4096 {
		states := m.states(b, ops)
		if len(states) == 1 {
			continue
		}
		o := &edgeOp{req: block.Request{Op: block.Read, Off: b * 4096, Len: 4096}}
		m.edge().submit(o)
		m.await(o)
		if o.req.Err != errs.OK {
			m.fatalf("read after a takeover: %v", o.req.Err)
		}
		found := false
		for _, s := range m.unordered(b, ops) {
			found = found || bytes.Equal(s, o.data)
		}
		if !found {
			m.fatalf("block %d has something after a takeover that none of %d states had", b, len(states))
		}
		copy(m.flat[b*4096:], o.data)
	}
}

// unordered is what some of ops, in order, may make of a block: any may have been refused.
func (m *stale) unordered(b int64, ops []*edgeOp) [][]byte {
	out := [][]byte{m.flat[b*4096 : b*4096+4096]}
	for _, o := range ops {
		for _, s := range out {
			if next := o.apply(b, s); &next[0] != &s[0] && len(out) < 1<<10 {
				out = append(out, next)
			}
		}
	}
	return out
}

// refuses: an edge that lost the vDisk fails whatever it is asked.
func (m *stale) refuses(e *testEdge) {
	for range 8 {
		o := m.random()
		if o.req.Op == block.Cache || o.req.Op == block.Trim { // a hint, and one that may cover no whole block
			continue
		}
		e.submit(o)
		m.await(o)
		if o.req.Err == errs.OK {
			m.fatalf("a fenced edge carries out operation %d", o.req.Op)
		}
	}
}

// disturbance is what happens during a round.
func (m *stale) disturbance() func() {
	pause := func() { time.Sleep(time.Duration(m.rng.IntN(3000)) * time.Microsecond) }
	switch m.rng.IntN(40) {
	case 0:
		return func() { pause(); m.kill(m.rng) }
	case 1, 2:
		return func() { pause(); m.cut() }
	case 3:
		return func() { pause(); m.cut(); pause(); m.cut() }
	case 4:
		return func() { m.forward.Add(int64(30 * time.Second)); pause(); m.poke() }
	}
	return func() {}
}

func runStale(t *testing.T, seed uint64, rounds int, cacheBytes int64) (located, deleted uint64) {
	w := &edgeWorld{t: t, seed: seed, host: newMemHost(), log: slog.New(slog.DiscardHandler)}
	if *seedFlag != 0 {
		w.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	w.conns = map[net.Conn]struct{}{}
	m := &stale{edgeWorld: w, rng: rand.New(rand.NewPCG(seed, 9)), size: 4 << 20}
	m.flat = make([]byte, m.size)
	w.start(true, m.size)
	m.edges = [2]*testEdge{w.newEdge("a", cacheBytes), w.newEdge("b", cacheBytes)}
	m.life = 1
	if err := m.edge().open(proto.Exclusive, false, m.life); err != nil {
		m.fatalf("open: %v", err)
	}
	for range rounds {
		m.round(m.disturbance())
		for range m.rng.IntN(4) {
			off := m.rng.Int64N(m.size/4096) * 4096
			m.check(off, min(int64(1+m.rng.IntN(16))*4096, m.size-off))
		}
		switch m.rng.IntN(60) {
		case 0:
			m.takeover(false)
		case 1:
			m.takeover(true)
		case 2:
			m.checkAll()
		}
		located += m.edge().r.Stats.Located.Load()
	}
	m.checkAll()
	deleted = w.vdisk().vol.Stats.Deleted.Load()
	for _, e := range m.edges {
		e.stop()
	}
	if err := w.n.Close(); err != nil {
		m.fatalf("close: %v", err)
	}
	return located, deleted
}

// TestStale is the model test of the edge's caches, as small and as large as they go.
func TestStale(t *testing.T) {
	seeds, rounds := 6, 300
	if testing.Short() {
		seeds, rounds = 2, 120
	}
	if *seedFlag != 0 {
		runStale(t, *seedFlag, rounds, staleCache(*seedFlag))
		return
	}
	end := time.Now().Add(*modelTime)
	var located, deleted uint64
	for seed := uint64(1); seed <= uint64(seeds) || time.Now().Before(end); seed++ {
		s := seed
		if *modelTime > 0 {
			s = rand.Uint64()
		}
		l, d := runStale(t, s, rounds, staleCache(s))
		located, deleted = located+l, deleted+d
	}
	if located == 0 || deleted == 0 && !testing.Short() {
		t.Errorf("%d blocks were read by locations that an edge knew, %d objects deleted meanwhile: nothing was tested",
			located, deleted)
	}
}

// staleCache is the size of the caches: a page, a few, or all of the vDisk.
func staleCache(seed uint64) int64 {
	return []int64{1 << 20, remote.PageBytes, 5 * remote.PageBytes}[seed%3]
}
