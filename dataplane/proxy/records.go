package proxy

import (
	"context"
	"encoding/binary"
	"maps"
	"slices"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/meta"
)

// What follows looks at a namespace's records, and sets them right, while nobody uses it: it asserts no owner
// and no version. For fsck.

// Cell is a number of a namespace as the metadata store has it.
type Cell struct {
	Value uint64
	Err   error // Absent, or why it cannot be read
}

// Object is what is remembered of a committed object while a namespace is looked at.
type Object struct {
	Put               ids.PutID
	Kind              layout.ObjectKind
	Epoch             ids.Epoch
	Commit            ids.CommitNum
	SeqFirst, SeqLast ids.Seq
}

// ObjectOf is a manifest's Object.
func ObjectOf(m *layout.Manifest) Object {
	return Object{Put: m.Put, Kind: m.Kind, Epoch: m.Epoch, Commit: m.Commit, SeqFirst: m.SeqFirst, SeqLast: m.SeqLast}
}

// Records is all that the metadata store says of a namespace, but for the manifests themselves: about 100
// bytes per object.
type Records struct {
	Owner, Puts, SCOs Cell
	Last              Cell // number of the last commit
	Gone              bool // the namespace is deleted
	Objects           map[ids.SCONum]Object
	Bad               map[ids.SCONum]error // manifests that are there and cannot be read
	Order             map[ids.CommitNum]ids.SCONum
	BadOrder          map[ids.CommitNum]bool // entries that are there and cannot be read
	Dead              map[ids.PutID]bool     // condemned, or being deleted
}

