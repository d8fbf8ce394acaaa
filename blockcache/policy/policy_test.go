package policy

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"vstor/dataplane/ids"
	"vstor/dataplane/leaktest"
)

// world is a Policy and a plain map of what it should hold.
type world struct {
	t    testing.TB
	p    *Policy
	have map[Key]Entry
	out  int
}

func newWorld(t testing.TB, bytes int64, entries int) *world {
	w := &world{t: t, have: map[Key]Entry{}}
	var err error
	if w.p, err = New(Options{Bytes: bytes, Entries: entries, Owner: w}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.p.Free)
	return w
}

func (w *world) Evicted(e Entry, _ bool) {
	k := w.p.Key(e)
	if w.have[k] != e {
		w.t.Fatalf("entry %d leaves as %v, which is %d", e, k, w.have[k])
	}
	delete(w.have, k)
	w.out++
}

// read is what a cache does with one block of the given weight; true is a hit.
func (w *world) read(a Account, block uint32, weight uint32) bool {
	k := Key{SCO: 1, Block: block}
	if e := w.p.Find(k); e != 0 {
		w.p.Touch(a, e, 1)
		return true
	}
	if e := w.p.Insert(a, k, weight, 1); e != 0 {
		w.have[k] = e
	}
	return false
}

// check adds everything up anew.
func (w *world) check() {
	w.t.Helper()
	p := w.p
	if len(w.have) != p.Count() {
		w.t.Fatalf("%d entries, want %d", p.Count(), len(w.have))
	}
	for k, e := range w.have {
		if p.Find(k) != e || p.Key(e) != k {
			w.t.Fatalf("%v is at %d, want %d", k, p.Find(k), e)
		}
	}
	if p.Used() > p.Bytes() || p.Count() > p.opts.Entries {
		w.t.Fatalf("%d bytes and %d entries; the bounds are %d and %d", p.Used(), p.Count(), p.Bytes(), p.opts.Entries)
	}
	var used int64
	count := 0
	for i := range p.accounts {
		a := &p.accounts[i]
		var sum int64
		n := 0
		for q := range a.queues {
			var bytes int64
			prev := Entry(0)
			for e := a.queues[q].head; e != 0; prev, e = e, p.entries[e].older {
				en := &p.entries[e]
				if en.newer != prev || int(en.queue) != q || int(en.acct) != i {
					w.t.Fatalf("entry %d is not linked as it should be", e)
				}
				bytes += int64(en.weight)
				n++
			}
			if a.queues[q].tail != prev || a.queues[q].bytes != bytes {
				w.t.Fatalf("queue %d of account %d weighs %d, noted %d", q, i, bytes, a.queues[q].bytes)
			}
			sum += bytes
		}
		if a.used != sum || a.entries != n || !a.open && n > 0 {
			w.t.Fatalf("account %d: %d bytes in %d entries, noted %d in %d", i, sum, n, a.used, a.entries)
		}
		used, count = used+sum, count+n
	}
	if used != p.Used() || count != p.Count() {
		w.t.Fatalf("%d bytes in %d entries, noted %d in %d", used, count, p.Used(), p.Count())
	}
	w.checkGhosts()
}

func (w *world) checkGhosts() {
	g := &w.p.ghosts
	lines := []line{g.orphans}
	for i := range w.p.accounts {
		lines = append(lines, w.p.accounts[i].ghosts)
	}
	n := 0
	for _, l := range lines {
		i, last := 0, uint32(0)
		for at := l.head; at != 0; at = g.nodes[at].newer {
			i, last = i+1, at
		}
		if i != l.n || last != l.tail {
			w.t.Fatalf("a line of %d ghosts is noted as %d", i, l.n)
		}
		n += i
	}
	for at := g.free; at != 0; at = g.nodes[at].newer {
		n++
	}
	if n != int(g.unused)-1 {
		w.t.Fatalf("%d ghosts of %d are accounted for", n, g.unused-1)
	}
}

