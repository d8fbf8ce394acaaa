package pagemap

import (
	"github.com/cockroachdb/pebble/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/lsm"
)

// readRecords reads checkpoint, SCOs and counts; false if there is no checkpoint, so nothing at all.
func (m *Map) readRecords() (found bool, err error) {
	it, err := m.db.p.NewIter(&pebble.IterOptions{
		LowerBound: key(m.opts.ID, 0, 0), UpperBound: key(m.opts.ID, tablePage, 0)})
	if err != nil {
		return false, lsm.ReadError(err, "records")
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return false, lsm.ReadError(err, "records")
		}
		is, err := m.readRecord(it.Key()[8], keyNumber(it.Key()), v)
		if m.db.parsed(err) != nil {
			return false, err
		}
		found = found || is
	}
	if err := it.Error(); err != nil {
		return false, lsm.ReadError(err, "records")
	}
	if !found && len(m.live.all) > 0 {
		return false, errs.New(errs.Corrupt, "%d SCOs and no checkpoint", len(m.live.all))
	}
	return found, nil
}

// readRecord takes one record in; true if it is the checkpoint. SCOs come before their counts.
func (m *Map) readRecord(table byte, number uint64, v []byte) (checkpoint bool, err error) {
	id := m.opts.ID
	var f frame
	switch table {
	case tableCheckpoint:
		if f, err = openFrame(v, magicCheckpoint, id, number); err == nil {
			m.ckpt, err = f.checkpoint()
		}
		if err == nil && m.ckpt.Size > SizeMax {
			err = errs.New(errs.Corrupt, "checkpoint of a vDisk of %d blocks: at most %d", m.ckpt.Size, SizeMax)
		}
		return true, err
	case tableSCO:
		if f, err = openFrame(v, magicSCO, id, number); err != nil {
			return false, err
		}
		s, err := f.sco()
		if err == nil {
			m.live.all[s.Num] = &sco{SCO: s}
			m.flush.stored.inUse[uint32(s.Num)/groupSCOs]++
		}
		return false, err
	case tableCounts:
		if f, err = openFrame(v, magicCounts, id, number); err != nil {
			return false, err
		}
		c := m.flush.stored.group(uint32(number))
		if err := f.counts(c); err != nil {
			return false, err
		}
		for i, n := range c {
			if n == 0 {
				continue
			}
			s := m.live.all[ids.SCONum(number*groupSCOs+uint64(i))]
			if s == nil {
				return false, errs.New(errs.Corrupt, "%d blocks in SCO %d, which has no record",
					n, number*groupSCOs+uint64(i))
			}
			s.base = n
		}
		return false, nil
	}
	return false, errs.New(errs.Version, "a record in table %#x, which this build does not know", table)
}
