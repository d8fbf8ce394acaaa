package store

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

type opKind uint8

const (
	opPut opKind = iota
	opDelete
	opFence
	opRelease
)

// op waits for the committer.
type op struct {
	kind  opKind
	key   ramKey         // put
	frag  layout.FragKey // put
	rec   fragRecord     // put; fence: epoch
	ns    ids.NamespaceID
	class layout.Class
	dels  []deletion
	done  chan error // of capacity 1; nil: nobody waits
}

// maxBatch bounds the fragments of one batch: it must stay small beside Pebble's memtable.
const maxBatch = 4096

// committer is the one goroutine that makes things durable and visible, in this order.
type committer struct {
	mu struct {
		sync.Mutex
		wake    sync.Cond
		queue   []*op // bounded by the callers: each waits for its own
		closing bool
	}
	// cycle is held while a batch is under way; Check takes it to see a state between two.
	cycle sync.Mutex
	n     uint64 // commits; the committer's
	ended chan struct{}
}

func (c *committer) start(s *Store) {
	c.mu.wake.L = &c.mu.Mutex
	c.ended = make(chan struct{})
	go func() {
		defer close(c.ended)
		for ops := c.next(); ops != nil; ops = c.next() {
			s.runCycle(ops)
		}
	}()
}

func (c *committer) stop() {
	c.mu.Lock()
	c.mu.closing = true
	c.mu.Unlock()
	c.mu.wake.Signal()
	<-c.ended
}

// do queues an op and waits for it. It does not look at a context: the op may be durable already, and
// its answer is near.
func (c *committer) do(o *op) error {
	o.done = make(chan error, 1)
	c.post(o)
	return <-o.done
}

func (c *committer) post(o *op) {
	c.mu.Lock()
	c.mu.queue = append(c.mu.queue, o)
	c.mu.Unlock()
	c.mu.wake.Signal()
}

// next waits for ops and takes them all, up to maxBatch; nil: stopped, and none left.
func (c *committer) next() []*op {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.mu.queue) == 0 {
		if c.mu.closing {
			return nil
		}
		c.mu.wake.Wait()
	}
	n, items := 0, 0
	for n < len(c.mu.queue) && items < maxBatch {
		items += 1 + len(c.mu.queue[n].dels)
		n++
	}
	ops := c.mu.queue[:n:n]
	c.mu.queue = c.mu.queue[n:]
	return ops
}

// batch is what one cycle does.
type batch struct {
	s      *Store
	b      *pebble.Batch
	now    time.Time
	epochs map[ids.NamespaceID]ids.Epoch // raised in this batch
	gone   map[uint64]bool               // first blocks of what it deletes
	free   []restItem                    // whose rest ends with it
	drive  bool                          // the drive needs a Sync
	sync   bool                          // somebody waits for durability
}

// runCycle makes ops durable with one Sync of the drive and one batch, then visible, then answers.
func (s *Store) runCycle(ops []*op) {
	c := &s.commits
	c.cycle.Lock()
	defer c.cycle.Unlock()
	results := make([]error, len(ops))
	if err := s.healthy(); err != nil {
		answer(ops, results, err)
		return
	}
	s.ballast.watch(s)
	t := &batch{s: s, b: s.ix.db.NewBatch(), now: s.opts.Now()}
	defer t.b.Close()
	for i, o := range ops {
		results[i] = t.add(o)
	}
	t.addRest()
	if err := t.commit(); err != nil {
		s.fail(err, "a commit")
		for _, it := range t.free {
			s.rest.add(it)
		}
		answer(ops, results, s.healthy())
		return
	}
	for i, o := range ops {
		if results[i] == nil {
			t.publish(o)
		}
	}
	s.raise(t.epochs)
	s.release(t.free)
	s.releaseDue(t.now) // what needs no record: no quarantine, no pins
	answer(ops, results, nil)
}

// answer wakes the callers. all, if not nil, is the answer to those that were not refused: after a
// failed commit an op that would have been refused is refused all the same.
func answer(ops []*op, results []error, all error) {
	for i, o := range ops {
		if results[i] == nil {
			results[i] = all
		}
		if o.done != nil {
			o.done <- results[i]
		}
	}
}

