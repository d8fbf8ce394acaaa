package node

import (
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/meta"
)

// The registry of vDisks in the metadata store, as JSON: few records, read by people in need.
//
//	vdisk/name/NAME    -> record                 the vDisk exists
//	vdisk/gone/ID      -> record                 it was removed, what it left is being deleted
//	vdisk/next         -> number                 the next id; ids are never used again
const (
	nameKeys = "vdisk/name/"
	goneKeys = "vdisk/gone/"
	nextKey  = "vdisk/next"
)

// record is what is known of a vDisk by name.
type record struct {
	Name    string       `json:"name"`
	ID      ids.VolumeID `json:"id"`
	Size    int64        `json:"size_bytes"`
	Loop    int          `json:"loop"`
	SCOSize int64        `json:"sco_size_bytes"`
	Created time.Time    `json:"created"`
	// Foreign says of one that is gone that it never was: ASDs have something of its number, which is not known
	// to be anybody's garbage. It stays among those that are gone, so that none takes it for a removed one's.
	Foreign bool `json:"foreign,omitempty"`
	// Since version 2 of the second copy: what `vstor vdisk set` says.
	ReadOnly bool     `json:"read_only,omitempty"`
	Allow    []string `json:"allow,omitempty"` // words of an access list; none: open to all
	// What a program that does not know these does without them is slower, and not wrong.
	NoCache         bool  `json:"no_cache,omitempty"`
	BlockCacheQuota int64 `json:"block_cache_quota_bytes,omitempty"`    // of each tier; 0: the deployment's default
	FragCacheQuota  int64 `json:"fragment_cache_quota_bytes,omitempty"` // 0: the same
}

// A second copy of it lies in DIR/vdisks.json: see registryfile.go.
type registry struct {
	meta meta.Store
	fs   vfs.FS
	dir  string
	// kept is held while the copy is made, from the look at the store to the rename: the end of a removal runs beside
	// whatever comes next, and of two that share a file one would find it gone, or put an older list over a newer one.
	kept *sync.Mutex
}

func nameKey(name string) []byte     { return []byte(nameKeys + name) }
func goneKey(id ids.VolumeID) []byte { return []byte(goneKeys + id.String()) }

// passedOver bounds the numbers that add tries: it takes ever longer steps.
const passedOver = 20

// add makes a vDisk of a new number that is free. Exists if the name is taken.
func (g registry) add(ctx context.Context, r record, free func(context.Context, ids.VolumeID) bool) (record, error) {
	for {
		var txn meta.Txn
		next, version, err := g.meta.Get(ctx, []byte(nextKey))
		switch {
		case errs.Of(err) == errs.Absent:
			next = []byte("1")
			txn.Absent([]byte(nextKey))
		case err != nil:
			return r, err
		default:
			txn.HasVersion([]byte(nextKey), version)
		}
		id, err := strconv.ParseUint(string(next), 10, 64)
		if err != nil {
			return r, errs.Wrap(errs.Corrupt, err, "the next vDisk number is %q", next)
		}
		step := uint64(1)
		for ; !free(ctx, ids.VolumeID(id)); step *= 2 {
			if step == 1<<passedOver {
				return r, errs.New(errs.Corrupt, "ASDs have something of vDisk numbers up to %d, which the metadata store never "+
					"gave out; `vstor fsck --manifests --repair` finds the next one", id)
			}
			if err := foreign(&txn, ids.VolumeID(id)); err != nil {
				return r, err
			}
			id += step
		}
		r.ID = ids.VolumeID(id)
		value, err := json.Marshal(r)
		if err != nil {
			return r, err
		}
		txn.Absent(nameKey(r.Name))
		txn.Put([]byte(nextKey), strconv.AppendUint(nil, id+1, 10))
		txn.Put(nameKey(r.Name), value)
		txn.Put(floorKey(r.ID), []byte("0"))
		err = g.meta.Apply(ctx, &txn)
		if err == nil {
			return r, g.keepAdded(ctx, r)
		}
		if errs.Of(err) != errs.Refused {
			return r, err
		}
		if _, _, err := g.meta.Get(ctx, nameKey(r.Name)); err == nil {
			return r, errs.New(errs.Exists, "a vDisk named %s exists already; choose another name or remove it first", r.Name)
		}
	}
}