// Random operations: nothing is lost or counted twice, no bound is ever crossed, quotas hold after Trim.
func TestRandomOperations(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			w := newWorld(t, 2000, 60+rng.IntN(200))
			accounts := map[Account]int64{}
			for range 4000 {
				a := Account(0)
				for a = range accounts {
					break
				}
				switch n := rng.IntN(100); {
				case n < 5 || a == 0:
					q := int64(rng.IntN(2500))
					if a := w.p.Open(ids.VolumeID(rng.IntN(6)), q); accounts[a] == 0 {
						accounts[a] = q
					} else {
						w.p.SetQuota(a, accounts[a])
					}
				case n < 8:
					w.p.Close(a)
					delete(accounts, a)
				case n < 11:
					accounts[a] = int64(rng.IntN(2500))
					w.p.SetQuota(a, accounts[a])
					for !w.p.Trim(a, 3) {
					}
				case n < 16:
					for k, e := range w.have {
						w.p.Remove(e)
						delete(w.have, k)
						break
					}
				case n < 18:
					w.p.Evict()
				case n < 30:
					for _, e := range w.have {
						w.p.Grow(e, uint32(rng.IntN(20)), rng.Uint64())
						break
					}
				case n < 33:
					for _, e := range w.have {
						w.p.Lose(e, min(w.p.entries[e].weight-1, 5))
						break
					}
				default:
					was := w.p.AccountUsed(a)
					w.read(a, uint32(rng.ExpFloat64()*100), 1+uint32(rng.IntN(40)))
					if is := w.p.AccountUsed(a); is > was && is > accounts[a] {
						t.Fatalf("a fill took account %d from %d to %d bytes of %d", a, was, is, accounts[a])
					}
				}
				for a, q := range accounts {
					if w.p.AccountUsed(a) > q && above(w, a, q) {
						t.Fatalf("account %d has %d bytes of %d", a, w.p.AccountUsed(a), q)
					}
				}
				w.check()
			}
			for w.p.Evict() {
			}
			w.check()
			if len(w.have) != 0 || w.p.Used() != 0 {
				t.Fatalf("%d entries and %d bytes are left", len(w.have), w.p.Used())
			}
		})
	}
}

// above reports whether an account is above its quota for good: one that was opened anew with a lower quota than it
// left with is brought below it by Trim.
func above(w *world, a Account, q int64) bool {
	for !w.p.Trim(a, 7) {
	}
	return w.p.AccountUsed(a) > q
}

// A scan of ten times the cache leaves what is read again and again where it is.
func TestScanResistance(t *testing.T) {
	w := newWorld(t, 1000, 1000)
	a := w.p.Open(1, Unlimited)
	for range 5 {
		for b := range uint32(500) {
			w.read(a, b, 1)
		}
	}
	hits := 0
	for i := range uint32(10000) {
		w.read(a, 100000+i, 1)
		if w.read(a, i%500, 1) {
			hits++
		}
	}
	if hits < 9900 {
		t.Errorf("%d hits of 10000 beside a scan", hits)
	}
}

// Reads of parts of a block, one after the other, are one pass and no hit; the second pass is one hit.
func TestPassesCountNotReads(t *testing.T) {
	w := newWorld(t, 1000, 100)
	a := w.p.Open(1, Unlimited)
	e := w.p.Insert(a, Key{SCO: 1}, 16, 1)
	for pass := range 4 {
		for part := range 16 {
			if pass == 0 && part == 0 {
				continue // the fill
			}
			w.p.Touch(a, e, 1<<part)
		}
		if f := int(w.p.entries[e].freq); f != min(pass, freqMax) {
			t.Errorf("after pass %d it was hit %d times", pass+1, f)
		}
	}
}

// A stream whose reads are not aligned meets a part of each read again with the next: that alone brings nothing into
// main.
func TestUnalignedStreamIsOnePass(t *testing.T) {
	w := newWorld(t, 1000, 100)
	a := w.p.Open(1, Unlimited)
	e := w.p.Insert(a, Key{SCO: 1}, 16, 7)
	for part := 2; part < 16; part += 2 {
		w.p.Touch(a, e, 7<<part&0xffff)
	}
	w.p.Touch(a, e, 1<<15) // the last read ends in the next block
	if f := w.p.entries[e].freq; f > 1 {
		t.Errorf("one pass was %d hits", f)
	}
	w.p.Touch(a, e, 1<<15)
	if f := w.p.entries[e].freq; f != 2 {
		t.Errorf("a part read again and again was hit %d times", f)
	}
}

