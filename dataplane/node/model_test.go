package node

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/config"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

var (
	seedFlag  = flag.Uint64("model.seed", 0, "run the model test with this seed alone")
	modelTime = flag.Duration("model.time", 0, "run the model test on new seeds for so long")
)

// model is a vDisk beside a flat array. Every operation goes to both; after a crash each block must hold
// what the last acknowledged operation left, or what one that was under way made of it.
type model struct {
	t               *testing.T
	seed            uint64
	rng             *rand.Rand
	host            *memHost
	n               *Node
	d               *vdisk
	size            int64
	flat            []byte       // as last acknowledged or read
	maybe           [][]byte     // per block: further contents it may have after a crash
	states          blockStates  // the same of what is allocated
	step            atomic.Value // string: fault point that kills the machine
	nth             atomic.Int64
	life            atomic.Pointer[life]
	lives           uint64
	weak            [2]int // the drives that get pulled and rot: no chunk loses more than two fragments
	cache, cacheSSD int64  // of blocks, in bytes
	fragCache       int64  // of fragments
	power           bool   // power may be cut: what no flush covered may then be lost
	log             io.Writer
}

func (m *model) fatalf(format string, args ...any) {
	m.t.Helper()
	log := "\n" + m.report()
	if l, ok := m.log.(*tail); ok {
		log += "the end of its log:\n" + l.String()
	}
	m.t.Fatalf("seed %d: %s (repeat with -model.seed=%d)%s", m.seed, fmt.Sprintf(format, args...), m.seed, log)
}

// patience is how long the model waits for what a busy machine makes slow: not as long as a test may take, or
// the seed of what hangs would not be told.
const patience = 5 * time.Minute

// say puts a line of the model's own into the log.
func (m *model) say(format string, args ...any) {
	fmt.Fprintf(m.log, "time=%s model: %s\n", time.Now().Format(time.StampMicro), fmt.Sprintf(format, args...))
}

func (m *model) config() config.Config {
	c := config.Config{Dir: "/d", ASDs: 6, ASDSize: 48 << 20, Nodes: 6,
		Policies: []layout.Policy{{K: 4, M: 2, C: 5, X: 1}, {K: 2, M: 2, C: 3, X: 1}},
		SCOSize:  1 << 20, FragmentSize: 128 << 10, Memory: 320 << 20, Journal: 8 << 20, MaxConnections: 16, Loops: 1,
		StallTimeout: patience, BlockCache: m.cache, BlockCacheSSD: m.cacheSSD, BlockCacheBlock: 32 << 10,
		FragmentCache: m.fragCache, FragmentCacheOnRead: true}
	c.Memory += fragCacheBytes(&c)
	return c
}

// chooseCache: none, as small as it goes, or larger than the vDisk; with a second tier or not.
func (m *model) chooseCache() {
	rng := rand.New(rand.NewPCG(m.seed, 4))
	m.cache = []int64{0, 1 << 20, 32 << 20}[rng.IntN(3)]
	if m.cache > 0 {
		m.cacheSSD = []int64{0, 64 << 20}[rng.IntN(2)]
	}
}

func (m *model) start(fresh bool) {
	if fresh {
		if err := m.host.fs.MkdirAll("/d", 0o755); err != nil {
			m.t.Fatal(err)
		}
	}
	m.life.Store(m.newLife())
	m.n = nil // of the life before
	n, err := Start(Options{Config: m.config(), Log: slog.New(slog.NewTextHandler(m.log, nil)), Host: m.host, Fresh: fresh,
		NoNBD: true, Hook: m.hook,
		// With the usual times a busy machine accepts puts that lack a fragment, which is good enough, and the
		// drives that are pulled next are then one too many.
		Grace: patience, Stall: patience})
	if err != nil {
		m.fatalf("start: %v", err)
	}
	m.n = n
	if fresh {
		if _, err := n.CreateVDisk(context.Background(), "v", m.size); err != nil {
			m.fatalf("create: %v", err)
		}
	}
	m.d = n.vdisks["v"]
	if m.d == nil {
		m.fatalf("the vDisk is gone")
	}
}

// life is the time from a start of the machine to its death, of which there is one: at a fault point, on whatever
// goroutine that is met, or where the test says.
type life struct {
	host  *memHost
	rng   *rand.Rand
	power bool // a fault point cuts the power
	once  sync.Once
	next  *memHost
}

// newLife takes nothing of m.rng, on whose numbers some tests rest.
func (m *model) newLife() *life {
	m.lives++
	rng := rand.New(rand.NewPCG(m.seed, 1<<32+m.lives))
	return &life{host: m.host, rng: rng, power: m.power && rng.IntN(2) == 0}
}

// end is the machine after its death.
func (l *life) end(power bool) *memHost {
	l.once.Do(func() { l.next = l.host.crash(l.rng, power) })
	return l.next
}

