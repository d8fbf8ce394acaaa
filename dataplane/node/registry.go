package node

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

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
}

type registry struct{ meta meta.Store }

func nameKey(name string) []byte     { return []byte(nameKeys + name) }
func goneKey(id ids.VolumeID) []byte { return []byte(goneKeys + id.String()) }

// add makes a vDisk of a new number. Exists if the name is taken.
func (g registry) add(ctx context.Context, r record) (record, error) {
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
		r.ID = ids.VolumeID(id)
		value, err := json.Marshal(r)
		if err != nil {
			return r, err
		}
		txn.Absent(nameKey(r.Name))
		txn.Put([]byte(nextKey), strconv.AppendUint(nil, id+1, 10))
		txn.Put(nameKey(r.Name), value)
		err = g.meta.Apply(ctx, &txn)
		if errs.Of(err) != errs.Refused {
			return r, err
		}
		if _, _, err := g.meta.Get(ctx, nameKey(r.Name)); err == nil {
			return r, errs.New(errs.Exists, "a vDisk named %s exists already; choose another name or remove it first", r.Name)
		}
	}
}

// list is every vDisk.
func (g registry) list(ctx context.Context) ([]record, error) { return g.scan(ctx, nameKeys) }

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

// remove turns a vDisk into one that is gone: from then on its name is free and its number dead.
func (g registry) remove(ctx context.Context, r record) error {
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	var txn meta.Txn
	txn.Delete(nameKey(r.Name)).Put(goneKey(r.ID), value)
	return g.meta.Apply(ctx, &txn)
}

// forget ends what remove began, once nothing of the vDisk is left.
func (g registry) forget(ctx context.Context, r record) error {
	var txn meta.Txn
	txn.Delete(goneKey(r.ID))
	return g.meta.Apply(ctx, &txn)
}