// Shares: with quotas of 3 to 1 and more wanted than there is, used settles at 3 to 1; what one does not want the
// other has; and it comes back when it is wanted.
func TestShares(t *testing.T) {
	w := newWorld(t, 1000, 1000)
	a, b := w.p.Open(1, 3000), w.p.Open(2, 1000)
	if w.p.Share(a) != 500 || w.p.Share(b) != 500 {
		t.Fatalf("quotas above the cache count as the cache: shares are %d and %d", w.p.Share(a), w.p.Share(b))
	}
	w.p.SetQuota(a, 900)
	w.p.SetQuota(b, 300)
	if w.p.Share(a) != 750 || w.p.Share(b) != 250 {
		t.Fatalf("shares are %d and %d", w.p.Share(a), w.p.Share(b))
	}
	loop := func(acct Account, base, n uint32, rounds int) {
		for range rounds {
			for i := range n {
				w.read(acct, base+i, 1)
			}
		}
	}
	loop(b, 1000, 300, 5)
	loop(a, 100000, 600, 5)
	if ua, ub := w.p.AccountUsed(a), w.p.AccountUsed(b); ua != 600 || ub != 300 {
		t.Fatalf("all fits, and they have %d and %d", ua, ub)
	}
	for range 40 { // both loop over more than there is
		loop(a, 200000, 740, 1)
		loop(b, 300000, 600, 1)
	}
	if ua, ub := w.p.AccountUsed(a), w.p.AccountUsed(b); ua < 700 || ub > 300 {
		t.Errorf("shares are 750 and 250, used %d and %d", ua, ub)
	}
}

// A scan within its quota takes from others no more than a tenth of its share, however long it is.
func TestScanTakesNoBorrowedRoom(t *testing.T) {
	w := newWorld(t, 1000, 1000)
	a, b := w.p.Open(1, Unlimited), w.p.Open(2, Unlimited)
	for range 5 {
		for i := range uint32(900) { // above b's share of 500: it borrows
			w.read(b, i, 1)
		}
	}
	for i := range uint32(10000) {
		w.read(a, 100000+i, 1)
	}
	if u := w.p.AccountUsed(b); u < 899 {
		t.Errorf("the scan took %d of 900 bytes of hot data", 900-u)
	}
}

// Who has gone gives first; who hits its entries takes them over; who comes back finds the rest.
func TestGone(t *testing.T) {
	w := newWorld(t, 100, 100)
	a, b := w.p.Open(1, Unlimited), w.p.Open(2, Unlimited)
	for i := range uint32(40) {
		w.read(a, i, 1)
		w.read(b, 1000+i, 1)
	}
	w.p.Close(a)
	w.read(b, 7, 1)
	if w.p.AccountUsed(b) != 41 || w.p.AccountUsed(a) != 39 {
		t.Fatalf("used %d and %d after a hit on what the other left", w.p.AccountUsed(b), w.p.AccountUsed(a))
	}
	for i := range uint32(30) {
		w.read(b, 2000+i, 1)
	}
	if w.p.AccountUsed(b) != 71 || w.p.AccountUsed(a) != 29 {
		t.Fatalf("used %d and %d after the cache was full", w.p.AccountUsed(b), w.p.AccountUsed(a))
	}
	if again := w.p.Open(1, Unlimited); again != a || w.p.AccountUsed(a) != 29 {
		t.Fatalf("it came back as account %d with %d bytes", again, w.p.AccountUsed(again))
	}
	w.check()
}

func TestAllocNothing(t *testing.T) {
	w := newWorld(t, 1000, 500)
	a := w.p.Open(1, Unlimited)
	o := &nobody{}
	w.p.opts.Owner = o
	i := uint32(0)
	if n := testing.AllocsPerRun(5000, func() {
		i++
		k := Key{SCO: 1, Block: i * 2654435761 % 3000}
		if e := w.p.Find(k); e != 0 {
			w.p.Touch(a, e, 1)
			return
		}
		w.p.Insert(a, k, 2, 1)
	}); n != 0 {
		t.Errorf("%v allocations per access", n)
	}
}

// A table is given back whole, also where its length is no multiple of anything.
func TestTables(t *testing.T) {
	const n = 3<<17 + 1
	leaktest.GivesBack(t, func() {
		s, err := NewTable[uint64](n)
		if err != nil || len(s) != n {
			t.Fatal(len(s), err)
		}
		s[0], s[n-1] = 1, 1
		FreeTable(s)
	})
}

type nobody struct{}

func (*nobody) Evicted(Entry, bool) {}

func BenchmarkHit(b *testing.B) {
	w := newWorld(b, 1<<20, 1<<20)
	a := w.p.Open(1, Unlimited)
	for i := range uint32(1 << 19) {
		w.p.Insert(a, Key{SCO: 1, Block: i}, 1, 1)
	}
	i := uint32(0)
	for b.Loop() {
		i += 2654435761
		w.p.Touch(a, w.p.Find(Key{SCO: 1, Block: i % (1 << 19)}), 1)
	}
}

func BenchmarkMiss(b *testing.B) {
	w := newWorld(b, 1<<16, 1<<16)
	w.p.opts.Owner = &nobody{}
	a := w.p.Open(1, Unlimited)
	i := uint32(0)
	for b.Loop() {
		i++
		w.p.Insert(a, Key{SCO: 1, Block: i}, 1, 1)
	}
}