// hook kills the machine at a fault point.
func (m *model) hook(step string) {
	if step == m.step.Load() && m.nth.Add(-1) == 0 {
		l := m.life.Load()
		m.say("it dies at %q, by a power cut: %v", step, l.power)
		l.end(l.power)
	}
}

// note brings the flat array up to what ops did, in their order.
func (m *model) note(ops []*op) {
	for _, o := range ops {
		if !o.changes() {
			continue
		}
		if !o.ended && !o.host.frozen.Load() {
			m.t.Fatal("BUG: nobody waited for an operation that is noted")
		}
		for b := o.req.Off / 4096; b*4096 < o.req.Off+int64(o.req.Len); b++ {
			last := m.flat[b*4096 : b*4096+4096]
			if k := len(m.maybe[b]); k > 0 {
				last = m.maybe[b][k-4096:]
			}
			now := o.apply(b, last)
			m.states.note(o, b, m.power)
			switch {
			case o.sure() && m.power:
				m.maybe[b] = append(append(m.maybe[b], last...), now...)
				copy(m.flat[b*4096:], now)
			case o.sure():
				copy(m.flat[b*4096:], now)
				m.maybe[b] = nil
			default:
				m.maybe[b] = append(m.maybe[b], now...)
			}
		}
	}
}

// round runs some operations at once.
func (m *model) round() {
	var ops []*op
	for range 1 + m.rng.IntN(16) {
		o := m.random()
		ops = append(ops, o)
		m.submit(o)
	}
	for _, o := range ops {
		o.wait()
		if !m.host.frozen.Load() && o.req.Err != errs.OK && !o.refused() {
			m.fatalf("operation %d at %d+%d failed: %v", o.req.Op, o.req.Off, o.req.Len, o.req.Err)
		}
	}
	if !m.host.frozen.Load() {
		m.checkUnderWay(ops)
	}
	m.note(ops)
	if m.power && m.rng.IntN(3) == 0 {
		m.flush()
	}
}

// flush ends the time in which power loss may undo what was acknowledged.
func (m *model) flush() {
	o := &op{req: block.Request{Op: block.Flush}}
	m.submit(o)
	o.wait()
	if o.sure() {
		clear(m.maybe)
		clear(m.states.maybe)
	}
}

// check reads everything, or a part, and compares; what a crash left undecided is decided now.
func (m *model) check() {
	const piece = 64 << 10
	for off := int64(0); off < m.size; off += piece {
		o := &op{req: block.Request{Op: block.Read, Off: off, Len: piece}}
		m.submit(o)
		<-o.done
		if o.req.Err != errs.OK {
			m.fatalf("read at %d: %v", off, o.req.Err)
		}
		var states []block.ExtentState
		if m.states.now != nil {
			states = m.extents(off, piece, 1+m.rng.IntN(8))
		}
		for i := int64(0); i < piece; i += 4096 {
			m.compare((off+i)/4096, o.data[i:i+4096], states)
		}
	}
}

// compare decides what block b holds, and what it is if states says so, beginning at the piece that b is in.
func (m *model) compare(b int64, got []byte, states []block.ExtentState) {
	want := m.flat[b*4096 : b*4096+4096]
	var state block.ExtentState
	if states != nil {
		state = states[b%int64(len(states))]
	}
	if bytes.Equal(got, want) && (states == nil || state == m.states.now[b]) {
		m.decide(b, state)
		return
	}
	for i, c := 0, m.maybe[b]; len(c) > 0; i, c = i+1, c[4096:] {
		if bytes.Equal(got, c[:4096]) && (states == nil || state == m.states.maybe[b][i]) {
			copy(want, got)
			m.decide(b, state)
			return
		}
	}
	if bytes.Equal(got, want) {
		m.fatalf("block %d is told to be %d; it is %d, or of %v", b, state, m.states.now[b], m.states.maybe[b])
	}
	first := 0
	for got[first] == want[first] {
		first++
	}
	m.fatalf("block %d differs from byte %d on; %d other contents were possible", b, first, len(m.maybe[b])/4096)
}

// decide ends the doubt about a block.
func (m *model) decide(b int64, state block.ExtentState) {
	m.maybe[b] = nil
	if m.states.now != nil {
		m.states.now[b], m.states.maybe[b] = state, nil
	}
}

// die takes the machine down as it is and starts it again.
func (m *model) die(power bool) {
	m.kill(power)
	m.prepare()
	m.start(false)
}

// kill takes the machine down as it is, unless a fault point did.
func (m *model) kill(power bool) {
	n, l := m.n, m.life.Load()
	if l.host != m.host {
		m.t.Fatal("BUG: the machine that is to die was not started by start")
	}
	m.host = l.end(power)
	m.say("it is dead; by a power cut, if not at a fault point: %v", power)
	n.Close() // of a process that is dead: only its memory is given back
}

