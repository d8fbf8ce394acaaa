package stamp

import (
	"fmt"
	"math"
	"sync"
)

// oracle remembers what every block may hold. Block numbers count the whole volume: the first
// len(sectors) blocks are sector blocks.
type oracle struct {
	volume, seed uint64
	powerLoss    bool
	overlap      bool

	mu      sync.Mutex
	tick    uint64
	version uint64
	durable uint64 // writes acknowledged up to this tick survive power loss
	sectors []sectorBlock
	whole   []wholeBlock
}

// run is a span of a write in flight: n blocks from block (n 0: sectors [lo, hi) of it).
type run struct {
	block  int
	n      int
	lo, hi int

	version uint64 // of its first block, the next ones count on; 0: zeros
	issued  uint64
}

func newOracle(blocks, sectorBlocks int, volume, seed uint64) *oracle {
	return &oracle{volume: volume, seed: seed, tick: 1,
		sectors: make([]sectorBlock, sectorBlocks), whole: make([]wholeBlock, blocks-sectorBlocks)}
}

// settledMark is the tick up to which acknowledgements count as settled.
func (o *oracle) settledMark() uint64 {
	if o.powerLoss {
		return o.durable
	}
	return math.MaxUint64
}

// issue starts a write of whole blocks, if none of them is held by somebody it must not meet.
func (o *oracle) issue(block, n int, zero bool) (run, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	first := block - len(o.sectors)
	for i := first; i < first+n; i++ {
		if b := &o.whole[i]; b.reading || b.writers > 0 && !o.overlap {
			return run{}, false
		}
	}
	o.tick++
	r := run{block: block, n: n, issued: o.tick}
	if !zero {
		r.version = o.version + 1
		o.version += uint64(n)
	}
	for i := range n {
		b := &o.whole[first+i]
		b.prune(o.settledMark())
		b.writers++
		b.writes = append(b.writes, write{version: r.versionOf(i), issued: o.tick})
	}
	return r, true
}

func (r run) versionOf(i int) uint64 {
	if r.version == 0 {
		return 0
	}
	return r.version + uint64(i)
}

// issueSectors starts a write within a sector block.
func (o *oracle) issueSectors(block, lo, hi int, zero bool) (run, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := &o.sectors[block]
	if b.busy {
		return run{}, false
	}
	b.prune(o.settledMark())
	b.busy = true
	o.tick++
	r := run{block: block, lo: lo, hi: hi, issued: o.tick}
	if !zero {
		o.version++
		r.version = o.version
	}
	b.writes = append(b.writes, sectorWrite{write{version: r.version, issued: o.tick}, lo, hi})
	return r, true
}

// ack records that a write was acknowledged.
func (o *oracle) ack(r run, fua bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tick++
	if r.n == 0 {
		b := &o.sectors[r.block]
		w := &b.writes[len(b.writes)-1]
		w.acked, w.fua = o.tick, fua
		b.busy = false
		return
	}
	for i := range r.n {
		b := &o.whole[r.block-len(o.sectors)+i]
		b.writers--
		for j := range b.writes {
			if w := &b.writes[j]; w.issued == r.issued {
				w.acked, w.fua = o.tick, fua
			}
		}
		b.prune(o.settledMark())
	}
}

// refuse records that a write got an error: it may have happened or not, now or, for all we know, later.
// A sector block stays busy until the next verification, as its order is now unknown.
func (o *oracle) refuse(r run) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range r.n {
		o.whole[r.block-len(o.sectors)+i].writers--
	}
}

// flushed records that a FLUSH was acknowledged that was sent at tick began.
func (o *oracle) flushed(began uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.durable = max(o.durable, began)
}

func (o *oracle) now() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tick
}

// beginRead holds a block that nobody writes, so that what is read of it can be told right or wrong.
func (o *oracle) beginRead(block int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if block < len(o.sectors) {
		b := &o.sectors[block]
		ok := !b.busy
		b.busy = true
		return ok
	}
	b := &o.whole[block-len(o.sectors)]
	ok := !b.reading && b.writers == 0
	b.reading = b.reading || ok
	return ok
}

// endRead checks what was read; nil data (the read failed) is not checked.
func (o *oracle) endRead(block int, data []byte) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if block < len(o.sectors) {
		o.sectors[block].busy = false
	} else {
		o.whole[block-len(o.sectors)].reading = false
	}
	if data == nil {
		return ""
	}
	// While the server lives, what was acknowledged is what reads return, durable or not.
	wrong, _ := o.check(block, data, math.MaxUint64)
	return wrong
}

// verify checks a block after a restart and takes what it holds for its state from now on.
func (o *oracle) verify(block int, data []byte) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tick++
	wrong, adopt := o.check(block, data, o.settledMark())
	if wrong == "" {
		adopt()
	}
	return wrong
}

// check says what is wrong with a block, or else how to adopt what it holds.
func (o *oracle) check(block int, data []byte, durable uint64) (wrong string, adopt func()) {
	id := identity{volume: o.volume, addr: uint64(block), seed: o.seed}
	if block >= len(o.sectors) {
		b := &o.whole[block-len(o.sectors)]
		version, wrong := id.read(data)
		if wrong == "" && !b.mayHold(version, durable) {
			wrong = fmt.Sprintf("version %d", version)
		}
		if wrong != "" {
			return fmt.Sprintf("block %d holds %s; it may hold %s", block, wrong, b.want(durable)), nil
		}
		return "", func() { b.adopt(version, o.tick) }
	}
	b := &o.sectors[block]
	var got sectorState
	for i := range got {
		id.addr = uint64(block*perBlock + i)
		var wrong string
		if got[i], wrong = id.read(data[i*SectorSize : (i+1)*SectorSize]); wrong != "" {
			return fmt.Sprintf("sector %d of block %d holds %s; it may hold %s", i, block, wrong, b.want(durable)), nil
		}
	}
	if !b.mayHold(got, durable) {
		return fmt.Sprintf("block %d holds sector versions %v; it may hold %s", block, got, b.want(durable)), nil
	}
	return "", func() { b.adopt(got) }
}