// add puts the records of o into the batch, or says why not.
func (t *batch) add(o *op) error {
	switch o.kind {
	case opPut:
		if err := t.raise(o.frag.Namespace, o.rec.epoch, o.class); err != nil {
			return err
		}
		t.drive, t.sync = true, true
		t.b.Set(fragDBKey(o.frag), o.rec.append(nil), nil)
	case opFence:
		if err := t.raise(o.ns, o.rec.epoch, layout.ClassClient); err != nil {
			return err
		}
	case opDelete:
		t.addDeletes(o)
	}
	return nil
}

// raise refuses an epoch below the highest of its namespace, this batch's included, and records a
// higher one.
func (t *batch) raise(ns ids.NamespaceID, e ids.Epoch, c layout.Class) error {
	high, ok := t.epochs[ns]
	if !ok {
		high = t.s.HighestEpoch(ns)
	}
	if err := checkEpoch(ns, e, high, c); err != nil || e <= high {
		return err
	}
	if t.epochs == nil {
		t.epochs = map[ids.NamespaceID]ids.Epoch{}
	}
	t.epochs[ns] = e
	t.sync = true
	t.b.Set(epochDBKey(ns), binary.LittleEndian.AppendUint64(nil, uint64(e)), nil)
	return nil
}

// commit is the Sync of the drive and the batch. The order matters: the index must never name bytes
// that power loss can take back.
func (t *batch) commit() error {
	s := t.s
	if t.drive {
		s.count.syncs.Add(1)
		if err := s.data.Sync(); err != nil {
			return errs.Wrap(errs.IO, err, "store: cannot sync the drive")
		}
	}
	if t.b.Empty() {
		return nil
	}
	s.commits.n++
	s.count.batches.Add(1)
	t.b.Set([]byte{keyCommits}, binary.LittleEndian.AppendUint64(nil, s.commits.n), nil)
	return s.ix.commit(t.b, t.sync)
}

// publish makes visible what the batch made durable.
func (t *batch) publish(o *op) {
	s := t.s
	switch o.kind {
	case opPut:
		n := runsLen(o.rec.runs)
		s.alloc.Lock()
		s.alloc.taken -= n
		s.alloc.live += n
		s.alloc.Unlock()
		s.publish(o.key, o.rec.runs)
		s.count.puts.Add(1)
		s.count.putBytes.Add(uint64(o.rec.len))
	case opDelete:
		t.publishDeletes(o)
	}
}

// raise makes epochs visible.
func (s *Store) raise(m map[ids.NamespaceID]ids.Epoch) {
	if len(m) == 0 {
		return
	}
	s.epochs.Lock()
	defer s.epochs.Unlock()
	for ns, e := range m {
		s.epochs.m[ns] = e
	}
}

// checkEpoch is the fence: an epoch below high is refused. A repair with epoch 0 passes: maintenance
// owns nothing, adds only fragments of committed puts, and is fenced by the manifest it amends.
func checkEpoch(ns ids.NamespaceID, e, high ids.Epoch, c layout.Class) error {
	if e >= high || (e == 0 && c == layout.ClassRepair) {
		return nil
	}
	return errs.New(errs.Refused, "store: namespace %v is at epoch %d; epoch %d comes too late", ns, high, e)
}

// HighestEpoch is the highest epoch seen for a namespace; 0 = none.
func (s *Store) HighestEpoch(ns ids.NamespaceID) ids.Epoch {
	s.epochs.RLock()
	defer s.epochs.RUnlock()
	return s.epochs.m[ns]
}

// Fence refuses, from its return on and for ever, puts to ns with an epoch below e. errs.Refused: a
// higher epoch is known already. It blocks; not for loops.
func (s *Store) Fence(ns ids.NamespaceID, e ids.Epoch) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if err := s.healthy(); err != nil {
		return err
	}
	return s.commits.do(&op{kind: opFence, ns: ns, rec: fragRecord{epoch: e}})
}
