package proxy

import (
	"context"
	"math"
	"sync"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/meta"
)

// putRange is how many put ids are reserved at once. A crash loses what is left of a range: 4 billion ids
// stand four million crashes.
const putRange = 1024

// namespace is what the proxy remembers of one while it runs.
type namespace struct {
	// maint is held by garbage collection and repair, which would otherwise delete each other's work.
	maint sync.Mutex

	mu        sync.Mutex
	epoch     ids.Epoch // guarded by mu: whose range it is
	next, end uint64    // guarded by mu: put ids reserved and not yet used
}

func (px *Proxy) namespace(ns ids.NamespaceID) *namespace {
	px.mu.Lock()
	defer px.mu.Unlock()
	n := px.namespaces[ns]
	if n == nil {
		n = new(namespace)
		px.namespaces[ns] = n
	}
	return n
}

// takePut returns a put id that was never used before, in this process or another.
func (px *Proxy) takePut(ctx context.Context, ns ids.NamespaceID, epoch ids.Epoch) (ids.PutID, error) {
	n := px.namespace(ns)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next == n.end || n.epoch != epoch {
		first, err := px.reserve(ctx, keyPuts, ns, epoch, putRange)
		if err != nil {
			return 0, err
		}
		n.epoch, n.next, n.end = epoch, first, first+putRange
	}
	n.next++
	return ids.PutID(n.next - 1), nil
}

// ReserveSCOs reserves n SCO numbers, durably, and returns the first; the caller uses each at most once
// and none in another epoch. Errors: Refused with ErrFenced, Full after 4 billion.
func (px *Proxy) ReserveSCOs(ctx context.Context, ns ids.NamespaceID, epoch ids.Epoch, n int) (ids.SCONum, error) {
	if n < 1 || n > 1<<20 {
		return 0, errs.New(errs.Invalid, "proxy: reserve %d SCO numbers; give between 1 and %d", n, 1<<20)
	}
	first, err := px.reserve(ctx, keySCOs, ns, epoch, uint64(n))
	return ids.SCONum(first), err
}

func (px *Proxy) reserve(ctx context.Context, kind byte, ns ids.NamespaceID, epoch ids.Epoch, n uint64) (
	uint64, error) {
	for range casMax {
		next, ver, err := px.cell(ctx, kind, ns)
		if err != nil {
			return 0, err
		}
		next = max(next, 1) // 0 is no SCO and no put
		if next+n-1 > math.MaxUint32 {
			return 0, errs.New(errs.Full, "proxy: namespace %d has used up its 4 billion numbers", ns)
		}
		err = px.opts.Meta.Apply(ctx, setCell(assertOwner(new(meta.Txn), ns, epoch), kind, ns, ver, next+n))
		switch {
		case err == nil:
			return next, nil
		case conflict(err) == 0:
			return 0, fenced(ns, epoch)
		case conflict(err) < 0:
			return 0, err
		}
	}
	return 0, errs.New(errs.Busy, "proxy: numbers of namespace %d are reserved elsewhere all the time", ns)
}
