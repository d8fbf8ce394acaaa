package proxy

import (
	"context"
	"errors"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/meta"
)

// Causes that callers tell apart with errors.Is.
var (
	// ErrFenced: a higher epoch owns the namespace. Kind Refused. Stop writing.
	ErrFenced = errors.New("another epoch owns the namespace")
	// ErrCondemned: garbage collection condemned the put before its commit. Kind Canceled. Put again.
	ErrCondemned = errors.New("the put id is condemned")
)

// casMax is how often a compare-and-swap is tried before its caller hears Busy.
const casMax = 16

func fenced(ns ids.NamespaceID, epoch ids.Epoch) error {
	return errs.Wrap(errs.Refused, ErrFenced, "proxy: namespace %d, epoch %d", ns, epoch)
}

// conflict is the index of the assertion that refused a transaction; -1 if err is something else.
func conflict(err error) int {
	var c *meta.Conflict
	if errors.As(err, &c) {
		return c.Index
	}
	return -1
}

// assertOwner claims that epoch owns ns. Always the first claim of a Txn: conflict 0 is the fence.
func assertOwner(t *meta.Txn, ns ids.NamespaceID, epoch ids.Epoch) *meta.Txn {
	return t.HasValue(nsKey(keyOwner, ns), encodeCell(keyOwner, uint64(epoch)))
}

// cell reads a number; absent is 0 with version 0.
func (px *Proxy) cell(ctx context.Context, kind byte, ns ids.NamespaceID) (uint64, meta.Version, error) {
	b, ver, err := px.opts.Meta.Get(ctx, nsKey(kind, ns))
	if errs.Of(err) == errs.Absent {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	v, err := decodeCell(kind, b)
	return v, ver, err
}

// setCell changes a number that had version ver (0: absent).
func setCell(t *meta.Txn, kind byte, ns ids.NamespaceID, ver meta.Version, value uint64) *meta.Txn {
	k := nsKey(kind, ns)
	if ver == 0 {
		t.Absent(k)
	} else {
		t.HasVersion(k, ver)
	}
	return t.Put(k, encodeCell(kind, value))
}

// Owner is the epoch that owns a namespace. Errors: Absent if nobody ever took it or it is deleted.
func (px *Proxy) Owner(ctx context.Context, ns ids.NamespaceID) (ids.Epoch, error) {
	v, _, err := px.cell(ctx, keyOwner, ns)
	if err != nil {
		return 0, err
	}
	if v == 0 || ids.Epoch(v) == epochGone {
		return 0, errs.New(errs.Absent, "proxy: namespace %d has no owner", ns)
	}
	return ids.Epoch(v), nil
}

// TakeOwnership raises the namespace's epoch by one and returns it: from then on everything of a lower epoch
// is refused. Whether the caller may is decided above. Condemnations of lower epochs are forgotten, since
// the fence stops the commits they were made to stop. Errors: Refused if the namespace is deleted, Busy if
// others take it all the time.
func (px *Proxy) TakeOwnership(ctx context.Context, ns ids.NamespaceID) (ids.Epoch, error) {
	return px.TakeOwnershipBeyond(ctx, ns, 0)
}

// TakeOwnershipBeyond is TakeOwnership that leaves out some epochs, for a caller who cannot rule out that those
// were used and forgotten.
func (px *Proxy) TakeOwnershipBeyond(ctx context.Context, ns ids.NamespaceID, skip uint64) (ids.Epoch, error) {
	for range casMax {
		v, ver, err := px.cell(ctx, keyOwner, ns)
		if err != nil {
			return 0, err
		}
		if ids.Epoch(v) == epochGone {
			return 0, errs.New(errs.Refused, "proxy: namespace %d is deleted", ns)
		}
		t := setCell(new(meta.Txn), keyOwner, ns, ver, v+1+skip)
		if ver == 0 {
			if err := px.beginOrder(ctx, t, ns); err != nil {
				return 0, err
			}
		}
		err = px.opts.Meta.Apply(ctx, t)
		if errs.Of(err) == errs.Refused {
			continue
		}
		if err != nil {
			return 0, err
		}
		epoch := ids.Epoch(v + 1 + skip)
		return epoch, px.forgetCondemned(ctx, ns, epoch)
	}
	return 0, errs.New(errs.Busy, "proxy: namespace %d changes owners faster than it can be taken", ns)
}

// forgetCondemned drops the condemnations that precede epoch. Puts of the new epoch have not begun.
func (px *Proxy) forgetCondemned(ctx context.Context, ns ids.NamespaceID, epoch ids.Epoch) error {
	return px.dropAll(ctx, nsKey(keyCondemned, ns), func(t *meta.Txn) { assertOwner(t, ns, epoch) })
}

// dropAll deletes every key with a prefix, some per transaction; claim adds what each one asserts.
func (px *Proxy) dropAll(ctx context.Context, prefix []byte, claim func(*meta.Txn)) error {
	for {
		list, err := px.opts.Meta.Scan(ctx, prefix, nil, meta.OpsMax)
		if err != nil || len(list) == 0 {
			return err
		}
		t := new(meta.Txn)
		claim(t)
		for _, e := range list {
			t.Delete(e.Key)
		}
		if err := px.opts.Meta.Apply(ctx, t); err != nil {
			return err
		}
	}
}
