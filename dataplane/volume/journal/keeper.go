package journal

import (
	"vstor/dataplane/errs"
	"vstor/dataplane/ring"
)

// keeper does by the clock what no request asks for: it sees that completed records get a durable mark
// behind them in the log, and that segments nobody needs are freed.
//
// Marks ride on records. A log that falls silent, or whose client never flushes, has records at its end
// that no later header vouches for: should one of them rot, replay would take it for a torn tail. So,
// MarkAfter behind the first such record, an fdatasync is made, and if no other record carries its
// result, one without entries does. Then the keeper sleeps: an idle journal does nothing.
type keeper struct {
	j       *Journal
	timer   ring.Timer
	sync    Sync
	syncing bool
	wanted  bool   // a record that carries target is to be written even if nothing else waits
	data    uint64 // last completed record with entries
	mark    uint64 // highest durable mark in a completed record
	target  uint64 // what the mark under way is to reach
}

func (k *keeper) init(j *Journal) {
	k.j = j
	k.timer.Fire = k.fire
	k.sync.Done = k
	k.data, k.mark = j.next-1, j.next-1 // Attach syncs them, and the root says so
}

// completed books a record that ended well.
func (k *keeper) completed(r *record) {
	k.mark = max(k.mark, r.durable)
	if r.entries.head != nil {
		k.data = r.number
	}
	if k.data > k.mark && !k.syncing && !k.wanted {
		k.arm()
	}
}

func (k *keeper) arm() {
	if k.j.opt.MarkAfter > 0 && !k.timer.Armed() && k.j.failed == nil && k.j.closer == nil {
		k.j.loop.After(&k.timer, k.j.opt.MarkAfter)
	}
}

func (k *keeper) stop() { k.j.loop.StopTimer(&k.timer) }

func (k *keeper) fire() {
	j := k.j
	if j.failed != nil || j.st != running {
		return
	}
	if j.segs.pending() > 0 {
		j.roots.begin(rootTrim)
	}
	if k.data <= k.mark || k.syncing || k.wanted {
		return
	}
	k.target, k.syncing = k.data, true
	j.syncs.add(&k.sync)
}

// JournalSynced goes on once the records are durable.
func (k *keeper) JournalSynced(s *Sync) {
	k.syncing = false
	if s.Err != errs.OK || k.j.closer != nil {
		return
	}
	k.wanted = k.mark < k.target
	k.j.wake()
}

// carried is told of the mark in each record that leaves.
func (k *keeper) carried(durable uint64) {
	if durable >= k.target {
		k.wanted = false
	}
}
