package stamp

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"vstor/bench/nbdc"
	"vstor/dataplane/errs"
)

const testBlocks = 512

func newChecker(t *testing.T, s *memServer, change func(*Options)) *Checker {
	t.Helper()
	opt := Options{Dial: s.dial, Blocks: testBlocks, Connections: 3, Depth: 4, Seed: 7, Volume: 99}
	if change != nil {
		change(&opt)
	}
	c, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// runUntil runs the workload until n writes were applied, then crashes the server at once.
func runUntil(t *testing.T, s *memServer, c *Checker, n int) Stats {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	s.mu.Lock()
	s.beforeAck = func(nbdc.Cmd) bool {
		n--
		if n <= 0 {
			s.dead = true
		}
		return n > 0 // the last one was applied and not acknowledged
	}
	s.mu.Unlock()
	go func() {
		for ctx.Err() == nil {
			time.Sleep(time.Millisecond)
			s.mu.Lock()
			dead := s.dead
			s.mu.Unlock()
			if dead {
				s.crash()
				return
			}
		}
	}()
	st, err := c.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.beforeAck = nil
	s.mu.Unlock()
	s.restart()
	return st
}

// An honest server passes crash after crash, whether writes under way at the crash are kept or lost.
func TestHonestServer(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"overlapping":   nil,
		"one at a time": func(o *Options) { o.OneAtATime = true },
		"power loss":    func(o *Options) { o.PowerLoss = true },
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, testBlocks)
			c := newChecker(t, s, change)
			for range 5 {
				st := runUntil(t, s, c, 3000)
				if st.Lost == 0 || st.Acked < 2000 || st.Refused != 0 {
					t.Fatalf("%+v", st)
				}
				if err := c.Verify(); err != nil {
					t.Fatal(err)
				}
				if err := c.Verify(); err != nil {
					t.Fatalf("verified twice: %v", err)
				}
			}
		})
	}
}

// A run that ends with its context, and not by a crash, verifies too.
func TestQuietEnd(t *testing.T) {
	s := startServer(t, testBlocks)
	c := newChecker(t, s, nil)
	ctx, cancel := context.WithCancel(context.Background())
	n := 1000
	s.mu.Lock()
	s.beforeAck = func(nbdc.Cmd) bool {
		if n--; n == 0 {
			cancel()
		}
		return true
	}
	s.mu.Unlock()
	st, err := c.Run(ctx)
	if err != nil || st.Lost != 0 || st.Acked == 0 {
		t.Fatal(st, err)
	}
	if err := c.Verify(); err != nil {
		t.Fatal(err)
	}
}

// settledBlock finds a whole block that must hold one certain, stamped version, with something else before.
func settledBlock(t *testing.T, s *memServer, c *Checker, sector bool) int {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 100000 {
		i := c.opt.SectorBlocks + rng.IntN(testBlocks-c.opt.SectorBlocks)
		if sector {
			i = rng.IntN(c.opt.SectorBlocks)
			if b := &c.oracle.sectors[i]; b.must(1<<63) == len(b.writes) && len(s.history[i]) > 1 && !b.busy &&
				b.mayHold(b.final(), 1<<63) && b.final() != (sectorState{}) {
				return i
			}
			continue
		}
		b := &c.oracle.whole[i-c.opt.SectorBlocks]
		if len(b.writes) == 1 && b.writes[0].acked != 0 && b.writes[0].version != 0 && len(s.history[i]) > 1 {
			return i
		}
	}
	t.Fatal("no such block")
	return 0
}

func (b *sectorBlock) final() sectorState {
	s := b.base
	for _, w := range b.writes {
		s.apply(w)
	}
	return s
}

// Each lie that a server can tell after a crash is found, and called by its name.
func TestLiesAreFound(t *testing.T) {
	lies := map[string]struct {
		says string
		lie  func(t *testing.T, s *memServer, c *Checker)
	}{
		"lost write": {"it may hold", func(t *testing.T, s *memServer, c *Checker) {
			i := settledBlock(t, s, c, false)
			old := s.history[i][0]
			copy(s.block(i), old)
		}},
		"zeros": {"holds version 0", func(t *testing.T, s *memServer, c *Checker) {
			clear(s.block(settledBlock(t, s, c, false)))
		}},
		"torn": {"torn or damaged", func(t *testing.T, s *memServer, c *Checker) {
			i := settledBlock(t, s, c, false)
			b := s.block(i)
			clear(b[512*3:])
		}},
		"flipped bit": {"torn or damaged", func(t *testing.T, s *memServer, c *Checker) {
			s.block(settledBlock(t, s, c, false))[2345] ^= 4
		}},
		"misdirected": {"the data of address", func(t *testing.T, s *memServer, c *Checker) {
			i := settledBlock(t, s, c, false)
			id := identity{99, uint64(i) + 1, 5, 7}
			id.fill(s.block(i))
		}},
		"another volume": {"another volume", func(t *testing.T, s *memServer, c *Checker) {
			i := settledBlock(t, s, c, false)
			id := identity{98, uint64(i), 5, 7}
			id.fill(s.block(i))
		}},
		"garbage": {"no stamp", func(t *testing.T, s *memServer, c *Checker) {
			copy(s.block(settledBlock(t, s, c, false)), "garbage!garbage!")
		}},
		"from the future": {"it may hold", func(t *testing.T, s *memServer, c *Checker) {
			i := settledBlock(t, s, c, false)
			id := identity{99, uint64(i), 1 << 40, 7}
			id.fill(s.block(i))
		}},
		"never written": {"never written", func(t *testing.T, s *memServer, c *Checker) {
			for i := range c.oracle.whole {
				if b := c.oracle.whole[i]; len(b.writes) == 0 {
					block := i + c.opt.SectorBlocks
					id := identity{99, uint64(block), 3, 7}
					id.fill(s.block(block))
					return
				}
			}
			t.Skip("all were written")
		}},
		"old sectors": {"sector versions", func(t *testing.T, s *memServer, c *Checker) {
			i := settledBlock(t, s, c, true)
			clear(s.block(i))
		}},
		"torn sector": {"torn or damaged", func(t *testing.T, s *memServer, c *Checker) {
			i := settledBlock(t, s, c, true)
			for j := range perBlock {
				if b := s.block(i)[j*SectorSize : (j+1)*SectorSize]; !allZero(b) {
					b[300] ^= 1
					return
				}
			}
		}},
	}
	for name, l := range lies {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, testBlocks)
			c := newChecker(t, s, nil)
			writes := 3000
			if name == "never written" {
				writes = 60
			}
			runUntil(t, s, c, writes)
			l.lie(t, s, c)
			err := c.Verify()
			if errs.Of(err) != errs.Corrupt || !strings.Contains(err.Error(), l.says) || !strings.Contains(err.Error(),
				"1 blocks are wrong") {
				t.Errorf("found %v; want one block, %q", err, l.says)
			}
		})
	}
}

