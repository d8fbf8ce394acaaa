package pagemap

import (
	"slices"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
)

const (
	// absorbMin and absorbPerPage say when moving the checkpoint is cheap: so many blocks were applied
	// since the last time, for each page that is dirty. Flushing a page costs up to 4 KB read and
	// written; 75 blocks are 300 KB: 1.3 %.
	absorbMin     = 64 << 10
	absorbPerPage = 75

	// syncBatches bounds the batches that dead SCOs wait for, if write back never pauses.
	syncBatches = 16

	// fullPause is how long write back waits for room in the file system before it looks again.
	fullPause = 500 * time.Millisecond
)

// flusher is write back: who wants what, and the batch under way.
type flusher struct {
	busy    bool // a job is under way
	asking  bool // a ticket was asked for
	stalled bool // the last batch failed: wait for a Commit, or for someone to ask
	closing bool

	cursor   PageNo        // where the next sweep goes on
	target   ids.CommitNum // a sweep of our own moves the checkpoint up to here; 0: none
	absorbed int           // blocks applied since the last such sweep began
	waits    []*wait
	bad      map[PageNo]error // pages whose base is corrupt: left alone until someone asks

	regs             []reg
	regsIn, regsDone uint64
	stored           *stored
	unsynced         int // batches since the last Sync began
}

// wait is a caller of FlushAll or FlushPages.
type wait struct {
	target ids.CommitNum
	regs   uint64   // of flusher.regsIn that must be stored
	pages  []PageNo // not yet in a batch
	tried  bool     // a batch was built since
	done   func(error)
}

func (f *flusher) init() {
	f.bad = make(map[PageNo]error)
	f.stored = &stored{groups: make(map[uint32]*[groupSCOs]uint32), inUse: make(map[uint32]int)}
}

func (m *Map) addReg(r reg) {
	m.flush.regs = append(m.flush.regs, r)
	m.flush.regsIn++
}

// FlushAll brings everything applied so far, up to the last Commit, into the base pages, durably, and
// calls done. Errors: Corrupt if a base page could not be merged (all others were), IO, Closed.
func (m *Map) FlushAll(done func(error)) {
	m.await(&wait{target: m.commits.ended, regs: m.flush.regsIn, done: done})
}

// FlushPages does so for the given pages alone; counts of SCOs that lie in no other page are exact then.
// The slice belongs to m from now on.
func (m *Map) FlushPages(pages []PageNo, done func(error)) {
	slices.Sort(pages)
	m.await(&wait{pages: slices.Compact(pages), done: done})
}

func (m *Map) await(w *wait) {
	invariants.Assert(!m.flush.closing, "map %d is closed", m.opts.ID)
	m.flush.waits = append(m.flush.waits, w)
	m.flush.stalled = false
	clear(m.flush.bad)
	m.pump()
}

// pump begins the next batch if one is wanted and none is under way.
func (m *Map) pump() {
	f := &m.flush
	if f.busy || f.asking || f.closing {
		return
	}
	m.endWaits()
	if !m.wantsBatch() {
		m.autoSync()
		return
	}
	f.asking = true
	m.flying++
	granted := func() {
		m.opts.Poster.PostFunc(func() {
			m.landed(func() { m.granted() })
		})
	}
	if m.db.ticket(granted) {
		m.flying--
		m.granted()
	}
}

// endWaits takes out the waits that have all they want in the database, and makes that durable.
func (m *Map) endWaits() {
	f := &m.flush
	f.waits = slices.DeleteFunc(f.waits, func(w *wait) bool {
		if len(w.pages) > 0 || m.ckpt.Commit < w.target || f.regsDone < w.regs {
			return false
		}
		m.syncing.next = append(m.syncing.next, w.done)
		return true
	})
	m.startSync()
}

// wantsBatch decides. In this order: someone waits; the checkpoint lags too far, or moving it is cheap;
// RAM is short.
func (m *Map) wantsBatch() bool {
	f := &m.flush
	if f.stalled {
		return false
	}
	if len(f.waits) > 0 {
		return true
	}
	if f.target <= m.ckpt.Commit {
		f.target = 0
	}
	redo := m.commits.ended - m.ckpt.Commit
	if f.target == 0 && redo > 0 {
		switch {
		case redo > ids.CommitNum(m.opts.RedoMax):
			f.target = m.commits.ended - ids.CommitNum(m.opts.RedoMax/2)
			m.stats.Sweeps++
		case f.absorbed >= max(absorbMin, absorbPerPage*m.dirtyUnits):
			f.target, f.absorbed = m.commits.ended, 0
			m.stats.Sweeps++
		}
	}
	return f.target != 0 || m.dirtyUnits > len(f.bad) && m.opts.Budget.pressed()
}

// granted builds a batch: a ticket is ours.
func (m *Map) granted() {
	f := &m.flush
	f.asking = false
	j := m.db.newJob()
	if !f.closing {
		m.build(j)
	}
	if f.closing || len(j.pages) == 0 && len(j.ranges) == 0 && j.ckpt.Commit == m.ckpt.Commit && len(j.regs) == 0 {
		m.spawn(func() func() {
			m.db.giveBack()
			m.db.freeJob(j)
			return m.nothingToFlush
		})
		f.busy = true
		return
	}
	f.busy = true
	m.spawn(func() func() {
		j.run(m.db)
		m.db.giveBack()
		return func() { m.flushed(j) }
	})
}

