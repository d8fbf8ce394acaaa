package client

import (
	"context"
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"vstor/asd/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/wire"
)

// Put keeps a fragment: durable when it returns nil. The same key with the same content again is no error. p.Buf is
// used until Put returns and stays as it is; the payload goes out from where it lies. A large one waits for its place
// among those that write the same drive (dio.Away). Errors: Full, Refused, IO, Invalid, Corrupt (the payload does not
// match p.Sums), Unreachable, Canceled, Closed.
func (a *ASD) Put(ctx context.Context, p *layout.FragPut) error {
	if n := len(p.Buf) - layout.FragHeaderSize; n <= 0 || n%ids.BlockSize != 0 || layout.Regions(n) != len(p.Sums) ||
		len(p.Sums) > proto.RegionsMax || len(p.Desc) > proto.DescMax {
		return errs.New(errs.Invalid,
			"asd %d: put %v: %d bytes with %d sums and a descriptor of %d bytes; whole blocks "+
				"with a sum for each 64 KiB, at most %d of them, and at most %d bytes would be right",
			a.opts.ID, p.Key, n, len(p.Sums), len(p.Desc), proto.RegionsMax, proto.DescMax)
	}
	if !a.up.Load() {
		return about(p.Key, a.downError()) // no reason to wait for a place
	}
	defer a.opts.Away.Begin(ctx, len(p.Buf))()
	for {
		c, err := a.begin(ctx)
		if err != nil {
			return about(p.Key, err)
		}
		if again, err := a.finish(ctx, c, proto.TPut, c.put(p)); !again {
			return about(p.Key, err)
		}
	}
}

func (c *conn) put(p *layout.FragPut) error {
	m := proto.Put{Key: p.Key, Class: p.Class, Epoch: p.Epoch, Sums: p.Sums, Desc: p.Desc}
	if err := c.send(proto.TPut, m.Append(c.request()), p.Buf[layout.FragHeaderSize:]); err != nil {
		return err
	}
	_, err := c.bare(proto.TPut, 0)
	return err
}

// A Put's body fits.
const _ = uint(wire.BodyMax - 40 - 8*proto.RegionsMax - proto.DescMax)

// Delete removes fragments; a key that is absent is no error. Durable when it returns nil.
func (a *ASD) Delete(ctx context.Context, keys []layout.FragKey) error {
	for len(keys) > 0 {
		n := min(len(keys), proto.DeleteMax)
		if err := a.deleteSome(ctx, keys[:n]); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

func (a *ASD) deleteSome(ctx context.Context, keys []layout.FragKey) error {
	for {
		c, err := a.begin(ctx)
		if err != nil {
			return err
		}
		if again, err := a.finish(ctx, c, proto.TDelete, c.delete(keys)); !again {
			return err
		}
	}
}

func (c *conn) delete(keys []layout.FragKey) error {
	data := c.longer(len(keys) * layout.FragKeySize)[:0]
	for _, k := range keys {
		data = k.Append(data)
	}
	b := proto.AppendSum(c.request(), xxhash.Sum64(data))
	if err := c.send(proto.TDelete, b, data); err != nil {
		return err
	}
	_, err := c.bare(proto.TDelete, 0)
	return err
}

// call is a round of question and answer: body, then an answer of n bytes without data, of which use is told.
func (a *ASD) call(ctx context.Context, t uint8, body []byte, n int, use func(answer []byte) error) error {
	ask := func(c *conn) error {
		if err := c.send(t, append(c.request(), body...), nil); err != nil {
			return err
		}
		got, err := c.bare(t, n)
		if err != nil || use == nil {
			return err
		}
		if err := use(got); err != nil {
			return c.nonsense("%v", err)
		}
		return nil
	}
	for {
		c, err := a.begin(ctx)
		if err != nil {
			return err
		}
		if again, err := a.finish(ctx, c, t, ask(c)); !again {
			return err
		}
	}
}

// Fence raises the lowest epoch that may put to a namespace. Durable when it returns nil.
func (a *ASD) Fence(ctx context.Context, ns ids.NamespaceID, e ids.Epoch) error {
	return a.call(ctx, proto.TFence, proto.AppendEpoch(nil, ns, e), 0, nil)
}

// HighestEpoch is the highest epoch that the ASD saw of a namespace.
func (a *ASD) HighestEpoch(ctx context.Context, ns ids.NamespaceID) (e ids.Epoch, err error) {
	err = a.call(ctx, proto.TEpoch, proto.AppendEpoch(nil, ns, 0), 16, func(b []byte) error {
		of, got, err := proto.DecodeEpoch(proto.TEpoch|wire.Reply, b)
		if err == nil && of != ns {
			err = errs.New(errs.Corrupt, "the epoch of namespace %d, asked was %d", of, ns)
		}
		e = got
		return err
	})
	return e, err
}

// Verify reads a fragment on the ASD from end to end. Errors: Absent, Corrupt, IO, Unreachable.
func (a *ASD) Verify(ctx context.Context, key layout.FragKey) error {
	r := proto.Range{Key: key}
	return about(key, a.call(ctx, proto.TVerify, r.Append(nil), 0, nil))
}

// Ping asks for an answer.
func (a *ASD) Ping(ctx context.Context) error { return a.call(ctx, proto.TPing, nil, 0, nil) }

// SetFaults sets what shall go wrong from now on at an ASD that was started for that; an empty text takes
// all faults back. Errors: Invalid, Unsupported.
func (a *ASD) SetFaults(ctx context.Context, text string) error {
	if len(text) > wire.BodyMax {
		return errs.New(errs.Invalid, "asd %d: %d bytes of faults; at most %d would be right", a.opts.ID,
			len(text), wire.BodyMax)
	}
	return a.call(ctx, proto.TFault, []byte(text), 0, nil)
}

// Info says which ASD this is.
func (a *ASD) Info(ctx context.Context) (i proto.Info, err error) {
	err = a.call(ctx, proto.TInfo, nil, infoSize, i.Decode)
	return i, err
}

var infoSize = len((&proto.Info{}).Append(nil))

func sumOf(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
