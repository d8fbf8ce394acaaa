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
// there: with them its map can be made again from nothing. It is set together with the vDisk's record: set later, a
// crash between the two leaves a vDisk that never opens. No floor at all says nothing: the metadata was made again
// by fsck.
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

// dropFloor forgets the floor of a vDisk that is gone.
func (o *objects) dropFloor(ctx context.Context, ns ids.NamespaceID) error {
	var t meta.Txn
	t.Delete(floorKey(ns))
	return o.meta.Apply(ctx, &t)
}