// foreign notes a number that was passed over.
func foreign(txn *meta.Txn, id ids.VolumeID) error {
	value, err := json.Marshal(foreignRecord(id))
	txn.Put(goneKey(id), value)
	return err
}

func foreignRecord(id ids.VolumeID) record {
	return record{Name: "foreign-" + id.String(), ID: id, Foreign: true}
}

// list is every vDisk.
func (g registry) list(ctx context.Context) ([]record, error) { return g.scan(ctx, nameKeys) }

// next is the number of the next vDisk.
func (g registry) next(ctx context.Context) (ids.VolumeID, error) {
	b, _, err := g.meta.Get(ctx, []byte(nextKey))
	if errs.Of(err) == errs.Absent {
		return 1, nil
	}
	if err != nil {
		return 0, err
	}
	id, err := strconv.ParseUint(string(b), 10, 64)
	if err != nil {
		return 0, errs.Wrap(errs.Corrupt, err, "the next vDisk number is %q", b)
	}
	return ids.VolumeID(id), nil
}

// gone is every vDisk whose remains are not all deleted yet.
func (g registry) gone(ctx context.Context) ([]record, error) { return g.scan(ctx, goneKeys) }

func (g registry) scan(ctx context.Context, prefix string) ([]record, error) {
	var out []record
	var after []byte
	for {
		entries, err := g.meta.Scan(ctx, []byte(prefix), after, 1000)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			var r record
			if err := json.Unmarshal(e.Value, &r); err != nil {
				return nil, errs.Wrap(errs.Corrupt, err, "the record of vDisk %q", e.Key)
			}
			out = append(out, r)
			after = e.Key
		}
		if len(entries) < 1000 {
			return out, nil
		}
	}
}

// change alters what is known of a vDisk. When it returns that is durable, in both copies; after an error it is as
// it was, or the error says that it is not.
func (g registry) change(ctx context.Context, name string, alter func(*record)) (record, error) {
	value, version, err := g.meta.Get(ctx, nameKey(name))
	if err != nil {
		return record{}, err
	}
	var r record
	if err := json.Unmarshal(value, &r); err != nil {
		return r, errs.Wrap(errs.Corrupt, err, "the record of vDisk %q", name)
	}
	alter(&r)
	changed, err := json.Marshal(r)
	if err != nil {
		return r, err
	}
	var txn meta.Txn
	txn.HasVersion(nameKey(name), version).Put(nameKey(name), changed)
	if err := g.meta.Apply(ctx, &txn); err != nil {
		return r, err
	}
	if err = g.keep(ctx); err != nil {
		var back meta.Txn
		if rerr := g.meta.Apply(context.WithoutCancel(ctx), back.Put(nameKey(name), value)); rerr != nil {
			err = errs.Wrap(errs.Of(err), err, "%v; and it cannot be taken back", rerr)
		}
	}
	return r, err
}

// remove turns a vDisk into one that is gone: from then on its name is free and its number dead.
func (g registry) remove(ctx context.Context, r record) error {
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	var txn meta.Txn
	txn.Delete(nameKey(r.Name)).Put(goneKey(r.ID), value)
	if err := g.meta.Apply(ctx, &txn); err != nil {
		return err
	}
	// A full file system must not keep a vDisk from being removed: the copy is made again at the next
	// change or start, and till then names one too many, which a start can tell.
	_ = g.keep(ctx)
	return nil
}

// forget ends what remove began, once nothing of the vDisk is left.
func (g registry) forget(ctx context.Context, r record) error {
	var txn meta.Txn
	txn.Delete(goneKey(r.ID))
	if err := g.meta.Apply(ctx, &txn); err != nil {
		return err
	}
	_ = g.keep(ctx)
	return nil
}
