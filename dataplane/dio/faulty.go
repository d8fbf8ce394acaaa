package dio

import (
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"vstor/dataplane/errs"
)

// access is a kind of operation, a bit in Rule.On.
type access = uint8

const (
	onRead access = 1 << iota
	onWrite
	onSync
)

// What a Rule is for, to be joined by |.
const (
	Reads  = onRead
	Writes = onWrite
	Syncs  = onSync
)

// Fault is what a Rule does.
type Fault uint8

const (
	// FailIO fails the operation with EIO; a write or sync had no effect.
	FailIO Fault = iota
	// TornWrite writes some of the first sectors only and fails with EIO.
	TornWrite
	// Misdirect reads or writes another place and reports success.
	Misdirect
	// FlipBit turns one bit of what is read, and reports success.
	FlipBit
	// Stall holds the operation until Release.
	Stall
	// Delay holds it for Rule.Delay.
	Delay
	// LostWrite reports success and does nothing; on Syncs it is a sync that lies.
	LostWrite
	faults
)

// Rule says when a Fault happens. Of several rules the first that fires counts.
type Rule struct {
	On     uint8 // Reads | Writes | Syncs; 0 = all that the fault can befall
	Do     Fault
	Nth    int     // the n-th access that fits, from 1; 0 = by Chance
	Times  int     // fires at most so often; 0 = once for Nth, without limit for Chance
	Chance float64 // 0 to 1
	Off    int64   // only accesses that touch [Off, Off+Len); Len 0 = all
	Len    int64
	Delay  time.Duration

	seen, fired int
}

// Faulty is a File to which bad things happen by a seeded plan. Operations that no rule befalls go straight
// to the wrapped File. Any goroutine.
type Faulty struct {
	File

	mu       sync.Mutex
	rng      *rand.Rand
	rules    []Rule
	count    [faults]int
	released chan struct{}
	stalled  int
}

// NewFaulty wraps f. The same seed, rules and order of accesses give the same faults.
func NewFaulty(f File, seed uint64, rules ...Rule) *Faulty {
	return &Faulty{File: f, rng: rand.New(rand.NewPCG(seed, 0)), rules: append([]Rule(nil), rules...),
		released: make(chan struct{})}
}

// Set replaces the rules; what stalls goes on stalling.
func (f *Faulty) Set(rules ...Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append([]Rule(nil), rules...)
}

// Release lets everything go that stalls now.
func (f *Faulty) Release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.released)
	f.released = make(chan struct{})
}

// Stalled is how many operations wait for Release.
func (f *Faulty) Stalled() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stalled
}

// Fired is how often a fault happened.
func (f *Faulty) Fired(do Fault) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count[do]
}

// Close releases what stalls and closes the wrapped File.
func (f *Faulty) Close() error {
	f.Release()
	return f.File.Close()
}

// blow is one fault about to happen, with its dice thrown.
type blow struct {
	do    Fault
	delay time.Duration
	dice  uint64
	gate  <-chan struct{}
}

// befalls says whether a fault can happen to an access.
func (do Fault) befalls(a access) bool {
	switch do {
	case TornWrite:
		return a == onWrite
	case FlipBit:
		return a == onRead
	case Misdirect:
		return a != onSync
	case LostWrite:
		return a != onRead
	}
	return true
}

// next decides what happens to an access.
func (f *Faulty) next(a access, off int64, n int) (blow, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.rules {
		r := &f.rules[i]
		if r.On != 0 && r.On&a == 0 || !r.Do.befalls(a) {
			continue
		}
		if r.Len > 0 && a != onSync && (off+int64(n) <= r.Off || off >= r.Off+r.Len) {
			continue
		}
		if !r.fires(f.rng) {
			continue
		}
		f.count[r.Do]++
		return blow{r.Do, r.Delay, f.rng.Uint64(), f.released}, true
	}
	return blow{}, false
}

func (r *Rule) fires(rng *rand.Rand) bool {
	r.seen++
	times := r.Times
	if r.Nth > 0 {
		times = max(times, 1)
		if r.seen < r.Nth {
			return false
		}
	} else if rng.Float64() >= r.Chance {
		return false
	}
	if times > 0 && r.fired >= times {
		return false
	}
	r.fired++
	return true
}

func (f *Faulty) ReadAt(p []byte, off int64) error {
	b, ok := f.next(onRead, off, len(p))
	if !ok {
		return f.File.ReadAt(p, off)
	}
	return f.suffer(b, onRead, p, off)
}

func (f *Faulty) WriteAt(p []byte, off int64) error {
	b, ok := f.next(onWrite, off, len(p))
	if !ok {
		return f.File.WriteAt(p, off)
	}
	return f.suffer(b, onWrite, p, off)
}

func (f *Faulty) Sync() error {
	b, ok := f.next(onSync, 0, 0)
	if !ok {
		return f.File.Sync()
	}
	return f.suffer(b, onSync, nil, 0)
}

// suffer does an operation with its fault, blocking.
func (f *Faulty) suffer(b blow, a access, p []byte, off int64) error {
	if a != onSync {
		if err := checkRange(f.Size(), off, len(p)); err != nil {
			return err
		}
	}
	switch b.do {
	case FailIO:
		return injected(b.do)
	case TornWrite:
		return f.tear(b, p, off)
	case LostWrite:
		return nil
	case Misdirect:
		off = f.elsewhere(b, off, len(p))
	case Stall:
		f.stall(b.gate)
	case Delay:
		time.Sleep(b.delay)
	}
	if err := f.plain(a, p, off); err != nil {
		return err
	}
	if b.do == FlipBit && len(p) > 0 {
		p[b.dice/8%uint64(len(p))] ^= 1 << (b.dice % 8)
	}
	return nil
}

func (f *Faulty) plain(a access, p []byte, off int64) error {
	switch a {
	case onRead:
		return f.File.ReadAt(p, off)
	case onWrite:
		return f.File.WriteAt(p, off)
	}
	return f.File.Sync()
}

func injected(do Fault) error {
	return errs.Wrap(errs.IO, syscall.EIO, "dio: injected fault %d", do)
}

func (f *Faulty) stall(gate <-chan struct{}) {
	f.mu.Lock()
	f.stalled++
	f.mu.Unlock()
	<-gate
	f.mu.Lock()
	f.stalled--
	f.mu.Unlock()
}

// tear writes the first sectors of p, at least none and never all. The File below takes whole blocks, so
// the block with the edge is mixed with what was there.
func (f *Faulty) tear(b blow, p []byte, off int64) error {
	if len(p) == 0 {
		return injected(b.do)
	}
	cut := int(b.dice%uint64(len(p)/sectorSize)) * sectorSize
	whole := cut / BlockSize * BlockSize
	if whole > 0 {
		if err := f.File.WriteAt(p[:whole], off); err != nil {
			return err
		}
	}
	if cut > whole {
		mix, err := AlignedBuf(BlockSize)
		if err != nil {
			return err
		}
		defer FreeBuf(mix)
		if err := f.File.ReadAt(mix, off+int64(whole)); err != nil {
			return err
		}
		copy(mix, p[whole:cut])
		if err := f.File.WriteAt(mix, off+int64(whole)); err != nil {
			return err
		}
	}
	return injected(b.do)
}

// elsewhere is another offset for n bytes, the same one only if there is no other.
func (f *Faulty) elsewhere(b blow, off int64, n int) int64 {
	places := (f.Size()-int64(n))/BlockSize + 1
	if places == 1 {
		return off
	}
	to := int64(b.dice%uint64(places-1)) * BlockSize
	if to >= off {
		to += BlockSize
	}
	return to
}
