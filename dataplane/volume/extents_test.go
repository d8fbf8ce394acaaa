package volume

import (
	"math/rand/v2"
	"testing"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/volume/pagemap"
)

// asker asks on until its range is told.
type asker struct {
	r     *rig
	rng   *rand.Rand
	at    ids.BlockAddr
	n     int
	out   []block.Extent
	steps int
	loads int
	done  chan errs.Kind
}

// ask begins a question about n blocks, with room for extents of which there are fewer.
func (r *rig) ask(rng *rand.Rand, addr ids.BlockAddr, n int) *asker {
	a := &asker{r: r, rng: rng, at: addr, n: n, out: make([]block.Extent, 0, n), done: make(chan errs.Kind, 1)}
	r.loop.Call(a.step)
	return a
}

func (a *asker) MapLoaded(k errs.Kind) {
	switch k {
	case errs.OK:
		a.loads++
		a.step()
	case errs.Busy:
		a.r.v.after(time.Millisecond, a.step)
	default:
		a.done <- k
	}
}

func (a *asker) step() {
	work := a.rng.IntN(3000)
	if a.n == 0 {
		a.done <- errs.OK
		return
	}
	got, ok := a.r.v.Extents(a.at, a.n, false, &a.out, &work, a)
	a.steps++
	a.at += ids.BlockAddr(got)
	a.n -= got
	switch {
	case !ok:
	case got == 0:
		a.done <- errs.Invalid // it makes no progress
	default:
		a.r.loop.PostFunc(a.step)
	}
}

// extentModel is what each block may be.
type extentModel struct {
	*rig
	rng  *rand.Rand
	now  []block.ExtentState
	seen []uint8 // bit: it was in that state since the round began
}

func (m *extentModel) check(a *asker, from ids.BlockAddr, n int) {
	m.t.Helper()
	if k := <-a.done; k != errs.OK {
		m.t.Fatalf("extents of %d+%d: %v after %v", from, n, k, a.out)
	}
	at := from
	for i, e := range a.out {
		if e.Len == 0 || e.Len%4096 != 0 || i > 0 && a.out[i-1].State == e.State {
			m.t.Fatalf("extents of %d+%d: %v", from, n, a.out)
		}
		for range e.Len / 4096 {
			if m.seen[at]>>e.State&1 == 0 {
				m.t.Fatalf("extents of %d+%d: block %d is told to be %d, it is %d", from, n, at, e.State, m.now[at])
			}
			at++
		}
	}
	if at != from+ids.BlockAddr(n) {
		m.t.Fatalf("extents of %d+%d end at %d", from, n, at)
	}
}

// change starts a random mutation.
func (m *extentModel) change() *change {
	addr := m.rng.IntN(len(m.now))
	n := 1 + m.rng.IntN(min(len(m.now)-addr, 1<<(1+m.rng.IntN(13))))
	op, state := block.Put, block.ExtentState(0)
	switch m.rng.IntN(4) {
	case 0:
		op, state = block.Discard, block.Hole|block.ReadsZero
	case 1:
		op, state = block.ZeroFill, block.ReadsZero
	default:
		n = min(n, 1+m.rng.IntN(40))
	}
	for i := addr; i < addr+n; i++ {
		m.now[i] = state
		m.seen[i] |= 1 << state
	}
	return m.start(op, ids.BlockAddr(addr), uint64(n), 0)
}

func (m *extentModel) question() (from ids.BlockAddr, n int) {
	addr := m.rng.IntN(len(m.now))
	return ids.BlockAddr(addr), 1 + m.rng.IntN(len(m.now)-addr)
}

// round checks answers while changes are under way, and after them.
func (m *extentModel) round() {
	for i, now := range m.now {
		m.seen[i] = 1 << now
	}
	var cs []*change
	for range 1 + m.rng.IntN(10) {
		cs = append(cs, m.change())
	}
	from, n := m.question()
	a := m.ask(m.rng, from, n)
	for _, c := range cs {
		<-c.done
		if c.Err != errs.OK {
			m.t.Fatal(c.Err)
		}
	}
	m.check(a, from, n)
	for i, now := range m.now {
		m.seen[i] = 1 << now
	}
	from, n = m.question()
	m.check(m.ask(m.rng, from, n), from, n)
}

