package store

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

func isError(err, target error) bool { return errors.Is(err, target) }

func random64() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}

// Format makes an empty store: an index in opts.Dir, whatever was there before, then the superblocks.
// A drive that holds a superblock, even a damaged one, is refused unless opts.Force says otherwise. A
// crash within Format leaves a drive that is formatted or is not.
func Format(opts Options) error {
	opts = opts.withDefaults()
	if err := opts.Validate(); err != nil {
		return err
	}
	if opts.Data.Size() < MinSize {
		return tooSmall(&opts)
	}
	if opts.UUID == ([16]byte{}) {
		return errs.New(errs.Invalid, "store: Format needs a UUID that is not all zeros")
	}
	if old, _, err := ReadSuperblock(opts.Data); errs.Of(err) != errs.Absent && !opts.Force {
		if err == nil {
			return errs.New(errs.Exists, "store: the drive holds ASD %d (%x) already", old.ID, old.UUID)
		}
		return errs.Wrap(errs.Of(err), err, "store: the drive is not known to be empty")
	}
	sb := Superblock{
		UUID: opts.UUID, Deployment: opts.Deployment, ID: opts.ID, State: StateClean,
		Size: opts.Data.Size() &^ (blockSize - 1), Start: dataStart, Incarnation: 1, Nonce: random64(),
		FormatNonce: random64(), Created: opts.Now().UnixNano(),
	}
	if _, err := opts.FS.Stat(opts.Dir); err == nil {
		if err := notInUse(opts.FS, opts.Dir); err != nil {
			return err
		}
	}
	if err := opts.FS.RemoveAll(opts.Dir); err != nil {
		return errs.Wrap(errs.IO, err, "store: cannot clear the index folder %s", opts.Dir)
	}
	ix, err := openIndex(&opts, true)
	if err != nil {
		return err
	}
	if err := ix.setMeta(metaOf(&sb)); err != nil {
		ix.close()
		return err
	}
	if err := ix.close(); err != nil {
		return err
	}
	return writeSuperblock(opts.Data, &sb)
}

func tooSmall(o *Options) error {
	return errs.New(errs.Invalid, "store: the data file has %d bytes; it needs at least %d", o.Data.Size(), MinSize)
}

func metaOf(sb *Superblock) *meta {
	return &meta{uuid: sb.UUID, formatNonce: sb.FormatNonce, inc: sb.Incarnation, nonce: sb.Nonce}
}

// Open opens a formatted store. It reads the index and not the drive, but for the superblocks. Errors
// name what does not fit: errs.Absent (not formatted, no index), errs.Corrupt (damaged, or an index and
// a drive that do not belong together), errs.Version, errs.Refused (another drive than expected),
// errs.Busy (in use), errs.IO.
func Open(opts Options) (*Store, error) {
	opts = opts.withDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	sb, whole, err := ReadSuperblock(opts.Data)
	if err != nil && opts.Data.Size() < MinSize {
		err = tooSmall(&opts) // else checkIdentity knows how long it was
	}
	if err != nil {
		return nil, err
	}
	if err := checkIdentity(&opts, &sb); err != nil {
		return nil, err
	}
	ix, err := openIndex(&opts, false)
	if err != nil {
		return nil, err
	}
	s := newStore(opts, sb, ix)
	if err := s.start(whole); err != nil {
		for len(s.scratch) > 0 {
			(<-s.scratch).free()
		}
		ix.close()
		return nil, err
	}
	return s, nil
}

func newStore(opts Options, sb Superblock, ix *index) *Store {
	s := &Store{opts: opts, data: opts.Data, sb: sb, ix: ix}
	for i := range s.shards {
		s.shards[i].frags = map[ramKey]entry{}
		s.shards[i].multi = map[ramKey][]run{}
		s.shards[i].orphans = map[uint64]uint32{}
	}
	s.initPuts()
	s.epochs.m = map[ids.NamespaceID]ids.Epoch{}
	s.scratch = make(chan *scratch, opts.Scratch)
	return s
}

