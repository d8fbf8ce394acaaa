package store

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

type counters struct {
	puts, putBytes, gets, deletes, syncs, batches, full atomic.Uint64
	corrupt, readErrors, writeErrors, healed            atomic.Uint64
}

// Stat is the state of a store at a moment. Sizes are in bytes and include headers.
type Stat struct {
	ID          ids.ASDID
	UUID        [16]byte
	Deployment  [16]byte
	Incarnation uint64 // goes up with every Open; a lower one than seen before is an old copy

	Capacity    int64 // = Used + Quarantined + InFlight + SetAside + Free
	Used        int64 // live fragments
	Quarantined int64 // deleted, not yet free
	InFlight    int64 // puts under way, and those whose commit failed
	SetAside    int64 // a write there failed; out of use until reopened
	Free        int64
	Reserve     int64 // of Free, what client puts cannot have
	FreeRuns    int
	Fragments   int

	Puts, PutBytes, Gets, Deletes    uint64
	Syncs, Batches, Full             uint64
	Corrupt, ReadErrors, WriteErrors uint64
	HealedSuperblocks                uint64
	Failed                           string // why the store takes no change; empty: it does
}

// Stat reads the state. It takes short locks and does no IO.
func (s *Store) Stat() Stat {
	st := Stat{
		ID: s.sb.ID, UUID: s.sb.UUID, Deployment: s.sb.Deployment, Incarnation: s.sb.Incarnation,
		Reserve: s.opts.Reserve,
		Puts:    s.count.puts.Load(), PutBytes: s.count.putBytes.Load(), Gets: s.count.gets.Load(),
		Deletes: s.count.deletes.Load(), Syncs: s.count.syncs.Load(), Batches: s.count.batches.Load(),
		Full: s.count.full.Load(), Corrupt: s.count.corrupt.Load(),
		ReadErrors: s.count.readErrors.Load(), WriteErrors: s.count.writeErrors.Load(),
		HealedSuperblocks: s.count.healed.Load(),
	}
	if e := s.failure.Load(); e != nil {
		st.Failed = e.Error()
	}
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		st.Fragments += len(sh.frags)
		sh.mu.Unlock()
	}
	if !s.opts.ReadOnly && s.rest.due(s.opts.Now()) && s.enter() == nil {
		s.commits.post(&op{kind: opRelease}) // so that an idle drive reports its space free, next time
		s.leave()
	}
	a := &s.alloc
	a.Lock()
	defer a.Unlock()
	st.Capacity, st.Used = int64(a.capacity<<blockShift), int64(a.live<<blockShift)
	st.Quarantined, st.InFlight = int64(a.resting<<blockShift), int64(a.taken<<blockShift)
	st.SetAside, st.Free = int64(a.aside<<blockShift), int64(a.free<<blockShift)
	st.FreeRuns = len(a.byStart)
	return st
}

// Info is what the index knows of a fragment.
type Info = layout.FragInfo

// maxList bounds one answer of List.
const maxList = 10000

// List returns, in key order, up to limit fragments behind after; the zero key begins at the first.
// limit is at most 10000, which 0 means too. Fewer than limit is the end. It blocks; not for loops.
func (s *Store) List(after layout.FragKey, limit int) ([]Info, error) {
	return s.list(after, []byte{keyFrag + 1}, limit)
}

// ListNamespace is List of one namespace. An after outside of it begins at its first fragment.
func (s *Store) ListNamespace(ns ids.NamespaceID, after layout.FragKey, limit int) ([]Info, error) {
	if after.Namespace != ns {
		after = layout.FragKey{Namespace: ns} // SCO 0 is no SCO: before all
	}
	upper := fragDBKey(layout.FragKey{Namespace: ns + 1})
	if ns+1 == 0 {
		upper = []byte{keyFrag + 1}
	}
	return s.list(after, upper, limit)
}

func (s *Store) list(after layout.FragKey, upper []byte, limit int) ([]Info, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	if limit <= 0 || limit > maxList {
		limit = maxList
	}
	it, err := s.ix.db.NewIter(&pebble.IterOptions{LowerBound: append(fragDBKey(after), 0),
		UpperBound: upper})
	if err != nil {
		return nil, s.indexReadError(err)
	}
	defer it.Close()
	var out []Info
	for ok := it.First(); ok && len(out) < limit; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return nil, s.indexReadError(err)
		}
		key, ok := layout.ParseFragKey(it.Key()[1:])
		rec, err := decodeFragRecord(v)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, errs.New(errs.Corrupt, "store: the index has a key of %d bytes", len(it.Key()))
		}
		out = append(out, Info{Key: key, Len: rec.len, Sum: rec.sum, Epoch: rec.epoch, Class: rec.class,
			Time: rec.time})
	}
	if err := it.Error(); err != nil {
		return nil, s.indexReadError(err)
	}
	return out, nil
}