// nothingToFlush follows a look that found nothing. Whoever waited before it and still does, waits for a
// corrupt page.
func (m *Map) nothingToFlush() {
	f := &m.flush
	f.busy = false
	if f.closing {
		return
	}
	m.endWaits()
	f.target = 0
	f.stalled = !slices.ContainsFunc(f.waits, func(w *wait) bool { return !w.tried })
	m.failWaits(m.badPage(), func(w *wait) bool { return w.tried })
	m.maintain()
}

// badPage is the error of a corrupt page.
func (m *Map) badPage() error {
	for _, err := range m.flush.bad {
		return err
	}
	return errs.New(errs.IO, "map %d cannot be flushed", m.opts.ID)
}

// failWaits answers the waits that which picks.
func (m *Map) failWaits(err error, which func(*wait) bool) {
	var failed []*wait
	m.flush.waits = slices.DeleteFunc(m.flush.waits, func(w *wait) bool {
		if which(w) {
			failed = append(failed, w)
			return true
		}
		return false
	})
	for _, w := range failed {
		w.done(err)
	}
}

// build fills the job with what is most wanted.
func (m *Map) build(j *job) {
	f := &m.flush
	j.id, j.ns, j.tombstones, j.asked = m.opts.ID, m.opts.NS, m.opts.Tombstones, len(f.waits) > 0
	b := m.opts.Budget
	j.keep = b.Used()+int64(m.opts.PagesPerFlush)*baseBytes < b.limit/4*3
	target := f.target
	listed := false
	for _, w := range f.waits {
		w.tried = true
		target = max(target, w.target)
		if len(w.pages) > 0 {
			listed = true
			w.pages = m.gatherList(j, w.pages)
		}
	}
	switch {
	case target > m.ckpt.Commit:
		m.gather(j, func(u *unit, _ *node) bool { return u.low <= target })
	case !listed && b.pressed():
		m.gatherDense(j)
	}
	j.regs = f.regs
	f.regs = nil
	j.commit, j.stored = m.commits.ended, f.stored
	j.ckpt = Checkpoint{Commit: m.commits.reach(), Seq: m.ckpt.Seq, Size: m.size}
	if j.ckpt.Commit > m.ckpt.Commit {
		j.ckpt.Seq = m.commits.seq(j.ckpt.Commit)
	}
}

// gatherDense takes, in address order, pages with at least half the mean number of deltas. Address order
// alone would do for uniform writes: the pages ahead of the sweep were left alone longest and have twice
// the mean. The bound keeps a skewed load from paying a page for a single delta.
func (m *Map) gatherDense(j *job) {
	least := m.deltas / max(1, m.dirtyUnits) / 2
	m.gather(j, func(_ *unit, n *node) bool { return n == nil || n.count() >= least })
}

// flushed takes the outcome of a job.
func (m *Map) flushed(j *job) {
	f := &m.flush
	f.busy = false
	if j.err != nil {
		m.restore(j)
	} else {
		m.complete(j)
	}
	err, corrupt := j.err, j.corrupt
	m.db.freeJob(j)
	if f.closing {
		return
	}
	switch {
	case corrupt:
		// All but that page can go on; whoever waits for pages by name waits for this one, or near it.
		m.failWaits(err, func(w *wait) bool { return w.target == 0 })
	case err != nil:
		f.stalled = true
		m.failWaits(err, func(*wait) bool { return true })
		if errs.Of(err) == errs.Full {
			m.tryLater()
		}
	}
	m.maintain()
}

// tryLater looks again in a while whether there is room: where RAM is short no Commit comes that would.
func (m *Map) tryLater() {
	m.spawn(func() func() {
		time.Sleep(fullPause)
		return func() {
			if !m.flush.closing {
				m.flush.stalled = false
				m.maintain()
			}
		}
	})
}

// syncer makes batches durable.
type syncer struct {
	running bool
	next    []func(error)
}

// Sync makes durable what batches have written so far, and calls done.
func (m *Map) Sync(done func(error)) {
	m.syncing.next = append(m.syncing.next, done)
	m.startSync()
}

// autoSync makes dead SCOs ready for TakeEmpty, once per pause of write back.
func (m *Map) autoSync() {
	if m.flush.unsynced > 0 && !m.syncing.running && len(m.live.eligible(m.ckpt.Commit)) > 0 {
		m.sync()
	}
}

func (m *Map) startSync() {
	if len(m.syncing.next) > 0 && !m.syncing.running {
		m.sync()
	}
}

func (m *Map) sync() {
	s := &m.syncing
	s.running = true
	waiting := s.next
	s.next = nil
	m.flush.unsynced = 0
	covers, dead := m.ckpt.Commit, m.live.eligible(m.ckpt.Commit)
	m.spawn(func() func() {
		err := m.db.Sync()
		return func() {
			s.running = false
			if err == nil {
				m.durable = max(m.durable, covers)
				m.releaseDead(dead)
			}
			if len(m.live.empty) > 0 && m.opts.OnEmpty != nil && !m.flush.closing {
				m.opts.OnEmpty()
			}
			for _, done := range waiting {
				done(err)
			}
			if !m.flush.closing {
				m.startSync()
			}
		}
	})
}