// checkIdentity compares the drive with what the caller expects.
func checkIdentity(opts *Options, sb *Superblock) error {
	var none [16]byte
	switch {
	case sb.ID != opts.ID:
		return errs.New(errs.Refused, "store: this is the drive of ASD %d where that of ASD %d belongs: put the drives, "+
			"or their folders, back in their places; nothing was changed", sb.ID, opts.ID)
	case opts.UUID != none && sb.UUID != opts.UUID:
		return errs.New(errs.Refused, "store: the drive of ASD %d has UUID %x where %x belongs: it is another drive of "+
			"that number; bring the right one back", sb.ID, sb.UUID, opts.UUID)
	case opts.Deployment != none && sb.Deployment != opts.Deployment:
		return errs.New(errs.Refused, "store: this drive is ASD %d of deployment %x; here is deployment %x: bring the "+
			"right drive back", sb.ID, sb.Deployment, opts.Deployment)
	case opts.Data.Size() < sb.Size:
		return errs.New(errs.Corrupt, "store: the drive of ASD %d has %d bytes and was formatted with %d: it was "+
			"truncated; bring all of it back, or, if the rest is lost, make the file that long again (`truncate -s %d`) "+
			"and run `vstor asd rebuild-index %d`: what is lost is then written again from the other ASDs",
			sb.ID, opts.Data.Size(), sb.Size, sb.Size, sb.ID)
	}
	return nil
}

// start checks that index and drive belong together, loads the index, and takes a new incarnation.
func (s *Store) start(whole bool) error {
	m, err := s.checkPair()
	if err != nil {
		return err
	}
	if err := s.load(); err != nil {
		return err
	}
	for range s.opts.Scratch {
		c, err := newScratch()
		if err != nil {
			return err
		}
		s.scratch <- c
	}
	if s.opts.ReadOnly {
		s.failure.Store(&errs.Error{Kind: errs.Refused, Msg: "store: the drive was opened for reading only"})
		return nil
	}
	if !whole {
		s.count.healed.Add(1)
	}
	if err := s.incarnate(m); err != nil {
		return err
	}
	s.openBallast()
	s.commits.start(s)
	return nil
}

// checkPair compares the index with the superblock.
func (s *Store) checkPair() (*meta, error) {
	v, err := s.get([]byte{keyMeta})
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, errs.New(errs.Corrupt, "store: the index of ASD %d is not complete, a rebuild of it did not end: "+
			"run `vstor asd rebuild-index %d` again", s.sb.ID, s.sb.ID)
	}
	m, err := decodeMeta(v)
	if err != nil {
		return nil, err
	}
	if m.uuid != s.sb.UUID || m.formatNonce != s.sb.FormatNonce {
		return nil, errs.New(errs.Corrupt, "store: beside the drive of ASD %d (%x) lies the index of another (%x): put "+
			"the index folders back in their places; if its own is lost, %s", s.sb.ID, s.sb.UUID, m.uuid, s.opts.rebuildHint())
	}
	now := m.inc == s.sb.Incarnation && m.nonce == s.sb.Nonce
	next := m.nextInc != 0 && m.nextInc == s.sb.Incarnation && m.nextNonce == s.sb.Nonce
	if !now && !next {
		which := "one of them is a copy"
		if m.inc != s.sb.Incarnation {
			which = "the index is an old copy"
			if m.inc > s.sb.Incarnation {
				which = "the drive is an old copy"
			}
		}
		return nil, errs.New(errs.Corrupt, "store: ASD %d: the drive was opened %d times (last %016x), its index %d "+
			"(%016x): %s; bring the right one back, or else %s, and what the drive lacks is written again from "+
			"the other ASDs", s.sb.ID, s.sb.Incarnation, s.sb.Nonce, m.inc, m.nonce, which, s.opts.rebuildHint())
	}
	if v, err = s.get([]byte{keyCommits}); err != nil {
		return nil, err
	}
	if len(v) == 8 {
		s.commits.n = binary.LittleEndian.Uint64(v)
	}
	if n := s.commits.n; n < s.sb.Commits || (s.sb.State == StateClean && n != s.sb.Commits) {
		return nil, errs.New(errs.Corrupt, "store: ASD %d: the index holds %d commits, the drive was left "+
			"with %d: the index lost its tail or is an old copy; %s", s.sb.ID, n, s.sb.Commits, s.opts.rebuildHint())
	}
	return &m, nil
}

// get reads one record of the index; nil if there is none.
func (s *Store) get(key []byte) ([]byte, error) {
	v, c, err := s.ix.db.Get(key)
	if err == pebble.ErrNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, s.indexReadError(err)
	}
	v = append([]byte{}, v...)
	return v, c.Close()
}

func (s *Store) indexReadError(err error) error {
	kind := errs.IO
	if pebble.IsCorruptionError(err) {
		kind = errs.Corrupt
	}
	return errs.Wrap(kind, err, "store: cannot read the index of ASD %d", s.sb.ID)
}

