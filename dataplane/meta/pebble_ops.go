package meta

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/lsm"
)

func userKey(key []byte) []byte {
	out := make([]byte, 0, 1+len(key))
	return append(append(out, userPrefix), key...)
}

func splitValue(v []byte) ([]byte, Version, error) {
	if len(v) < 8 {
		return nil, 0, errs.New(errs.Corrupt, "meta: value of %d bytes has no version", len(v))
	}
	return v[8:], Version(binary.LittleEndian.Uint64(v)), nil
}

// Get implements Store.
func (p *Pebble) Get(ctx context.Context, key []byte) ([]byte, Version, error) {
	leave, err := p.enter(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer leave()
	if err := checkKey(key); err != nil {
		return nil, 0, err
	}
	v, err := p.raw(userKey(key))
	if kind := errs.Of(err); kind != errs.OK && kind != errs.Absent {
		return nil, 0, err
	}
	if err := p.waitSeen(); err != nil {
		return nil, 0, err
	}
	if err != nil {
		return nil, 0, errs.New(errs.Absent, "meta: there is no key %q", key)
	}
	return splitValue(v)
}

// Scan implements Store.
func (p *Pebble) Scan(ctx context.Context, prefix, after []byte, limit int) ([]Entry, error) {
	leave, err := p.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if limit <= 0 || limit > ScanMax {
		return nil, errs.New(errs.Invalid, "meta: scan of %d entries; give between 1 and %d", limit, ScanMax)
	}
	lower := userKey(prefix)
	bounds := pebble.IterOptions{LowerBound: lower, UpperBound: prefixEnd(lower)}
	if len(after) > 0 && string(after) >= string(prefix) {
		bounds.LowerBound = append(userKey(after), 0)
	}
	it, err := p.db.NewIterWithContext(ctx, &bounds)
	if err != nil {
		return nil, readError(err)
	}
	var out []Entry
	for ok := it.First(); ok && len(out) < limit; ok = it.Next() {
		v, ver, err := splitValue(it.Value())
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		out = append(out, Entry{slices.Clone(it.Key()[1:]), slices.Clone(v), ver})
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return nil, readError(err)
	}
	return out, p.waitSeen()
}

// prefixEnd is the first key behind all that start with prefix. The prefix starts with userPrefix, so
// there is one.
func prefixEnd(prefix []byte) []byte {
	end := slices.Clone(prefix)
	for end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	end[len(end)-1]++
	return end
}

// Apply implements Store.
func (p *Pebble) Apply(ctx context.Context, t *Txn) error {
	leave, err := p.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if err := t.Validate(); err != nil {
		return err
	}
	if p.opts.ReadOnly {
		return errs.New(errs.Refused, "meta: store was opened for reading only")
	}
	batch, rev, err := p.lookAndChange(t)
	if err != nil {
		// What refused the transaction may not be durable yet; the caller acts on it, so wait.
		return errors.Join(err, p.waitSeen())
	}
	if batch == nil { // only asserts
		return p.waitSeen()
	}
	err = batch.SyncWait()
	if err == nil {
		err = batch.Close()
	}
	if err == nil {
		err = p.guard.LogErr() // pebble is not told of it
	}
	return p.synced(rev, err)
}

// lookAndChange checks the asserts and puts the changes into memtable and log, as one.
func (p *Pebble) lookAndChange(t *Txn) (*pebble.Batch, Version, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.healthy(); err != nil {
		return nil, 0, err
	}
	for i := range t.Asserts {
		if err := p.assert(i, &t.Asserts[i]); err != nil {
			return nil, 0, err
		}
	}
	if len(t.Puts)+len(t.Deletes) == 0 {
		return nil, 0, nil
	}
	if err := p.room(t); err != nil {
		return nil, 0, err
	}
	rev := p.rev + 1
	b := p.db.NewBatch()
	mark := p.guard.Manifest()
	if err := fillBatch(b, t, rev, mark); err != nil {
		return nil, 0, errs.Wrap(errs.IO, err, "meta: batch")
	}
	// Before the change can be seen, so that whoever sees it waits for it.
	p.durable.mu.Lock()
	p.durable.next = rev
	p.durable.mu.Unlock()
	if err := p.db.ApplyNoSyncWait(b, pebble.Sync); err != nil {
		p.fail = errs.Wrap(errs.IO, err, "meta: write")
		p.durable.mu.Lock()
		p.durable.err = p.fail
		p.durable.cond.Broadcast()
		p.durable.mu.Unlock()
		return nil, 0, p.fail
	}
	p.rev, p.marked = rev, mark
	return b, rev, nil
}

// healthy is nil while transactions can be made. REQUIRES: p.mu is held.
func (p *Pebble) healthy() error {
	if p.fail != nil {
		return p.fail
	}
	if err := p.guard.Damage(); err != nil {
		p.fail = repairable(err)
	}
	return p.fail
}

// smallTxn is how many bytes a transaction may add while space is short: numbers, names and owners, whose
// keys are few.
const smallTxn = 512

// room is nil if there is room for t. What deletes something, or adds next to nothing, passes until even the
// ballast may be gone: it gives space back, or goes before what does.
func (p *Pebble) room(t *Txn) error {
	size := 0
	for _, put := range t.Puts {
		size += len(put.Key) + len(put.Value)
	}
	if len(t.Deletes) > 0 || size <= smallTxn {
		return p.guard.LastRoom()
	}
	return p.guard.Room()
}

func (p *Pebble) assert(i int, a *Assert) error {
	raw, err := p.raw(userKey(a.Key))
	exists := err == nil
	if !exists && errs.Of(err) != errs.Absent {
		return err
	}
	var value []byte
	var ver Version
	if exists {
		if value, ver, err = splitValue(raw); err != nil {
			return err
		}
	}
	if a.Holds(exists, value, ver) {
		return nil
	}
	return errs.Wrap(errs.Refused, &Conflict{Index: i, Assert: *a, Exists: exists}, "meta: transaction refused")
}

func fillBatch(b *pebble.Batch, t *Txn, rev Version, mark lsm.Mark) error {
	for _, put := range t.Puts {
		v := make([]byte, 0, 8+len(put.Value))
		v = binary.LittleEndian.AppendUint64(v, uint64(rev))
		if err := b.Set(userKey(put.Key), append(v, put.Value...), nil); err != nil {
			return err
		}
	}
	for _, key := range t.Deletes {
		if err := b.Delete(userKey(key), nil); err != nil {
			return err
		}
	}
	if err := b.Set(keyManifest, appendMark(nil, mark), nil); err != nil {
		return err
	}
	return b.Set(keyVersion, binary.LittleEndian.AppendUint64(nil, uint64(rev)), nil)
}

// synced notes the end of a transaction's sync. The log is one sequence: a sync that covers rev covers
// all before it. A failed one fails the Store for good, because what pebble holds in memory and what
// lies on the drive are no longer the same.
func (p *Pebble) synced(rev Version, err error) error {
	if err != nil {
		err = errs.Wrap(errs.IO, err, "meta: sync")
		p.mu.Lock()
		p.fail = err
		p.mu.Unlock()
	}
	p.durable.mu.Lock()
	defer p.durable.mu.Unlock()
	if err != nil {
		p.durable.err = err
	} else {
		p.durable.rev = max(p.durable.rev, rev)
		p.voucher.arm(p)
	}
	p.durable.cond.Broadcast()
	return err
}

// waitSeen waits until everything that was in the memtable when it was called survives power loss. The
// writers of those changes wait for the very sync it needs, so it ends when they do.
func (p *Pebble) waitSeen() error {
	p.durable.mu.Lock()
	defer p.durable.mu.Unlock()
	seen := p.durable.next
	for p.durable.rev < seen && p.durable.err == nil {
		p.durable.cond.Wait()
	}
	return p.durable.err
}