// Random writes, trims and zeros, seals, write back, evictions and restarts: extents are what an array of states
// says, with changes under way and without.
func TestExtentsModel(t *testing.T) {
	for seed := range uint64(3) {
		const size = 600 << 20
		m := &extentModel{rig: newRig(t, size, 512<<10), rng: rand.New(rand.NewPCG(seed, 5)),
			now: make([]block.ExtentState, size/4096), seen: make([]uint8, size/4096)}
		for i := range m.now {
			m.now[i] = block.Hole | block.ReadsZero
		}
		for range 80 {
			m.round()
			switch m.rng.IntN(20) {
			case 0, 1, 2:
				m.loop.Call(m.v.Seal)
			case 3:
				m.seal()
				m.flush()
			case 4:
				m.close()
				m.open()
			case 5:
				m.loop.Call(func() { m.v.ov.Evict(100) })
			case 6:
				from, n := m.question()
				w := &warmWait{done: make(chan errs.Kind, 1)}
				m.loop.Call(func() { m.v.Warm(from, n, w) })
				if k := <-w.done; k != errs.OK {
					t.Fatal(k)
				}
			}
		}
	}
}

type warmWait struct{ done chan errs.Kind }

func (w *warmWait) MapLoaded(k errs.Kind) { w.done <- k }

// 4 GiB of nothing, beside batches of what was written elsewhere, are a few turns, and allocate nothing.
func TestExtentsOfEmpty(t *testing.T) {
	r := newRig(t, 16<<30, 1<<20)
	for i := range ids.BlockAddr(300) {
		r.do(block.Put, 2<<20+i*777, 1)
	}
	out := make([]block.Extent, 0, 4)
	r.settle("no sealing allocates beside", func() bool { return r.v.jobs == 0 && r.v.begun == 0 })
	r.loop.Call(func() {
		steps := 0
		allocs := testing.AllocsPerRun(3, func() {
			steps = 0
			out = out[:0]
			for at := 0; at < ExtentsMax; steps++ {
				work := 10000
				got, ok := r.v.Extents(ids.BlockAddr(at), ExtentsMax-at, false, &out, &work, nil)
				if !ok || got == 0 {
					t.Fatalf("stopped at %d", at)
				}
				at += got
			}
		})
		// How many depends on how many batches have been sealed by now; one by one, 4 GiB were a million blocks.
		if allocs != 0 || steps > 20 || len(out) != 1 || out[0] != (block.Extent{Len: ExtentsMax * 4096, State: 3}) {
			t.Errorf("%d turns, %.0f allocations, %v", steps, allocs, out)
		}
	})
}

// Of a page of the map that cannot be read, what the overlay knows is told, and the rest is data.
func TestExtentsBlind(t *testing.T) {
	r := newRig(t, 64<<20, 1<<20)
	r.do(block.Put, 256, 3)
	r.seal()
	r.flush()
	r.close()
	r.open() // no page is in RAM
	r.do(block.Discard, 300, 10)
	r.do(block.ZeroFill, 400, 10)
	r.loop.Call(func() {
		work := 1000
		out := make([]block.Extent, 0, 10)
		w := &warmWait{done: make(chan errs.Kind, 10)}
		if got, ok := r.v.Extents(256, 512, false, &out, &work, w); ok || got != 0 || len(out) != 0 {
			t.Fatalf("%d blocks told, %v", got, out)
		}
		if got, ok := r.v.Extents(256, 512, true, &out, &work, w); ok || got != 256 {
			t.Fatalf("%d blocks told, %v: only the first page is to be guessed", got, out)
		}
		want := []block.Extent{{Len: 44 * 4096}, {Len: 10 * 4096, State: 3}, {Len: 90 * 4096},
			{Len: 10 * 4096, State: 2}, {Len: 102 * 4096}}
		for i, e := range out {
			if len(out) != len(want) || e != want[i] {
				t.Fatalf("%v, want %v", out, want)
			}
		}
	})
}

// A hint brings pages in, no more than a share of the budget, and one that comes after Close ends.
func TestWarm(t *testing.T) {
	const budget = 1 << 20
	r := newRig(t, 256<<20, budget)
	for i := range ids.BlockAddr(256) {
		r.do(block.Put, i*pagemap.PageBlocks, 1)
	}
	r.seal()
	r.flush()
	r.close()
	r.open()
	w := &warmWait{done: make(chan errs.Kind, 4)}
	r.loop.Call(func() {
		r.v.Warm(100, 2*pagemap.PageBlocks, w)
		r.v.Warm(0, 0, w)
		r.v.Warm(0, 1<<16, w)
	})
	for range 3 {
		if k := <-w.done; k != errs.OK {
			t.Fatal(k)
		}
	}
	r.loop.Call(func() {
		share := r.m.CacheShare()
		loaded := 0
		for p := range pagemap.PageNo(256) {
			if r.m.Resident(p) {
				loaded++
			}
		}
		if loaded < 3 || loaded > share+2 {
			t.Errorf("%d pages in RAM, the share is %d", loaded, share)
		}
		r.v.Warm(0, 1<<16, w)
	})
	r.close()
	if k := <-w.done; k != errs.OK && k != errs.Closed {
		t.Error(k)
	}
	r.open()
}
