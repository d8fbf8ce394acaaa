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
	err   error      // why it is refused
	put   *putting   // is told the answer
	done  chan error // the same, of capacity 1; neither: nobody waits
	next  *op
}

// opList is a queue of ops through their own links.
type opList struct {
	head, tail *op
	items      int // fragments, and ops without any
}

func (q *opList) push(o *op) {
	o.next = nil
	if q.head == nil {
		q.head = o
	} else {
		q.tail.next = o
	}
	q.tail = o
	q.items += 1 + len(o.dels)
}

// join appends all of p.
func (q *opList) join(p opList) {
	if q.head == nil {
		*q = p
	} else if p.head != nil {
		q.tail.next, q.tail = p.head, p.tail
		q.items += p.items
	}
}

// pop takes the first ops, of at most max items but at least one op.
func (q *opList) pop(max int) (out opList) {
	for o := q.head; o != nil && out.items < max; o = q.head {
		q.head = o.next
		q.items -= 1 + len(o.dels)
		out.push(o)
	}
	return out
}

// maxBatch bounds the fragments of one batch: it must stay small beside Pebble's memtable.
const maxBatch = 4096

// committer makes things durable and visible, in this order, by two goroutines: the syncer, who syncs the drive
// for all that wait, and the indexer, who then commits them to the index. So the drive is synced for the
// next batch while the index takes the one before. All that changes what is visible happens in the indexer, one
// batch after the other.
//
//	post ─► queue ─► syncer: one Sync of the drive ─► synced ─► indexer: one batch, publish, answer
//
// Each takes all that waits for it when it has done the last: at most one Sync and one commit are under way.
type committer struct {
	mu struct {
		sync.Mutex
		wake    sync.Cond // of the syncer
		ready   sync.Cond // of the indexer
		queue   opList    // bounded, as synced is, by the callers: each waits for its own
		synced  opList
		closing bool
		dry     bool // the syncer has ended
	}
	// cycle is held while a batch is under way; Check takes it to see a state between two.
	cycle sync.Mutex
	n     uint64 // commits; the indexer's
	batch batch  // the indexer's
	ended chan struct{}
}

func (c *committer) start(s *Store) {
	c.mu.wake.L, c.mu.ready.L = &c.mu.Mutex, &c.mu.Mutex
	c.ended = make(chan struct{})
	c.batch = batch{s: s, b: s.ix.db.NewBatch(), epochs: map[ids.NamespaceID]ids.Epoch{}, gone: map[uint64]bool{}}
	go func() {
		for ops := c.next(); ops.head != nil; ops = c.next() {
			s.syncFor(ops)
			c.handOver(ops)
		}
		c.handOver(opList{})
	}()
	go func() {
		defer close(c.ended)
		defer c.batch.b.Close()
		for ops := c.nextSynced(); ops.head != nil; ops = c.nextSynced() {
			s.runCycle(ops)
		}
		s.leaveMark()
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
	c.mu.queue.push(o)
	c.mu.Unlock()
	c.mu.wake.Signal()
}

// next is the syncer's next batch; empty: stopped, and nothing is left.
func (c *committer) next() opList {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.mu.queue.head == nil {
		if c.mu.closing {
			return opList{}
		}
		c.mu.wake.Wait()
	}
	return c.mu.queue.pop(maxBatch)
}

// handOver gives the indexer what was synced; nothing means that nothing will follow.
func (c *committer) handOver(ops opList) {
	c.mu.Lock()
	c.mu.synced.join(ops)
	c.mu.dry = ops.head == nil
	c.mu.Unlock()
	c.mu.ready.Signal()
}

// nextSynced is the indexer's next batch; empty: there will be none.
func (c *committer) nextSynced() opList {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.mu.synced.head == nil {
		if c.mu.dry {
			return opList{}
		}
		c.mu.ready.Wait()
	}
	return c.mu.synced.pop(maxBatch)
}

// syncFor syncs the drive if ops need it: what they wrote there before they were posted becomes durable.
// The order matters: the index must never name bytes that power loss can take back.
func (s *Store) syncFor(ops opList) {
	for o := ops.head; o != nil; o = o.next {
		if o.kind == opPut || o.kind == opDelete {
			s.count.syncs.Add(1)
			if err := s.data.Sync(); err != nil {
				s.fail(errs.Wrap(errs.IO, err, "store: cannot sync the drive"), "a commit")
			}
			return
		}
	}
}

// batch is what one cycle does; used again.
type batch struct {
	s      *Store
	b      *pebble.Batch
	now    time.Time
	epochs map[ids.NamespaceID]ids.Epoch // raised in this batch
	gone   map[uint64]bool               // first blocks of what it deletes
	free   []restItem                    // whose rest ends with it
	sync   bool                          // somebody waits for durability
	key    []byte                        // scratch
	value  []byte
}

// runCycle makes ops, for which the drive was synced, durable with one batch, then visible, then answers.
func (s *Store) runCycle(ops opList) {
	c := &s.commits
	c.cycle.Lock()
	defer c.cycle.Unlock()
	if err := s.healthy(); err != nil {
		answer(ops, err)
		return
	}
	s.ballast.watch(s)
	t := &c.batch
	t.reset()
	for o := ops.head; o != nil; o = o.next {
		o.err = t.add(o)
	}
	t.addRest()
	t.addMark(false)
	if err := t.commit(); err != nil {
		s.fail(err, "a commit")
		for _, it := range t.free {
			s.rest.add(it)
		}
		answer(ops, s.healthy())
		return
	}
	for o := ops.head; o != nil; o = o.next {
		if o.err == nil {
			t.publish(o)
		}
	}
	s.raise(t.epochs)
	s.release(t.free)
	s.releaseDue(t.now) // what needs no record: no quarantine, no pins
	answer(ops, nil)
}

func (t *batch) reset() {
	t.b.Reset()
	t.now, t.sync = t.s.opts.Now(), false
	if len(t.epochs)+len(t.gone) > 0 { // a clear goes through all that a map ever held
		clear(t.epochs)
		clear(t.gone)
	}
	clear(t.free)
	t.free = t.free[:0]
}

// answer tells the callers. all, if not nil, is the answer to those that were not refused: after a
// failed commit an op that would have been refused is refused all the same.
func answer(ops opList, all error) {
	for o := ops.head; o != nil; {
		next, err := o.next, o.err // o is somebody else's in a moment
		if err == nil {
			err = all
		}
		switch {
		case o.put != nil:
			o.put.committed(err)
		case o.done != nil:
			o.done <- err
		}
		o = next
	}
}

// add puts the records of o into the batch, or says why not.
func (t *batch) add(o *op) error {
	switch o.kind {
	case opPut:
		if err := t.raise(o.frag.Namespace, o.rec.epoch, o.class); err != nil {
			return err
		}
		t.sync = true
		t.key, t.value = o.frag.Append(append(t.key[:0], keyFrag)), o.rec.append(t.value[:0])
		t.b.Set(t.key, t.value, nil)
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
	t.epochs[ns] = e
	t.sync = true
	t.b.Set(epochDBKey(ns), binary.LittleEndian.AppendUint64(nil, uint64(e)), nil)
	return nil
}

// commit commits the batch, unless there is nothing in it.
func (t *batch) commit() error {
	s := t.s
	if t.b.Empty() {
		return nil
	}
	s.commits.n++
	s.count.batches.Add(1)
	t.value = binary.LittleEndian.AppendUint64(t.value[:0], s.commits.n)
	t.b.Set(append(t.key[:0], keyCommits), t.value, nil)
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
