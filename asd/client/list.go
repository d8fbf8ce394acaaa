package client

import (
	"context"

	"vstor/asd/proto"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/wire"
)

// List gives up to limit fragments of all namespaces behind a key, in key order; the zero key begins. Fewer
// are the end.
func (a *ASD) List(ctx context.Context, after layout.FragKey, limit int) ([]proto.Fragment, error) {
	return a.list(ctx, 0, after, limit)
}

// ListNamespace gives up to limit keys of a namespace behind after, in order; the zero key begins.
func (a *ASD) ListNamespace(ctx context.Context, ns ids.NamespaceID, after layout.FragKey, limit int) (
	[]layout.FragKey, error) {
	if ns == 0 {
		return nil, nil // the protocol's word for all; no vDisk has it
	}
	fs, err := a.list(ctx, ns, after, limit)
	if err != nil || len(fs) == 0 {
		return nil, err
	}
	keys := make([]layout.FragKey, len(fs))
	for i := range fs {
		keys[i] = fs[i].Key
	}
	return keys, nil
}

func (a *ASD) list(ctx context.Context, ns ids.NamespaceID, after layout.FragKey,
	limit int) ([]proto.Fragment, error) {
	var all []proto.Fragment
	for len(all) < limit {
		ask := proto.List{Namespace: ns, After: after, Limit: uint32(min(limit-len(all), proto.ListMax))}
		had := len(all)
		var err error
		if all, err = a.listSome(ctx, &ask, all); err != nil {
			return nil, err
		}
		if len(all)-had < int(ask.Limit) {
			break
		}
		after = all[len(all)-1].Key
	}
	return all, nil
}

func (a *ASD) listSome(ctx context.Context, ask *proto.List, dst []proto.Fragment) ([]proto.Fragment, error) {
	for {
		c, err := a.begin(ctx)
		if err != nil {
			return nil, err
		}
		out, err := c.list(ask, dst)
		if again, err := a.finish(ctx, c, proto.TList, err); !again {
			return out, err
		}
	}
}

func (c *conn) list(ask *proto.List, dst []proto.Fragment) ([]proto.Fragment, error) {
	if err := c.send(proto.TList, ask.Append(c.request()), nil); err != nil {
		return nil, err
	}
	body, data, err := c.listed(proto.TList, int(ask.Limit)*proto.FragmentSize)
	if err != nil {
		return nil, err
	}
	out, err := proto.DecodeList(dst, body, data)
	if err != nil {
		return nil, c.nonsense("%v", err)
	}
	// Whoever walks on from the last key of a list must come to its end.
	last := ask.After
	for _, f := range out[len(dst):] {
		behind := f.Key.Compare(last) > 0 || f.Key == (layout.FragKey{})
		if !behind || ask.Namespace != 0 && f.Key.Namespace != ask.Namespace {
			return nil, c.nonsense("a list with %v behind %v", f.Key, last)
		}
		last = f.Key
	}
	return out, nil
}

// Describe gives the descriptor that came with the put of a fragment; none is empty. Errors: Absent, Corrupt,
// IO, Unreachable.
func (a *ASD) Describe(ctx context.Context, key layout.FragKey) ([]byte, error) {
	for {
		c, err := a.begin(ctx)
		if err != nil {
			return nil, about(key, err)
		}
		desc, err := c.describe(key)
		if again, err := a.finish(ctx, c, proto.TDescribe, err); !again {
			return desc, about(key, err)
		}
	}
}

func (c *conn) describe(key layout.FragKey) ([]byte, error) {
	r := proto.Range{Key: key}
	if err := c.send(proto.TDescribe, r.Append(c.request()), nil); err != nil {
		return nil, err
	}
	_, data, err := c.listed(proto.TDescribe, proto.DescMax)
	return append([]byte(nil), data...), err
}

// Locate says where a range of a payload lies on the ASD's drive. It stays so for as long as the ASD
// quarantines deleted space. Errors: Absent, Invalid, Unreachable.
func (a *ASD) Locate(ctx context.Context, key layout.FragKey, off, n uint32) ([]layout.Extent, error) {
	for {
		c, err := a.begin(ctx)
		if err != nil {
			return nil, about(key, err)
		}
		out, err := c.locate(proto.Range{Key: key, Off: off, Len: n})
		if again, err := a.finish(ctx, c, proto.TLocate, err); !again {
			return out, about(key, err)
		}
	}
}

func (c *conn) locate(r proto.Range) ([]layout.Extent, error) {
	if err := c.send(proto.TLocate, r.Append(c.request()), nil); err != nil {
		return nil, err
	}
	h, body, err := c.answer(proto.TLocate)
	if err != nil {
		return nil, err
	}
	out, err := proto.DecodeExtents(nil, body)
	sum := uint64(0)
	for _, e := range out {
		sum += uint64(e.Len)
	}
	if err != nil || h.Data != 0 || sum != uint64(r.Len) {
		return nil, c.nonsense("a %s of %d and %d bytes for a range of %d", proto.TypeName(proto.TLocate|wire.Reply),
			len(body), h.Data, r.Len)
	}
	return out, nil
}
