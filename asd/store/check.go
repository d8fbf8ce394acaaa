package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// CheckReport is what Check found.
type CheckReport struct {
	Fragments   int
	Bytes       int64            // verified payload
	HalfDeleted []layout.FragKey // a crash cut their delete off; deleting again ends it
	Corrupt     []layout.FragKey
	Problems    []string // contradictions within the index, and between it and RAM; at most 100
}

// OK reports whether nothing is wrong. A half deleted fragment is not wrong.
func (r *CheckReport) OK() bool { return len(r.Problems) == 0 && len(r.Corrupt) == 0 }

func (r *CheckReport) problem(format string, args ...any) {
	if len(r.Problems) < 100 {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
}

// Check compares index, RAM and free space: every block belongs to exactly one fragment, rest or free
// run, and both indexes agree. With data it also reads and verifies every fragment. Changes wait while
// the first part runs, reads do not. The error is a failure to look, not what was found.
func (s *Store) Check(ctx context.Context, data bool) (*CheckReport, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	r := &CheckReport{}
	keys, err := s.checkIndex(r)
	if err != nil || !data {
		return r, err
	}
	for _, key := range keys {
		switch err := s.verify(ctx, key); errs.Of(err) {
		case errs.OK:
		case errs.Absent:
			if _, _, ok := s.lookup(packKey(key)); ok {
				r.HalfDeleted = append(r.HalfDeleted, key)
			}
		case errs.Corrupt:
			r.Corrupt = append(r.Corrupt, key)
		default:
			return r, err
		}
	}
	return r, nil
}

func (s *Store) checkIndex(r *CheckReport) ([]layout.FragKey, error) {
	s.commits.cycle.Lock()
	defer s.commits.cycle.Unlock()
	s.alloc.Lock()
	defer s.alloc.Unlock()
	var keys []layout.FragKey
	used := s.alloc.runs()
	free := runsLen(used)
	err := s.each(keyFrag, func(k, v []byte) error {
		key, _ := layout.ParseFragKey(k)
		rec, err := decodeFragRecord(v)
		if err != nil {
			return err
		}
		if _, rs, ok := s.lookup(packKey(key)); !ok || !slices.Equal(rs, rec.runs) {
			r.problem("fragment %v: RAM says %v, the index %v", key, rs, rec.runs)
		}
		used = append(used, rec.runs...)
		r.Bytes += int64(rec.len)
		keys = append(keys, key)
		return nil
	})
	if err != nil {
		return nil, err
	}
	r.Fragments = len(keys)
	live := runsLen(used) - free
	n := 0
	for i := range s.shards {
		s.shards[i].mu.Lock()
		n += len(s.shards[i].frags)
		s.shards[i].mu.Unlock()
	}
	if n != len(keys) {
		r.problem("RAM holds %d fragments, the index %d", n, len(keys))
	}
	resting, err := s.checkRest(r, &used)
	if err != nil {
		return nil, err
	}
	s.checkSums(r, used, live, resting, free)
	return keys, nil
}

// checkRest compares the space at rest with its records and appends it to used.
func (s *Store) checkRest(r *CheckReport, used *[]run) (uint64, error) {
	records := map[uint64]uint64{}
	err := s.each(keyRest, func(k, v []byte) error {
		rs, _, err := decodeRest(v)
		if err == nil && len(k) == 8 {
			records[binary.BigEndian.Uint64(k)] = runsLen(rs)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	s.rest.Lock()
	defer s.rest.Unlock()
	var resting uint64
	for _, it := range slices.Concat(s.rest.queue, s.rest.pinned) {
		n := runsLen(it.runs)
		resting += n
		*used = append(*used, it.runs...)
		if it.durable && records[it.runs[0].start] != n {
			r.problem("space at rest %v has no such record", it.runs)
		}
		if it.durable {
			delete(records, it.runs[0].start)
		}
	}
	for start := range records {
		r.problem("the record of rest at block %d is nobody's", start)
	}
	return resting, nil
}

// checkSums compares the counts of blocks and looks for overlaps.
func (s *Store) checkSums(r *CheckReport, used []run, live, resting, free uint64) {
	a := &s.alloc
	if live != a.live || resting != a.resting || free != a.free {
		r.problem("blocks live %d, resting %d, free %d; counted %d, %d, %d", a.live, a.resting, a.free,
			live, resting, free)
	}
	rest, at, ok := gaps(used, uint64(s.sb.Start>>blockShift), uint64(s.sb.Size>>blockShift))
	if !ok {
		r.problem("block %d has two owners or none on this drive", at)
		return
	}
	if n := runsLen(rest); n != a.taken+a.aside {
		r.problem("%d blocks belong to nobody; puts under way have %d, set aside are %d", n, a.taken, a.aside)
	}
}
