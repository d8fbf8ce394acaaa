package node

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// An epoch is durable in the metadata store before it is used, and each ASD remembers the highest that it saw
// puts of. A higher one there tells that the store lost its newest records, so that it takes what was committed
// since for garbage. An ASD that does not answer says nothing: it may be the one that knows.

// errOldStore is the cause where an ASD has seen an epoch that the metadata store does not know.
var errOldStore = errors.New("the metadata store lost its newest records; `vstor fsck --manifests --repair` " +
	"rebuilds it from the ASDs")

// epochTimeout bounds the question: ASDs answer it from memory.
const epochTimeout = 5 * time.Second

// highestEpoch is the highest epoch that the drive has seen of a namespace; 0: none. The error says why nobody
// knows.
func (d *drive) highestEpoch(ctx context.Context, ns ids.NamespaceID) (ids.Epoch, error) {
	switch {
	case d.remote != nil:
		ctx, cancel := context.WithTimeout(ctx, epochTimeout)
		defer cancel()
		return d.remote.HighestEpoch(ctx, ns)
	case d.store != nil:
		return d.store.HighestEpoch(ns), nil
	}
	return 0, d.err
}

// seenEpochs is what the drives say of a namespace.
type seenEpochs struct {
	by     []ids.Epoch // of each drive; 0 also if it does not answer
	enough bool        // so many answered that none they do not know of has committed anything
}

// askEpochs asks all drives at once. A drive that is up and does not answer may yet, so without it they are
// not enough.
func (n *Node) askEpochs(ctx context.Context, ns ids.NamespaceID) seenEpochs {
	s := seenEpochs{by: make([]ids.Epoch, len(n.drives))}
	fail := make([]error, len(n.drives))
	var wait sync.WaitGroup
	for i, d := range n.drives {
		wait.Add(1)
		go func() {
			defer wait.Done()
			s.by[i], fail[i] = d.highestEpoch(ctx, ns)
		}()
	}
	wait.Wait()
	answered, silent := 0, 0
	for i, d := range n.drives {
		if fail[i] == nil {
			answered++
		} else if _, err := d.stat(); err == nil {
			silent++
		}
	}
	s.enough = silent == 0 && answered >= n.epochQuorum()
	return s
}

// epochQuorum is how many ASDs must have answered: an object is committed once c of a chunk's fragments are
// written, each on an ASD of its own, so of n - m ASDs (n - c + 1 where c is not beyond m) one has one.
func (n *Node) epochQuorum() int {
	need := 1
	for _, p := range n.cfg.Policies {
		need = max(need, len(n.drives)-min(int(p.M), int(p.C)-1))
	}
	return need
}

// checkEpoch compares the epoch that the metadata store knows with those that the ASDs have seen. It comes
// before the vDisk is taken: taking it would make the two agree. If not enough ASDs answered, skip is how
// many epochs to leave out, so that one who answers later can be told to have seen a lost epoch, not this one.
func (n *Node) checkEpoch(ctx context.Context, r record) (owner ids.Epoch, skip uint64, err error) {
	owner, err = n.proxy.Owner(ctx, r.ID)
	if err != nil && errs.Of(err) != errs.Absent {
		return 0, 0, err
	}
	seen := n.askEpochs(ctx, r.ID)
	for i, e := range seen.by {
		if e > owner {
			return 0, 0, n.oldStore(r, i, e, owner)
		}
	}
	if !seen.enough {
		skip = 1 + rand.Uint64N(margin)
	}
	return owner, skip, nil
}

func (n *Node) oldStore(r record, i int, seen, known ids.Epoch) error {
	return errs.Wrap(errs.Corrupt, errOldStore, "ASD %d has seen epoch %d of vDisk %s, the metadata store knows only %d",
		n.drives[i].id, seen, r.Name, known)
}

// epochsFit asks the drives about a vDisk that is open, for its garbage to be collected: whether enough
// answered, and whether one has seen an epoch that is neither the vDisk's nor one before it was opened.
func (n *Node) epochsFit(ctx context.Context, d *vdisk) (enough bool, err error) {
	seen := n.askEpochs(ctx, d.ID)
	for i, e := range seen.by {
		if e > d.before && e != d.epoch {
			return false, n.oldStore(d.record, i, e, d.before)
		}
	}
	return seen.enough, nil
}

// unseen reports whether no drive that answers has seen anything of a number that a new vDisk is to get. If one
// has, the number is somebody else's: of a vDisk that an older copy of the metadata store does not know.
func (n *Node) unseen(ctx context.Context, ns ids.NamespaceID) bool {
	for _, e := range n.askEpochs(ctx, ns).by {
		if e != 0 {
			return false
		}
	}
	return true
}