// Records reads them. What does not decode is noted and no error; what the store itself cannot give is.
func (px *Proxy) Records(ctx context.Context, ns ids.NamespaceID) (*Records, error) {
	r := &Records{Objects: map[ids.SCONum]Object{}, Bad: map[ids.SCONum]error{},
		Order: map[ids.CommitNum]ids.SCONum{}, BadOrder: map[ids.CommitNum]bool{}, Dead: map[ids.PutID]bool{}}
	for kind, c := range map[byte]*Cell{keyOwner: &r.Owner, keyPuts: &r.Puts, keySCOs: &r.SCOs, keyLast: &r.Last} {
		var err error
		if *c, err = px.rawCell(ctx, kind, ns); err != nil {
			return nil, err
		}
	}
	r.Gone = r.Owner.Err == nil && ids.Epoch(r.Owner.Value) == epochGone
	steps := []struct {
		kind byte
		take func(k, v []byte)
	}{
		{keyManifest, func(k, v []byte) { r.takeManifest(ns, k, v) }},
		{keyOrder, func(k, v []byte) {
			if len(k) != 8 {
				return
			}
			c := ids.CommitNum(binary.BigEndian.Uint64(k))
			if sco, err := decodeCell(keyOrder, v); err != nil {
				r.BadOrder[c] = true
			} else {
				r.Order[c] = ids.SCONum(sco)
			}
		}},
		{keyCondemned, func(k, _ []byte) {
			if len(k) == 4 {
				r.Dead[ids.PutID(binary.BigEndian.Uint32(k))] = true
			}
		}},
		{keyDelete, func(k, _ []byte) {
			if len(k) == 8 {
				r.Dead[ids.PutID(binary.BigEndian.Uint32(k[4:]))] = true
			}
		}},
	}
	for _, s := range steps {
		if err := px.eachRecord(ctx, nsKey(s.kind, ns), s.take); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *Records) takeManifest(ns ids.NamespaceID, k, v []byte) {
	if len(k) != 4 {
		return
	}
	sco := ids.SCONum(binary.BigEndian.Uint32(k))
	m, err := layout.ParseManifest(v)
	if err == nil && (m.Namespace != ns || m.SCO != sco) {
		err = errs.New(errs.Corrupt, "manifest of SCO %d/%d lies where %d/%d belongs", m.Namespace, m.SCO, ns, sco)
	}
	if err != nil {
		r.Bad[sco] = err
		return
	}
	r.Objects[sco] = ObjectOf(m)
}

// rawCell reads a number; that it is not there or does not decode is part of the answer.
func (px *Proxy) rawCell(ctx context.Context, kind byte, ns ids.NamespaceID) (Cell, error) {
	b, _, err := px.opts.Meta.Get(ctx, nsKey(kind, ns))
	if errs.Of(err) == errs.Absent {
		return Cell{Err: errs.Absent}, nil
	}
	if err != nil {
		return Cell{}, err
	}
	v, err := decodeCell(kind, b)
	return Cell{Value: v, Err: err}, nil
}

// eachRecord calls take with every record below prefix, its key without the prefix.
func (px *Proxy) eachRecord(ctx context.Context, prefix []byte, take func(k, v []byte)) error {
	var after []byte
	for {
		list, err := px.opts.Meta.Scan(ctx, prefix, after, 1000)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, e := range list {
			take(e.Key[len(prefix):], e.Value)
		}
		after = list[len(list)-1].Key
	}
}

// KnownNamespaces lists every namespace that any record names, deleted ones too, in order.
func (px *Proxy) KnownNamespaces(ctx context.Context) ([]ids.NamespaceID, error) {
	seen := map[ids.NamespaceID]bool{}
	for _, kind := range []byte{keyOwner, keyManifest, keyOrder, keyDelete} {
		var after []byte
		for {
			list, err := px.opts.Meta.Scan(ctx, key(kind), after, 1)
			if err != nil {
				return nil, err
			}
			if len(list) == 0 {
				break
			}
			ns, ok := nsOf(list[0].Key)
			if !ok {
				return nil, errs.New(errs.Corrupt, "proxy: key %x names no namespace", list[0].Key)
			}
			seen[ns] = true
			after = append(nsKey(kind, ns), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
		}
	}
	return slices.Sorted(maps.Keys(seen)), nil
}

// Restore writes a manifest that was made again, whatever was there, and its place in the order of commits.
func (px *Proxy) Restore(ctx context.Context, m *layout.Manifest) error {
	t := new(meta.Txn).Put(manifestKey(m.Namespace, m.SCO), m.Append(nil))
	if m.Commit != 0 {
		t.Put(orderKey(m.Namespace, m.Commit), encodeCell(keyOrder, uint64(m.SCO)))
	}
	return px.opts.Meta.Apply(ctx, t)
}

// RestoreOrder enters a commit into the order again. sco 0 takes it out.
func (px *Proxy) RestoreOrder(ctx context.Context, ns ids.NamespaceID, c ids.CommitNum, sco ids.SCONum) error {
	t := new(meta.Txn)
	if sco == 0 {
		t.Delete(orderKey(ns, c))
	} else {
		t.Put(orderKey(ns, c), encodeCell(keyOrder, uint64(sco)))
	}
	return px.opts.Meta.Apply(ctx, t)
}

// DropManifest takes out the manifest of an object that nothing needs and that cannot be made again. Its
// fragments are garbage from then on.
func (px *Proxy) DropManifest(ctx context.Context, ns ids.NamespaceID, sco ids.SCONum) error {
	return px.opts.Meta.Apply(ctx, new(meta.Txn).Delete(manifestKey(ns, sco)))
}

// RestoreNumbers sets the owner's epoch and the first put id and SCO number that are not given out; those
// that are 0 stay as they are.
func (px *Proxy) RestoreNumbers(ctx context.Context, ns ids.NamespaceID, epoch ids.Epoch, put ids.PutID,
	sco ids.SCONum) error {
	t := new(meta.Txn)
	for kind, v := range map[byte]uint64{keyOwner: uint64(epoch), keyPuts: uint64(put), keySCOs: uint64(sco)} {
		if v != 0 {
			t.Put(nsKey(kind, ns), encodeCell(kind, v))
		}
	}
	return px.opts.Meta.Apply(ctx, t)
}

// RestoreLast sets the number of the last commit.
func (px *Proxy) RestoreLast(ctx context.Context, ns ids.NamespaceID, c ids.CommitNum) error {
	return px.opts.Meta.Apply(ctx, new(meta.Txn).Put(nsKey(keyLast, ns), encodeCell(keyLast, uint64(c))))
}

// Deleted reports whether a namespace is, or was, deleted.
func Deleted(ctx context.Context, m meta.Store, ns ids.NamespaceID) (bool, error) {
	b, _, err := m.Get(ctx, nsKey(keyOwner, ns))
	if errs.Of(err) == errs.Absent {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	v, err := decodeCell(keyOwner, b)
	return err == nil && ids.Epoch(v) == epochGone, err
}

// MarkMissing marks fragments of an object missing that fsck found to be so, where the manifest still
// names them by these keys, and returns how many. keep: only while k others of their chunk stay, for one
// that is damaged in a part is better than none.
func (px *Proxy) MarkMissing(ctx context.Context, ns ids.NamespaceID, sco ids.SCONum, keys []layout.FragKey,
	keep bool) (marked int, err error) {
	_, err = px.Amend(ctx, ns, sco, func(m *layout.Manifest) bool {
		marked = 0
		for _, k := range keys {
			c, f := int(k.Chunk), int(k.Frag)
			if f >= m.Policy.N() || c*m.Policy.N()+f >= len(m.Frags) || m.FragKey(c, f) != k || !m.Present(c, f) ||
				keep && m.PresentIn(c) <= int(m.Policy.K) {
				continue
			}
			m.Frag(c, f).State = layout.FragMissing
			marked++
		}
		return marked > 0
	})
	return marked, err
}
