package store

import (
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// history is what a client knows: what it asked for and what was acknowledged.
type history struct {
	sync.Mutex
	m map[int]fate
}

type fate struct {
	blocks                       int
	asked, put, delAsked, delled bool
}

func (h *history) set(i int, f func(*fate)) {
	h.Lock()
	defer h.Unlock()
	v := h.m[i]
	f(&v)
	h.m[i] = v
}

func (h *history) copy() map[int]fate {
	h.Lock()
	defer h.Unlock()
	m := map[int]fate{}
	for k, v := range h.m {
		m[k] = v
	}
	return m
}

// crasher takes clones of drive and index at chosen steps and checks what a reopen finds there.
type crasher struct {
	t        *testing.T
	mu       sync.Mutex
	o        Options
	d        *testDrive
	fs       *vfs.MemFS
	h        *history
	rng      *rand.Rand
	step     int
	at       func(step int) bool
	crash    int // crashes tried
	reorders int
}

func (c *crasher) hook(string, int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.step++
	if !c.at(c.step) {
		return nil
	}
	acked := c.h.copy()
	c.d.gate.Lock() // the drive stands still, so no commit can refer to what the clone does not hold
	kill, power := c.d.killed(), c.d.lost(c.rng)
	killFS := c.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	powerFS := c.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50 * c.rng.IntN(2),
		RNG: rand.New(rand.NewPCG(c.rng.Uint64(), 1))})
	c.d.gate.Unlock()
	asked := c.h.copy()
	c.crash++
	c.reopen("kill -9", kill, killFS, acked, asked)
	c.reopen("power loss", power, powerFS, acked, asked)
	return nil
}

func (c *crasher) reopen(what string, d *testDrive, fs *vfs.MemFS, acked, asked map[int]fate) {
	c.t.Helper()
	o := c.o
	o.Data, o.FS = d, fs
	s, err := Open(o)
	switch {
	case err == nil:
		c.verify(what, s, acked, asked)
		if s.Close() != nil {
			c.t.Errorf("%s at step %d: close", what, c.step)
		}
	case strings.Contains(err.Error(), "could not open manifest"):
		// The clone may keep a directory entry that is younger than one it drops, and so Pebble's
		// marker without its manifest. Journaling file systems keep that order.
		c.reorders++
	default:
		c.t.Errorf("%s at step %d: %v", what, c.step, err)
		return
	}
	// The index is lost too.
	if _, err := RebuildIndex(bg, o, nil); err != nil {
		c.t.Errorf("%s at step %d: rebuild: %v", what, c.step, err)
		return
	}
	if s, err = Open(o); err != nil {
		c.t.Errorf("%s at step %d: after rebuild: %v", what, c.step, err)
		return
	}
	c.verify(what+" and rebuild", s, acked, asked)
	s.Close()
}

func (c *crasher) verify(what string, s *Store, acked, asked map[int]fate) {
	c.t.Helper()
	for i, f := range asked {
		before := acked[i]
		err := get(s, i, f.blocks)
		switch k := errs.Of(err); {
		case k == errs.OK && !before.delled:
		case k == errs.Absent && (!before.put || f.delAsked):
		default:
			c.t.Errorf("%s at step %d: fragment %d, %+v then %+v: %v", what, c.step, i, before, f, err)
		}
	}
	r, err := s.Check(bg, true)
	if err != nil || !r.OK() {
		c.t.Errorf("%s at step %d: %+v %v", what, c.step, r, err)
	}
}

// workload puts and deletes for a while from some goroutines.
func (c *crasher) workload(s *Store, clk *clock, base, ops, workers int) {
	var wg sync.WaitGroup
	for w := range workers {
		wg.Add(1)
		seed := uint64(base*10 + w)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(seed, 0))
			var mine []int
			for n := range ops {
				clk.add(time.Second)
				i := base + w*1000 + n
				blocks := 1 + rng.IntN(70)
				c.h.set(i, func(f *fate) { f.blocks, f.asked = blocks, true })
				if err := put(s, i, blocks); err == nil {
					c.h.set(i, func(f *fate) { f.put = true })
					mine = append(mine, i)
				} else if errs.Of(err) != errs.Full {
					c.t.Errorf("put: %v", err)
				}
				for len(mine) > 0 && rng.IntN(3) > 0 {
					j := rng.IntN(len(mine))
					c.h.set(mine[j], func(f *fate) { f.delAsked = true })
					if err := del(s, mine[j]); err != nil {
						c.t.Errorf("delete: %v", err)
						return
					}
					i := mine[j]
					c.h.set(i, func(f *fate) { f.delled = true })
					mine = append(mine[:j], mine[j+1:]...)
				}
			}
		}()
	}
	wg.Wait()
}

