package store

import (
	"encoding/binary"
	"math"
	"slices"
	"time"

	"vstor/dataplane/errs"
)

// A mark says by when what was deleted was found by nobody any more, so that the rest of deleted space goes on over a
// restart. Without one the rest would begin anew with each: an ASD that somebody restarts more often than a rest is
// long would give nothing back, and fill.
//
// The time of the delete itself, in the record of its rest, would not do: a commit takes as long as it takes, until
// it ended the fragment was given out, and a rest that is counted from before ends before the leases do. So a
// record has the number of its commit, and a later batch, which begins when the one before is published, leaves the
// time:
//
//	commit       71       72       73       74       75
//	             delete A          delete B mark 73
//	                               ▲        at 10 s
//	                               └ published before 74 begins: A and B rest from 10 s on at the latest
//
// The clock is CLOCK_BOOTTIME: the wall clock may be set. It begins anew with each boot, so a mark of another boot
// counts for nothing; those rests begin anew, as do those that no mark came after. An ASD must not be moved to another
// time namespace within a boot: its clock may have an offset.
type mark struct {
	commits uint64 // deletes of commits up to this one
	at      int64  // CLOCK_BOOTTIME, ns
}

// markEvery is the least time between marks: a delete seems at most that much younger than it is.
const markEvery = int64(time.Second)

// marks are those of this boot, oldest first: as many as there are seconds in a rest.
type marks struct {
	list  []mark
	dead  []uint64 // of another boot: the next mark takes them away
	owing bool     // something was deleted after the last one
}

// markSize is the length of a mark's value: version u8 = 1, 7 zeros, boot 16 bytes, time i64.
const markSize = 32

func (m mark) encode(boot [16]byte) []byte {
	b := append(make([]byte, 0, markSize), recordVersion, 0, 0, 0, 0, 0, 0, 0)
	return binary.LittleEndian.AppendUint64(append(b, boot[:]...), uint64(m.at))
}

func decodeMark(k, v []byte) (m mark, boot [16]byte, err error) {
	if len(k) != 8 || len(v) != markSize || v[0] != recordVersion || !allZero(v[1:8]) {
		return m, boot, errs.New(errs.Corrupt, "store: the index has a mark of deletes that cannot be")
	}
	at := int64(binary.LittleEndian.Uint64(v[24:]))
	return mark{binary.BigEndian.Uint64(k), at}, [16]byte(v[8:24]), nil
}

func markDBKey(commits uint64) []byte { return binary.BigEndian.AppendUint64([]byte{keyMark}, commits) }

// clocked reports whether rests can go on over a restart.
func (o *Options) clocked() bool {
	return o.Quarantine > 0 && o.BootNow != nil && o.BootID != [16]byte{}
}

// addMark leaves a mark with this batch if deletes before it have none and the last one is old enough, or if this is
// the last batch. Marks older than a rest go: what still rests by one of them has a younger one, which is later.
func (t *batch) addMark(last bool) {
	s, m := t.s, &t.s.marks
	if !m.owing || !s.opts.clocked() {
		return
	}
	now := s.opts.BootNow()
	if n := len(m.list); n > 0 && now-m.list[n-1].at < markEvery && !last {
		return
	}
	for _, n := range m.dead {
		t.b.Delete(markDBKey(n), nil)
	}
	m.dead = m.dead[:0]
	for len(m.list) > 0 && now-m.list[0].at > int64(s.opts.Quarantine) {
		t.b.Delete(markDBKey(m.list[0].commits), nil)
		m.list = slices.Delete(m.list, 0, 1)
	}
	k := mark{s.commits.n, now}
	m.list, m.owing = append(m.list, k), false
	t.b.Set(markDBKey(k.commits), k.encode(s.opts.BootID), nil)
}

// leaveMark is the indexer's last: what an orderly end leaves rests on from here.
func (s *Store) leaveMark() {
	t := &s.commits.batch
	t.reset()
	if s.healthy() != nil {
		return
	}
	s.ballast.watch(s)
	t.addMark(true)
	if err := t.commit(); err != nil {
		s.fail(err, "the last commit")
	}
}

// loadMarks reads the marks of this boot. A time still to come is that of a machine whose clock was put back, as that
// of a virtual one is by a snapshot of it: no mark.
func (s *Store) loadMarks() error {
	return s.each(keyMark, func(k, v []byte) error {
		m, boot, err := decodeMark(k, v)
		if err != nil {
			return err
		}
		if !s.opts.clocked() || boot != s.opts.BootID || m.at > s.opts.BootNow() {
			s.marks.dead = append(s.marks.dead, m.commits)
		} else {
			s.marks.list = append(s.marks.list, m)
		}
		return nil
	})
}

// loadRest reads what rests and appends where it lies to used.
func (s *Store) loadRest(used []run) ([]run, error) {
	if err := s.loadMarks(); err != nil {
		return used, err
	}
	// The boot's clock is read first, and once: what passes between the two, with a process that is stopped there, then
	// lengthens the rests. The other way round, or read anew for each, it would count twice.
	var boot int64
	if s.opts.clocked() {
		boot = s.opts.BootNow()
	}
	now := s.opts.Now()
	err := s.each(keyRest, func(k, v []byte) error {
		rs, commit, err := decodeRest(v)
		if err != nil {
			return err
		}
		used = append(used, rs...)
		s.rest.queue = append(s.rest.queue, restItem{runs: rs, until: now.Add(s.restLeft(commit, boot)),
			number: math.MaxUint64, durable: true})
		s.alloc.resting += runsLen(rs)
		return nil
	})
	slices.SortStableFunc(s.rest.queue, func(a, b restItem) int { return a.until.Compare(b.until) })
	return used, err
}

// restLeft is how long what a commit deleted has still to rest at a time of the boot.
func (s *Store) restLeft(commit uint64, now int64) time.Duration {
	i, _ := slices.BinarySearchFunc(s.marks.list, commit, func(m mark, c uint64) int {
		if m.commits < c {
			return -1
		}
		return 1
	})
	if i == len(s.marks.list) {
		s.marks.owing = true // it rests from now on, and that will be known
		return s.opts.Quarantine
	}
	return max(0, s.opts.Quarantine-time.Duration(now-s.marks.list[i].at))
}
