package store

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"vstor/dataplane/layout"
)

// deletion is a fragment to delete; the pin keeps its first block ours while its header is overwritten.
type deletion struct {
	key  layout.FragKey
	pin  Pin
	runs []run
	own  bool // this op removes it, and not another of the same key before
}

// deleteBatch bounds what one op deletes.
const deleteBatch = 1024

// Delete removes fragments and returns when that is durable: they do not come back, not in a rebuild
// either. Absent keys are OK. Readers that hold a pin go on reading; the space rests for the quarantine
// and while pins hold it. It needs no space on the drive and next to none in the index, and takes at
// most 1024 keys to one batch. It blocks; not for loops. After an error each key may be gone or not.
func (s *Store) Delete(ctx context.Context, keys []layout.FragKey) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.delete(ctx, keys)
}

func (s *Store) delete(ctx context.Context, keys []layout.FragKey) error {
	for len(keys) > 0 {
		n := min(len(keys), deleteBatch)
		if err := s.deleteSome(ctx, keys[:n]); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return s.healthy()
}

func (s *Store) deleteSome(ctx context.Context, keys []layout.FragKey) error {
	if err := s.healthy(); err != nil {
		return err
	}
	c, err := s.getScratch(ctx)
	if err != nil {
		return err
	}
	o := &op{kind: opDelete, dels: make([]deletion, 0, len(keys))}
	for len(keys) > 0 {
		n := min(len(keys), killsTogether)
		o.dels = s.kill(keys[:n], c, o.dels)
		keys = keys[n:]
	}
	s.putScratch(c)
	if len(o.dels) == 0 {
		return nil
	}
	err = s.commits.do(o)
	if err != nil {
		for _, d := range o.dels {
			s.Unpin(d.pin)
		}
	}
	return err
}

// killsTogether is how many headers are overwritten at a time. One after the other a thousand of them would take as
// many turns behind the puts that the drive is busy with; all at once they would be in the way of its reads.
const killsTogether = 8

const _ = uint(scratchRegions*layout.RegionSize - killsTogether*blockSize)

// kill pins fragments, at most killsTogether, overwrites their headers, and appends to dst those that were there.
// It goes first: the other way round a crash between would leave a deleted fragment with a header that a
// rebuild believes. A crash here leaves a fragment in the index with a dead header: Get calls it absent, and
// whoever deletes it again ends it. If the drive refuses a write the delete goes on all the same.
func (s *Store) kill(keys []layout.FragKey, c *scratch, dst []deletion) []deletion {
	var writes sync.WaitGroup
	for i, key := range keys {
		d, ok := s.pinFor(key)
		if !ok {
			continue
		}
		dst = append(dst, d)
		h := Header{UUID: s.sb.UUID, Key: key, Self: int64(d.pin.start) << blockShift,
			Incarnation: s.sb.Incarnation, Time: s.opts.Now().UnixNano(), FormatNonce: s.sb.FormatNonce}
		writes.Go(func() { s.writeDead(c.body[i*blockSize:][:blockSize], &h) })
	}
	writes.Wait()
	return dst
}

// pinFor pins a fragment that is to be deleted; false if there is none.
func (s *Store) pinFor(key layout.FragKey) (deletion, bool) {
	k := packKey(key)
	sh := &s.shards[k.shard()]
	sh.mu.Lock()
	e, ok := sh.frags[k]
	if !ok {
		sh.mu.Unlock()
		return deletion{}, false
	}
	rs := sh.runsOf(k, e)
	e.pins++
	sh.frags[k] = e
	sh.mu.Unlock()
	return deletion{key: key, pin: Pin{key: k, start: e.start()}, runs: rs}, true
}

// addDeletes puts the deletions of o into the batch, but for those that another op was first with.
func (t *batch) addDeletes(o *op) {
	for i := range o.dels {
		d := &o.dels[i]
		e, _, ok := t.s.lookup(d.pin.key)
		if !ok || e.start() != d.pin.start || t.gone[d.pin.start] {
			continue
		}
		t.gone[d.pin.start] = true
		d.own = true
		t.sync = true
		t.b.Delete(fragDBKey(d.key), nil)
		if t.s.opts.Quarantine > 0 {
			t.b.Set(restDBKey(d.pin.start), encodeRest(d.runs, t.s.commits.n+1), nil)
		}
	}
}

func (t *batch) publishDeletes(o *op) {
	s := t.s
	for i := range o.dels {
		d := &o.dels[i]
		if d.own {
			s.withdraw(d.pin.key, d.pin.start)
			number := s.deleted.add(d.pin.key)
			n := runsLen(d.runs)
			s.alloc.Lock()
			s.alloc.live -= n
			s.alloc.resting += n
			s.alloc.Unlock()
			// The clock is read now, and not with the batch: a commit takes as long as it takes, and until it
			// ended the fragment was given out.
			s.rest.add(restItem{runs: d.runs, key: d.pin.key, until: s.opts.Now().Add(s.opts.Quarantine),
				number: number, durable: s.opts.Quarantine > 0})
			s.marks.owing = true
			s.count.deletes.Add(1)
		}
		s.Unpin(d.pin)
	}
	s.deleted.tell()
}

// restItem is deleted space that must not be used yet.
type restItem struct {
	runs    []run
	key     ramKey
	until   time.Time // by the clock of this process: see the package comment
	number  uint64    // of the delete; never ended early: 1<<64 - 1
	durable bool      // the index has a record of it
}

// rest holds the space at rest. As all rest for the same time, the first to come is the first to go;
// those that pins hold longer wait aside, and there are never more of them than pins.
type rest struct {
	sync.Mutex
	queue  []restItem
	pinned []restItem
	ended  atomic.Uint64 // deletes up to this number need not rest any more
}

// over reports whether an item need not rest any more.
func (q *rest) over(it *restItem, now time.Time) bool {
	return !it.until.After(now) || it.number <= q.ended.Load()
}

func (q *rest) add(it restItem) {
	q.Lock()
	defer q.Unlock()
	q.queue = append(q.queue, it)
}

// due reports whether there is anything that may be free by now.
func (q *rest) due(now time.Time) bool {
	q.Lock()
	defer q.Unlock()
	return len(q.pinned) > 0 || (len(q.queue) > 0 && q.over(&q.queue[0], now))
}

// take appends to out what has rested enough and has no pins, at most n items, and removes it.
func (q *rest) take(s *Store, now time.Time, n int, out []restItem) []restItem {
	q.Lock()
	defer q.Unlock()
	kept := q.pinned[:0]
	for _, it := range q.pinned {
		if len(out) < n && !s.orphaned(it.key, it.runs[0].start) {
			out = append(out, it)
		} else {
			kept = append(kept, it)
		}
	}
	q.pinned = kept
	i := 0
	for ; i < len(q.queue) && len(out) < n && q.over(&q.queue[i], now); i++ {
		if it := q.queue[i]; s.orphaned(it.key, it.runs[0].start) {
			q.pinned = append(q.pinned, it)
		} else {
			out = append(out, it)
		}
	}
	q.queue = q.queue[i:]
	return out
}

// addRest ends, with this batch, the rest of what is due. The index forgets the rest before or together
// with the first put that uses the space again, never after.
func (t *batch) addRest() {
	t.free = t.s.rest.take(t.s, t.now, maxBatch, t.free)
	for _, it := range t.free {
		if it.durable {
			t.b.Delete(restDBKey(it.runs[0].start), nil)
		}
	}
}

// releaseDue frees at once what is due and has no record in the index: the deletes of a store without
// a quarantine.
func (s *Store) releaseDue(now time.Time) {
	if s.opts.Quarantine > 0 {
		return
	}
	items := s.rest.take(s, now, maxBatch, nil)
	free := items[:0]
	for _, it := range items {
		if it.durable {
			s.rest.add(it) // from before a reopen: its record goes with the next batch
		} else {
			free = append(free, it)
		}
	}
	s.release(free)
}

// release makes space free.
func (s *Store) release(items []restItem) {
	if len(items) == 0 {
		return
	}
	s.alloc.Lock()
	defer s.alloc.Unlock()
	for _, it := range items {
		s.alloc.resting -= runsLen(it.runs)
		for _, r := range it.runs {
			s.alloc.add(r)
		}
	}
}