// A write within a sector block is there wholly or not at all.
func TestTornAcrossSectors(t *testing.T) {
	o := newOracle(8, 2, 1, 1)
	block := make([]byte, BlockSize)
	stampOf := func(version uint64, lo, hi int) {
		for i := lo; i < hi; i++ {
			id := identity{1, uint64(i), version, 1}
			id.fill(block[i*SectorSize : (i+1)*SectorSize])
		}
	}
	r, _ := o.issueSectors(0, 0, 8, false)
	o.ack(r, false)
	stampOf(r.version, 0, 8)
	if w, _ := o.check(0, block, o.settledMark()); w != "" {
		t.Fatal(w)
	}
	r2, _ := o.issueSectors(0, 2, 6, false)
	if w, _ := o.check(0, block, o.settledMark()); w != "" {
		t.Errorf("the old state: %s", w)
	}
	stampOf(r2.version, 2, 4)
	if w, _ := o.check(0, block, o.settledMark()); w == "" {
		t.Error("half of a write passes")
	}
	stampOf(r2.version, 2, 6)
	if w, _ := o.check(0, block, o.settledMark()); w != "" {
		t.Errorf("the new state: %s", w)
	}
}

// What was acknowledged but not flushed may go with the power, in order; what was flushed may not.
func TestPowerLossOracle(t *testing.T) {
	o := newOracle(4, 1, 1, 1)
	o.powerLoss = true
	put := func(fua bool) uint64 {
		r, _ := o.issue(2, 1, false)
		o.ack(r, fua)
		return r.version
	}
	may := func(v uint64) bool { return o.whole[1].mayHold(v, o.settledMark()) }
	a := put(false)
	if !may(0) || !may(a) {
		t.Error("unflushed: both zeros and the write are fine")
	}
	began := o.now()
	b := put(false) // acknowledged after the flush began
	o.flushed(began)
	if may(0) || !may(a) || !may(b) {
		t.Error("the flush covers the first write, not the second")
	}
	d := put(true)
	if may(a) || may(b) || !may(d) {
		t.Error("FUA settles at once")
	}
	r1, _ := o.issueSectors(0, 0, 2, false)
	o.ack(r1, false)
	r2, _ := o.issueSectors(0, 1, 3, false)
	o.ack(r2, false)
	s := &o.sectors[0]
	for _, c := range []struct {
		state sectorState
		ok    bool
	}{
		{sectorState{}, true},
		{sectorState{r1.version, r1.version}, true},
		{sectorState{r1.version, r2.version, r2.version}, true},
		{sectorState{0, r2.version, r2.version}, false},
		{sectorState{r1.version, r2.version}, false},
	} {
		if s.mayHold(c.state, o.settledMark()) != c.ok {
			t.Errorf("%v: want %v", c.state, c.ok)
		}
	}
	o.flushed(o.now())
	if s.mayHold(sectorState{r1.version, r1.version}, o.settledMark()) {
		t.Error("a flushed write may be missing")
	}
}

// Two writes in flight together may land in either order; one that began after the other was
// acknowledged may not.
func TestOverlapOracle(t *testing.T) {
	o := newOracle(4, 1, 1, 1)
	o.overlap = true
	x, _ := o.issue(2, 1, false)
	y, ok := o.issue(1, 2, false)
	if !ok {
		t.Fatal("refused to overlap")
	}
	o.ack(x, false)
	o.ack(y, false)
	b := &o.whole[1]
	if !b.mayHold(x.version, 1<<63) || !b.mayHold(y.versionOf(1), 1<<63) || b.mayHold(0, 1<<63) {
		t.Error("either of the two, and nothing else: ", b.want(1<<63))
	}
	z, _ := o.issue(2, 1, true)
	if !b.mayHold(0, 1<<63) || !b.mayHold(x.version, 1<<63) {
		t.Error("a write in flight may be there or not")
	}
	o.ack(z, false)
	if !b.mayHold(0, 1<<63) || b.mayHold(x.version, 1<<63) || len(b.writes) != 1 {
		t.Error("only the last: ", b.want(1<<63))
	}
}