// prepare pulls up to two drives, or flips bits on up to two, while the machine is down.
func (m *model) prepare() {
	a, b := m.weak[0], m.weak[m.rng.IntN(2)]
	switch m.rng.IntN(4) {
	case 0:
		m.host.hidden[filepath.Join("/d", fmt.Sprintf("asd-%d", a), "data")] = true
		m.host.hidden[filepath.Join("/d", fmt.Sprintf("asd-%d", b), "data")] = true
	case 1:
		for _, i := range []int{a, b} {
			m.flip(m.host.files[filepath.Join("/d", fmt.Sprintf("asd-%d", i), "data")])
		}
		m.say("bits of %d and %d are flipped", a, b)
	case 2:
		m.flipCaches()
	}
	m.say("pulled: %v", m.pulled())
}

// flipCaches turns bits of the caches' files, as far as there are any.
func (m *model) flipCaches() {
	for _, path := range []string{"/d/cache/fragments", "/d/cache/blocks-0"} {
		if g := m.host.files[path]; g != nil {
			m.flip(g)
		}
	}
}

// flip turns bits of a drive behind its superblocks.
func (m *model) flip(g *gate) {
	p, err := buf.AlignedBytes(4096)
	if err != nil {
		m.t.Fatal(err)
	}
	defer buf.FreeAligned(p)
	for range 1 + m.rng.IntN(20) {
		off := (2<<20 + m.rng.Int64N(g.Size()-2<<20)) &^ 4095
		if err := g.Mem.ReadAt(p, off); err != nil {
			m.t.Fatal(err)
		}
		p[m.rng.IntN(4096)] ^= 1 << m.rng.IntN(8)
		if err := g.Mem.WriteAt(p, off); err != nil {
			m.t.Fatal(err)
		}
	}
	if err := g.Mem.Sync(); err != nil {
		m.t.Fatal(err)
	}
}

var steps = []string{"", "seal", "put", "commit", "apply", "trim", "clean", "cleaned", "delete"}

func runModel(t *testing.T, seed uint64, lives int) {
	m := &model{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 3)), host: newMemHost(), log: new(tail)}
	if *seedFlag != 0 {
		m.log = os.Stderr
	}
	if seed%2 == 0 {
		m.fragCache = 16 << 20
	}
	m.power = m.rng.IntN(3) == 0
	m.weak = [2]int{m.rng.IntN(6), m.rng.IntN(6)}
	m.size = int64(1+m.rng.IntN(4)) * 2 << 20
	m.chooseCache()
	m.flat, m.maybe = make([]byte, m.size), make([][]byte, m.size/4096)
	m.states = newBlockStates(m.size)
	m.start(true)
	for range lives {
		m.step.Store(steps[m.rng.IntN(len(steps))])
		m.nth.Store(1 + m.rng.Int64N(6))
		for r := 20 + m.rng.IntN(300); r > 0 && !m.host.frozen.Load(); r-- {
			m.round()
			if m.rng.IntN(100) == 0 && !m.host.frozen.Load() {
				m.checkSome()
			}
		}
		m.step.Store("")
		if m.rng.IntN(4) == 0 && !m.host.frozen.Load() {
			if err := m.n.Close(); err != nil {
				m.fatalf("close: %v", err)
			}
			m.prepare()
			m.start(false)
		} else {
			m.die(m.power && m.rng.IntN(2) == 0)
		}
		m.check()
	}
	if err := m.n.Close(); err != nil {
		m.fatalf("close: %v", err)
	}
}

// checkSome reads while work goes on behind.
func (m *model) checkSome() {
	off := m.rng.Int64N(m.size)
	n := min(1+m.rng.Int64N(128<<10), m.size-off)
	o := &op{req: block.Request{Op: block.Read, Off: off, Len: uint32(n)}}
	m.submit(o)
	o.wait()
	if m.host.frozen.Load() {
		return
	}
	if o.req.Err != errs.OK || !bytes.Equal(o.data, m.flat[off:off+n]) {
		m.fatalf("read of %d bytes at %d: %v, or wrong bytes", n, off, o.req.Err)
	}
	if m.states.now == nil {
		return
	}
	first, last := off/4096, (off+n-1)/4096
	for i, state := range m.extents(first*4096, (last+1-first)*4096, 1+m.rng.IntN(100)) {
		if b := first + int64(i); state != m.states.now[b] && !m.host.frozen.Load() {
			m.fatalf("block %d is told to be %d, it is %d", b, state, m.states.now[b])
		}
	}
}

// TestModel is the model test of the whole path from block API to drives: random operations, kills at fault
// points, power cuts, pulled drives, flipped bits.
func TestModel(t *testing.T) {
	if *seedFlag != 0 {
		runModel(t, *seedFlag, 8)
		return
	}
	end := time.Now().Add(*modelTime)
	seeds := uint64(12)
	if testing.Short() {
		seeds = 4
	}
	for seed := uint64(1); seed <= seeds || time.Now().Before(end); seed++ {
		s := seed
		if *modelTime > 0 {
			s = rand.Uint64()
		}
		runModel(t, s, 8)
	}
}
