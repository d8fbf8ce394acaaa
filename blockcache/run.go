package blockcache

import (
	"syscall"
	"time"

	"github.com/cespare/xxhash/v2"

	"vstor/blockcache/ssd"
	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
)

// run is blocks of a fetch that are read together: an extent of the SSD, or a read of the backend. The embedded Fetch
// is what the backend is asked; of a read of the SSD it says what is wanted.
type run struct {
	block.Fetch
	c      *Cache
	x      *fetch // nil: late, nobody waits for it any more
	first  int    // index in the fetch
	vec    buf.Vec
	claims *claim
	waits  *wait
	began  int64

	onSSD bool
	slot  ssd.Slot
	seq   uint64 // of the slot's region when the read began
	op    ring.Op

	next         *run // of the fetch, or the free list
	older, newer *run // reads of the SSD
}

// runList is FIFO of reads of the SSD.
type runList struct{ oldest, newest *run }

// runMax is how many blocks are read at once: what PRACC asks of one drive at most. Whoever waits for a block of a run
// waits for all of it.
const runMax = 256

// extend puts block i into the run being planned, or begins one.
func (x *fetch) extend(i int, onSSD bool, s ssd.Slot) {
	if r := x.runs; r != nil && r.onSSD == onSSD && r.first+int(r.Count) == i && r.Count < runMax &&
		(!onSSD || x.c.tier.Joins(r.slot+ssd.Slot(r.Count)-1, s)) {
		r.Count++
		return
	}
	c := x.c
	r := c.freeRun
	if r == nil {
		r = &run{c: c}
		r.Fetch.Dst, r.Fetch.Done, r.op.Done = &r.vec, r, r
	} else {
		c.freeRun = r.next
	}
	r.x, r.first, r.Count, r.onSSD, r.slot = x, i, 1, onSSD, s
	r.next, x.runs = x.runs, r
}

// start judges what was planned, joins what goes to the backend after all, and starts everything.
func (x *fetch) start() {
	c := x.c
	var todo *run // in order again
	for x.runs != nil {
		r := x.runs
		x.runs, r.next = r.next, todo
		if r.onSSD && !c.admit(x, r) {
			r.onSSD = false
		}
		if todo != nil && !r.onSSD && !todo.onSSD && r.first+int(r.Count) == todo.first &&
			r.Count+todo.Count <= runMax {
			r.Count += todo.Count
			r.next = todo.next
			c.putRun(todo)
		}
		todo = r
	}
	for todo != nil {
		r := todo
		todo, r.next = r.next, nil
		f := x.f
		r.NS, r.SCO, r.Off = f.NS, f.SCO, f.Off+uint32(r.first)
		r.Sums, r.Err = f.Sums[r.first:r.first+int(r.Count)], errs.OK
		r.setPages()
		c.claim(r)
		x.left++
		if r.onSSD {
			c.readSSD(r)
		} else {
			c.readBelow(r)
		}
	}
}

// admit decides whether a run may ask the SSD, and counts it among those that do.
func (c *Cache) admit(x *fetch, r *run) bool {
	n := uint64(r.Count)
	if c.ssdReads >= c.opts.SSDReads {
		c.Stats.QueueFull.Inc()
		x.t.Stats.Bypassed.Add(n)
		return false
	}
	switch c.gate.ask(classOf(int(n)), c.now()) {
	case useSSD:
		c.ssdReads++
		return true
	case probeSSD:
		c.Stats.Probes.Inc()
		c.ssdReads++
		return true
	case probeBelow:
		c.Stats.Probes.Inc()
	}
	x.t.Stats.Bypassed.Add(n)
	return false
}

// setPages lists the fetch's pages of this run.
func (r *run) setPages() {
	r.vec.Reset()
	for _, p := range r.x.pages[r.first : r.first+int(r.Count)] {
		r.vec.Add(buf.Seg{Page: p, Len: ids.BlockSize})
	}
}

func (c *Cache) putRun(r *run) {
	r.x, r.Sums = nil, nil
	r.next, c.freeRun = c.freeRun, r
}

func (c *Cache) readBelow(r *run) {
	if c.tier != nil && r.x.asked {
		r.x.t.Stats.SSD.Misses.Add(uint64(r.Count))
	}
	r.began = c.now()
	c.below.Fetch(&r.Fetch)
}

// FetchDone is the backend's end of a run.
func (r *run) FetchDone(*block.Fetch) {
	c := r.c
	if now := c.now(); r.Err == errs.OK {
		c.gate.class[classOf(int(r.Count))].below.add(now-r.began, now)
	}
	r.takeOver()
	c.finish(r, r.Err)
}

// takeOver lists the pages that the backend left in r.vec: it may have exchanged some for others that hold the same.
func (r *run) takeOver() {
	x, i := r.x, r.first
	for _, s := range r.vec.Segs {
		for j := range s.Pages() {
			if p := s.Page + buf.Page(j); x.pages[i] != p {
				x.pages[i], x.swapped = p, true
			}
			i++
		}
	}
}

// finish ends a run: what came is kept, those who wait get it, and the fetch goes on.
func (c *Cache) finish(r *run, err errs.Kind) {
	x := r.x
	c.unclaim(r)
	pages := x.pages[r.first : r.first+int(r.Count)]
	x.via = max(x.via, r.Via)
	if err == errs.OK {
		c.fill(x.t, r.NS, r.SCO, r.Off, r.Sums, pages, x.asked)
	} else {
		x.err = err
	}
	// A fetch that ends may start others: nothing of r is touched after the first that ends.
	waits := r.waits
	r.waits = nil
	for w := waits; w != nil; w = w.next {
		for i := range w.n {
			if err != errs.OK {
				w.x.err = err
				break
			}
			w.x.take(w.first+i, pages[w.at+i])
			w.x.via = max(w.x.via, r.Via)
		}
	}
	c.putRun(r)
	for waits != nil {
		w := waits
		waits = w.next
		y := w.x
		*w = wait{next: c.flight.waits}
		c.flight.waits = w
		y.ended()
	}
	x.ended()
}

