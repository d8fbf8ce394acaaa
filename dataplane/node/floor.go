package node

import (
	"context"
	"strconv"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/meta"
)

// The floor of a vDisk's map, in the metadata store: all commits up to it were in the map's database, durably,
// before objects of those commits were deleted. Floor 0 says that every SCO that the vDisk ever had is still
// there: with them its map can be made again from nothing. It is set when a vDisk is opened for the first time.
// No floor at all says nothing: the metadata was made again by fsck.
//
//	vdisk/floor/ID      -> commit, decimal
const floorKeys = "vdisk/floor/"

func floorKey(ns ids.NamespaceID) []byte { return []byte(floorKeys + ns.String()) }

// Floor is 0 if nothing was deleted yet.
func (o *objects) Floor(ctx context.Context, ns ids.NamespaceID) (ids.CommitNum, error) {
	c, _, err := o.floor(ctx, ns)
	return c, err
}

func (o *objects) floor(ctx context.Context, ns ids.NamespaceID) (ids.CommitNum, meta.Version, error) {
	b, version, err := o.meta.Get(ctx, floorKey(ns))
	if errs.Of(err) == errs.Absent {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	c, err := strconv.ParseUint(string(b), 10, 64)
	if err != nil {
		return 0, 0, errs.New(errs.Corrupt, "the floor of vDisk %d's map is %.30q: a commit's number would be right", ns, b)
	}
	return ids.CommitNum(c), version, nil
}

// SetFloor raises the floor; it never sinks.
func (o *objects) SetFloor(ctx context.Context, ns ids.NamespaceID, c ids.CommitNum) error {
	old, version, err := o.floor(ctx, ns)
	if err != nil || c <= old {
		return err
	}
	var t meta.Txn
	if k := floorKey(ns); version == 0 {
		t.Absent(k)
	} else {
		t.HasVersion(k, version)
	}
	t.Put(floorKey(ns), strconv.AppendUint(nil, uint64(c), 10))
	return o.meta.Apply(ctx, &t)
}

// whole reports whether every SCO that the vDisk ever had is still there, and whether that is known.
func (o *objects) whole(ctx context.Context, ns ids.NamespaceID) (whole, known bool, err error) {
	c, version, err := o.floor(ctx, ns)
	return version != 0 && c == 0, version != 0, err
}

// markWhole says so of a vDisk that is opened for the first time.
func (o *objects) markWhole(ctx context.Context, ns ids.NamespaceID) error {
	var t meta.Txn
	t.Absent(floorKey(ns)).Put(floorKey(ns), []byte("0"))
	if err := o.meta.Apply(ctx, &t); errs.Of(err) != errs.Refused {
		return err
	}
	return nil
}

// dropFloor forgets the floor of a vDisk that is gone.
func (o *objects) dropFloor(ctx context.Context, ns ids.NamespaceID) error {
	var t meta.Txn
	t.Delete(floorKey(ns))
	return o.meta.Apply(ctx, &t)
}

// checkEpoch compares the epoch that the metadata store knows with those that the ASDs of this process have seen
// puts of. An epoch is durable before it is used, so a higher one there tells that the store lost its newest
// records. It comes before the vDisk is taken: taking it would make the two agree.
func (n *Node) checkEpoch(ctx context.Context, r record) error {
	owner, err := n.proxy.Owner(ctx, r.ID)
	if err != nil && errs.Of(err) != errs.Absent {
		return err
	}
	for _, d := range n.drives {
		if d.store == nil {
			continue
		}
		if seen := d.store.HighestEpoch(r.ID); seen > owner {
			return errs.New(errs.Corrupt, "ASD %d has seen epoch %d of vDisk %s, the metadata store knows only %d: it lost its "+
				"newest records; `vstor fsck --manifests --repair` rebuilds it from the ASDs", d.id, seen, r.Name, owner)
		}
	}
	return nil
}