// incarnate announces the next incarnation in the index, writes it to the drive, and confirms it in the
// index. Wherever a crash falls, the superblock's incarnation is the index's or the announced one. An
// index that merely accepted the drive's being one ahead would accept an old copy of either half too.
func (s *Store) incarnate(m *meta) error {
	m.inc, m.nonce = s.sb.Incarnation, s.sb.Nonce
	m.nextInc, m.nextNonce = m.inc+1, random64()
	if err := s.ix.setMeta(m); err != nil {
		return err
	}
	s.sb.Incarnation, s.sb.Nonce = m.nextInc, m.nextNonce
	s.sb.State, s.sb.Commits = StateDirty, s.commits.n
	if err := writeSuperblock(s.data, &s.sb); err != nil {
		return err
	}
	return s.ix.setMeta(metaOf(&s.sb))
}

// load fills the RAM from the index and makes free what nothing names.
func (s *Store) load() error {
	start, end := uint64(s.sb.Start>>blockShift), uint64(s.sb.Size>>blockShift)
	var used []run
	err := s.each(keyFrag, func(k, v []byte) error {
		key, ok := layout.ParseFragKey(k)
		rec, err := decodeFragRecord(v)
		if err == nil && (!ok || len(k) != layout.FragKeySize) {
			err = errs.New(errs.Corrupt, "store: the index has a fragment key of %d bytes", len(k))
		}
		if err != nil {
			return err
		}
		used = append(used, rec.runs...)
		s.publish(packKey(key), rec.runs)
		s.alloc.live += runsLen(rec.runs)
		return nil
	})
	if err != nil {
		return err
	}
	if used, err = s.loadRest(used); err != nil {
		return err
	}
	err = s.each(keyEpoch, func(k, v []byte) error {
		if len(k) != 8 || len(v) != 8 {
			return errs.New(errs.Corrupt, "store: the index has an epoch that cannot be")
		}
		s.epochs.m[ids.NamespaceID(binary.BigEndian.Uint64(k))] = ids.Epoch(binary.LittleEndian.Uint64(v))
		return nil
	})
	if err != nil {
		return err
	}
	free, at, ok := gaps(used, start, end)
	if !ok {
		return errs.New(errs.Corrupt, "store: the index of ASD %d has a wrong claim on block %d: it is taken "+
			"twice or not on the drive; %s", s.sb.ID, at, s.opts.rebuildHint())
	}
	s.alloc.capacity = end - start
	s.alloc.space = newSpace()
	for _, r := range free {
		s.alloc.add(r)
	}
	return nil
}

// gaps returns what lies between used, which it sorts, in [start, end). false: the claim on block at
// overlaps another or the ends.
func gaps(used []run, start, end uint64) (free []run, at uint64, ok bool) {
	slices.SortFunc(used, func(a, b run) int { return cmp.Compare(a.start, b.start) })
	for _, r := range used {
		if r.start < start || r.n == 0 || r.start > end || r.n > end-r.start {
			return nil, r.start, false
		}
		if r.start > start {
			free = append(free, run{start, r.start - start})
		}
		start = r.end()
	}
	if start < end {
		free = append(free, run{start, end - start})
	}
	return free, 0, true
}

// each calls f with every record of a kind, its key without the first byte. The slices are f's until
// it returns.
func (s *Store) each(kind byte, f func(key, value []byte) error) error {
	it, err := s.ix.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kind}, UpperBound: []byte{kind + 1}})
	if err != nil {
		return s.indexReadError(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err == nil {
			err = f(it.Key()[1:], v)
		} else {
			err = s.indexReadError(err)
		}
		if err != nil {
			it.Close()
			return err
		}
	}
	if err := it.Close(); err != nil {
		return s.indexReadError(err)
	}
	return nil
}

// Close waits for the calls that are under way, commits what waits, and marks the drive clean. Later
// calls answer errs.Closed; pins may be given back after it. Data stays open.
func (s *Store) Close() error {
	s.users.Lock()
	again := s.users.closing
	s.users.closing = true
	s.users.Unlock()
	if again {
		return nil
	}
	s.closed.Store(true)
	s.users.Wait()
	if !s.opts.ReadOnly {
		s.commits.stop()
	}
	for range s.opts.Scratch {
		(<-s.scratch).free()
	}
	failed := s.healthy() != nil
	if err := s.ix.close(); err != nil || failed {
		return err // the drive stays marked dirty, or, opened for reading only, as it was
	}
	s.sb.State, s.sb.Commits = StateClean, s.commits.n
	return writeSuperblock(s.data, &s.sb)
}