// readSSD starts a read of the SSD and has the time looked at.
func (c *Cache) readSSD(r *run) {
	r.began, r.seq = c.now(), c.tier.Sequence(r.slot)
	r.older, r.newer = c.reading.newest, nil
	if r.older != nil {
		r.older.newer = r
	} else {
		c.reading.oldest = r
	}
	c.reading.newest = r
	if !c.late.Armed() {
		c.loop.After(&c.late, time.Duration(c.gate.late(classOf(int(r.Count)))))
	}
	c.tier.Read(&r.op, &r.vec, r.slot)
}

// unlist takes a read of the SSD off the list of those that are waited for.
func (c *Cache) unlist(r *run) {
	if r.older != nil {
		r.older.newer = r.newer
	} else {
		c.reading.oldest = r.newer
	}
	if r.newer != nil {
		r.newer.older = r.older
	} else {
		c.reading.newest = r.older
	}
	r.older, r.newer = nil, nil
}

// RingDone is the end of a read of the SSD. What is not just as wanted is read from the backend.
func (r *run) RingDone(_ *ring.Op, res int32) {
	c := r.c
	c.ssdReads--
	if now := c.now(); res > 0 {
		c.gate.class[classOf(int(r.Count))].ssd.add(now-r.began, now)
	}
	if r.x == nil {
		c.pool.ReleaseVec(&r.vec)
		c.putRun(r)
		c.finishClose()
		return
	}
	c.unlist(r)
	if !c.verified(r, res) {
		r.onSSD = false
		c.readBelow(r)
		return
	}
	x := r.x
	if x.asked {
		x.t.Stats.SSD.Hits.Add(uint64(r.Count))
	}
	for i := range int(r.Count) {
		k, part := c.key(r.NS, r.SCO, r.Off+uint32(i))
		if e := c.tier.Find(k); e != 0 {
			c.tier.Policy().Touch(x.t.ssd, e, 1<<part)
		}
	}
	r.Via = block.FromBlockSSD
	c.finish(r, errs.OK)
}

// failuresMax is how many reads of the SSD in a row fail before it is left alone.
const failuresMax = 16

// verified reports whether all blocks of a read are those wanted; the others are dropped from the SSD.
func (c *Cache) verified(r *run, res int32) bool {
	if res > 0 {
		c.failures = 0
	} else if c.Stats.Errors.Inc(); res != -int32(syscall.ECANCELED) {
		if c.failures++; c.failures == failuresMax {
			c.tier.Fail()
		}
	}
	good := res > 0
	for i, sum := range r.Sums {
		if res > 0 && uint32(xxhash.Sum64(c.pool.Bytes(r.x.pages[r.first+i]))) == sum {
			continue
		}
		good = false
		if c.tier.Sequence(r.slot) != r.seq {
			return false // its region was overwritten under the read, and the index knows
		}
		if res > 0 {
			c.Stats.Rotten.Inc()
		}
		k, part := c.key(r.NS, r.SCO, r.Off+uint32(i))
		if e := c.tier.Find(k); e != 0 && c.tier.Mask(e)&(1<<part) != 0 && c.tier.Slot(e, part) == r.slot+ssd.Slot(i) {
			c.tier.Forget(e, part)
		}
	}
	return good
}

// checkLate gives up on reads of the SSD that take too long: the backend is asked, into fresh pages, as the drive may
// still write into the old ones. Without free pages they are waited for.
func (c *Cache) checkLate() {
	now := c.now()
	for r := c.reading.oldest; r != nil; {
		newer := r.newer
		class := classOf(int(r.Count))
		if now-r.began >= c.gate.late(class) {
			c.gate.class[class].ssd.add(now-r.began, now)
			c.giveUp(r)
		}
		r = newer
	}
	if c.reading.oldest != nil {
		c.loop.After(&c.late, time.Duration(lateMin))
	}
}

// giveUp moves the fetch from a late read to a run of the backend; the read keeps its pages until it ends.
func (c *Cache) giveUp(r *run) {
	x, n := r.x, int(r.Count)
	var fresh *run
	if fresh = c.freeRun; fresh != nil {
		c.freeRun = fresh.next
	} else {
		fresh = &run{c: c}
		fresh.Fetch.Dst, fresh.Fetch.Done, fresh.op.Done = &fresh.vec, fresh, fresh
	}
	fresh.vec.Reset()
	if !c.pool.Alloc(&fresh.vec, n) {
		c.putRun(fresh)
		return
	}
	c.Stats.Late.Inc()
	i := r.first
	for _, s := range fresh.vec.Segs {
		for j := range s.Pages() {
			x.pages[i] = s.Page + buf.Page(j)
			i++
		}
	}
	x.swapped = true
	c.unlist(r)
	c.unclaim(r)
	fresh.NS, fresh.SCO, fresh.Off, fresh.Count, fresh.Sums, fresh.Err = r.NS, r.SCO, r.Off, r.Count, r.Sums, errs.OK
	fresh.x, fresh.first, fresh.onSSD, fresh.next = x, r.first, false, nil
	fresh.waits, r.waits = r.waits, nil
	r.x, r.Sums = nil, nil
	c.claim(fresh)
	x.t.Stats.Bypassed.Add(uint64(n))
	c.readBelow(fresh)
}