func newCrasher(t *testing.T, seed uint64, quarantine time.Duration) (*crasher, *clock) {
	clk := newClock()
	d := newDrive(MinSize)
	mem := vfs.NewCrashableMem()
	c := &crasher{t: t, d: d, fs: mem, h: &history{m: map[int]fate{}}, rng: rand.New(rand.NewPCG(seed, 9))}
	c.o = testOptions(d, mem)
	c.o.Now, c.o.Quarantine = clk.now, quarantine
	must(t, Format(c.o))
	return c, clk
}

// At every step of puts, deletes, open and close, on the drive as in the index, a crash leaves all that
// was acknowledged.
func TestCrashEverywhere(t *testing.T) {
	for seed, workers := range []int{1, 1, 4} {
		c, clk := newCrasher(t, uint64(seed), time.Duration(seed)*time.Second)
		every := []int{1, 3, 5}[seed]
		if testing.Short() {
			every *= 4
		}
		c.at = func(n int) bool { return n%every == 0 }
		o := c.o
		o.FS = errorfs.Wrap(c.fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || strings.HasSuffix(op.Path, "LOCK") {
				return nil
			}
			return c.hook("index", 0)
		}))
		c.d.hook = c.hook
		for round := range 2 {
			s, err := Open(o)
			must(t, err)
			c.workload(s, clk, round*100000, 15/workers, workers)
			must(t, s.Close())
		}
		c.d.hook = nil
		t.Logf("seed %d: %d steps, %d crashes, each reopened after kill -9 and power loss, each rebuilt; %d "+
			"times the file system lost the order of its entries", seed, c.step, c.crash, c.reorders)
		if c.reorders > 4 {
			t.Error("too many lost orders")
		}
	}
}

// A crash within Format leaves a drive that can be opened or formatted.
func TestCrashInFormat(t *testing.T) {
	for step := 1; step < 200; step++ {
		d, mem := newDrive(MinSize), vfs.NewCrashableMem()
		var cd *testDrive
		var cfs *vfs.MemFS
		n := 0
		rng := rand.New(rand.NewPCG(uint64(step), 1))
		var mu sync.Mutex
		hook := func(string, int64) error {
			mu.Lock()
			defer mu.Unlock()
			if n++; n == step {
				if cd = d.killed(); step%2 == 1 {
					cd = d.lost(rng)
				}
				cfs = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100 * (1 - step%2),
					RNG: rand.New(rand.NewPCG(1, 1))})
			}
			return nil
		}
		d.hook = hook
		o := testOptions(d, errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
				return hook("", 0)
			}
			return nil
		})))
		must(t, Format(o))
		if cd == nil {
			t.Logf("%d steps", n)
			return
		}
		o.Data, o.FS = cd, cfs
		if err := Format(o); errs.Of(err) != errs.OK && errs.Of(err) != errs.Exists {
			t.Fatalf("step %d: %v", step, err)
		}
		s, err := Open(o)
		if err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		must(t, put(s, 1, 3))
		must(t, s.Close())
	}
}

// Whatever write of the index fails, while logs are changed and tables written too, the store says so,
// goes on reading, and has all that was acknowledged once it is reopened. Nothing panics.
func TestIndexFaults(t *testing.T) {
	quiet := 0
	for n := 0; quiet < 3 && n < 2000; n += 1 + n/20 {
		if !indexFault(t, n) {
			quiet++
		}
	}
}

// indexFault lets the index's writes fail from the n-th on, and says whether a put noticed.
func indexFault(t *testing.T, n int) (failed bool) {
	mem := vfs.NewCrashableMem()
	o := testOptions(newDrive(MinSize), mem)
	o.memTable = 16 << 10
	must(t, Format(o))
	var on atomic.Bool
	var left atomic.Int64
	left.Store(int64(n))
	fo := o
	fo.FS = errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !on.Load() || op.Kind.ReadOrWrite() != errorfs.OpIsWrite || left.Add(-1) >= 0 {
			return nil
		}
		return errorfs.ErrInjected
	}))
	s, err := Open(fo)
	must(t, err)
	on.Store(true)
	there, gone := map[int]bool{}, map[int]bool{}
	for i := range 250 {
		switch err := put(s, i, 1); {
		case err == nil && failed:
			t.Fatal("a put went through after one had failed")
		case err == nil:
			there[i] = true
		default:
			want(t, err, errs.IO)
			failed = true
		}
		if i%3 == 2 && there[i] {
			delete(there, i)
			if del(s, i) == nil {
				gone[i] = true
			}
		}
	}
	for i := range there {
		must(t, get(s, i, 1))
	}
	s.List(layout.FragKey{}, 10)
	s.Close()
	o.Data = o.Data.(*testDrive).killed()
	o.FS = mem.CrashClone(vfs.CrashCloneCfg{})
	s, err = Open(o)
	if err != nil {
		t.Fatalf("fault %d: %v", n, err)
	}
	defer s.Close()
	for i := range there {
		must(t, get(s, i, 1))
	}
	for i := range gone {
		want(t, get(s, i, 1), errs.Absent)
	}
	check(t, s)
	return failed
}
